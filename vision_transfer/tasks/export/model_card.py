"""The model card of exported files: their use, metrics and limits, from `model_card.md.jinja`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.predict.decision import kept_decision, meaning, reason, results_of
from vision_transfer.predict.temperature import Calibration
from vision_transfer.runs.load import TrainedRun
from vision_transfer.runs.result import classifier_in_words
from vision_transfer.tasks.export.agreement import Agreement
from vision_transfer.tasks.tables import markdown_table

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


def model_card(
    run: TrainedRun,
    calibration: Calibration | None,
    agreements: Sequence[Agreement],
    images: int,
    images_name: str,
    largest_logit: float,
) -> str:
    """The card, in Markdown; files were compared on `images` images, where the run's largest |logit| was this."""
    from jinja2 import StrictUndefined, Template

    text = TEMPLATE.read_text(encoding="utf-8")
    tested = run.result["tested"]
    is_last = run.config.evaluate == "last" or tested["validation"]["accuracy"] is None
    how = "start of the stage" if tested["epoch"] == 0 else "last" if is_last else "best by validation"
    versions = sorted(run.result["versions"].items())
    return Template(text, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined).render(
        run=run,
        files=[agreement.file for agreement in agreements],
        epoch=f"epoch {tested['epoch']} of stage {tested['stage']}, the {how}",
        metrics=_metrics(run),
        calibration=calibration,
        fits=_fits(calibration),
        decision=_decision(run),
        stages=_stages(run),
        versions=", ".join(f"{name} {version}" for name, version in versions),
        agreements=_agreements(agreements),
        images=images,
        images_name=images_name,
        rounded_features=run.config.features.dtype != "float32" and run.result["stages"][-1].get("validation_cached"),
        largest_logit=largest_logit,
    )


def _metrics(run: TrainedRun) -> str:
    test = run.result["test"]
    low, high = test["accuracy_ci95"]
    name = "accuracy, interval over folds" if "folds" in test else "accuracy"
    rows = [
        (name, f"{test['accuracy']:.4f}", f"{low:.4f} to {high:.4f}", f"{test['examples']:,}"),
        ("loss (nats)", f"{test['loss']:.4f}", "", f"{test['examples']:,}"),
    ]
    confusion = np.array(test["confusion"])
    for name, hits, examples in zip(run.classes, np.diag(confusion), confusion.sum(axis=1), strict=True):
        if examples:
            low, high = wilson_interval(int(hits), int(examples))
            rows.append((f"recall of {name}", f"{hits / examples:.4f}", f"{low:.4f} to {high:.4f}", f"{examples:,}"))
    images = f"out of {test['folds']} folds" if "folds" in test else "on the test split"
    of_others = " of recalls" if "folds" in test else ""
    return _table((images, "", f"95 % interval (Wilson{of_others})", "images"), rows)


def _fits(calibration: Calibration | None) -> str:
    if calibration is None:
        return ""
    fits = {"validation (used for the fit)": calibration.validation, "test": calibration.test}
    rows = [
        (split, f"{fit.examples:,}", *(f"{before:.4f} → {after:.4f}" for before, after in (fit.nll, fit.ece)))
        for split, fit in fits.items()
        if fit is not None
    ]
    return _table(("", "images", "negative log-likelihood", "calibration error (15 bins)"), rows)


def _decision(run: TrainedRun) -> list[str]:
    """The run's decision and its results in words, if it has one."""
    decision = kept_decision(run.folder)
    if decision is None:
        return []
    found = [f"The run decides for {meaning(decision)} (chosen on validation: {reason(decision)}). The files give"]
    found[0] += " probabilities only; apply the threshold to them."
    outcomes = {"validation": decision.validation, "test": decision.test}
    return found + [f"{split}: {results_of(decision, outcome)}" for split, outcome in outcomes.items() if outcome]


def _stages(run: TrainedRun) -> str:
    rows = []
    for stage in run.result["stages"]:
        optimizer, trainable = run.config.stages[stage["name"]].optimizer, stage["parameters"]["trainable"]
        best = f"{stage['best_epoch']} of {stage['epochs']}"
        how = classifier_in_words(run.result) or f"{optimizer.name}, {optimizer.lr:g}"
        rows.append((stage["name"], f"`{stage['freeze']}`", f"{trainable:,}", how, best))
    return _table(("stage", "frozen", "trainable parameters", "optimizer, rate", "best epoch"), rows)


def _agreements(agreements: Sequence[Agreement]) -> str:
    rows = []
    for agreement in agreements:
        found = ("" if found is None else f"{found:.1e}" for found in (agreement.probabilities, agreement.logits))
        rows.append((f"`{agreement.file}`", agreement.library or "not checked", *found))
    return _table(("file", "run by", "probabilities", "logits"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(header, rows, len(header)).rstrip()
