"""The mode `export`: writes a finished run as files for other programs, and compares each with the run."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.table import Table

from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.models.inference import infer
from vision_transfer.models.network import Network, Params, apply
from vision_transfer.models.precision import FLOAT32
from vision_transfer.predict.temperature import calibration_of, probabilities
from vision_transfer.runs.load import TrainedRun, load_run
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.runtime.files import new_folder, user_path
from vision_transfer.runtime.program import install_extra
from vision_transfer.tasks.export.agreement import Answer, agreement
from vision_transfer.tasks.export.inference_network import plain_network
from vision_transfer.tasks.export.keras_files import write_keras, write_legacy_h5
from vision_transfer.tasks.export.keras_layers import keras_layers
from vision_transfer.tasks.export.model_card import model_card
from vision_transfer.tasks.export.onnx_graph import onnx_model

PLATFORMS = ("cpu", "cuda", "tpu")
FORMATS = {"stablehlo": ("model.stablehlo",), "keras": ("model.keras", "model.h5"), "onnx": ("model.onnx",)}
CARD = "README.md"
DEFAULT_FOLDER = "export"
# Limit of the images on which files are compared with the run.
CHECKED_IMAGES = 200


def stablehlo(network: Network, variables: dict[str, Params], temperature: float) -> bytes:
    """The serialised program; it takes `(batch, height, width, channels) float32` images of 0–255, for any batch size.

    It returns a dictionary: `probabilities` `(batch, classes)` and `logits` `(batch, outputs)`, float32. Convolutions
    are XLA's own, since the faster ones are planned for one batch size.

    Raises:
        UserError: flatbuffers is not installed.
    """
    from jax import export

    if find_spec("flatbuffers") is None:
        raise UserError(
            "--format=stablehlo: jax.export needs flatbuffers, which is not installed: "
            f"{install_extra('export')}; or leave this format out with --format=keras,onnx"
        )
    network = replace(network, numerics=FLOAT32)
    variables = {name: variables[name] for name in ("params", "batch_stats")}

    def predict(images: Float[Array, "batch height width channels"]) -> dict[str, Array]:
        logits = apply(network, variables, images)
        arguments = logits if network.outputs > 1 else jnp.concatenate([jnp.zeros_like(logits), logits], axis=1)
        return {"probabilities": jax.nn.softmax(arguments / np.float32(temperature)), "logits": logits}

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *network.input_shape), jnp.float32)
    exported = export.export(jax.jit(predict), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def export(workdir: Path, out: str | None, formats: str | None, cache_dir: Path, screen: Screen) -> None:
    """Writes a new folder with a finished run's network in each format and a model card.

    `out` defaults to `export` in the run's folder; `formats` are names of `FORMATS`, separated by commas, default: all.

    Raises:
        UserError: no run, an unknown format, an existing folder, or a file that does not agree with the run.
    """
    chosen = _chosen(formats)
    folder = workdir / DEFAULT_FOLDER if out is None else user_path(out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"--out={folder}: already exists; remove it, or give a new folder")
    run = load_run(workdir, cache_dir, screen)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={folder}: cannot be created ({error.strerror}); give another folder") from error
    calibration = calibration_of(run, cache_dir, screen)
    temperature = 1.0 if calibration is None else calibration.temperature
    with new_folder(folder) as growing:
        files = _write(growing, run, temperature, chosen)
        screen.say(f"Written: {', '.join(file.name for file in files)}.")
        images, name = _images(run, cache_dir, screen)
        own = _own_answer(run, images, temperature)
        pixels = images.astype(np.float32)
        agreements = []
        with screen.bar(f"Comparing on {len(pixels):,} {name}", len(files), "files") as advance:
            for file in files:
                agreements.append(agreement(file, pixels, own))
                advance(1)
        card = model_card(run, calibration, agreements, len(images), name, float(np.abs(own.logits).max()))
        (growing / CARD).write_text(card, encoding="utf-8")
    title = f"{folder}, on {len(images):,} {name}"
    table = Table("File", "Run by", "Probabilities differ by", "Logits", title=title, title_justify="left")
    for row in agreements:
        if row.library is None or row.probabilities is None or row.logits is None:
            table.add_row(row.file, f"not checked: {install_extra('export')}", "", "")
        else:
            table.add_row(row.file, row.library, f"≤ {row.probabilities:.1e}", f"≤ {row.logits:.1e}")
    screen.say(table)
    screen.say(f"The model card is {folder / CARD}.")


def _chosen(formats: str | None) -> list[str]:
    names = list(FORMATS) if formats is None else [name.strip() for name in formats.split(",")]
    for name in names:
        if name not in FORMATS:
            raise UserError(f"--format: {nearest_names(name, list(FORMATS))}; give a list such as stablehlo,keras,onnx")
    return names


def _write(folder: Path, run: TrainedRun, temperature: float, formats: list[str]) -> list[Path]:
    plain = plain_network(run.network, run.variables, temperature, run.classes)
    if "stablehlo" in formats:
        (folder / "model.stablehlo").write_bytes(stablehlo(run.network, run.variables, temperature))
    if "keras" in formats:
        layers = keras_layers(plain)
        write_keras(folder / "model.keras", layers, plain.input_shape)
        write_legacy_h5(folder / "model.h5", layers, plain.input_shape)
    if "onnx" in formats:
        (folder / "model.onnx").write_bytes(onnx_model(plain))
    return [folder / file for name in formats for file in FORMATS[name]]


def _images(run: TrainedRun, cache_dir: Path, screen: Screen) -> tuple[np.ndarray, str]:
    """Test images spread over the split, or noise if there are none or they cannot be read; and a phrase for them."""
    why = "The run's data has no test split"
    try:
        dataset = load_dataset(run.config.dataset, cache_dir=cache_dir, screen=screen)
        split = dataset.test
        if run.result["dataset"]["fingerprint"] != dataset.fingerprint:
            why = "The run's data has changed (its fingerprint differs)"
        elif len(split):
            rows = np.linspace(0, len(split) - 1, min(CHECKED_IMAGES, len(split))).round().astype(int)
            return split.images[rows], "test images"
    except UserError as error:
        why = f"The run's data cannot be read ({error})"
    screen.say(f"{why}; files are compared on noise instead.")
    noise = np.random.default_rng(0).integers(0, 256, (CHECKED_IMAGES, *run.network.input_shape), np.uint8)
    return noise, "images of noise"


def _own_answer(run: TrainedRun, images: np.ndarray, temperature: float) -> Answer:
    """The answer of the run's network with its own convolutions, in float32 like the files."""
    network = replace(run.network, numerics=FLOAT32)
    logits = infer(network, run.variables, images, local_mesh(), batch_size=run.config.eval_batch_size)
    return Answer(probabilities(logits, temperature), logits)
