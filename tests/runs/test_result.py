"""Records of epochs in `result.json`."""

from vision_transfer.runs.result import epoch_record
from vision_transfer.training.stage import Progress


def test_where_no_epoch_was_best_no_epoch_s_numbers_are_reported():
    history = tuple({"epoch": epoch, "train_loss": 0.5, "validation_loss": None} for epoch in (1, 2))
    progress = Progress(epoch=2, history=history)
    assert epoch_record(progress, 2)["epoch"] == 2
    assert set(epoch_record(progress, 0).values()) == {None}
