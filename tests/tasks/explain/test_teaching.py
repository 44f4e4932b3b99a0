"""Filter banks against scikit-image's and scipy's; convolution and pooling against scipy and by hand."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.signal import correlate2d
from skimage.feature import haar_like_feature
from skimage.filters import gabor_kernel as skimage_gabor
from skimage.filters import sobel_h, sobel_v
from skimage.transform import integral_image

from vision_transfer.tasks.explain.teaching import (
    filter_banks,
    gabor_kernel,
    grey,
    haar_kernels,
    operations,
    responses,
    sobel_kernels,
)


@pytest.fixture
def brightness():
    return np.random.default_rng(0).random((17, 21)).astype(np.float32)


def test_sobel_is_scipy_s_and_four_times_scikit_image_s(brightness):
    vertical, horizontal = responses(brightness, sobel_kernels())
    wide = brightness.astype(np.float64)
    np.testing.assert_allclose(vertical, ndimage.sobel(wide, axis=1), atol=1e-5)
    np.testing.assert_allclose(horizontal, ndimage.sobel(wide, axis=0), atol=1e-5)
    inside = np.s_[1:-1, 1:-1]
    np.testing.assert_allclose(vertical[inside], 4 * sobel_v(wide)[inside], atol=1e-5)
    np.testing.assert_allclose(horizontal[inside], 4 * sobel_h(wide)[inside], atol=1e-5)


@pytest.mark.parametrize("angle", [0, 30, 90, 135])
@pytest.mark.parametrize(("frequency", "width"), [(0.1, 2.0), (0.25, 3.5)])
def test_gabor_is_the_real_part_of_scikit_image_s(frequency, width, angle):
    ours = gabor_kernel(frequency, angle, width)
    theirs = np.real(skimage_gabor(frequency, theta=np.radians(angle), sigma_x=width, sigma_y=width, n_stds=3))
    height, across = (min(one, other) // 2 for one, other in zip(ours.shape, theirs.shape, strict=True))
    assert height >= 3 and across >= 3

    def middle(kernel):
        row, column = kernel.shape[0] // 2, kernel.shape[1] // 2
        return kernel[row - height : row + height + 1, column - across : column + across + 1]

    np.testing.assert_allclose(middle(ours), middle(theirs), atol=1e-7)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_haar_is_scikit_image_s(size):
    image = np.random.default_rng(size).random((size, size))
    integral = integral_image(image)
    vertical, horizontal, diagonal = ((image * kernel.values).sum() for kernel in haar_kernels([size]))
    # of each kind, one feature covers the whole square: the largest
    whole = {kind: _of_whole_square(integral, size, kind) / size**2 for kind in ("type-2-x", "type-2-y", "type-4")}
    assert np.isclose(abs(vertical), abs(whole["type-2-x"]))
    assert np.isclose(abs(horizontal), abs(whole["type-2-y"]))
    assert np.isclose(abs(diagonal), abs(whole["type-4"]))


def _of_whole_square(integral, size, kind):
    from skimage.feature import haar_like_feature_coord

    places, kinds = haar_like_feature_coord(size, size, kind)
    # each rectangle is given by its first and last pixel; a feature covers the square if they are its corners
    covering = [
        number
        for number, rectangles in enumerate(places)
        if tuple(rectangles[0][0]) == (0, 0)
        and max(tuple(rectangle[1]) for rectangle in rectangles) == (size - 1, size - 1)
    ]
    (number,) = covering
    return haar_like_feature(
        integral, 0, 0, size, size, feature_type=kinds[number : number + 1], feature_coord=places[number : number + 1]
    )[0]


def test_a_gabor_responds_most_to_its_own_wave():
    y, x = np.mgrid[:64, :64]
    wave = np.cos(2 * np.pi * 0.15 * (x * np.cos(np.radians(45)) + y * np.sin(np.radians(45))))
    gabor = [kernel for kernel in filter_banks()["gabor"] if "σ 4" in kernel.name]
    answers = np.abs(responses(wave, gabor)[:, 16:48, 16:48]).max((1, 2))
    assert gabor[int(answers.argmax())].name == "gabor, 0.15 per px, σ 4 px, 45°"


def test_grey_is_brightness_of_0_to_1():
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    np.testing.assert_allclose(grey(image), image @ np.array([0.299, 0.587, 0.114]) / 255, atol=1e-6)
    np.testing.assert_allclose(grey(image[..., :1]), image[..., 0] / 255, atol=1e-6)


def test_operations_agree_with_scipy_and_with_windows_taken_by_hand():
    image = np.random.default_rng(0).integers(0, 11, (8, 7)).astype(np.float64)
    kernel = sobel_kernels()[0].values
    outputs = operations(image, kernel).values()
    valid, same, strided, maxima, means = outputs
    np.testing.assert_allclose(valid, correlate2d(image, kernel, "valid"))
    np.testing.assert_allclose(same, correlate2d(image, kernel, "same"))
    np.testing.assert_allclose(strided, correlate2d(image, kernel, "valid")[::2, ::2])
    windows = image[:8, :6].reshape(4, 2, 3, 2)
    np.testing.assert_allclose(maxima, windows.max((1, 3)))
    np.testing.assert_allclose(means, windows.mean((1, 3)))
    assert all(output.dtype == np.float32 for output in outputs)
