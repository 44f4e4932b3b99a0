"""Detection of formats, refused files, and mutations of good files of every format."""

import contextlib
import json
import os
import random
import signal
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.models.pretrained.conftest import write_keras_h5
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import find_backbone
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.pretrained import keras_archive, keras_h5
from vision_transfer.models.pretrained.safetensors_file import write_safetensors
from vision_transfer.models.pretrained.tensors import with_statistics
from vision_transfer.models.pretrained.torch_names import TorchNames
from vision_transfer.models.pretrained.weights_file import read_weights_file

# Mutations of each format, the same in every run; more of them by this variable.
MUTATIONS = int(os.environ.get("VISION_TRANSFER_MUTATIONS", "400"))
MUTATION_SECONDS = 20


def refusal(path, shapes):
    with pytest.raises(UserError) as error:
        read_weights_file(path, shapes)
    assert str(path) in str(error.value)
    return str(error.value)


def test_the_format_is_told_by_content_not_by_name(params, shapes, tmp_path, same):
    write_keras_h5(tmp_path / "a.h5", params)
    (tmp_path / "a.h5").rename(tmp_path / "a.safetensors")
    same(read_weights_file(tmp_path / "a.safetensors", shapes).params, params)


def test_what_is_no_weights_file(base_shapes, tmp_path):
    (tmp_path / "page.h5").write_bytes(b"<!DOCTYPE html><html>not found</html>")
    (tmp_path / "empty.h5").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.h5")
    assert "<!DOCTYPE" in refusal(tmp_path / "page.h5", base_shapes)
    assert "empty" in refusal(tmp_path / "empty.h5", base_shapes)
    assert "not a file" in refusal(tmp_path / "pipe.h5", base_shapes)
    assert "not a file" in refusal(tmp_path, base_shapes)
    assert "No such file" in refusal(tmp_path / "nowhere.h5", base_shapes)
    assert "config.model.weights_path" in refusal(tmp_path / "nowhere.h5", base_shapes)


@pytest.mark.parametrize(
    ("names", "more"),
    [
        (("layer1.0.conv1", "layer3.5.conv1", "fc"), "layer3.6.conv1"),
        (("module.layer1.0.conv1", "module.layer3.5.conv1", "module.fc"), "module.layer3.6.conv1"),
        (("layer1.0.conv1", "layer3.5.conv1", "fc"), "layer3.5.conv1.more"),
    ],
)
def test_more_layers_in_a_stage_are_those_of_another_network(names, more, tmp_path):
    """ResNet101 has all of ResNet50; a head, or the count of batches, is nobody's loss."""
    kernel = np.zeros((4, 3, 3, 3), np.float32)
    torch_names = (TorchNames("torchvision", {"a": names[0].removeprefix("module."), "b": "layer3.5.conv1"}, "torch"),)
    shapes = {"a": {"kernel": (3, 3, 3, 4)}, "b": {"kernel": (3, 3, 3, 4)}}
    tensors = {f"{name}.weight": kernel for name in names} | {f"{names[1]}.num_batches_tracked": kernel}
    save_file(tensors, tmp_path / "a.safetensors")
    assert list(read_weights_file(tmp_path / "a.safetensors", shapes, torch_names).params) == ["a", "b"]
    save_file(tensors | {f"{more}.weight": kernel}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="so it is of another one"):
        read_weights_file(tmp_path / "b.safetensors", shapes, torch_names)


@pytest.mark.parametrize(("name", "other"), [("vgg16", "vgg19"), ("efficientnet_lite0", "efficientnet_lite1")])
def test_a_larger_network_of_the_same_family_is_refused(name, other, tmp_path):
    shapes, larger = (
        all_parameter_shapes(Network(find_backbone(one).rows, (), (224, 224, 3))) for one in (name, other)
    )
    tensors = {
        f"{layer}/{parameter}": np.zeros(shape, np.float16)
        for layer, parameters in with_statistics(larger).items()
        for parameter, shape in parameters.items()
    }
    head = {"dense/kernel": np.zeros((4, 2), np.float16), "conv2d/kernel": np.zeros((3, 3, 4, 2), np.float16)}
    save_file(tensors | head, tmp_path / "larger.safetensors")
    assert read_weights_file(tmp_path / "larger.safetensors", larger)
    with pytest.raises(UserError, match="so it is of another one"):
        read_weights_file(tmp_path / "larger.safetensors", shapes)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(params, base_shapes, tmp_path):
    write_keras_h5(tmp_path / "a.h5", params)
    (tmp_path / "a.h5").chmod(0)
    assert "Permission denied" in refusal(tmp_path / "a.h5", base_shapes)


def mutated(content, seed):
    """The bytes cut off somewhere, or with some of them changed."""
    draw = random.Random(seed)
    if draw.random() < 0.1:
        return content[: draw.randrange(1, len(content))]
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        place = draw.randrange(len(changed))
        changed[place] = draw.choice([draw.randrange(256), 0, 255, changed[place] ^ (1 << draw.randrange(8))])
    return bytes(changed)


@pytest.fixture
def time_is_bounded():
    """Ends the test with an error where one case takes long."""

    def ring(_number, _frame):
        raise AssertionError(f"a mutation took more than {MUTATION_SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda: signal.alarm(MUTATION_SECONDS)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def one_process(monkeypatch):
    """Lets one process read all HDF5 files; it is started again if it was ended."""
    start, kept = keras_h5.reading_process, []
    with contextlib.ExitStack() as stack:

        @contextlib.contextmanager
        def reading_process():
            if not kept or kept[-1].args[0].poll() is not None:
                kept.append(stack.enter_context(start()))
            yield kept[-1]

        for module in (keras_h5, keras_archive):
            monkeypatch.setattr(module, "reading_process", reading_process)
        monkeypatch.setattr(keras_h5, "ANSWER_SECONDS", MUTATION_SECONDS / 2)
        yield


@pytest.fixture
def write_hdf5():
    def write(path, params):
        write_keras_h5(path.with_suffix(".h5"), params)
        path.with_suffix(".h5").rename(path)

    return write


@pytest.fixture
def write_new_hdf5():
    """HDF5's newer structures of groups."""

    def write(path, params):
        with h5py.File(path, "w", libver="latest") as file:
            for layer, parameters in params.items():
                for name, values in parameters.items():
                    file[f"{layer}/{name}"] = values

    return write


@pytest.fixture
def write_onnx(onnx_bytes, onnx_tensors):
    return lambda path, params: path.write_bytes(onnx_bytes(onnx_tensors(params)))


@pytest.fixture
def write_ours():
    return lambda path, params: write_safetensors(path, params, {"source": "a test"})


@pytest.fixture
def write_torch(torch_bytes, torch_tensors):
    return lambda path, params: path.write_bytes(torch_bytes(torch_tensors(params)))


@pytest.fixture
def write_torch_legacy(torch_bytes, torch_tensors):
    return lambda path, params: path.write_bytes(torch_bytes(torch_tensors(params), legacy=True))


@pytest.fixture
def write_compressed_hdf5():
    def write(path, params):
        with h5py.File(path, "w") as file:
            for layer, parameters in params.items():
                for name, values in parameters.items():
                    file.create_dataset(f"{layer}/{name}", data=values, compression="gzip", shuffle=True)

    return write


@pytest.fixture
def write_keras_3(write_hdf5, tmp_path):
    """Names of layers are in the configuration only, as some versions of Keras have it."""

    def write(path, params):
        with h5py.File(tmp_path / "inside.h5", "w") as file:
            layers = []
            for number, (layer, parameters) in enumerate(params.items()):
                group = file.create_group(f"layers/thing_{number}/vars" if number else "layers/thing/vars")
                group["0"], group["1"] = parameters["kernel"], parameters["bias"]
                layers.append({"class_name": "Thing", "config": {"name": layer}})
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps({"config": {"layers": layers}}))
            archive.write(tmp_path / "inside.h5", "model.weights.h5")

    return write


FORMATS = ("hdf5", "new_hdf5", "compressed_hdf5", "onnx", "ours", "torch", "torch_legacy", "keras_3")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_mutation_ends_in_weights_or_a_message(
    kind, params, shapes, vgg_names, tmp_path, time_is_bounded, one_process, request
):
    path = tmp_path / "weights"
    request.getfixturevalue(f"write_{kind}")(path, params)
    content = path.read_bytes()
    outcomes = {"read": 0, "refused": 0}
    for seed in range(MUTATIONS):
        path.write_bytes(mutated(content, seed))
        time_is_bounded()
        try:
            read = read_weights_file(path, shapes, vgg_names)
        except UserError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        for layer, parameters in shapes.items():
            for name, shape in parameters.items():
                assert read.params[layer][name].shape == shape
                assert np.isfinite(read.params[layer][name]).all()
    # the checksums of a zip file notice almost all changes
    assert min(outcomes.values()) > MUTATIONS // (40 if kind == "torch" else 20)


def test_mutations_of_hdf5_through_its_own_process(params, shapes, tmp_path, time_is_bounded):
    path = tmp_path / "weights.h5"
    write_keras_h5(path, params)
    content = path.read_bytes()
    for seed in range(1000, 1010):
        path.write_bytes(mutated(content, seed))
        time_is_bounded()
        try:
            read_weights_file(path, shapes)
        except UserError as error:
            assert str(path) in str(error)
