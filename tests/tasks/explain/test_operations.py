"""Convolution and pooling for teaching, against scipy and by hand."""

import numpy as np
from scipy.signal import correlate2d

from vision_transfer.tasks.explain.filter_banks import sobel_kernels
from vision_transfer.tasks.explain.operations import operations


def test_agrees_with_scipy_and_with_windows_taken_by_hand():
    image = np.random.default_rng(0).integers(0, 11, (8, 7)).astype(np.float64)
    kernel = sobel_kernels()[0].values
    outputs = [each.output for each in operations(image, kernel)]
    valid, same, strided, maxima, means = outputs
    np.testing.assert_allclose(valid, correlate2d(image, kernel, "valid"))
    np.testing.assert_allclose(same, correlate2d(image, kernel, "same"))
    np.testing.assert_allclose(strided, correlate2d(image, kernel, "valid")[::2, ::2])
    windows = image[:8, :6].reshape(4, 2, 3, 2)
    np.testing.assert_allclose(maxima, windows.max((1, 3)))
    np.testing.assert_allclose(means, windows.mean((1, 3)))
    assert all(output.dtype == np.float32 for output in outputs)
