"""Small networks with every kind of row, and EfficientNet-Lite0, in every format; their answers for a few images."""

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest

from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, GlobalAveragePool, MaxPool
from vision_transfer.models.network import Network, apply
from vision_transfer.predict.temperature import probabilities
from vision_transfer.tasks.export import keras_check
from vision_transfer.tasks.export.inference_network import plain_network
from vision_transfer.tasks.export.keras_files import write_keras, write_legacy_h5
from vision_transfer.tasks.export.keras_layers import keras_layers
from vision_transfer.tasks.export.onnx_graph import onnx_model

IMAGES = 5


@dataclass(frozen=True)
class Kind:
    """A network, and its temperature in the exported files."""

    network: Network
    temperature: float


def head(outputs):
    return Flatten("flatten"), Dense("hidden", 6, "relu"), Dropout("dropout", 0.5), Dense("head_logits", outputs)


KINDS = {
    # padding after the offset, channels reversed in a convolution, odd maps, one logit
    "same_caffe": Kind(
        Network(
            (Conv("conv1", 8, padding="same"), Conv("conv2", 8, padding="same"), MaxPool("pool1")),
            head(1),
            (17, 15, 3),
            "caffe",
        ),
        2.5,
    ),
    "valid_batch_norm": Kind(
        Network(
            (
                Conv("conv1", 8, activation="linear"),
                BatchNorm("norm1", activation="relu"),
                MaxPool("pool1", 3),
                Conv("conv2", 8, kernel_size=2, padding="same"),
                BatchNorm("norm2"),
            ),
            head(3),
            (16, 16, 3),
            "rescale",
        ),
        0.5,
    ),
    "average_torch": Kind(
        Network(
            (Conv("conv1", 8, padding="same"), GlobalAveragePool("average")),
            (Dense("head_logits", 4),),
            (9, 9, 3),
            "torch",
        ),
        1.0,
    ),
    "grey_raw": Kind(Network((Conv("conv1", 4), MaxPool("pool1")), head(2), (12, 12, 1), "raw"), 1.0),
    # channels reversed in a dense layer
    "dense_caffe": Kind(Network((), head(3), (6, 5, 3), "caffe"), 1.7),
}
# Networks with blocks: see `kinds`.
BRANCHED = ("every_row", "efficientnet_lite0")
# Keras takes 10 s to build the deep network, so it reads one of its files.
KERAS_FILES = [
    (name, file)
    for name in (*KINDS, *BRANCHED)
    for file in ("model.keras", "model.h5")
    if (name, file) != ("efficientnet_lite0", "model.h5")
]


def images_for(network):
    return np.random.default_rng(1).integers(0, 256, (IMAGES, *network.input_shape)).astype(np.float32)


@pytest.fixture(params=[*KINDS, *BRANCHED])
def kind(request):
    """The name of each kind in turn."""
    return request.param


@pytest.fixture(params=KERAS_FILES, ids="-".join)
def keras_file(request):
    """The name of a kind, and that of one of its files for Keras."""
    return request.param


@pytest.fixture(scope="session")
def kinds(every_row):
    """All networks by name."""
    rows = backbone_rows("efficientnet_lite0", pooled_layers=(), pooling_grid=2)
    lite = Network(rows, head_layers(3, flatten=False), (64, 49, 3), "lite")
    branched = dict(zip(BRANCHED, (Kind(every_row, 1.2), Kind(lite, 1.0)), strict=True))
    return KINDS | branched


@pytest.fixture
def network_and_variables(varied_variables):
    network = KINDS["same_caffe"].network
    return network, varied_variables(network)


@dataclass(frozen=True)
class Exported:
    """The folders of all kinds, each with `images.npy`, and the answer of each network itself."""

    folders: dict[str, Path]
    own: dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def exported(tmp_path_factory, kinds, varied_variables):
    from vision_transfer.tasks.export.task import stablehlo

    folders, own = {}, {}
    for name, kind in kinds.items():
        folder, network, variables = tmp_path_factory.mktemp(name), kind.network, varied_variables(kind.network)
        images = images_for(network)
        np.save(folder / "images.npy", images)
        logits = np.asarray(jax.jit(partial(apply, network))(variables, images))
        own[name] = {"logits": logits, "probabilities": probabilities(logits, kind.temperature)}
        classes = [f"class {number}" for number in range(own[name]["probabilities"].shape[1])]
        plain = plain_network(network, variables, kind.temperature, classes)
        write_keras(folder / "model.keras", keras_layers(plain), plain.input_shape)
        if (name, "model.h5") in KERAS_FILES:
            write_legacy_h5(folder / "model.h5", keras_layers(plain), plain.input_shape)
        (folder / "model.onnx").write_bytes(onnx_model(plain))
        (folder / "model.stablehlo").write_bytes(stablehlo(network, variables, kind.temperature))
        folders[name] = folder
    return Exported(folders, own)


# Neither this package nor its other dependencies: only JAX, and flatbuffers to read the file.
WITH_JAX_ALONE = """
import sys
sys.path.append({packages!r})
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("vision_transfer", "flax", "optax", "orbax", "keras", "onnx", "h5py", "PIL"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import jax.export
import numpy
for folder in sys.argv[1:]:
    images = numpy.load(folder + "/images.npy")
    program = jax.export.deserialize(bytearray(open(folder + "/model.stablehlo", "rb").read()))
    answer, one = program.call(images), program.call(images[:1])
    numpy.savez(folder + "/stablehlo.npz", **answer, first_logits=one["logits"], platforms=program.platforms)
assert "vision_transfer" not in sys.modules
"""

WITH_KERAS = """
import pathlib, runpy, sys
check = runpy.run_path({script!r})["check"]
for folder in sys.argv[1:]:
    for file in ("model.keras", "model.h5"):
        if pathlib.Path(folder, file).exists():
            check(folder + "/" + file, folder + "/images.npy", folder + "/" + file + ".npz")
"""


def run_elsewhere(script, folders, cwd, options=(), **variables):
    """Runs a script in another interpreter process, outside this repository."""
    command = [sys.executable, *options, "-c", script, *map(str, folders.values())]
    done = subprocess.run(command, cwd=cwd, env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def by_jax_alone(exported, tmp_path_factory):
    script = WITH_JAX_ALONE.format(packages=sysconfig.get_path("purelib"))
    run_elsewhere(script, exported.folders, tmp_path_factory.mktemp("elsewhere"), ("-I", "-S"), JAX_PLATFORMS="cpu")
    return {name: dict(np.load(folder / "stablehlo.npz")) for name, folder in exported.folders.items()}


@pytest.fixture(scope="session")
def by_keras(exported, tmp_path_factory):
    # Not imported here, where its default backend may be one that is not installed.
    if find_spec("keras") is None:
        pytest.skip("Keras is not installed; it comes with the extra [export]")
    home = tmp_path_factory.mktemp("home")
    script = WITH_KERAS.format(script=keras_check.__file__)
    run_elsewhere(script, exported.folders, home, ("-P",), KERAS_BACKEND="jax", KERAS_HOME=str(home))
    return {
        (name, file): dict(np.load(folder / f"{file}.npz"))
        for name, folder in exported.folders.items()
        for file in ("model.keras", "model.h5")
        if (name, file) in KERAS_FILES
    }
