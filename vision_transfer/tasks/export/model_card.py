"""The model card of exported files: their use, metrics and limits.

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

RESAMPLING = {
    "bilinear": "bilinearly without antialiasing (`tf.image.resize`'s default; half-pixel centres), then rounded",
    "nearest": "to the nearest pixel (Pillow's `NEAREST`)",
}
# By file: what it needs, an import, and lines that load and run it on `images`.
LOADING = {
    "model.stablehlo": (
        "`pip install jax flatbuffers`; a CPU, NVIDIA GPUs, TPUs",
        "import jax.export",
        """\
program = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
answer = program.call(images)
print(answer["probabilities"], answer["logits"])""",
    ),
    "model.keras": (
        "`pip install keras` and a backend",
        "import keras",
        """\
model = keras.saving.load_model("model.keras")
answer = model.predict(images)
print(answer)""",
    ),
    "model.h5": ("the same, also for Keras 2", "", 'model = keras.models.load_model("model.h5")'),
    "model.onnx": (
        "`pip install onnxruntime`",
        "import onnxruntime",
        """\
session = onnxruntime.InferenceSession("model.onnx")
probabilities, logits = session.run(["probabilities", "logits"], {"images": images})
print(probabilities, logits)""",
    ),
}


@dataclass(frozen=True)
class CheckedOn:
    """The images that the files were compared on: their number, a phrase for them, and the run's largest |logit|."""

    images: int
    name: str
    largest_logit: float


def model_card(
    run: TrainedRun, calibration: Calibration | None, agreements: Sequence[Agreement], checked: CheckedOn
) -> str:
    """The card, in Markdown; `calibration` is None if the probabilities are not calibrated."""
    sections = {
        "Use": _use(run, agreements),
        "Metrics": _metrics(run),
        "Probabilities": _probabilities(calibration),
        "Data": _data(run),
        "Recipe": _recipe(run),
        "Agreement": _agreement(run, agreements, checked),
        "Limits": _limits(run),
        "Licence": _licence(run),
    }
    return "\n\n".join([_head(run), *(f"## {title}\n\n{text}" for title, text in sections.items())]) + "\n"


def _head(run: TrainedRun) -> str:
    test = run.result["test"]
    low, high = test["accuracy_ci95"]
    return (
        "---\npipeline_tag: image-classification\ntags: [vision_transfer, jax, keras, onnx, transfer-learning]\n---\n\n"
        f"# {run.config.name}\n\n"
        f"Classifies images as {_classes(run.classes)}: {run.config.model.backbone}, "
        f"{run.result['parameters']['total']:,} parameters. "
        f"Test accuracy {test['accuracy']:.4f}, 95 % interval {low:.4f} to {high:.4f} "
        f"({test['examples']:,} images)."
    )


def _use(run: TrainedRun, agreements: Sequence[Agreement]) -> str:
    height, width, channels = run.network.input_shape
    kind = "RGB" if channels == 3 else "grey"
    lines = [
        f"Input: `(batch, {height}, {width}, {channels})` float32, {kind} with values 0–255 (not scaled; the "
        "model does that), any batch size. Images are turned upright by their EXIF tag and resized to "
        f"{width}×{height} {RESAMPLING[run.config.dataset.resampling]}; their aspect ratio is not kept. "
        f"Output: `probabilities` `(batch, {len(run.classes)})` in the order of the classes"
        f" and, except from Keras, `logits` `(batch, {run.network.outputs})`."
    ]
    images = f"images = numpy.zeros((2, {', '.join(map(str, run.network.input_shape))}), numpy.float32)"
    files = [agreement.file for agreement in agreements]
    for file, (needs, own_import, code) in LOADING.items():
        if file in files:
            code = "\n".join([own_import, "import numpy", "", images, code]) if own_import else code
            lines.append(f"`{file}` ({needs}):\n\n```python\n{code}\n```")
    lines.append(f"Classes, in order: {', '.join(f'`{name}`' for name in run.classes)}.")
    return "\n\n".join(lines)


def _metrics(run: TrainedRun) -> str:
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
        + f"\n\nThe test split was evaluated once, with the parameters of {_epoch(run)}; the intervals follow from its "
        "size and do not cover other seeds or other images."
    )


def _probabilities(calibration: Calibration | None) -> str:
    if calibration is None:
        return "As the network computes them; not calibrated."
    rows = [["validation (used for the fit)", *_fit(calibration.validation)]]
    if calibration.test is not None:
        rows.append(["test", *_fit(calibration.test)])
    return (
        f"Logits are divided by the temperature {calibration.temperature:.4f} before the softmax (inside the files; "
        "`logits` are not divided).\n\n"
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
            *("" if found is None else f"{found:.1e}" for found in (agreement.probabilities, agreement.logits)),
        ]
        for agreement in agreements
    ]
    exact = "" if run.config.precision == "float32" else f" The run itself computed in {run.config.precision}."
    return (
        f"Largest differences from the run's own network on {checked.images:,} {checked.name}, in float32; its logits "
        f"there are up to {checked.largest_logit:.3g}.{exact}\n\n"
        + _table(["file", "run by", "probabilities", "logits"], rows)
    )


def _epoch(run: TrainedRun) -> str:
    tested, last = run.result["tested"], run.config.evaluate == "last"
    return f"epoch {tested['epoch']} of stage {tested['stage']}, the {'last' if last else 'best by validation'}"


def _limits(run: TrainedRun) -> str:
    return "\n".join(
        [
            f"- It always answers with one of its {len(run.classes)} classes, even for an image of something else, "
            "and may do so with high confidence.",
            "- Its metrics hold for images like those of its data set. Others (another camera, place, framing or kind "
            "of image) need a separate test.",
            f"- It was trained once, with seed {run.config.seed}; another seed gives another network with other "
            "mistakes.",
            "- Whether it treats groups of people, or of other subjects, alike has not been examined.",
            "- Images resized in another way give other results.",
        ]
    )


def _licence(run: TrainedRun) -> str:
    licence = run.result["weights"]["licence"]
    if not licence:
        return "The weights come from this run and its data alone; the licence of the data may apply to them."
    return f"Pretrained weights that the run started from: {licence}. The data's licence may apply, too."


def _classes(classes: Sequence[str], most: int = 6) -> str:
    if len(classes) > most:
        return f"{len(classes)} classes"
    return f"{', '.join(classes[:-1])} and {classes[-1]}"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
