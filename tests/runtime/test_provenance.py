"""Digests change with everything that can change a number, and with nothing else."""

import ast
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
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


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package; whoever changes a file restores it."""
    ignored = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(PACKAGE, tmp_path_factory.mktemp("copy") / "package", ignore=ignored)


@pytest.fixture
def package(copy, monkeypatch):
    """The copy, whose digest `code_digest` returns."""
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    return copy


@contextmanager
def changed(path, change):
    """The file with changed source, until the context ends."""
    source = path.read_text()
    assert change(source) != source
    path.write_text(change(source))
    try:
        yield
    finally:
        path.write_text(source)


def with_a_statement(source):
    return source + "\nADDED = 1\n"


def test_every_listed_part_exists():
    assert all((PACKAGE / part).exists() for part in (*HARMLESS, *PREFIX, *PREFIX_HARMLESS))


def test_every_file_is_numeric_or_listed_once_as_harmless():
    naming = {file: [part for part in HARMLESS if _lies_in(file, [part])] for file in source_files()}
    assert {file: parts for file, parts in naming.items() if len(parts) > 1} == {}
    assert set(NUMERIC) == {file for file, parts in naming.items() if not parts}


@pytest.mark.parametrize("file", NUMERIC)
def test_a_statement_in_a_numeric_file_counts(package, file):
    before = code_digest()
    with changed(package / file, with_a_statement):
        assert code_digest() != before
    assert code_digest() == before


def test_statements_in_harmless_files_do_not_count(package):
    before = code_digest()
    for file in set(source_files()) - set(NUMERIC):
        with changed(package / file, with_a_statement):
            assert code_digest() == before


@pytest.mark.parametrize("part", ["tasks/benchmark", "predict/views.py"])
def test_a_harmless_part_counts_where_it_decides_the_numbers(package, part):
    """Of a run it does not; of a benchmark's times, or of a table of several views, it does."""
    assert part in HARMLESS
    file = package / part if part.endswith(".py") else next((package / part).glob("m*.py"))
    before, plain = code_digest(also=(part,)), code_digest()
    with changed(file, with_a_statement):
        assert code_digest(also=(part,)) != before
        assert code_digest() == plain


def test_the_copy_has_the_digest_of_the_package(package, monkeypatch):
    copied = code_digest()
    monkeypatch.setattr(provenance, "PACKAGE", PACKAGE)
    assert code_digest() == copied


@pytest.mark.parametrize(
    "change",
    [
        lambda source: "# a comment\n\n\n" + source.replace('"""Metrics from logits', '"""Other words about logits'),
        lambda source: ast.unparse(ast.parse(source)),
    ],
    ids=["comment and docstring", "layout"],
)
def test_comments_docstrings_and_layout_do_not_count(package, change):
    before = code_digest()
    with changed(package / "metrics" / "classification.py", change):
        assert code_digest() == before


def test_the_digest_of_a_prefix_covers_only_the_code_that_computes_it(package):
    before = code_digest(PREFIX, PREFIX_HARMLESS)
    with changed(package / "training" / "optimizers.py", lambda source: source.replace("1e-7", "1e-8")):
        assert code_digest(PREFIX, PREFIX_HARMLESS) == before
    with changed(package / "models" / "preprocessing.py", lambda source: source.replace("103.939", "103.94")):
        assert code_digest(PREFIX, PREFIX_HARMLESS) != before


def test_the_class_weight_formula_counts(package):
    """The formula was once in a file outside the digest, so a run by different code resumed without a warning."""
    before, formula = code_digest(), "len(labels) / (present * int(count))"
    with changed(
        package / "training" / "losses.py", lambda source: source.replace(formula, "len(labels) / int(count)")
    ):
        assert code_digest() != before


def test_a_moved_file_counts(package):
    before = code_digest()
    moved = (package / "models" / "heads.py").rename(package / "models" / "tails.py")
    try:
        assert code_digest() != before
    finally:
        moved.rename(package / "models" / "heads.py")


def test_json_digests_depend_on_values_and_not_on_the_order_of_keys():
    assert json_digest({"a": 1, "b": [1, 2]}) == json_digest({"b": [1, 2], "a": 1})
    digests = {json_digest(value) for value in ({"a": 1}, {"a": 1.5}, {"a": "1"}, {"b": 1}, [1, 2], [2, 1], None)}
    assert len(digests) == 7


def params(**changes):
    return {"one": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)}} | changes


def test_digests_of_parameters_depend_on_names_shapes_and_values():
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


def test_the_digest_of_code_is_the_same_in_every_process():
    command = [sys.executable, "-c", "from vision_transfer.runtime.provenance import code_digest; print(code_digest())"]
    found = {
        subprocess.check_output(command, env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONOPTIMIZE": optimize})
        for seed, optimize in (("1", ""), ("2", ""), ("3", "2"))
    }
    assert found == {f"{code_digest()}\n".encode()}, "neither the order of sets nor options of Python count"
