"""The task `train`: from a config to a finished run folder, stage by stage."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from rich.markup import escape

from vision_transfer import freezing
from vision_transfer.config import Config, to_dict
from vision_transfer.data.dataset import Split
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import TestResult, evaluate_test
from vision_transfer.models.inference import Rows, infer
from vision_transfer.models.network import Params, params_of, prepared_kernels
from vision_transfer.runs.build import Stage, class_weights, stage_plan
from vision_transfer.runs.cache_plan import settled
from vision_transfer.runs.folder import RunFolder, claimed, default_folder
from vision_transfer.runs.initial_weights import initial_variables, keep_start
from vision_transfer.runs.result import build_result
from vision_transfer.runs.setup import RunOptions, Setup, prepare
from vision_transfer.runs.shared_stages import shared_stage, stage_keys
from vision_transfer.runs.stage_inputs import Feeding, split_inputs, stage_data
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh, padded_batch
from vision_transfer.runtime.files import write_json
from vision_transfer.runtime.timer import Clock
from vision_transfer.tasks.report.confusion import draw_confusion
from vision_transfer.tasks.report.curves import write_curves
from vision_transfer.tasks.report.task import report_of_finished_run
from vision_transfer.tasks.train.messages import say_result, say_setup, say_stage
from vision_transfer.tasks.train.tensorboard import can_write_events, event_files
from vision_transfer.train.loop import train_stage
from vision_transfer.train.stage_types import StageData, StageOutcome, Watch, with_weights
from vision_transfer.train.tested import chosen_variables


def train(config: Config, options: RunOptions, screen: Screen) -> RunFolder:
    """Trains a config's stages to their end, or finds the finished run; returns the run's folder.

    Raises:
        UserError: a config, data, weights or folder that cannot be used.
        Stopped: asked to stop; the same command goes on from there.
    """
    return completed(config, options, screen, _run)


def completed(
    config: Config, options: RunOptions, screen: Screen, compute: Callable[["Run"], dict[str, Any]]
) -> RunFolder:
    """Does a config in its run folder, or finds its finished run; returns the folder.

    Args:
        config: of the run.
        options: of the command.
        screen: for what the run says.
        compute: makes the content of `result.json`, which is written last, behind the figure of its confusion matrix.

    Raises:
        UserError: a config, data, weights or folder that cannot be used.
        Stopped: asked to stop; the same command goes on from there.
    """
    clock = Clock()
    kept_start = None if options.workdir is None else RunFolder(options.workdir).start
    with clock.measures("data"):
        setup = prepare(config, options.cache_dir, screen, kept_start)
    folder = (
        default_folder(config.name, setup.identity.digest) if options.workdir is None else RunFolder(options.workdir)
    )
    with claimed(folder, setup.identity):
        _check_unchanged(setup, folder, options)
        result = folder.result()
        if result is None:
            write_json(folder.config_file, to_dict(setup.config))
            write_json(folder.identity_file, {**asdict(setup.identity), "command": options.command})
            if setup.config.init_from is not None and setup.weights is not None:
                keep_start(folder.start, setup.weights)
            say_setup(setup, folder, screen)
            result = compute(_settled(Run(setup, folder, options, screen, clock, local_mesh())))
            draw_confusion(result["test"]["confusion"], setup.dataset.classes, folder.confusion_figure)
            write_json(folder.result_file, result)
            _write_report(setup, folder, options, screen)
            say_result(setup, folder, result, screen)
        else:
            # a process that was killed after its result has left no page
            if not folder.report_file.exists():
                _write_report(setup, folder, options, screen)
            _say_finished(setup, folder, result, screen)
    return folder


def _write_report(setup: Setup, folder: RunFolder, options: RunOptions, screen: Screen) -> None:
    """Writes the page that shows the run, if the config asks for one."""
    if setup.config.log.report:
        report_of_finished_run(folder.path, options.cache_dir, screen)


def _say_finished(setup: Setup, folder: RunFolder, result: dict[str, Any], screen: Screen) -> None:
    """The result of a run that was finished before.

    Raises:
        UserError: `result.json` is of another run, or not as it was written.
    """
    mend = "remove it, and the same command makes it again from the checkpoints"
    if result.get("digest") != setup.identity.digest:
        raise UserError(
            f"{folder.result_file}: is the result of another run (digest {result.get('digest')}, this one is "
            f"{setup.identity.digest}); {mend}"
        )
    screen.say(escape(f"This run is finished; its result is in {folder.path}. --rerun does it again."))
    try:
        say_result(setup, folder, result, screen)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder.result_file}: is not as it was written ({error!r}); {mend}") from error


@dataclass(frozen=True)
class Run:
    """A run under way: what it starts from, where it goes, and what it computes on."""

    setup: Setup
    folder: RunFolder
    options: RunOptions
    screen: Screen
    clock: Clock
    mesh: Mesh


def _check_unchanged(setup: Setup, folder: RunFolder, options: RunOptions) -> None:
    """Clears the folder for `--rerun`; refuses to mix what other code, versions or devices computed.

    Raises:
        UserError: the folder's run was computed by something else, and neither `--rerun` nor `--reuse` was given.
    """
    recorded = folder.identity()
    if recorded is None:
        return
    if options.rerun:
        folder.clear()
        return
    differences = setup.identity.differences(recorded)
    if differences and folder.has_trained() and not options.reuse:
        state = "finished" if folder.result() else "begun"
        raise UserError(
            f"{folder.path}: this run was {state} under other conditions, so its numbers may differ from today's:\n  "
            + "\n  ".join(differences)
            + "\n--rerun does it again from the start; --reuse takes it as it is"
        )


def _settled(run: Run) -> Run:
    """The run with the layers that its stages really start from, where the disk does not hold those it would choose."""
    setup = run.setup
    variables = partial(initial_variables, setup.network, setup.config.seed, setup.weights)
    return replace(run, setup=settled(_feeding(run), run.folder, variables))


def _run(run: Run) -> dict[str, Any]:
    """All stages and the test; the content of `result.json`."""
    setup = run.setup
    variables = initial_variables(setup.network, setup.config.seed, setup.weights)
    starts: list[dict[str, Params]] = []
    outcomes: list[StageOutcome] = []
    events = can_write_events(setup.config.log.tensorboard, run.screen)
    keys = stage_keys(setup)
    for position, stage in enumerate(setup.stages):
        if outcomes:
            variables = with_weights(variables, outcomes[-1], stage.start_from)
        starts.append(variables)
        checkpoints = run.folder.checkpoints(stage.name)
        shared = shared_stage(run.options.shared_stages, keys[position], checkpoints, run.screen)
        with shared, run.clock.measures("train"):
            outcomes.append(_run_stage(run, position, variables, outcomes, events))
    # Again for all stages: a process killed between a last checkpoint and its record left one out.
    records = [record for outcome in outcomes for record in outcome.progress.history]
    run.folder.write_metrics(records)
    best_epochs = {
        stage.name: outcome.progress.best_epoch for stage, outcome in zip(setup.stages, outcomes, strict=True)
    }
    write_curves(records, best_epochs, run.folder.curves_figure, f"{setup.config.name} on {setup.dataset.name}")
    variables = chosen_variables(starts, outcomes, setup.config.evaluate)
    with run.clock.measures("evaluate"):
        test = run_test(run, variables)
    return build_result(setup, outcomes, test, run.clock)


def _run_stage(
    run: Run, position: int, variables: dict[str, Params], earlier: list[StageOutcome], events: bool
) -> StageOutcome:
    setup, stage = run.setup, run.setup.stages[position]
    train = setup.dataset.train
    weights = class_weights(setup.config, train.labels, len(setup.dataset.classes))
    plan = stage_plan(setup.config, stage, setup.network, len(train), weights)
    trainable, frozen = freezing.partition(variables["params"], stage.mask)
    say_stage(stage, plan, freezing.counts(variables["params"], stage.mask), run.screen)
    finished = [record for outcome in earlier for record in outcome.progress.history]
    with event_files(run.folder.event_files / stage.name) if events else nullcontext() as write_events:

        def record(history: tuple[dict[str, Any], ...]) -> None:
            run.folder.write_metrics([*finished, *history])
            if write_events is not None:
                write_events(history)

        return train_stage(
            plan,
            trainable,
            _frozen_collections(run, stage, frozen),
            variables["batch_stats"],
            lambda: _stage_data(run, position, variables),
            run.mesh,
            run.folder.checkpoints(stage.name),
            Watch(run.screen, record, run.options.stop),
        )


def _stage_data(run: Run, position: int, variables: dict[str, Params]) -> StageData:
    with run.clock.measures("features"):
        return stage_data(_feeding(run), position, variables)


def stage_inputs(run: Run, stage: Stage, variables: dict[str, Params], split: Split) -> Rows:
    """What a stage's steps start from, without augmentation: cached features of a split, or its images."""
    return split_inputs(_feeding(run), stage, variables, split)


def _feeding(run: Run) -> Feeding:
    return Feeding(run.setup, run.mesh, run.options.cache_dir, run.screen)


def run_test(run: Run, variables: dict[str, Params]) -> TestResult:
    """The only place where the test split is looked at, once, with the final parameters.

    Their logits of the validation split are kept too, for calibration.
    """
    test, validation = run.setup.dataset.test, run.setup.dataset.validation
    logits = _final_logits(run, variables, test)
    kept = (_final_logits(run, variables, validation), validation.labels) if len(validation) else None
    run.folder.write_predictions(logits, test.labels, test.files, kept)
    return evaluate_test(logits, test.labels)


def _final_logits(run: Run, variables: dict[str, Params], split: Split) -> Float[np.ndarray, "examples outputs"]:
    setup, stage = run.setup, run.setup.stages[-1]
    with run.clock.measures("features"):
        inputs = stage_inputs(run, stage, variables, split)
    return infer(
        setup.network,
        variables,
        inputs,
        run.mesh,
        batch_size=setup.config.eval_batch_size,
        start=stage.evaluation_start,
    )


def _frozen_collections(run: Run, stage: Stage, frozen: Params) -> dict[str, Params]:
    """What a step needs of the frozen parameters: those of the layers that run in it, and their prepared kernels."""
    setup = run.setup
    batch = padded_batch(setup.config.batch_size, run.mesh) // run.mesh.size
    return {
        "params": params_of(setup.network.between(stage.start), frozen),
        "prepared": prepared_kernels(setup.network, frozen, batch=batch, start=stage.start),
    }
