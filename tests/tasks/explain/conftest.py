"""Fixtures of this room: a small network, the same in float64 with numpy, and a check that figures are legible."""

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.signal import correlate

from vision_transfer.models.layers import Conv, Dense, Flatten, GlobalAveragePool, MaxPool
from vision_transfer.models.network import Network, init

SIZE, CHANNELS = 12, 2


def small_network(outputs, average=False):
    """Two convolutions with a pool between, and a head."""
    backbone = (Conv("conv1", 4), MaxPool("pool1"), Conv("conv2", 5, padding="same"))
    head = (GlobalAveragePool("mean") if average else Flatten("flatten"), Dense("logits", outputs))
    return Network(backbone, head, (SIZE, SIZE, CHANNELS), "rescale")


@pytest.fixture(params=[(3, False), (3, True), (1, False)], ids=["softmax", "average", "sigmoid"])
def network(request):
    return small_network(*request.param)


@pytest.fixture
def variables(network):
    found = init(network, jax.random.key(5))
    random = np.random.default_rng(1)
    for leaves in found["params"].values():
        leaves["bias"] = random.uniform(-0.1, 0.1, leaves["bias"].shape).astype(np.float32)
    return found


@pytest.fixture
def images():
    return np.random.default_rng(2).integers(0, 256, (2, SIZE, SIZE, CHANNELS), dtype=np.uint8)


def conv64(values, leaves, padding):
    """A convolution with ReLU of one image in float64, by scipy."""
    kernel, bias = (leaves[name].astype(np.float64) for name in ("kernel", "bias"))
    margin = (kernel.shape[0] - 1) // 2 if padding == "same" else 0
    padded = np.pad(values, ((margin, margin), (margin, margin), (0, 0)))
    maps = [correlate(padded, kernel[..., filter_], mode="valid")[..., 0] for filter_ in range(kernel.shape[-1])]
    return np.maximum(np.stack(maps, -1) + bias, 0)


def pool64(values):
    height, width = values.shape[0] // 2, values.shape[1] // 2
    return values[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1).max((1, 3))


@pytest.fixture(scope="session")
def forward64():
    """Logits of one example from the input of a layer (None: pixels), in float64 and without JAX."""
    return _forward64


def _forward64(network, variables, values, start):
    values = values.astype(np.float64)
    if start is None:
        values = values / 255
    for layer in network.layers[0 if start is None else network.index(start) :]:
        leaves = variables["params"].get(layer.name)
        match layer:
            case Conv():
                values = conv64(values, leaves, layer.padding)
            case MaxPool():
                values = pool64(values)
            case GlobalAveragePool():
                values = values.mean((0, 1))
            case Flatten():
                values = values.ravel()
            case Dense():
                values = values @ leaves["kernel"].astype(np.float64) + leaves["bias"]
    return values


def drawn_texts(figure):
    """All drawn texts with their boxes in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [figure._suptitle] if figure._suptitle else []
    for axes in figure.findobj(lambda artist: hasattr(artist, "get_xticklabels")):
        texts += [axes.title, *axes.texts]
        if axes.axison:
            texts += [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text().strip()]


@pytest.fixture(scope="session")
def assert_legible():
    return _assert_legible


def _assert_legible(figure):
    """No two texts overlap, none leaves the page, and none is smaller than 7 points."""
    texts = drawn_texts(figure)
    assert texts
    page = figure.bbox
    for place, (text, box) in enumerate(texts):
        assert box.x0 >= page.x0 - 1 and box.y0 >= page.y0 - 1, text
        assert box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1, text
        assert box.height >= 7 * figure.dpi / 72 * 0.7, text
        for other, other_box in texts[place + 1 :]:
            overlap = min(box.x1, other_box.x1) - max(box.x0, other_box.x0) > 1
            assert not (overlap and min(box.y1, other_box.y1) - max(box.y0, other_box.y0) > 1), (text, other)
