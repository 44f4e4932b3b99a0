"""Records of epochs in `result.json`."""

from vision_transfer.runs.result import epoch_record, epoch_seconds
from vision_transfer.training.stage import Progress


def test_where_no_epoch_was_best_no_epoch_s_numbers_are_reported():
    history = tuple({"epoch": epoch, "train_loss": 0.5, "validation_loss": None} for epoch in (1, 2))
    progress = Progress(epoch=2, history=history)
    assert epoch_record(progress, 2)["epoch"] == 2
    assert set(epoch_record(progress, 0).values()) == {None}


def test_the_time_of_an_epoch_is_without_the_first_which_compiles():
    def seconds(*of_epochs):
        return epoch_seconds(Progress(history=tuple({"seconds": one} for one in of_epochs)))

    assert seconds(18.5, 7.5, 7.0, 8.0) == 7.5
    assert (seconds(18.5), seconds()) == (18.5, 0.0)
