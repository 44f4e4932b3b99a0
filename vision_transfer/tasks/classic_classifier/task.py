"""The task `classic_classifier`: a linear or pairwise classifier on the pooled features of a frozen backbone.

The classifier is one dense layer, or two, so it is saved like any other head: as the checkpoint of a finished stage,
which prediction, evaluation and later runs read. `classifier.npz` has the same numbers for other programs: kernel
`(features, outputs)` and bias `(outputs,)`, float64 for raw features, with C and the class names; for pairs of classes
also `votes` `(outputs, classes)`: above 0 for the class that an output's sigmoid votes for, below 0 for the other one.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Int

from vision_transfer.config import Config
from vision_transfer.data.augmentation.augment import augmentation_of
from vision_transfer.errors import UserError
from vision_transfer.feature_cache.budget import Request
from vision_transfer.metrics.classification import metrics
from vision_transfer.models.heads import LOGITS, PAIRS
from vision_transfer.models.inference import infer
from vision_transfer.models.layers import PoolLayers, layer_names
from vision_transfer.models.network import Network, Params
from vision_transfer.models.shapes import pooled_width
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.prepare import Run, RunOptions
from vision_transfer.runs.stage_inputs import plain_request, stage_inputs, training_requests
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.classic_classifier.fit import (
    MOST_PAIRED_CLASSES,
    Classifier,
    Columns,
    Examples,
    Fitting,
    chosen_set,
    layer_sets,
)
from vision_transfer.tasks.train.task import claimed_run, finish, is_left_to_do, test_or_validate
from vision_transfer.tasks.train.trackers import tracking
from vision_transfer.training import checkpoints
from vision_transfer.training.loop import LAST
from vision_transfer.training.stage import Progress, StageOutcome, Weights, step_program, with_weights
from vision_transfer.training.step import initial_state


def classify(config: Config, options: RunOptions, screen: Screen) -> RunFolder:
    """Fits a classifier for each C, keeps the best on validation and tests it; returns the run's folder.

    `result.json` has the fields of a training run with one stage of one epoch, and `classifier` with all candidates.
    The loss of a support vector machine is computed with its margins as logits.

    Raises:
        UserError: a config, data, weights or folder that cannot be used.
        Stopped: asked to stop; the same command fits again, on cached features.
    """
    _check(config)
    with claimed_run(config, options, screen) as run:
        if is_left_to_do(run):
            with tracking(run) as session:
                result = _fit(run)
                if result is not None:
                    finish(run, result)
                session.finish(result)
    return run.folder


def _check(config: Config) -> None:
    """Refuses fields that make no sense for this task, with one line for each."""
    stages = [config.stages[name] for name in config.schedule]
    problems = []
    if len(stages) != 1 or stages[0].freeze != "all" or stages[0].optimizer.ema:
        problems.append("config.schedule: a classic classifier needs one stage with freeze='all' and ema=0")
    if config.model.head or config.model.pooling == "flatten":
        problems.append("config.model.pooling: a classic classifier needs 'average' or 'layers', and no own head")
    if config.classifier.pooled_layers == "select" and config.model.pooling != "layers":
        problems.append("config.classifier.pooled_layers: select needs config.model.pooling='layers'")
    if tuple(config.model.hidden):
        problems.append(f"config.model.hidden: got {config.model.hidden!r}; a classic classifier needs ()")
    augmentation = augmentation_of(config.augment)
    if augmentation is not None and not augmentation.bank and any(stage.augment for stage in stages):
        problems.append(
            "config.augment.bank: got 0; a classic classifier is fitted once, on a fixed number of variants of each "
            "image, so give that number, or set augment=False in its stage"
        )
    if config.balance == "sampling":
        problems.append("config.balance: a classic classifier samples no batches; use class_weights")
    if problems:
        raise UserError("\n".join(problems))


def _fit(run: Run) -> dict[str, Any] | None:
    """Fits, and tests the best; returns the content of `result.json`, None for a run that is not to be tested."""
    dataset, values = run.dataset, run.config.classifier
    if values.kind == "pairwise" and len(dataset.classes) > MOST_PAIRED_CLASSES:
        raise UserError(
            f"config.classifier.kind: 'pairwise' has a classifier for each pair of classes, so there may be at most "
            f"{MOST_PAIRED_CLASSES} classes; the data has {len(dataset.classes)}; use logistic_regression or svm"
        )
    if not len(dataset.validation):
        raise UserError(
            f"config.dataset.validation_fraction: got {run.config.dataset.validation_fraction:g}, which leaves no "
            "validation image; C is chosen on validation, so give more"
        )
    untaught = [name for label, name in enumerate(dataset.classes) if not np.any(dataset.train.labels == label)]
    if untaught:
        raise UserError(
            f"config.dataset.train_examples: got {len(dataset.train)}, which has no image of {untaught[0]}; a "
            "classifier needs at least one of each class"
        )
    variables = run.initial_variables()
    with run.timer.measures("features"):
        train = _pooled(run, variables, dataset.train.labels, training_requests(run, run.stages[0], variables))
        plain = plain_request(run, variables, dataset.validation)
        validation = _pooled(run, variables, dataset.validation.labels, [plain])
    began = time.perf_counter()
    with run.timer.measures("train"):
        balanced = run.config.balance == "class_weights"
        # A pair alone needs no votes, and `runs/build.py` gives it the head of a logistic regression.
        kind = "logistic_regression" if values.kind == "pairwise" and len(dataset.classes) == 2 else values.kind
        fitting = Fitting(kind, values.c_values, train, validation, _columns(run.network), balanced)
        sets = layer_sets(fitting) if values.pooled_layers == "select" else [fitting.fit(fitting.columns)]
        selected = chosen_set(sets)
        best = selected.best
    run.screen.say()
    if len(sets) > 1:
        for one in sets:
            note = "  selected" if one is selected else ""
            run.screen.say(f"  validation {one.best.validation_accuracy:.4f}  {', '.join(one.layers)}{note}")
    for one in selected.fitted:
        notes = ("  best" if one.c == best.c else "") + ("" if one.converged else "  did not converge")
        scores = f"train {one.train_accuracy:.4f}  validation {one.validation_accuracy:.4f}"
        run.screen.say(f"  C {one.c:<8g} {scores}{notes}")
    outcome = _as_stage(run, variables, best.classifier, train, validation, time.perf_counter() - began)
    run.folder.write_metrics(list(outcome.progress.history))
    arrays = {name: array for name, array in vars(best.classifier).items() if array is not None}
    with replaced_file(run.folder.coefficients_file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, c=best.c, classes=np.array(dataset.classes), **arrays)
    result = test_or_validate(run, [outcome], with_weights(variables, outcome, "best"))
    if result is None:
        return None
    tried = [
        {name: value for name, value in asdict(candidate).items() if name != "classifier"}
        for candidate in selected.fitted
    ]
    return {
        **result,
        "classifier": {
            "kind": kind,
            # The last layer before the average.
            "layer": layer_names(run.network.backbone)[-2:][0],
            "layers": list(selected.layers),
            "c": best.c,
            "candidates": tried,
            "layer_sets": [
                {"layers": list(one.layers), "c": one.best.c, "validation_accuracy": one.best.validation_accuracy}
                for one in sets
            ],
        },
    }


def _columns(network: Network) -> Columns:
    """The columns of each layer's features."""
    last = network.backbone[-1]
    if not isinstance(last, PoolLayers):
        return {layer_names(network.backbone)[-2:][0]: np.arange(network.shape_after(last.name)[-1])}
    ends = np.cumsum([pooled_width(last, network.shape_after(name)) for name in last.layers])
    starts = [0, *ends[:-1]]
    return {name: np.arange(*span) for name, *span in zip(last.layers, starts, ends, strict=True)}


def _pooled(
    run: Run, variables: dict[str, Params], labels: Int[np.ndarray, "examples"], requests: Sequence[Request]
) -> Examples:
    """The pooled features of requests for the images of these labels, from the cache if possible."""
    stage, last = run.stages[0], run.network.backbone[-1].name
    found = []
    for request in requests:
        inputs = stage_inputs(run, stage, request)
        if stage.cached == last:
            found.append(inputs[np.arange(inputs.shape[0])].astype(np.float32))
            continue
        sizes = {"batch_size": run.config.eval_batch_size, "start": stage.evaluation_start, "stop": last}
        found.append(infer(run.network, variables, inputs, run.mesh, **sizes))
    return Examples(np.concatenate(found), np.tile(labels, len(found)))


def _as_stage(
    run: Run,
    variables: dict[str, Params],
    classifier: Classifier,
    train: Examples,
    validation: Examples,
    seconds: float,
) -> StageOutcome:
    """The fitted classifier as the outcome of a stage, saved as its checkpoint."""
    stage = run.stages[0]
    head = _head(classifier, run.network.outputs)
    trained, seen = (metrics(classifier.logits(one.features), one.labels) for one in (train, validation))
    record = {
        "stage": stage.name,
        "epoch": 1,
        "train_loss": trained.loss,
        "train_accuracy": trained.accuracy,
        "validation_loss": seen.loss,
        "validation_accuracy": seen.accuracy,
        "lr": None,
        "seconds": round(seconds, 4),
    }
    progress = Progress(epoch=1, history=(record,), best_epoch=1, seconds=seconds, finished=True)
    weights = Weights(head, variables["batch_stats"])
    state = initial_state(step_program(run.config, run.network, stage), head, variables["batch_stats"])
    checkpoints.save(run.folder.checkpoints(stage.name) / LAST, 0, (state, weights), asdict(progress))
    return StageOutcome(weights, weights, progress)


def _head(classifier: Classifier, outputs: int) -> Params:
    """The parameters of the head's layers."""
    if classifier.votes is None:
        # Two classes have one margin; a network with a softmax gives class 0 a logit of zero.
        missing = outputs - classifier.kernel.shape[1]
        arrays = {LOGITS: (np.pad(classifier.kernel, ((0, 0), (missing, 0))), np.pad(classifier.bias, (missing, 0)))}
    else:
        arrays = {
            PAIRS: (classifier.kernel, classifier.bias),
            LOGITS: (classifier.votes, classifier.votes_against),
        }
    return {
        name: {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
        for name, (kernel, bias) in arrays.items()
    }
