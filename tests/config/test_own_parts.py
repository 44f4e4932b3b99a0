"""References to parts of the user's own: tied to a digest, found again by it, and run only with trust."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from vision_transfer.config import (
    checked,
    default_config,
    digested,
    read_config,
    stage,
    to_dict,
    with_extra,
    with_stages,
)
from vision_transfer.config.own_parts import TRUST_VARIABLE, call_part, keep_sources, part, references, with_sources
from vision_transfer.errors import UserError

TEXT = "def answer(value=42):\n    return value\n\n\ndef fails():\n    raise ValueError('no')\n"


@pytest.fixture(autouse=True)
def no_trust(monkeypatch):
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)


@pytest.fixture
def parts(tmp_path, request):
    """A file of parts that no other test has."""
    file = tmp_path / "mine.py"
    file.write_text(f"# {request.node.name}\n{TEXT}")
    return file


def config_with(**values):
    config = with_stages(default_config(), head=stage())
    for path, value in values.items():
        config.model[path] = value
    return checked(config)


def test_a_reference_is_tied_to_the_text_and_not_to_the_place(parts, tmp_path):
    tied = with_sources(config_with(backbone=f"{parts}:answer", head=f"{parts}:fails"))
    assert tied.model.backbone.startswith("mine.py:answer@")
    assert references(tied) == [tied.model.backbone, tied.model.head]
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "mine.py"
    copy.write_text(parts.read_text())
    assert digested(with_sources(config_with(backbone=f"{copy}:answer", head=f"{copy}:fails"))) == digested(tied)
    copy.write_text(parts.read_text() + "# changed")
    assert with_sources(config_with(backbone=f"{copy}:answer")).model.backbone != tied.model.backbone


def test_copies_are_found_by_their_digest_and_the_name_of_the_original(parts, tmp_path):
    given = config_with(backbone=f"{parts}:answer")
    tied, kept = with_sources(given), tmp_path / "kept"
    keep_sources(tied, kept)
    parts.unlink()
    assert with_sources(given, kept) == with_sources(tied, kept) == tied
    with pytest.raises(UserError, match=r"config\.model\.backbone: there is no file .*mine\.py"):
        with_sources(given)


def test_a_copy_that_was_changed_is_not_taken(parts, tmp_path):
    other = tmp_path / "kept"
    other.mkdir()
    (other / f"mine-{'0' * 16}.py").write_text(TEXT)
    with pytest.raises(UserError, match=r"is not in .*kept, or was changed there; bring back mine-0{16}\.py"):
        with_sources(config_with(backbone=f"mine.py:answer@{'0' * 16}"), other)


def test_nothing_is_run_without_trust(parts, monkeypatch):
    parts.write_text(parts.read_text() + "import os\nos.environ['RUN'] = 'yes'\n")
    monkeypatch.delenv("RUN", raising=False)
    reference = with_sources(config_with(backbone=f"{parts}:answer")).model.backbone
    with pytest.raises(UserError, match=r"would run the code in .*mine\.py \(function answer\).*--trust"):
        part(reference)
    assert "RUN" not in os.environ
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    monkeypatch.setenv("RUN", "no")
    assert call_part(reference) == 42
    assert call_part(reference, 3) == 3
    assert os.environ["RUN"] == "yes"


def test_mistakes_in_a_part_are_messages(parts, monkeypatch):
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    tied = with_sources(config_with(backbone=f"{parts}:fails", head=f"{parts}:missing"))
    with pytest.raises(UserError, match=r"mine\.py:fails@\w+, line 7: ValueError: no"):
        call_part(tied.model.backbone)
    with pytest.raises(UserError, match=r"mine\.py has no function missing"):
        part(tied.model.head)
    parts.write_text("import no_such_module\n")
    with pytest.raises(UserError, match=r"mine\.py, line 1: ModuleNotFoundError"):
        part(with_sources(config_with(backbone=f"{parts}:answer")).model.backbone)


def test_a_module_is_a_file_too():
    tied = with_sources(config_with(backbone="vision_transfer.errors:visible")).model.backbone
    assert tied.startswith("errors.py:visible@")
    with pytest.raises(UserError, match="there is no module vgg"):
        with_sources(config_with(backbone="vgg:16b".replace("16b", "b")))


def test_a_metric_has_a_name_of_its_own():
    config = with_stages(default_config(), head=stage())
    for metrics in (("x.py:accuracy",), ("x.py:f1", "y.py:f1"), ("f1",)):
        config.metrics = metrics
        with pytest.raises(UserError, match=r"config\.metrics: got .*a name that no other metric has"):
            checked(config)


def test_backbones_that_a_sweep_compares_are_tied_too(parts):
    config = with_stages(default_config(), head=stage())
    config.ablation.backbones = ("vgg16", f"{parts}:answer")
    vgg, own = with_sources(checked(config)).ablation.backbones
    assert vgg == "vgg16"
    assert own.startswith("mine.py:answer@")


@pytest.mark.parametrize("value", [Path("folder"), float("nan"), np.float32(1)])
def test_a_field_of_the_users_own_that_no_file_can_hold_is_named(value):
    config = with_extra(with_stages(default_config(), head=stage()), camera=value)
    with pytest.raises(UserError, match="extra: allowed are texts, finite numbers"):
        checked(config)


def test_fields_of_the_users_own_are_recorded_and_count(tmp_path):
    config = with_extra(with_stages(default_config(), head=stage()), camera="left", shape=(3, 4))
    found = checked(config)
    assert found.extra == {"camera": "left", "shape": [3, 4]}
    assert digested(found)["extra.camera"] == "left"
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict(found)))
    assert read_config(file) == found
    config.extra.camera = "right"
    assert digested(checked(config)) != digested(found)
    with pytest.raises(AttributeError):
        config.extra.lens = "wide"


def test_a_package_is_not_imported_to_find_a_module_in_it(tmp_path, monkeypatch):
    package = tmp_path / f"package_{os.getpid()}"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('ran without trust')\n")
    (package / "parts.py").write_text(TEXT)
    monkeypatch.syspath_prepend(tmp_path)
    tied = with_sources(config_with(backbone=f"{package.name}.parts:answer"))
    assert tied.model.backbone.startswith("parts.py:answer@")
    with pytest.raises(UserError, match="no module"):
        with_sources(config_with(backbone=f"{package.name}.others:answer"))


def test_a_file_may_begin_with_a_mark_of_its_encoding(parts, monkeypatch):
    parts.write_text(parts.read_text(), encoding="utf-8-sig")
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    assert call_part(with_sources(config_with(backbone=f"{parts}:answer")).model.backbone) == 42
