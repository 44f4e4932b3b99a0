"""Event files for TensorBoard, as an option: the records of `metrics.jsonl`, each stage in folders of its own."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.markup import escape

from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.program import install_extra

# TensorBoard draws curves of the same tag in one plot, labelled by folder.
TAGS = {
    "train": {"train_loss": "loss", "train_accuracy": "accuracy", "lr": "lr", "seconds": "seconds"},
    "validation": {"validation_loss": "loss", "validation_accuracy": "accuracy"},
}

Write = Callable[[Sequence[dict[str, Any]]], None]


def can_write_events(wanted: bool, screen: Screen) -> bool:
    """Whether event files are wanted and can be written; shows what is missing if not."""
    if wanted and importlib.util.find_spec("tensorboardX") is None:
        screen.say(
            escape(
                f"config.log.tensorboard: tensorboardX is not installed ({install_extra('log')}); the run goes on "
                "without event files, and metrics.jsonl has the same numbers."
            ),
            style="yellow",
        )
        return False
    return wanted


@contextmanager
def event_files(folder: Path) -> Iterator[Write]:
    """Yields a function that takes all records of a stage so far and writes those that are new.

    What an earlier process left in the folder is replaced at the first call, so that no epoch is in it twice.

    Args:
        folder: of the stage's event files, with folders `train` and `validation` in it.
    """
    from tensorboardX import SummaryWriter

    writers: dict[str, Any] = {}
    written = 0

    def write(records: Sequence[dict[str, Any]]) -> None:
        nonlocal written
        if not writers:
            shutil.rmtree(folder, ignore_errors=True)
            writers.update({split: SummaryWriter(str(folder / split)) for split in TAGS})
        for record in records[written:]:
            for split, tags in TAGS.items():
                for key, tag in tags.items():
                    if record[key] is not None:
                        writers[split].add_scalar(tag, record[key], record["epoch"])
        written = len(records)
        for writer in writers.values():
            writer.flush()

    try:
        yield write
    finally:
        for writer in writers.values():
            writer.close()
