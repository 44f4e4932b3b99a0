"""Decisions from calibrated probabilities: a threshold for two classes, or abstention, chosen on validation alone.

A run keeps its decision in its folder, beside the temperature; everything that uses the run decides by it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from vision_transfer.config.task_schema import DecisionConfig
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.metrics.decision import (
    risk_coverage,
    threshold_by_cost,
    threshold_by_precision,
    threshold_by_recall,
    threshold_by_risk,
)
from vision_transfer.metrics.ranking import counts_by_threshold
from vision_transfer.predict.temperature import calibration_in, probabilities
from vision_transfer.runs.folder import RunFolder, read_json
from vision_transfer.runs.predictions import LabelledLogits, read_predictions
from vision_transfer.runtime.files import write_json

ABSTAIN = "abstain"
ABSTENTION = "abstain_risk"


@dataclass(frozen=True)
class Outcome:
    """Numbers of images: all, those with a decision, those of them that are right; and, by a threshold for two classes,
    true positives, false positives and false negatives.
    """

    examples: int
    answered: int
    right: int
    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0


@dataclass(frozen=True)
class Decision:
    """A threshold on a calibrated probability, the rule that chose it on validation, and its outcome there and on test.

    Probabilities from the threshold on are accepted. `rule` is the field of `config.decision` that was set, `wanted`
    its values. `positive` is the class whose probability decides; None for abstention, where it is that
    of the predicted class.
    """

    rule: str
    wanted: tuple[float, ...]
    positive: str | None
    threshold: float
    temperature: float
    validation: Outcome
    test: Outcome | None


def decide(decision: Decision, classes: Sequence[str], shares: Float64[np.ndarray, "images classes"]) -> list[str]:
    """The decision for each image: the name of a class, or `abstain`."""
    if decision.positive is None:
        best = shares.argmax(axis=1)
        return [
            classes[int(place)] if share >= decision.threshold else ABSTAIN
            for place, share in zip(best, shares.max(axis=1), strict=True)
        ]
    label = classes.index(decision.positive)
    other = classes[1 - label]
    return [decision.positive if share >= decision.threshold else other for share in shares[:, label]]


def outcome_of(
    decision: Decision,
    classes: Sequence[str],
    shares: Float64[np.ndarray, "images classes"],
    labels: Int[np.ndarray, "images"],
) -> Outcome:
    """The decision on images whose class is known."""
    decided = np.array(decide(decision, classes, shares), dtype=object)
    named = np.array([*classes], dtype=object)[labels]
    answered = decided != ABSTAIN if decision.positive is None else np.ones(len(labels), bool)
    right, is_positive = decided == named, named == decision.positive
    counts = (len(labels), answered.sum(), (right & answered).sum())
    if decision.positive is not None:
        wrong = ~right
        counts = (*counts, (is_positive & right).sum(), (~is_positive & wrong).sum(), (is_positive & wrong).sum())
    return Outcome(*map(int, counts))


def check_decision(
    config: DecisionConfig, classes: Sequence[str], validation_labels: Int[np.ndarray, "examples"]
) -> None:
    """Checks, before anything is trained, that a decision can be chosen for these classes on such a validation split.

    Raises:
        UserError: no validation images, more than two classes for a threshold, no such class, or no images of one.
    """
    rule = _rule(config)
    if rule is None:
        return
    where = f"config.decision.{rule[0]}"
    if not len(validation_labels):
        raise UserError(
            f"{where}: is chosen on validation, and the data has no validation images; set "
            "config.dataset.validation_fraction, or remove it"
        )
    if rule[0] == ABSTENTION:
        if ABSTAIN in classes:
            raise UserError(f"{where}: a class is named {ABSTAIN!r}, which then means no decision; rename its folder")
    elif len(classes) != 2:
        raise UserError(
            f"{where}: is a threshold for two classes, and the data has {len(classes)}; config.decision.{ABSTENTION} "
            "works for any number"
        )
    elif config.positive not in (None, *classes):
        raise UserError(f"config.decision.positive: got {config.positive!r}; allowed are {', '.join(classes)}")
    elif missing := [name for label, name in enumerate(classes) if label not in validation_labels]:
        raise UserError(
            f"{where}: is chosen on validation, which has no images of {missing[0]}; hold out some, or remove it"
        )


def chosen_decision(
    config: DecisionConfig,
    classes: Sequence[str],
    temperature: float,
    validation: LabelledLogits,
    test: LabelledLogits | None,
) -> Decision | None:
    """The decision that follows from validation, and its outcome on test; None where the config asks for none.

    Raises:
        UserError: nothing on validation fulfils the wish.
    """
    rule = _rule(config)
    if rule is None:
        return None
    check_decision(config, classes, validation[1])
    (name, wanted), (logits, labels) = rule, validation
    shares = probabilities(logits, temperature)
    positive = None if name == ABSTENTION else config.positive or classes[1]
    if positive is None:
        threshold = threshold_by_risk(shares.max(axis=1), shares.argmax(axis=1) == labels, *wanted)
    else:
        label = classes.index(positive)
        scores, is_positive = shares[:, label], labels == label
        if name == "cost":
            threshold = threshold_by_cost(scores, is_positive, (wanted[0], wanted[1]))
        else:
            choose = threshold_by_recall if name == "least_recall" else threshold_by_precision
            threshold = choose(scores, is_positive, *wanted)
    if threshold is None:
        possible = _possible(name, positive, classes, shares, labels)
        raise UserError(f"config.decision.{name}: got {wanted[0]:g}; {possible}")
    made = Decision(name, wanted, positive, threshold, temperature, Outcome(0, 0, 0), None)
    made = replace(made, validation=outcome_of(made, classes, shares, labels))
    if test is None or not len(test[1]):
        return made
    return replace(made, test=outcome_of(made, classes, probabilities(test[0], temperature), test[1]))


def write_decision(folder: RunFolder, config: DecisionConfig, classes: Sequence[str]) -> Decision | None:
    """Chooses the decision that a config asks for from the logits in a run's folder, and writes it there.

    Raises:
        UserError: the folder has no logits of validation, or nothing there fulfils the wish.
    """
    if _rule(config) is None:
        return None
    predictions = read_predictions(folder.predictions_file)
    if predictions is None or predictions.validation is None:
        raise UserError(
            f"config.decision: {folder.predictions_file} has no logits of validation images, on which a threshold is "
            "chosen; --rerun computes them where the data has such images"
        )
    calibration = calibration_in(folder, predictions)
    assert calibration is not None, "there are logits of validation"
    decision = chosen_decision(config, classes, calibration.temperature, predictions.validation, predictions.own_test)
    assert decision is not None, "there is a rule"
    write_json(folder.decision_file, asdict(decision))
    return decision


def kept_decision(folder: RunFolder) -> Decision | None:
    """The decision in a run's folder, or None.

    Raises:
        UserError: `decision.json` is damaged.
    """
    kept = read_json(folder.decision_file)
    return None if kept is None else _parse(kept, folder.decision_file)


def is_asked_for(config: DecisionConfig, kept: Decision | None, classes: Sequence[str]) -> bool:
    """Whether a config asks for another decision than the one that a run of these classes keeps."""
    rule = _rule(config)
    if rule is None:
        return False
    positive = None if rule[0] == ABSTENTION else config.positive or classes[1]
    return kept is None or (*rule, positive) != (kept.rule, kept.wanted, kept.positive)


def meaning(decision: Decision) -> str:
    """The rule in words, with a threshold that can be applied: near 0 or 1, four decimals would decide otherwise."""
    instead = ABSTAIN if decision.positive is None else "the other class"
    if decision.threshold > 1:
        return f"{instead} in all cases"
    chosen = "a class" if decision.positive is None else decision.positive
    return f"{chosen} where its probability is at least {decision.threshold:.9g}, otherwise {instead}"


def reason(decision: Decision) -> str:
    """The wish that chose the threshold, in words."""
    wanted = " : ".join(f"{value:g}" for value in decision.wanted)
    return {
        "cost": f"cost of a false positive : of a false negative = {wanted}",
        "least_recall": f"recall of at least {wanted}",
        "least_precision": f"precision of at least {wanted}",
        ABSTENTION: f"at most {wanted} of the answers wrong",
    }[decision.rule]


def results_of(decision: Decision, outcome: Outcome) -> str:
    """The outcome in words, with 95 % Wilson intervals."""
    if decision.positive is None:
        wrong = outcome.answered - outcome.right
        answers = f"answers {_share(outcome.answered, outcome.examples)} of {outcome.examples:,} images"
        return f"{answers}, wrong {_share(wrong, outcome.answered)} of these"
    actual = outcome.true_positives + outcome.false_negatives
    predicted = outcome.true_positives + outcome.false_positives
    text = (
        f"recall {_share(outcome.true_positives, actual)}, precision {_share(outcome.true_positives, predicted)}, "
        f"{outcome.false_positives:,} false positives and {outcome.false_negatives:,} false negatives of "
        f"{outcome.examples:,} images"
    )
    if decision.rule != "cost":
        return text
    cost = decision.wanted[0] * outcome.false_positives + decision.wanted[1] * outcome.false_negatives
    return f"{text}, cost {cost / outcome.examples:.4f} an image"


def _share(part: int, whole: int) -> str:
    return "– (none)" if not whole else "{:.4f} ({:.3f} to {:.3f})".format(part / whole, *wilson_interval(part, whole))


def _rule(config: DecisionConfig) -> tuple[str, tuple[float, ...]] | None:
    """The name and the values of the field that is set; `config/checks.py` allows one."""
    single = {name: getattr(config, name) for name in ("least_recall", "least_precision", ABSTENTION)}
    found = [(name, (value,)) for name, value in single.items() if value is not None]
    return ("cost", config.cost) if config.cost else found[0] if found else None


def _possible(
    name: str,
    positive: str | None,
    classes: Sequence[str],
    shares: Float64[np.ndarray, "images classes"],
    labels: Int[np.ndarray, "images"],
) -> str:
    """The best that validation allows, in words."""
    if name == ABSTENTION:
        lowest = float(risk_coverage(shares.max(axis=1), shares.argmax(axis=1) == labels).risk.min())
        return f"the lowest risk on validation at any coverage is {lowest:.4f}"
    label = classes.index(positive or "")
    precision = counts_by_threshold(shares[:, label], labels == label).precision
    return f"the highest precision on validation is {float(precision.max()):.4f}"


def _parse(kept: dict[str, Any], file: Path) -> Decision:
    try:
        threshold, temperature = float(kept["threshold"]), float(kept["temperature"])
        if not (0 <= threshold <= 2 and 0 < temperature < np.inf):
            raise ValueError(f"threshold {threshold}, temperature {temperature}")
        outcomes = [
            None if kept[split] is None else Outcome(**{name: int(count) for name, count in kept[split].items()})
            for split in ("validation", "test")
        ]
        if outcomes[0] is None:
            raise ValueError("no outcome on validation")
        positive = None if kept["positive"] is None else str(kept["positive"])
        wanted = tuple(map(float, kept["wanted"]))
        return Decision(str(kept["rule"]), wanted, positive, threshold, temperature, outcomes[0], outcomes[1])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{file} is damaged or was edited ({error!r}); remove it, and the run's command with "
            "config.decision chooses it again"
        ) from error
