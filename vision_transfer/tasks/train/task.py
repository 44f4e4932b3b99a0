"""The task `train`: from a config to a finished run folder, stage by stage."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from vision_transfer.config import Config, to_dict
from vision_transfer.config.own_parts import keep_sources
from vision_transfer.data.dataset import Split
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import TestResult, evaluate_test
from vision_transfer.metrics.cross_validation import evaluate_out_of_fold
from vision_transfer.models.inference import infer
from vision_transfer.predict.decision import (
    check_decision,
    is_asked_for,
    kept_decision,
    meaning,
    reason,
    write_decision,
)
from vision_transfer.predict.temperature import write_calibration
from vision_transfer.runs.cache_plan import with_cached_layers
from vision_transfer.runs.folder import OtherConditions, RunFolder, claimed, read_json
from vision_transfer.runs.initial_weights import needs_own_copy, save_initial_weights
from vision_transfer.runs.manifest import check_files, write_result
from vision_transfer.runs.prepare import Run, RunOptions, prepare
from vision_transfer.runs.result import build_result
from vision_transfer.runs.shared_stages import shared_stage, stage_digests
from vision_transfer.runs.stage_inputs import split_inputs, stage_data
from vision_transfer.runs.trained import write_trained
from vision_transfer.runtime import hosts
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import write_json
from vision_transfer.runtime.preemption import Stopped
from vision_transfer.tasks.figures import draw_or_say_why
from vision_transfer.tasks.report.confusion import draw_confusion
from vision_transfer.tasks.report.curves import draw_curves
from vision_transfer.tasks.report.task import report_of_finished_run
from vision_transfer.tasks.train.messages import say_end_of_schedule, say_result, say_run, say_stage
from vision_transfer.tasks.train.trackers import Session, check_tracker, tracking
from vision_transfer.training.loop import train_stage
from vision_transfer.training.stage import (
    StageOutcome,
    Surroundings,
    TrainingData,
    Variables,
    chosen_variables,
    ends_before,
    with_weights,
)
from vision_transfer.training.validation import own_metrics


def train(config: Config, options: RunOptions, screen: Screen) -> RunFolder:
    """Trains a config's stages to their end and tests, or shows the finished run; returns the run's folder.

    Raises:
        UserError: a config, data, weights or folder that cannot be used.
        Stopped: asked to stop; the same command resumes from there.
    """
    with claimed_run(config, options, screen) as run:
        if is_left_to_do(run):
            try:
                with tracking(run) as session:
                    run, outcomes, variables = train_stages(run, session)
                    result = test_or_validate(run, outcomes, variables)
                    if hosts.is_first():
                        if result is not None:
                            finish(run, result)
                        session.finish(result)
            except Stopped:
                write_json(run.folder.spent_file, run.timer.so_far())
                raise
    return run.folder


@contextmanager
def claimed_run(config: Config, options: RunOptions, screen: Screen) -> Iterator[Run]:
    """A run whose folder is held for this process; the result of a finished one is shown.

    Raises:
        UserError: a config, data, weights or folder that cannot be used, or another process uses the folder.
    """
    check_tracker(config)
    run = prepare(config, options, screen)
    check_decision(config.decision, run.dataset.classes, run.dataset.validation.labels)
    # the folder is the first host's; the others write into a temporary one
    with hosts.scratch_folder() as scratch, claimed(folder := RunFolder(scratch or run.folder.path), run.identity):
        run = replace(run, folder=folder)
        _check_unchanged(run)
        result = folder.result()
        if not hosts.from_first("finished", result is not None):
            _describe(run)
            run.timer.resume(_spent(run.folder))
            run = with_cached_layers(run)
        elif result is not None:
            check_files(run.folder)
            if is_asked_for(run.config.decision, kept_decision(run.folder), run.dataset.classes):
                _decide(run)
                write_result(run.folder, run.identity.digest, result)
                _write_report(run)
            elif not run.folder.report_file.exists():  # a process that was killed after its result
                _write_report(run)
            _say_finished(run, result)
        yield run


def finish(run: Run, result: dict[str, Any]) -> None:
    """Draws the confusion matrix, writes calibration, decision, manifest, `result.json` and the page; shows them."""
    confusion, classes, file = result["test"]["confusion"], run.dataset.classes, run.folder.confusion_figure
    draw_or_say_why(file, lambda: draw_confusion(confusion, classes, file), run.screen)
    write_calibration(run.folder)
    _decide(run)
    write_result(run.folder, run.identity.digest, result)
    for file in (run.folder.spent_file, run.folder.trained_file):
        file.unlink(missing_ok=True)
    _write_report(run)
    say_result(run, result)


def _decide(run: Run) -> None:
    """Writes the decision that the config asks for, or says why it cannot: that must not cost what was trained."""
    try:
        write_decision(run.folder, run.config.decision, run.dataset.classes)
    except UserError as error:
        earlier = kept_decision(run.folder)
        kept = "" if earlier is None else f". The run keeps the earlier one: {meaning(earlier)} ({reason(earlier)})"
        run.screen.say(f"No threshold was chosen. {error}{kept}", style="yellow")


def is_left_to_do(run: Run) -> bool:
    """Whether the result of a run that is held is still missing, or `trained.json` if it is not to be tested."""
    left = run.folder.result() is None and (run.options.test or run.folder.trained() is None)
    return hosts.from_first("left to do", left)


def train_stages(run: Run, session: Session) -> tuple[Run, list[StageOutcome], Variables]:
    """Trains all stages; returns the run with those that the schedule reached, their outcomes, and what is tested."""
    variables = run.initial_variables()
    starts: list[Variables] = []
    outcomes: list[StageOutcome] = []
    keys = stage_digests(run)
    # Stages that other code may have begun, which `--reuse` goes on with or once went on with, are for this run alone.
    is_begun = any(run.folder.checkpoints(stage.name).exists() for stage in run.stages)
    has_earlier = bool((run.folder.identity() or {}).get("earlier"))
    store = None if (run.options.reuse or has_earlier) and is_begun else run.options.shared_stages
    for position, stage in enumerate(run.stages):
        if ends_before(stage, outcomes):
            say_end_of_schedule(run, stage)
            break
        if outcomes:
            variables = with_weights(variables, outcomes[-1], stage.settings.start_from)
        starts.append(variables)
        checkpoints = run.folder.checkpoints(stage.name)
        shared = shared_stage(store, keys[position], checkpoints, run.screen)
        with shared, run.timer.measures("train"):
            say_stage(run, stage)

            def record(history: tuple[dict[str, Any], ...]) -> None:
                records = [*_records(outcomes), *history]
                run.folder.write_metrics(records)
                write_json(run.folder.spent_file, run.timer.so_far())
                session.log(records)

            def data(position: int = position, variables: Variables = variables) -> TrainingData:
                with run.timer.measures("features"):
                    return stage_data(run, position, variables)

            around = Surroundings(checkpoints, run.screen, record, run.options.stop)
            outcomes.append(train_stage(run.config, run.network, stage, variables, data, run.mesh, around))
    run = replace(run, stages=run.stages[: len(outcomes)])
    # Again for all stages: a process killed between a last checkpoint and its record left one out.
    records = _records(outcomes)
    run.folder.write_metrics(records)
    best_epochs = {stage.name: outcome.progress.best_epoch for stage, outcome in zip(run.stages, outcomes, strict=True)}
    title, file = f"{run.config.name} on {run.dataset.name}", run.folder.curves_figure
    draw_or_say_why(file, lambda: draw_curves(records, best_epochs, file, title), run.screen)
    return run, outcomes, chosen_variables(starts, outcomes, run.config.evaluate)


def test_or_validate(run: Run, outcomes: list[StageOutcome], variables: Variables) -> dict[str, Any] | None:
    """Tests the final parameters; returns the content of `result.json`.

    Of a run that is not to be tested, it writes the validation instead, and returns None.
    """
    if run.options.test:
        with run.timer.measures("evaluate"):
            test, own = run_test(run, variables)
        return build_result(run, outcomes, test, own)
    validation = run.dataset.validation
    with run.timer.measures("evaluate"):
        logits = _final_logits(run, variables, validation)
    write_json(run.folder.spent_file, run.timer.so_far())
    write_trained(run, outcomes, logits, validation.labels)
    return None


def run_test(run: Run, variables: Variables) -> tuple[TestResult, dict[str, float | None]]:
    """Tests the final parameters, the only place where the test split is used, once; with the user's own metrics.

    Their logits of the validation split are kept too, for calibration. A run on all folds of data without a test split
    has the predictions of the folds' runs instead: those of models like it for images that they did not see.
    """
    test, validation, folds = run.dataset.test, run.dataset.validation, run.options.out_of_fold
    if len(test) or folds is None:
        logits, labels, files, fold_of = _final_logits(run, variables, test), test.labels, test.files, None
        found = evaluate_test(logits, labels)
    else:
        logits, labels, files, fold_of = folds.logits, folds.labels, folds.files, folds.folds
        found = evaluate_out_of_fold(logits, labels, fold_of)
    kept = (_final_logits(run, variables, validation), validation.labels) if len(validation) else None
    run.folder.write_predictions(logits, labels, files, kept, fold_of)
    return found, own_metrics(run.config.metrics, logits, labels)


def _final_logits(run: Run, variables: Variables, split: Split) -> Float[np.ndarray, "examples outputs"]:
    stage = run.stages[-1]
    with run.timer.measures("features"):
        inputs = split_inputs(run, stage, variables, split)
    return infer(
        run.network, variables, inputs, run.mesh, batch_size=run.config.eval_batch_size, start=stage.evaluation_start
    )


def _spent(folder: RunFolder) -> dict[str, float]:
    """Seconds by activity of the earlier attempts at a run; none if they cannot be read, since nothing needs them."""
    try:
        found = read_json(folder.spent_file) or {}
    except UserError:
        return {}
    return {name: float(spent) for name, spent in found.items() if isinstance(spent, int | float)}


def _records(outcomes: list[StageOutcome]) -> list[dict[str, Any]]:
    return [record for outcome in outcomes for record in outcome.progress.history]


def _describe(run: Run) -> None:
    """Writes what the run is into its folder, and shows it."""
    keep_sources(run.config, run.folder.parts)
    write_json(run.folder.config_file, to_dict(run.config))
    recorded = run.folder.identity() or {}
    earlier = list(recorded.get("earlier", []))
    if recorded and run.identity.differences(recorded):
        earlier.append({name: recorded.get(name) for name in ("code", "versions", "device")})
    also = {"earlier": earlier} if earlier else {}
    write_json(run.folder.identity_file, {**asdict(run.identity), "command": run.options.command, **also})
    if needs_own_copy(run.config) and run.weights is not None and hosts.is_first():
        save_initial_weights(run.folder.start, run.weights, run.network)
    say_run(run)


def _check_unchanged(run: Run) -> None:
    """Clears the folder for `--rerun`; refuses to mix what other code, versions or devices computed.

    Raises:
        OtherConditions: the folder's run was computed by something else, and neither `--rerun` nor `--reuse` was given.
    """
    recorded = run.folder.identity()
    if recorded is None:
        return
    if run.options.rerun:
        run.folder.clear()
        return
    differences = run.identity.differences(recorded)
    if differences and run.folder.has_trained() and not run.options.reuse:
        state = "finished" if run.folder.result() else "started"
        raise OtherConditions(
            f"{run.folder.path}: this run was {state} under other conditions, so its numbers may differ from today's:\n"
            "  " + "\n  ".join(differences) + "\n--rerun does it again from the start; --reuse takes it as it is"
        )


def _write_report(run: Run) -> None:
    if run.config.log.report:
        report_of_finished_run(run.folder.path, run.options.cache_dir, run.screen)


def _say_finished(run: Run, result: dict[str, Any]) -> None:
    """Shows the result of a run that was finished before.

    Raises:
        UserError: `result.json` is of another run, or damaged.
    """
    fix = "remove it, and the same command makes it again from the checkpoints"
    file, digest = run.folder.result_file, run.identity.digest
    if result.get("digest") != digest:
        raise UserError(
            f"{file}: is the result of another run (digest {result.get('digest')}, this one is {digest}); {fix}"
        )
    run.screen.say(f"This run is finished; its result is in {run.folder.path}. --rerun does it again.")
    try:
        say_result(run, result)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: is damaged or was edited ({error!r}); {fix}") from error
