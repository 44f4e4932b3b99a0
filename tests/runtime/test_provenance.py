"""Digests change with what decides numbers, and with nothing else."""

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest

import vision_transfer
from vision_transfer.runtime import provenance
from vision_transfer.runtime.provenance import (
    HARMLESS,
    PREFIX,
    PREFIX_HARMLESS,
    _lies_in,
    code_digest,
    json_digest,
    params_sha256,
    source_files,
    versions,
)

PACKAGE = Path(vision_transfer.__file__).parent
NUMERIC = [file for file in source_files() if not _lies_in(file, HARMLESS)]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package whose code can be changed."""
    shutil.copytree(PACKAGE, tmp_path / "package", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance.resources, "files", lambda name: tmp_path / "package")
    return tmp_path / "package"


def change(path, before, after):
    source = path.read_text()
    assert before in source
    path.write_text(source.replace(before, after, 1))


def test_every_part_that_is_named_exists():
    assert all((PACKAGE / part).exists() for part in (*HARMLESS, *PREFIX, *PREFIX_HARMLESS))


def test_every_file_is_numeric_or_named_as_harmless_once():
    naming = {file: [part for part in HARMLESS if _lies_in(file, [part])] for file in source_files()}
    assert {file: parts for file, parts in naming.items() if len(parts) > 1} == {}
    assert set(NUMERIC) == {file for file, parts in naming.items() if not parts}


@pytest.mark.parametrize("file", NUMERIC)
def test_a_statement_in_a_numeric_file_counts(package, file):
    before = code_digest()
    with (package / file).open("a") as stream:
        stream.write("\nADDED = 1\n")
    assert code_digest() != before


def test_statements_in_harmless_files_do_not_count(package):
    before = code_digest()
    for file in set(source_files()) - set(NUMERIC):
        with (package / file).open("a") as stream:
            stream.write("\nADDED = 1\n")
    assert code_digest() == before


def test_the_copy_has_the_packages_digest(package):
    copied = code_digest()
    provenance.resources.files = lambda name: PACKAGE
    assert code_digest() == copied


def test_comments_docstrings_and_layout_do_not_count(package):
    before = code_digest()
    file = package / "metrics" / "classification.py"
    source = file.read_text()
    file.write_text("# a comment\n\n\n" + source.replace('"""Metrics from logits', '"""Other words about logits'))
    assert code_digest() == before
    file.write_text(ast.unparse(ast.parse(source)))
    assert code_digest() == before


def test_the_prefixs_digest_knows_only_what_computes_a_prefix(package):
    before = code_digest(PREFIX, PREFIX_HARMLESS)
    change(package / "train" / "optimizers.py", "1e-7", "1e-8")
    assert code_digest(PREFIX, PREFIX_HARMLESS) == before
    change(package / "models" / "preprocessing.py", "103.939", "103.94")
    assert code_digest(PREFIX, PREFIX_HARMLESS) != before


def test_the_class_weight_formula_counts(package):
    """It once stood in a file that the digest did not know, so that a run by other code went on without a word."""
    before = code_digest()
    change(package / "train" / "losses.py", "len(labels) / (present * int(count))", "len(labels) / int(count)")
    assert code_digest() != before


def test_a_moved_file_counts(package):
    before = code_digest()
    (package / "models" / "heads.py").rename(package / "models" / "tails.py")
    assert code_digest() != before


def test_json_digests_know_values_and_not_the_order_of_keys():
    assert json_digest({"a": 1, "b": [1, 2]}) == json_digest({"b": [1, 2], "a": 1})
    digests = {json_digest(value) for value in ({"a": 1}, {"a": 1.5}, {"a": "1"}, {"b": 1}, [1, 2], [2, 1], None)}
    assert len(digests) == 7


def params(**changes):
    return {"one": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)}} | changes


def test_digests_of_parameters_know_names_shapes_and_values():
    import jax.numpy as jnp

    base = params()
    others = [
        params(two={"bias": np.zeros(3, np.float32)}),
        {"other": base["one"]},
        params(one={"kernel": base["one"]["kernel"].reshape(3, 2), "bias": base["one"]["bias"]}),
        params(one={"kernel": base["one"]["kernel"], "scale": base["one"]["bias"]}),
        params(one={"kernel": np.nextafter(base["one"]["kernel"], 9), "bias": base["one"]["bias"]}),
    ]
    assert len({params_sha256(tree) for tree in [base, *others]}) == 1 + len(others)
    turned = {"one": {"bias": jnp.zeros(3), "kernel": jnp.asarray(base["one"]["kernel"])}}
    assert params_sha256(turned) == params_sha256(base)
    assert params_sha256({"one": {"kernel": np.asfortranarray(base["one"]["kernel"]), "bias": np.zeros(3)}}) == (
        params_sha256(base)
    )


def test_versions_are_recorded():
    import jax

    assert versions()["jax"] == jax.__version__
    assert {"python", "flax", "optax", "numpy", "orbax-checkpoint"} <= set(versions())
