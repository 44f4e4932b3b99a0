"""`--mode=predict`: the table of a pattern of files."""

import csv

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.predict import Predictor
from vision_transfer.tasks.predict import predict


def test_the_table_of_a_pattern(finished_run, class_folders, run_caches, screen, tmp_path):
    predictor = Predictor.load(finished_run, run_caches)
    out = tmp_path / "new" / "predictions.csv"
    predict([finished_run], str(class_folders / "test/**/*.*"), str(out), run_caches, screen)
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 21
    for row, prediction in zip(rows, predictor([row["file"] for row in rows]), strict=True):
        assert row["class"] == prediction.class_name
        shares = [float(row[f"probability_{name}"]) for name in predictor.classes]
        np.testing.assert_allclose(shares, prediction.probabilities, rtol=1e-8)
    shown = screen.console.file.getvalue()
    assert "temperature" in shown and "grey [or so]" in shown
    assert [path.name for path in out.parent.iterdir()] == ["predictions.csv"]


def test_a_message_names_what_is_missing(finished_run, run_caches, screen, tmp_path):
    with pytest.raises(UserError, match="--out"):
        predict([finished_run], "*.jpg", None, run_caches, screen)
    with pytest.raises(UserError, match="not the folder of a run"):
        predict([tmp_path], __file__, str(tmp_path / "out.csv"), run_caches, screen)
