"""`vt.train`: its arguments stay as they are."""

import pytest

from vision_transfer.config.files import load_config
from vision_transfer.errors import UserError
from vision_transfer.tasks.train import from_python


def test_fields_change_a_copy_of_the_config(monkeypatch, tmp_path, screen):
    seeds = []

    def note(config, options, screen):
        seeds.append(config.seed)
        raise UserError("noted")

    monkeypatch.setattr(from_python, "train_config", note)
    config = load_config("recommended")
    for fields in ({"seed": 7}, {}):
        with pytest.raises(UserError, match="noted"):
            from_python.train(config, fields, workdir=tmp_path / "run", screen=screen)
    assert seeds == [7, 0]
