"""Digests change with what decides numbers, and with nothing else."""

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest

import vision_transfer
from vision_transfer import provenance
from vision_transfer.provenance import (
    NUMERIC_MODULES,
    PREFIX_MODULES,
    code_digest,
    json_digest,
    params_sha256,
    versions,
)

PACKAGE = Path(vision_transfer.__file__).parent


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's numeric modules whose code can be changed."""
    for module in NUMERIC_MODULES:
        if (PACKAGE / module).is_dir():
            shutil.copytree(PACKAGE / module, tmp_path / module)
        else:
            shutil.copy(PACKAGE / module, tmp_path / module)
    monkeypatch.setattr(provenance.resources, "files", lambda name: tmp_path)
    return tmp_path


def change(path, before, after):
    source = path.read_text()
    assert before in source
    path.write_text(source.replace(before, after, 1))


def test_the_numeric_modules_exist():
    assert all((PACKAGE / module).exists() for module in (*NUMERIC_MODULES, *PREFIX_MODULES))
    assert set(PREFIX_MODULES) <= set(NUMERIC_MODULES)


def test_all_that_numeric_modules_import_is_numeric():
    """What a numeric module imports of this package is numeric too, or is listed here as harmless."""
    harmless = {"errors", "nearest", "screen", "files", "locks", "provenance", "devices", "stopping"}
    numeric = {module.removesuffix(".py") for module in NUMERIC_MODULES}
    for module in NUMERIC_MODULES:
        path = PACKAGE / module
        for file in [path] if path.is_file() else path.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vision_transfer."):
                    imported = node.module.split(".")[1]
                    assert imported in numeric | harmless, f"{file.name} imports {imported}"


def test_the_copy_has_the_packages_digest(package):
    copied = code_digest()
    provenance.resources.files = lambda name: PACKAGE
    assert code_digest() == copied


def test_comments_docstrings_and_layout_do_not_count(package):
    before = code_digest()
    file = package / "evaluation.py"
    source = file.read_text()
    file.write_text("# a comment\n\n\n" + source.replace('"""Metrics from logits', '"""Other words about logits'))
    assert code_digest() == before
    file.write_text(ast.unparse(ast.parse(source)))
    assert code_digest() == before


def test_a_number_in_the_code_counts(package):
    before, prefix = code_digest(), code_digest(PREFIX_MODULES)
    change(package / "train" / "optimizers.py", "1e-7", "1e-8")
    assert code_digest() != before
    assert code_digest(PREFIX_MODULES) == prefix
    change(package / "models" / "preprocessing.py", "103.939", "103.94")
    assert code_digest(PREFIX_MODULES) != prefix


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
