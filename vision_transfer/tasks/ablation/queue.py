"""What a worker does: it takes runs of a sweep that nobody is at work on, until all are finished or have failed."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from rich.markup import escape

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import DEFAULT_ROOT, FolderBusy, Identity, RunFolder, read_json
from vision_transfer.runs.prepare import RunOptions, device_text
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import held
from vision_transfer.runtime.provenance import code_digest, versions
from vision_transfer.tasks.ablation.grid import first_stage_key, run_key
from vision_transfer.tasks.ablation.sweep import SweepFolder, finished_run, note_failed, note_finished
from vision_transfer.tasks.study.plan import PlannedRun, Study

# Does a config, or finds its finished run.
Launch = Callable[[Config, RunOptions, Screen], RunFolder]
SHARED_STAGES = DEFAULT_ROOT / ".stages"
# Between two looks at runs that others are at work on.
SECONDS_BETWEEN_LOOKS = 1.0


def conditions() -> Identity:
    """Code, versions and device of this process."""
    return Identity("", code_digest(), versions(), device_text())


def work(
    study: Study,
    folder: SweepFolder,
    options: RunOptions,
    launch: Launch,
    screen: Screen,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Does the runs of a sweep that are left, beside other workers; returns when there are none.

    A run that cannot be done (such as one whose loss is not finite) is recorded as failed, and the others go on. Runs
    of others are waited for, so that none is lost when their worker dies.

    Args:
        study: the plan.
        folder: of the sweep.
        options: of every run; its `workdir` is not used.
        launch: does a run.
        screen: for what the runs say.
        wait: given seconds; called between two looks.

    Raises:
        Stopped: asked to stop; another call goes on from there.
    """
    now = None if options.reuse else conditions()
    own = replace(options, workdir=None, shared_stages=None if options.rerun else SHARED_STAGES)
    left = list(study.runs)
    while left:
        still_left = [run for run in left if not _attempt(run, study, folder, own, now, launch, screen)]
        if len(still_left) == len(left):
            wait(SECONDS_BETWEEN_LOOKS)
        left = still_left


def _attempt(
    run: PlannedRun,
    study: Study,
    folder: SweepFolder,
    options: RunOptions,
    now: Identity | None,
    launch: Launch,
    screen: Screen,
) -> bool:
    """Does a run unless others are at work on it, or on the first stage that it shares with theirs."""
    first_stage = first_stage_key(run.config)
    with ExitStack() as claims:
        if not claims.enter_context(held(folder.lock(run_key(run.config)))):
            return False
        if finished_run(run, folder, now) is not None or _has_failed(run, folder):
            return True
        begun = folder.begun_file(first_stage).exists()
        if not begun and not claims.enter_context(held(folder.lock(f"first-{first_stage}"))):
            return False
        screen.say()
        number = study.runs.index(run) + 1
        screen.say(escape(f"Run {number} of {len(study.runs)}: {run.name}"), style="bold")
        try:
            run_folder = launch(run.config, options, screen)
        except FolderBusy:  # a run of another sweep, too
            return False
        except UserError as error:
            note_failed(run, folder, str(error))
            screen.say(escape(f"This run failed: {error}"), style="red")
            return True
        note_finished(run, folder, run_folder.path.absolute())
        return True


def _has_failed(run: PlannedRun, folder: SweepFolder) -> bool:
    return "error" in (read_json(folder.record_file(run_key(run.config))) or {})
