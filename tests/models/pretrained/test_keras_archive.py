"""Keras 3's .keras files: names out of the configuration, and archives that lie."""

import json
import zipfile

import h5py
import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.weights_file import read_weights_file


def layer(kind, name):
    return {"class_name": kind, "config": {"name": name}}


@pytest.fixture
def archive(params, base_shapes, tmp_path):
    """A model as Keras 3.3 saves it: a base inside a model, its layers named by the configuration only."""

    def write(config=None, compression=zipfile.ZIP_STORED):
        with h5py.File(tmp_path / "inside.h5", "w") as file:
            for place, name in enumerate(base_shapes):
                group = file.create_group(f"layers/functional/layers/conv2d{f'_{place}' if place else ''}/vars")
                group["0"], group["1"] = params[name]["kernel"], params[name]["bias"]
            group = file.create_group("layers/conv2d/vars")
            group["0"], group["1"] = np.ones((3, 3, 6, 6), np.float32), np.ones(6, np.float32)
        base = layer("Functional", "base")
        base["config"]["layers"] = [layer("InputLayer", "input"), *(layer("Conv2D", name) for name in base_shapes)]
        model = {"config": {"name": "model", "layers": [base, layer("Conv2D", "mine")]}}
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", json.dumps(model) if config is None else config)
            archive.write(tmp_path / "inside.h5", "model.weights.h5")
        return path

    return write


def refusal(path, shapes):
    with pytest.raises(UserError) as error:
        read_weights_file(path, shapes)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_names_come_from_the_configuration(compression, archive, params, base_shapes, same):
    read = read_weights_file(archive(compression=compression), base_shapes)
    same(read.params, {name: params[name] for name in base_shapes})


def test_without_names_the_order_counts(archive, params, base_shapes, same):
    """Only in the base are there as many convolutions as the network has."""
    same(read_weights_file(archive(config="{}"), base_shapes).params, {name: params[name] for name in base_shapes})


@pytest.mark.parametrize("config", ["[", "[" * 100_000, b"\xff"])
def test_a_configuration_that_is_none_is_a_message(config, archive, base_shapes):
    assert "not JSON" in refusal(archive(config=config), base_shapes)


@pytest.mark.parametrize("config", ["[]", "null", '{"config": 3}', '{"config": {"layers": [1, {"class_name": []}]}}'])
def test_another_configuration_gives_no_names(config, archive, params, base_shapes, same):
    same(read_weights_file(archive(config=config), base_shapes).params, {name: params[name] for name in base_shapes})


def test_an_archive_that_unpacks_to_very_much_is_refused(tmp_path, base_shapes):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10**7))
    assert "claims 10,000,000 bytes" in refusal(path, base_shapes)


def test_weights_that_are_no_hdf5_file_are_a_message(tmp_path, base_shapes):
    path = tmp_path / "weights.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", b"nothing")
    assert "not a readable HDF5 file" in refusal(path, base_shapes)


def test_a_damaged_compressed_entry_is_a_message(archive, base_shapes):
    path = archive(compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as opened:
        entry = opened.getinfo("model.weights.h5")
    start = entry.header_offset + 30 + len(entry.filename)
    content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    assert "damaged" in refusal(path, base_shapes)
