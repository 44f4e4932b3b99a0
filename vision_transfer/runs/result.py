"""`result.json`: what a finished run found, in the form that tools rely on."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, cast

import numpy as np

from vision_transfer import freezing
from vision_transfer.metrics.classification import TestResult, cohen_kappa, matthews, per_class
from vision_transfer.metrics.ranking import mean_defined
from vision_transfer.models.network import all_parameter_shapes
from vision_transfer.runs.prepare import Run
from vision_transfer.runtime.devices import device_peak_bytes
from vision_transfer.training.stage import Progress, Stage, StageOutcome, chosen_epoch

ACTIVITIES = ("data", "features", "train", "evaluate")


def build_result(
    run: Run, outcomes: Sequence[StageOutcome], test: TestResult, own: Mapping[str, float | None]
) -> dict[str, Any]:
    """The content of `result.json`, as JSON values; `own` are metrics of the user's own on the test."""
    dataset, weights, identity = run.dataset, run.weights, run.identity
    trained = trained_facts(run, outcomes)
    return {
        "name": run.config.name,
        "digest": identity.digest,
        "code_digest": identity.code,
        "dataset": {
            "name": dataset.name,
            "note": dataset.note,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "sizes": {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)},
            "skipped": [{"file": skipped.file, "reason": skipped.reason} for skipped in dataset.skipped],
        },
        "weights": {
            "source": "random initialisation" if weights is None else weights.source,
            "sha256": None if weights is None else weights.sha256,
            "licence": None if weights is None else weights.licence,
        },
        "parameters": _parameters(run, run.stages[-1]),
        "stages": trained["stages"],
        "tested": _tested(run, outcomes),
        "test": {
            **split_metrics(test, dataset.classes),
            **({"folds": test.folds} if test.folds else {}),
            **({"own": dict(own)} if own else {}),
        },
        "seconds": trained["seconds"],
        "memory": {"process_peak_bytes": dict(run.timer.peak_bytes), "device_peak_bytes": device_peak_bytes()},
        "device": identity.device,
        "versions": dict(identity.versions),
    }


def trained_facts(run: Run, outcomes: Sequence[StageOutcome]) -> dict[str, Any]:
    """The fields of `result.json` that are known before the test: the stages, and seconds so far by activity."""
    seconds = {activity: round(run.timer.seconds.get(activity, 0.0), 3) for activity in ACTIVITIES}
    return {
        "stages": [_stage(run, stage, outcome) for stage, outcome in zip(run.stages, outcomes, strict=True)],
        "seconds": {"total": round(sum(run.timer.seconds.values()), 3), **seconds},
    }


def split_metrics(test: TestResult, classes: Sequence[str]) -> dict[str, Any]:
    """All metrics of a split and of each class as JSON values; None where a metric is not defined.

    ROC-AUC and average precision are of one class against the rest; those of the split are the mean over classes.
    """
    confusion, ranked = np.asarray(test.confusion), test.ranking
    of_classes = per_class(confusion)
    columns = {
        "precision": of_classes.precision,
        "recall": of_classes.recall,
        "f1": of_classes.f1,
        "roc_auc": ranked.roc_auc,
        "average_precision": ranked.average_precision,
    }
    intervals = {"precision_ci95": of_classes.precision_ci95, "recall_ci95": of_classes.recall_ci95}
    return {
        "loss": test.loss,
        "accuracy": test.accuracy,
        "accuracy_ci95": list(test.accuracy_ci95),
        "examples": test.examples,
        "confusion": test.confusion,
        "balanced_accuracy": _defined(of_classes.balanced_accuracy),
        "kappa": _defined(cohen_kappa(confusion)),
        "matthews": _defined(matthews(confusion)),
        "roc_auc": _defined(mean_defined(ranked.roc_auc)),
        "average_precision": _defined(mean_defined(ranked.average_precision)),
        "top_k": None if ranked.top_accuracy is None else {"k": ranked.k, "accuracy": ranked.top_accuracy},
        "per_class": [
            {"class": name, "support": int(of_classes.support[label])}
            | {column: _defined(float(values[label])) for column, values in columns.items()}
            | {column: values[label] for column, values in intervals.items()}
            for label, name in enumerate(classes)
        ],
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _stage(run: Run, stage: Stage, outcome: StageOutcome) -> dict[str, Any]:
    progress = outcome.progress
    best = epoch_record(progress, progress.best_epoch)
    return {
        "name": stage.name,
        "freeze": stage.settings.freeze,
        "cut": stage.cut,
        "cached": stage.cached if stage.trains_from_cache else None,
        "validation_cached": stage.cached,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "train": {"loss": best["train_loss"], "accuracy": best["train_accuracy"]},
        "validation": {"loss": best["validation_loss"], "accuracy": best["validation_accuracy"]},
        "parameters": _parameters(run, stage),
        "seconds": round(progress.seconds, 3),
        "epoch_seconds": epoch_seconds(progress),
        "step_ms": progress.step_ms,
        **({"split_over": progress.parts} if progress.parts > 1 else {}),
    }


def _tested(run: Run, outcomes: Sequence[StageOutcome]) -> dict[str, Any]:
    """The epoch whose parameters were tested, and its validation."""
    chosen = chosen_epoch(outcomes, run.config.evaluate)
    record = epoch_record(outcomes[chosen.position].progress, chosen.epoch)
    return {
        "stage": run.stages[chosen.position].name,
        "epoch": chosen.epoch,
        "validation": {"loss": record["validation_loss"], "accuracy": record["validation_accuracy"]},
    }


def epoch_seconds(progress: Progress) -> float:
    """The median time of an epoch; of several without the first, in which the step is compiled."""
    seconds = [record["seconds"] for record in progress.history]
    return round(median(seconds[1:] or seconds or [0.0]), 3)


def epoch_record(progress: Progress, epoch: int) -> Mapping[str, Any]:
    """The record of an epoch; without numbers for 0, which stands for the start of a stage where no epoch was best."""
    numbers = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    return progress.history[epoch - 1] if epoch else dict.fromkeys(numbers)


def _parameters(run: Run, stage: Stage) -> dict[str, int]:
    counts = freezing.counts(all_parameter_shapes(run.network), stage.mask)
    return {"total": counts.total, "trainable": counts.trainable, "frozen": counts.frozen}


def classifier_in_words(result: Mapping[str, Any]) -> str | None:
    """The fitted classifier of a run, its C and the layers that it sees; None of a run that trained by steps."""
    if not isinstance(result.get("classifier"), dict):
        return None
    found = cast(dict[str, Any], result["classifier"])
    layers = found.get("layers") or [found.get("layer")]
    return f"{str(found.get('kind')).replace('_', ' ')}, C {found.get('c')}, on {', '.join(map(str, layers))}"
