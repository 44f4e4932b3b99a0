"""Finished stages that runs take from each other: a head stage is trained once for all masks that begin with it.

A stage's key is a digest of all that determines its numbers: the values outside of stages, the data, the starting
weights, the stages up to it in their order, what they start from, and code, versions and device. Keys are chained
thereby: runs share the stages up to the first one in which they differ. A shared stage is its last checkpoint, which
records that it is finished; files are hard-linked where the disk allows it, so that sharing takes no space.
"""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from vision_transfer.config import digested
from vision_transfer.runs.prepare import Run
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import new_folder, remove_leftovers, waited_for
from vision_transfer.runtime.provenance import json_digest
from vision_transfer.training import checkpoints
from vision_transfer.training.loop import LAST

# Of no influence on what a stage ends with.
NOT_IN_STAGES = ("name", "evaluate", "schedule", "init_from_layers")


def stage_digests(run: Run) -> list[str]:
    """A key for each stage of a run, in their order; the layers that stages start from are chosen already."""
    values = digested(run.config)
    common = {
        path: value for path, value in values.items() if path not in NOT_IN_STAGES and not path.startswith("stages.")
    }
    identity = run.identity
    key = json_digest(
        {
            "config": common,
            "data": run.dataset.fingerprint,
            "weights": None if run.weights is None else run.weights.sha256,
            "conditions": [identity.code, dict(identity.versions), identity.device],
        }
    )
    keys: list[str] = []
    for stage in run.stages:
        prefix = f"stages.{stage.name}."
        own = {path.removeprefix(prefix): value for path, value in values.items() if path.startswith(prefix)}
        key = json_digest([key, stage.name, own, stage.start, stage.evaluation_start])
        keys.append(key)
    return keys


@contextmanager
def shared_stage(store: Path | None, key: str, folder: Path, screen: Screen) -> Generator[None]:
    """Around the training of a stage: takes it finished if another run has left it, and leaves it for others.

    While it is trained others that need it wait; if this process dies, one of them trains it. Without a store nothing
    is shared. `folder` has the stage's checkpoints in the run.
    """
    if store is None or _is_finished(folder / LAST):
        yield
        return
    store.mkdir(parents=True, exist_ok=True)
    with waited_for(
        FileLock(store / f"{key}.lock"), f"training the stage {folder.name}, which this run shares", screen
    ):
        kept = store / key / LAST
        checkpoints.clean(store / key)
        if _is_finished(kept):
            # Whatever this run has trained of the stage would end the same.
            _replace(kept, folder / LAST)
            screen.say(f"\nStage {folder.name} was trained by a run that shares it, and is taken from there.")
        yield
        if not kept.exists() and _is_finished(folder / LAST):
            _replace(folder / LAST, kept)


def _is_finished(folder: Path) -> bool:
    metadata = checkpoints.load_metadata(folder)
    return metadata is not None and bool(metadata.get("finished"))


def _replace(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    with new_folder(target) as temporary:
        shutil.copytree(source, temporary, copy_function=_linked, dirs_exist_ok=True)
        if target.exists():
            shutil.rmtree(target)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
