"""State dicts of `torch.save`, written here instruction by instruction as PyTorch writes them; and those that lie."""

import io
import os
import pickle
import pickletools
import random
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained import torch_pickle
from vision_transfer.models.pretrained.torch_file import open_torch_zip
from vision_transfer.models.pretrained.torch_pickle import RefusedPickleError, read_pickle
from vision_transfer.models.pretrained.weights_file import read_weights_file

# Programs of random instructions; more of them by this variable.
PROGRAMS = 10 * int(os.environ.get("VISION_TRANSFER_MUTATIONS", "400"))
# The beginning of the instructions for a tensor with a storage of eight numbers.
TENSOR_OF_8_NUMBERS = b"ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\n"
TENSOR_OF_8_NUMBERS += b"X\1\0\0\x000X\3\0\0\0cpuK\x08tQ"


def refusal(path, shapes, names=()):
    with pytest.raises(UserError) as error:
        read_weights_file(path, shapes, names)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.fixture
def saved(torch_bytes, torch_tensors, params, tmp_path):
    """The path of a file with the parameters, with changes to its tensors or more instructions."""

    def write(change=lambda tensors: tensors, **options):
        path = tmp_path / "weights.pth"
        path.write_bytes(torch_bytes(change(torch_tensors(params)), **options))
        return path

    return write


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.model.backbone."])
def test_both_formats_are_read_under_any_one_prefix(legacy, prefix, saved, params, shapes, vgg_names, same):
    path = saved(lambda tensors: {prefix + name: array for name, array in tensors.items()}, legacy=legacy)
    read = read_weights_file(path, shapes, vgg_names)
    same(read.params, params)
    assert read.preprocessing == "torch"


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read(legacy, dtype, saved, params, shapes, vgg_names, same):
    path = saved(lambda tensors: {name: array.astype(dtype) for name, array in tensors.items()}, legacy=legacy)
    expected = {
        layer: {name: values.astype(dtype).astype(np.float32) for name, values in parameters.items()}
        for layer, parameters in params.items()
    }
    same(read_weights_file(path, shapes, vgg_names).params, expected)


def test_nested_dictionaries_are_looked_through(saved, params, shapes, vgg_names, same):
    """`{"epoch": 3, "model": state_dict, "itself": …}`"""
    around = b"q\0}X\5\0\0\0epochK\3sX\5\0\0\0modelh\0sq\1X\6\0\0\0itselfh\1s"
    same(read_weights_file(saved(more=around), shapes, vgg_names).params, params)


def test_a_network_and_its_average_in_one_file_are_not_confused(saved, shapes, vgg_names):
    path = saved(lambda tensors: tensors | {f"ema.{name}": array for name, array in tensors.items()})
    message = refusal(path, shapes, vgg_names)
    assert "the file has features.0.weight (4, 3, 3, 3) float32 and ema.features.0.weight" in message


def test_what_is_more_than_tensors_is_refused_by_name_and_not_run(saved, shapes, vgg_names, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was run"),)

    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Bomb(), 2))
    assert "posix.mkdir" in refusal(tmp_path / "bare.pth", shapes, vgg_names)
    bomb = b"cposix\nmkdir\n(" + b"X" + struct.pack("<I", 7) + b"was run" + b"tR0"
    for legacy in (False, True):
        message = refusal(saved(legacy=legacy, more=bomb), shapes, vgg_names)
        assert "it asks for posix.mkdir" in message
        assert "torch.save(model.state_dict()" in message
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("name", ["os system", "torch load", "torch._utils _rebuild_sparse_tensor", "builtins eval"])
def test_no_other_function_is_allowed(name, saved, shapes, vgg_names):
    module, attribute = name.split()
    assert f"it asks for {module}.{attribute}," in refusal(
        saved(more=f"c{module}\n{attribute}\n0".encode()), shapes, vgg_names
    )


def test_a_whole_model_is_refused_by_its_class(saved, shapes, vgg_names):
    assert "it asks for my_module.Network," in refusal(saved(more=b"cmy_module\nNetwork\n)\x81"), shapes, vgg_names)


def rewritten(path, change):
    """The zip file with changed entries: name → content."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in change(entries).items():
            archive.writestr(name, content)
    return path


def test_values_that_are_not_there_are_missed(saved, shapes, vgg_names):
    path = rewritten(saved(), lambda entries: {n: e for n, e in entries.items() if n != "weights/data/3"})
    assert "without values" in refusal(path, shapes, vgg_names)
    path = rewritten(saved(), lambda entries: entries | {"weights/data/0": b"short"})
    assert "with 5 bytes of values" in refusal(path, shapes, vgg_names)


def test_compressed_values_are_not_unpacked(saved, shapes, vgg_names):
    path = saved()
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert "compressed" in refusal(path, shapes, vgg_names)


def test_big_endian_numbers_are_refused(saved, shapes, vgg_names):
    assert "big-endian" in refusal(
        rewritten(saved(), lambda entries: entries | {"weights/byteorder": b"big"}), shapes, vgg_names
    )


def test_a_flipped_bit_in_the_values_is_noticed(saved, shapes, vgg_names, params):
    path = saved()
    content = bytearray(path.read_bytes())
    content[content.index(params["block1_conv1"]["bias"].tobytes())] ^= 1
    path.write_bytes(content)
    assert "Bad CRC-32" in refusal(path, shapes, vgg_names)


def test_another_zip_file_is_named(tmp_path, shapes):
    np.savez(tmp_path / "weights.npz", kernel=np.ones(3))
    assert "neither torch.save nor Keras" in refusal(tmp_path / "weights.npz", shapes)


def test_strides_and_offsets_are_followed(saved, tmp_path):
    """A transposed view of a part of a storage, as `state_dict` has it for tensors in another order of axes."""
    path = saved()
    values = np.arange(8, dtype=np.float32)

    def view(entries):
        tensor = TENSOR_OF_8_NUMBERS
        tensor += b"K\2(K\2K\3t(K\1K\2t\x89ccollections\nOrderedDict\n)RtR"
        return {"a/data.pkl": b"\x80\2}X\6\0\0\0weight" + tensor + b"s.", "a/data/0": values.tobytes()}

    with open_torch_zip(rewritten(path, view)) as (tensor,):
        np.testing.assert_array_equal(tensor.read(), [[2, 4, 6], [3, 5, 7]])


@pytest.mark.parametrize("numbers", [b"K\3(K\2K\3t(K\1K\2t", b"K\0(K\2K\3t(J\xff\xff\xff\x7fK\2t"])
def test_a_tensor_beyond_its_storage_is_not_read(numbers, saved):
    def view(_entries):
        tensor = TENSOR_OF_8_NUMBERS + numbers
        return {"a/data.pkl": b"\x80\2}X\6\0\0\0weight" + tensor + b"\x89)tRs.", "a/data/0": bytes(32)}

    with open_torch_zip(rewritten(saved(), view)) as (tensor,):
        assert "of 8" in tensor.unreadable


@pytest.mark.parametrize("count", [-1, 0, 2**62])
def test_a_count_that_lies_in_the_older_format(count, saved, shapes, vgg_names, params):
    path = saved(legacy=True)
    content = path.read_bytes()
    place = content.index(params["block1_conv1"]["bias"].tobytes()) - 8
    path.write_bytes(content[:place] + struct.pack("<q", count) + content[place + 8 :])
    assert f"has {count:,} numbers, but 4 are described" in refusal(path, shapes, vgg_names)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.7, 0.95, 0.999])
def test_truncated_file(legacy, kept, saved, shapes, vgg_names):
    path = saved(legacy=legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "truncated" in refusal(path, shapes, vgg_names)


def test_a_pickle_that_claims_a_long_text_takes_no_memory():
    with pytest.raises(RefusedPickleError, match="damaged"):
        read_pickle(io.BytesIO(b"\x80\2X\xff\xff\xff\x7fabc."))


def test_a_pickle_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(torch_pickle, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(RefusedPickleError, match="more than 1,000"):
        read_pickle(io.BytesIO(b"\x80\2" + b"]" * 2000 + b"."))


def test_nested_tuples_that_share_their_parts_end():
    """Their number of leaves doubles with each level, so nothing may walk or hash them."""
    with pytest.raises(RefusedPickleError, match="key"):
        read_pickle(io.BytesIO(b"\x80\2})" + b"q\0h\0\x86" * 60 + b"Ns."))


def test_programs_of_random_instructions_end_in_values_or_a_refusal():
    """Instructions that PyTorch writes, with arguments that it might write, in an order that it never would."""
    pieces = [
        *(
            b"(",
            b"t",
            b")",
            b"}",
            b"]",
            b"u",
            b"s",
            b"e",
            b"a",
            b"R",
            b"b",
            b"Q",
            b"N",
            b"\x88",
            b"\x85",
            b"\x86",
            b"\x87",
        ),
        *(
            b"q\0",
            b"q\1",
            b"h\0",
            b"h\1",
            b"K\3",
            b"J\xff\xff\xff\xff",
            b"\x8a\1\5",
            b"X\1\0\0\0a",
            b"X\7\0\0\0storage",
        ),
        *(b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"),
        *(b"\x94", b"\x93", b"cos\nsystem\n", b"0", b"2", b"\x81"),
    ]
    outcomes = {"read": 0, "refused": 0}
    for seed in range(PROGRAMS):
        draw = random.Random(seed)
        program = b"\x80\2" + b"".join(draw.choices(pieces, k=draw.randrange(1, 40))) + b"."
        try:
            read_pickle(io.BytesIO(program))
            outcomes["read"] += 1
        except RefusedPickleError as error:
            assert len(str(error)) > 5
            outcomes["refused"] += 1
    assert min(outcomes.values()) > PROGRAMS // 200


def test_all_instructions_of_pickle_that_are_not_ours_are_refused():
    """The machine takes no instruction that imports, calls or builds anything but what it lists."""
    refused = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BYTEARRAY8"}
    for instruction in pickletools.opcodes:
        if instruction.name in refused:
            with pytest.raises(RefusedPickleError, match=f"instruction {instruction.name},"):
                read_pickle(io.BytesIO(b"\x80\2" + instruction.code.encode("latin-1") + b"."))
        assert (instruction.name in torch_pickle.INSTRUCTIONS) <= (instruction.name not in refused)
