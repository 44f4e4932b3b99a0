"""The model card: what the exported files are, how they are used, how good they are, and what they are not for.

After Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv:1810.03993).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.predict.temperature import Calibration, Fit
from vision_transfer.runs.load import TrainedRun
from vision_transfer.tasks.export.agreement import Agreement
from vision_transfer.tasks.export.loaders import LOADERS, loader

RESAMPLING = {
    "bilinear": "bilinearly without antialiasing (`tf.image.resize`'s default; half-pixel centres), then rounded",
    "nearest": "to the nearest pixel (Pillow's `NEAREST`)",
}


@dataclass(frozen=True)
class CheckedOn:
    """What the files were compared on.

    Attributes:
        images: how many.
        name: what they are.
        largest_logit: of the run's own, its absolute value.
    """

    images: int
    name: str
    largest_logit: float


def model_card(
    run: TrainedRun, calibration: Calibration | None, agreements: Sequence[Agreement], checked: CheckedOn
) -> str:
    """The card, in Markdown.

    Args:
        run: exported.
        calibration: of the probabilities; None where they are as the network gives them.
        agreements: of the files with the run.
        checked: what those were found on.
    """
    sections = [
        _head(run),
        "## Use\n\n" + _use(run, agreements),
        "## Figures\n\n" + _figures(run),
        "## Probabilities\n\n" + _probabilities(calibration),
        "## Data\n\n" + _data(run),
        "## Recipe\n\n" + _recipe(run),
        "## Agreement\n\n" + _agreement(run, agreements, checked),
        "## Limits\n\n" + _limits(run),
        "## Licence\n\n" + _licence(run),
    ]
    return "\n\n".join(sections) + "\n"


def _head(run: TrainedRun) -> str:
    test = run.result["test"]
    low, high = test["accuracy_ci95"]
    return (
        "---\npipeline_tag: image-classification\ntags: [vision_transfer, jax, keras, onnx, transfer-learning]\n---\n\n"
        f"# {run.config.name}\n\n"
        f"Tells {_classes(run.classes)} apart in pictures: {run.config.model.backbone}, "
        f"{_parameters(run)}. Test accuracy {test['accuracy']:.4f}, 95 % interval {low:.4f} to {high:.4f} "
        f"({test['examples']:,} images)."
    )


def _use(run: TrainedRun, agreements: Sequence[Agreement]) -> str:
    height, width, channels = run.network.input_shape
    kind = "RGB" if channels == 3 else "grey"
    lines = [
        f"Input: `(batch, {height}, {width}, {channels})` float32, {kind} with values 0–255 (not scaled; that is done "
        f"inside), any batch size. Pictures are turned upright by their EXIF tag and resized to {width}×{height} "
        f"{RESAMPLING[run.config.dataset.resampling]}; their aspect ratio is not kept. Output: `probabilities` "
        f"`(batch, {len(run.classes)})` in the order of the classes"
        f" and, but for Keras, `logits` `(batch, {run.network.outputs})`."
    ]
    files = [agreement.file for agreement in agreements]
    for file in (file for file in LOADERS if file in files):
        needs, lines_of_code = loader(file, run.network.input_shape)
        lines.append(f"`{file}` ({needs}):\n\n```python\n{lines_of_code}\n```")
    lines.append(f"Classes, in order: {', '.join(f'`{name}`' for name in run.classes)}.")
    return "\n\n".join(lines)


def _figures(run: TrainedRun) -> str:
    test = run.result["test"]
    low, high = test["accuracy_ci95"]
    confusion = np.array(test["confusion"])
    rows = [
        ["accuracy", f"{test['accuracy']:.4f}", f"{low:.4f} to {high:.4f}", f"{test['examples']:,}"],
        ["loss (nats)", f"{test['loss']:.4f}", "", f"{test['examples']:,}"],
    ]
    for place, name in enumerate(run.classes):
        hits, examples = int(confusion[place, place]), int(confusion[place].sum())
        if examples:
            low, high = wilson_interval(hits, examples)
            rows.append([f"recall of {name}", f"{hits / examples:.4f}", f"{low:.4f} to {high:.4f}", f"{examples:,}"])
    return (
        _table(["on the test split", "", "95 % interval (Wilson)", "images"], rows)
        + f"\n\nThe test split was looked at once, with the parameters of the {_epoch(run)}; the intervals are of its "
        "size and say nothing of other seeds or other pictures."
    )


def _probabilities(calibration: Calibration | None) -> str:
    if calibration is None:
        return "As the network gives them; not calibrated."
    rows = [["validation, which it was fitted on", *_fit(calibration.validation)]]
    if calibration.test is not None:
        rows.append(["test", *_fit(calibration.test)])
    return (
        f"Logits are divided by the temperature {calibration.temperature:.4f} before the softmax (inside the files; "
        "`logits` are without it).\n\n"
        + _table(["", "images", "negative log-likelihood", "calibration error (15 bins)"], rows)
    )


def _fit(fit: Fit) -> list[str]:
    return [f"{fit.examples:,}", *(f"{before:.4f} → {after:.4f}" for before, after in (fit.nll, fit.ece))]


def _data(run: TrainedRun) -> str:
    dataset = run.result["dataset"]
    sizes = dataset["sizes"]
    return (
        f"{dataset['name']}: {sizes['train']:,} training, {sizes['validation']:,} validation and {sizes['test']:,} "
        f"test images of {len(run.classes)} classes. Fingerprint `{dataset['fingerprint']}`."
    )


def _recipe(run: TrainedRun) -> str:
    config = run.config
    rows = []
    for stage in run.result["stages"]:
        values = config.stages[stage["name"]]
        rows.append(
            [
                stage["name"],
                f"`{stage['freeze']}`",
                f"{stage['parameters']['trainable']:,}",
                f"{values.optimizer.name}, {values.optimizer.lr:g}",
                f"{stage['best_epoch']} of {stage['epochs']}",
            ]
        )
    augmented = "none" if config.augment.preset == "none" else config.augment.preset
    versions = run.result["versions"]
    return (
        f"Started from: {run.result['weights']['source']}. Batches of {config.batch_size}, seed {config.seed}, "
        f"augmentation {augmented}, {config.precision}, parameters of {_epoch(run)}.\n\n"
        + _table(["stage", "frozen", "trainable parameters", "optimizer, rate", "best epoch"], rows)
        + f"\n\nConfig digest `{run.result['digest']}`, code `{run.result['code_digest']}`; {run.result['device']}; "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + "."
    )


def _agreement(run: TrainedRun, agreements: Sequence[Agreement], checked: CheckedOn) -> str:
    rows = [
        [
            f"`{agreement.file}`",
            agreement.library or "not checked",
            _bound(agreement.probabilities),
            _bound(agreement.logits),
        ]
        for agreement in agreements
    ]
    exact = "" if run.config.precision == "float32" else f" The run computed in {run.config.precision}; these do not."
    return (
        f"Largest differences from the run's own network on {checked.images:,} {checked.name}, in float32; its logits "
        f"there are up to {checked.largest_logit:.3g}.{exact}\n\n"
        + _table(["file", "run by", "probabilities", "logits"], rows)
    )


def _epoch(run: TrainedRun) -> str:
    tested, last = run.result["tested"], run.config.evaluate == "last"
    return f"epoch {tested['epoch']} of stage {tested['stage']}, the {'last' if last else 'best by validation'}"


def _bound(difference: float | None) -> str:
    return "" if difference is None else f"{difference:.1e}"


def _limits(run: TrainedRun) -> str:
    return "\n".join(
        [
            f"- It always answers with one of its {len(run.classes)} classes, also for a picture of something else, "
            "and may be certain of it.",
            "- Its figures are for pictures like those of its data set. Others (another camera, place, framing or kind "
            "of picture) need a test of their own.",
            f"- It was trained once, with the seed {run.config.seed}; another seed gives another network and other "
            "mistakes.",
            "- Nobody has looked at whether it treats groups of people, or of what the pictures show, alike.",
            "- Pictures resized in another way give other numbers.",
        ]
    )


def _licence(run: TrainedRun) -> str:
    licence = run.result["weights"]["licence"]
    if not licence:
        return "The weights were made by this run alone, from its data; whose licence may bind them."
    return f"Weights that the run started from: {licence}. The data's licence may bind the result, too."


def _parameters(run: TrainedRun) -> str:
    total = run.result["parameters"]["total"]
    return f"{total:,} parameters"


def _classes(classes: Sequence[str], most: int = 6) -> str:
    if len(classes) > most:
        return f"{len(classes)} classes"
    return f"{', '.join(classes[:-1])} and {classes[-1]}"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
