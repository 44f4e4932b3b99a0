"""Fixtures that several rooms share: a screen, one device, a finished run, and data and weights of some machines."""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import settings
from jax.sharding import Mesh
from PIL import Image
from rich.console import Console

from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.layers import (
    Activate,
    AveragePool,
    BatchNorm,
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Merge,
    PoolLayers,
    SeparableConv,
    ZeroPad,
)
from vision_transfer.models.network import Network, all_parameter_shapes, init
from vision_transfer.models.pretrained.load import load_pretrained
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import BATCH_AXIS
from vision_transfer.runtime.jax_setup import DETERMINISTIC_FLAG, keep_programs

REFERENCE = Path(__file__).parent / "reference"
# Names a folder for the programs that tests compile, which the processes of pytest-xdist share. By default it is a new
# one for each start of pytest; a folder that is kept saves a developer most of the compiling.
PROGRAMS = "VISION_TRANSFER_TEST_PROGRAMS"
# The first example of a test pays for imports, which on a busy machine takes longer than any deadline.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_configure(config):
    """Lets processes that tests start read the package compiled, as they do for users, and shares compiled programs.

    Makes a GPU repeat bits where `pytest -m accelerator` compares them; it must be told before its first use.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if PROGRAMS not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="programs-")
        config.add_cleanup(folder.cleanup)
        os.environ[PROGRAMS] = folder.name
    keep_programs(Path(os.environ[PROGRAMS]), 0.0)
    if config.option.markexpr == "accelerator":
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC_FLAG}".strip()


@pytest.fixture(scope="session")
def programs():
    """The folder of the programs that tests have compiled."""
    return Path(os.environ[PROGRAMS])


@pytest.fixture
def screen():
    return Screen(Console(file=io.StringIO(), width=200))


@pytest.fixture
def server():
    """Serves `server.files`, and notes in `server.asked` the range of each request.

    It may cut the first transfers short (`server.cuts`), stay silent then (`server.silence`, in seconds), ignore ranges
    (`server.ranges`), or not say how much it sends (`server.sized`).
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def do_GET(self):
            content = server.files.get(self.path.strip("/"))
            if content is None:
                self.send_error(404)
                return
            wanted = self.headers.get("Range")
            server.asked.append(wanted)
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            if server.sized:
                self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content[begin : server.cuts.pop(0) if server.cuts else None])
            time.sleep(server.silence)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked = {}, []
    server.cuts, server.silence, server.ranges, server.sized = [], 0.0, True, True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def mesh():
    """One device, however many there are."""
    return Mesh(np.array(jax.local_devices()[:1]), (BATCH_AXIS,))


@pytest.fixture(scope="session")
def every_row():
    """A network with every kind of row, every padding at stride 2, every activation, and a block inside a block."""
    margins = ((1, 1), (1, 1))
    inverted = (
        DepthwiseConv("depthwise"),
        BatchNorm("depthwise_norm"),
        Activate("depthwise_relu6", "relu6"),
        Conv("project", 8, 1, "same", "linear", bias=False),
        BatchNorm("project_norm", epsilon=1e-5),
    )
    gate = (
        GlobalAveragePool("squeeze", keep_axes=True),
        Conv("reduce", 2, 1, activation="swish"),
        Conv("expand", 8, 1, activation="sigmoid"),
    )
    inner = Block("inner", ((SeparableConv("wide", 14, 5),), ()), Merge("inner_sum", "add"))
    down = (DepthwiseConv("down", 5, strides=2, bias=True), inner, Conv("mix", 10, 3, margins, "relu6"))
    backbone = (
        ZeroPad("pad", ((0, 1), (1, 0)), stage="stem"),
        ZeroPad("pad_for_stem", "same", stage="stem", size=3, strides=2),
        Conv("stem", 8, 3, "valid", "linear", "stem", strides=2, bias=False),
        BatchNorm("stem_norm", activation="relu", stage="stem"),
        MaxPool("stem_pool", 3, "stem", strides=2, padding=margins),
        Block("residual", (inverted, ()), Merge("residual_sum", "add"), "first"),
        Block("excited", ((), gate), Merge("scaled", "multiply"), "first"),
        Block("grown", ((), (SeparableConv("separable", 6, activation="relu"),)), Merge("joined", "concat"), "second"),
        Block("halved", ((Conv("short", 10, 1, strides=2),), down), Merge("halved_sum", "add"), "second"),
        MaxPool("same_pool", 3, "second", strides=1, padding="same"),
        AveragePool("average", stage="second"),
        Activate("last", "swish", stage="second"),
    )
    head = (
        PoolLayers("pooled", ("grown", "halved", "last")),
        Flatten("flat"),
        Dense("hidden", 6, "sigmoid"),
        Dropout("dropout", 0.5),
        Dense("head_logits", 3),
    )
    return Network(backbone, head, (35, 30, 3), "tf")


@pytest.fixture(scope="session")
def varied_variables():
    """Variables of a network: initialised, with random biases and batch statistics instead of the initial ones.

    The variances are so small that the last layers of a deep network still tell images apart.
    """

    def build(network):
        variables = init(network, jax.random.key(3))
        rng = np.random.default_rng(2)
        for leaves in variables["params"].values():
            for name in ("bias", "scale"):
                if name in leaves:
                    leaves[name] = (leaves[name] + rng.normal(0, 0.3, leaves[name].shape)).astype(np.float32)
        for leaves in variables["batch_stats"].values():
            leaves["mean"] = rng.normal(0, 0.1, leaves["mean"].shape).astype(np.float32)
            leaves["variance"] = rng.uniform(0.03, 0.2, leaves["variance"].shape).astype(np.float32)
        return variables

    return build


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory):
    """Noise images of three classes that overlap, in train, validation and test, as JPEG and PNG of several sizes."""
    root = tmp_path_factory.mktemp("images") / "my images é"
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 9), ("test", 7)):
        for level, name in zip((150, 105, 128), ("bright", "dark", "grey [or so]"), strict=True):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                shape = (20 + number, 31 - number, 3)
                pixels = np.clip(random.normal(level + random.normal(0, 15), 40, shape), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.{'png' if number % 2 else 'jpg'}")
    return root


@pytest.fixture(scope="session")
def run_caches(tmp_path_factory):
    """The caches of `finished_run`."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="session")
def finished_run(class_folders, run_caches, tmp_path_factory):
    """The folder of a small run on `class_folders`: a dense network whose last stage starts from the images."""
    from vision_transfer.config import checked, default_config, stage, with_stages
    from vision_transfer.runs.prepare import RunOptions
    from vision_transfer.tasks.train.task import train

    config = default_config()
    config.name = "noise"
    config.dataset.name = "folder"
    config.dataset.root = str(class_folders)
    config.dataset.image_size = 9
    config.model.backbone = "dense"
    config.model.weights = "random"
    config.model.hidden = (4,)
    config.eval_batch_size = 4
    config = with_stages(config, head=stage(freeze="none", epochs=6, optimizer={"name": "adam", "lr": 1e-2}))
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(checked(config), RunOptions(folder, run_caches), Screen(Console(quiet=True))).path


@pytest.fixture
def copied_run(finished_run, tmp_path):
    """A copy of `finished_run` without a temperature, for a test to damage."""
    return shutil.copytree(finished_run, tmp_path / "copy", ignore=shutil.ignore_patterns("temperature.json"))


@pytest.fixture(scope="session")
def seal():
    """Writes the manifest of a finished run whose files a test has changed, as if the run had written them so."""
    from vision_transfer.runs.folder import RunFolder
    from vision_transfer.runs.manifest import write_result

    def write(path):
        result = json.loads((path / "result.json").read_text(encoding="utf-8"))
        write_result(RunFolder(path), result["digest"], result)

    return write


@pytest.fixture(scope="session")
def reference_folder():
    return REFERENCE


@pytest.fixture(scope="session")
def reference():
    """Reads a file of `tests/reference`: name → arrays by name."""

    def read(name):
        with np.load(REFERENCE / f"{name}.npz") as arrays:
            return dict(arrays)

    return read


@pytest.fixture(scope="session")
def formula():
    """The module `tests/reference/formula.py`: weights and images that scripts under other libraries draw alike."""
    spec = importlib.util.spec_from_file_location("formula", REFERENCE / "formula.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real data; without it, what needs it is skipped."""
    folder = os.environ.get("VISION_TRANSFER_DATA")
    if not folder:
        pytest.skip("VISION_TRANSFER_DATA is not set; it names the folder of real images")
    return Path(folder)


@pytest.fixture(scope="session")
def cached_weights():
    """`cached_weights(name, network)`: released weights, where `--mode=fetch` or a run has put them in the cache."""
    cache = os.environ.get("VISION_TRANSFER_CACHE")
    if not cache:
        pytest.skip("VISION_TRANSFER_CACHE is not set; it names the cache that holds released weights")

    def load(name, network, include_classifier=False):
        try:
            return load_pretrained(
                name,
                include_classifier=include_classifier,
                shapes=all_parameter_shapes(network),
                cache_dir=Path(cache),
                screen=Screen(Console(file=io.StringIO())),
                allow_download=False,
            )
        except UserError as error:
            pytest.skip(f"{name}'s weights are not in VISION_TRANSFER_CACHE ({str(error).splitlines()[0]})")

    return load


@pytest.fixture(scope="session")
def vgg16_params(cached_weights):
    """The ImageNet weights of VGG16's base."""
    return cached_weights("vgg16", Network(backbone_rows("vgg16"), (), (224, 224, 3))).params


@pytest.fixture(scope="session")
def scene():
    """Draws a picture of rectangles and discs on a slope: edges and areas as photos have them, others for each seed."""

    def draw(seed, height=90, width=120):
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[:height, :width]
        slope = (rows * rng.uniform(-1, 1) + columns * rng.uniform(-1, 1)) / 2 + 110
        picture = np.repeat(slope[..., None], 3, axis=2)
        for _ in range(12):
            top, left, size = rng.integers(0, height), rng.integers(0, width), rng.integers(8, 40)
            rectangle = (abs(rows - top) < size / 2) & (abs(columns - left) < size)
            disc = (rows - top) ** 2 + (columns - left) ** 2 < size**2 / 2
            picture[rectangle if rng.random() < 0.5 else disc] = rng.uniform(30, 190, 3)
        return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def decode_as_tensorflow():
    """Decodes JPEGs as TensorFlow does, whose fast DCT differs from Pillow's by a grey value here and there.

    Pillow decodes with that DCT in its draft mode, but then repeats chroma where libjpeg interpolates it; so it is
    interpolated and converted to RGB here (libjpeg's jdsample.c, `h2v1_` and `h2v2_fancy_upsample`, and jdcolor.c).
    """

    def decode(path):
        photo = Image.open(path)
        sampling = {component[1:3] for component in photo.layer}
        if sampling == {(1, 1)}:
            photo.decoderconfig = (1, 1)
            return np.asarray(photo)
        assert sampling in ({(2, 2), (1, 1)}, {(2, 1), (1, 1)}), sampling
        interpolated = _interpolated_both_ways if (2, 2) in sampling else _interpolated_along_rows
        photo.draft("YCbCr", photo.size)
        photo.decoderconfig = (1, 1)
        luma, blue, red = np.moveaxis(np.asarray(photo).astype(np.int32), -1, 0)
        blue, red = (interpolated(chroma)[: len(luma), : luma.shape[1]] - 128 for chroma in (blue, red))
        rgb = (
            luma + _fixed_point(1.402, red),
            luma + _fixed_point(-0.34414, blue, -0.71414, red),
            luma + _fixed_point(1.772, blue),
        )
        return np.clip(np.stack(rgb, -1), 0, 255).astype(np.uint8)

    return decode


def _interpolated_along_rows(repeated):
    """Chroma of each pixel, 3/4 of the nearer and 1/4 of the farther sample, rounded in turns; the ends as they are."""
    chroma = repeated[:, ::2]
    left, right = np.pad(chroma, ((0, 0), (1, 0)), mode="edge"), np.pad(chroma, ((0, 0), (0, 1)), mode="edge")
    even, odd = 3 * chroma + left[:, :-1] + 1 >> 2, 3 * chroma + right[:, 1:] + 2 >> 2
    return np.stack([even, odd], axis=2).reshape(len(chroma), -1)


def _interpolated_both_ways(repeated):
    """The same along columns and then rows."""
    padded = np.pad(repeated[::2, ::2], 1, mode="edge")
    above, below = padded[:-2], padded[2:]
    rows = np.stack([3 * padded[1:-1] + above, 3 * padded[1:-1] + below], axis=1).reshape(-1, padded.shape[1])
    left, middle, right = rows[:, :-2], rows[:, 1:-1], rows[:, 2:]
    return np.stack([3 * middle + left + 8 >> 4, 3 * middle + right + 7 >> 4], axis=2).reshape(len(rows), -1)


def _fixed_point(*factors_and_values):
    """Sum of products in 16 binary places, rounded."""
    factors, values = factors_and_values[::2], factors_and_values[1::2]
    return sum(round(factor * 65536) * value for factor, value in zip(factors, values, strict=True)) + 32768 >> 16
