"""Checkpoints: written whole, verified when read."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.runtime.provenance import json_digest
from vision_transfer.training import checkpoints


@pytest.fixture
def tree():
    return {"layer": {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.ones(4)}}, (jnp.int32(7), {})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints" / "last"


def test_what_is_saved_is_loaded(folder, tree):
    metadata = {"epoch": 3, "history": [{"loss": 0.1}], "name": "é", "nothing": None}
    checkpoints.save(folder, 5, tree, metadata)
    found = checkpoints.load(folder, tree)
    assert found.metadata == checkpoints.load_metadata(folder) == metadata
    assert jax.tree.structure(found.tree) == jax.tree.structure(tree)
    for leaf, other in zip(jax.tree.leaves(found.tree), jax.tree.leaves(tree), strict=True):
        assert leaf.dtype == other.dtype
        assert leaf.shape == other.shape
        np.testing.assert_array_equal(leaf, other)


def test_a_template_of_shapes_suffices(folder, tree):
    checkpoints.save(folder, 5, tree, {})
    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
    np.testing.assert_array_equal(checkpoints.load(folder, template).tree[0]["layer"]["bias"], np.ones(4))


def test_there_may_be_none(folder, tree):
    assert checkpoints.load(folder, tree) is None
    assert checkpoints.load_metadata(folder) is None


def test_the_newest_replaces_the_others(folder, tree):
    for number, step in enumerate((9, 10, 10, 10)):
        checkpoints.save(folder, step, tree, {"number": number})
    assert len(list(folder.iterdir())) == 1
    assert checkpoints.load(folder, tree).metadata == {"number": 3}
    # Also one of a lower number, which Orbax would drop silently.
    checkpoints.save(folder, 2, tree, {"step": 2})
    assert checkpoints.load(folder, tree).metadata == {"step": 2}


def test_one_of_the_same_step_is_there_until_the_new_one_is(folder, tree, monkeypatch):
    """A process may be killed at any moment, also between the new checkpoint and the removal of the old one."""
    checkpoints.save(folder, 10, tree, {"number": 0})
    killed = SimpleNamespace(rmtree=lambda path: None, disk_usage=shutil.disk_usage)
    monkeypatch.setattr(checkpoints, "shutil", killed)
    for number in range(1, 4):
        checkpoints.save(folder, 10, tree, {"number": number})
        assert len(list(folder.iterdir())) == number + 1
        assert checkpoints.load(folder, tree).metadata == {"number": number}
    checkpoints.save(folder, 11, tree, {"number": 4})
    assert checkpoints.load_metadata(folder) == {"number": 4}


def test_a_relative_folder_will_do(tmp_path, tree, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    checkpoints.save(Path("last"), 1, tree, {"a": 1})
    assert checkpoints.load(Path("last"), tree).metadata == {"a": 1}


@pytest.mark.parametrize("step", [5, 6])
def test_a_failure_while_saving_keeps_the_one_before(folder, tree, monkeypatch, step):
    checkpoints.save(folder, 5, tree, {"kept": True})

    def full(path, value):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "write_json", full)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(folder, step, tree, {"kept": False})
    assert checkpoints.load(folder, tree).metadata == {"kept": True}
    assert [path.name for path in folder.iterdir()] == ["000000005"]


def test_leftovers_are_removed(folder, tree):
    checkpoints.save(folder, 5, tree, {})
    (folder / "000000006.writing-0123").mkdir()
    (folder / "000000006.writing-0123" / "file").write_text("half")
    assert checkpoints.load(folder, tree) is not None
    checkpoints.clean(folder)
    assert [path.name for path in folder.iterdir()] == ["000000005"]
    checkpoints.clean(folder / "none")


def data_files(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.name != checkpoints.MANIFEST]


def test_a_flipped_byte_anywhere_is_noticed(folder, tree):
    checkpoints.save(folder, 5, tree, {})
    files = data_files(folder)
    assert len(files) > 2
    for path in files:
        content = path.read_bytes()
        for position in {0, len(content) // 2, len(content) - 1} if content else ():
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            with pytest.raises(UserError, match=r"000000005.*damaged.*remove this folder"):
                checkpoints.load(folder, tree)
        path.write_bytes(content)
    assert checkpoints.load(folder, tree) is not None


def test_a_missing_file_is_noticed(folder, tree):
    checkpoints.save(folder, 5, tree, {})
    data_files(folder)[0].unlink()
    with pytest.raises(UserError, match="missing"):
        checkpoints.load(folder, tree)


@pytest.mark.parametrize("content", [None, "", '{"metadata": {}', "[]", '{"metadata": 1, "sha256": {}}', "\udcff"])
def test_a_manifest_that_is_none_is_noticed(folder, tree, content):
    checkpoints.save(folder, 5, tree, {})
    manifest = folder / "000000005" / checkpoints.MANIFEST
    if content is None:
        manifest.unlink()
    else:
        manifest.write_bytes(content.encode("utf-8", "surrogateescape"))
    for read in (lambda: checkpoints.load(folder, tree), lambda: checkpoints.load_metadata(folder)):
        with pytest.raises(UserError, match=r"000000005.*manifest.*remove this folder"):
            read()


def test_a_full_disk_is_the_systems_error_and_keeps_what_was_there(folder, tree, monkeypatch):
    import orbax.checkpoint as ocp

    checkpoints.save(folder, 5, tree, {"epoch": 3})

    def save(*_):
        raise ValueError('RESOURCE_EXHAUSTED: Error writing local file "x": No space left on device')

    monkeypatch.setattr(ocp.Checkpointer, "save", save)
    with pytest.raises(OSError, match=r"No space left on device: '.*000000006'"):
        checkpoints.save(folder, 6, tree, {"epoch": 4})
    assert [path.name for path in folder.iterdir()] == ["000000005"]
    assert checkpoints.load(folder, tree).metadata == {"epoch": 3}


def test_changed_metadata_are_noticed(folder, tree):
    checkpoints.save(folder, 5, tree, {"epoch": 3})
    path = folder / "000000005" / checkpoints.MANIFEST
    path.write_text(path.read_text().replace('"epoch": 3', '"epoch": 4'))
    for read in (lambda: checkpoints.load(folder, tree), lambda: checkpoints.load_metadata(folder)):
        with pytest.raises(UserError, match="is damaged"):
            read()


def test_a_manifest_does_not_lead_outside(folder, tree, tmp_path):
    checkpoints.save(folder, 5, tree, {})
    (tmp_path / "other").write_text("")
    path = folder / "000000005" / checkpoints.MANIFEST
    manifest = json.loads(path.read_text())
    content = manifest["content"] | {"sha256": {"../../../other": "0"}}
    path.write_text(json.dumps({"digest": json_digest(content), "content": content}))
    with pytest.raises(UserError, match="outside"):
        checkpoints.load(folder, tree)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda layer: layer | {"kernel": jnp.zeros((4, 3))}, r"kernel is float32\(3, 4\), expected float32\(4, 3\)"),
        (lambda layer: layer | {"kernel": jnp.zeros((3, 4), jnp.int32)}, "expected int32"),
        (lambda layer: layer | {"scale": jnp.zeros(1)}, r"lacks \['0.layer.scale'\]"),
        (lambda layer: {"kernel": layer["kernel"]}, r"has \['0.layer.bias'\]"),
    ],
)
def test_a_template_of_another_network_is_refused(folder, tree, change, named):
    checkpoints.save(folder, 5, tree, {})
    template = ({"layer": change(tree[0]["layer"])}, tree[1])
    with pytest.raises(UserError, match=named):
        checkpoints.load(folder, template)
