"""A trained network on picture files: in three lines of Python, and for any number of files in bounded memory.

>>> from vision_transfer.predict import Predictor
>>> predictor = Predictor.load("runs/finetune-0123456789ab")
>>> predictor(["a.jpg", "b.png"])
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float64, UInt8

from vision_transfer.data.images.decode import UndecodableError, decode_file
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.images.resize import Form, resize
from vision_transfer.models.inference import infer_stream, on_devices
from vision_transfer.models.network import Network, Params
from vision_transfer.predict.calibrate import Calibration, calibration_of
from vision_transfer.predict.temperature import probabilities
from vision_transfer.runs.load import TrainedRun, load_run
from vision_transfer.runtime.cache_folder import cache_folder
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh, padded_batch


@dataclass(frozen=True)
class Prediction:
    """What a network says of one file.

    Attributes:
        file: its path, as it was given.
        class_name: the most probable class; None where the file gives no picture.
        probability: of that class, calibrated where the run can be; None likewise.
        probabilities: of each class, in the order of the run's classes; None likewise.
        logits: what the network itself gives; None likewise.
        error: why the file gives no picture; None where it does.
    """

    file: str
    class_name: str | None = None
    probability: float | None = None
    probabilities: Float64[np.ndarray, "classes"] | None = None
    logits: Float[np.ndarray, "outputs"] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Predictor:
    """A finished run's network, ready to look at pictures.

    Attributes:
        run: that it is of.
        network: the tables.
        variables: on the devices, with kernels prepared for `batch_size`.
        classes: names, in the order of probabilities.
        form: what pictures are decoded and resized to, as for training.
        batch_size: pictures per step.
        calibration: of the probabilities; None where they are as the network gives them.
        mesh: devices that compute.
    """

    run: TrainedRun
    network: Network
    variables: dict[str, Params]
    classes: tuple[str, ...]
    form: Form
    batch_size: int
    calibration: Calibration | None
    mesh: Mesh

    @staticmethod
    def load(folder: str | Path, cache_dir: Path | None = None, screen: Screen | None = None) -> "Predictor":
        """The network of a finished run's folder, with the parameters that were tested.

        Args:
            folder: of the run.
            cache_dir: root of the caches, for the pretrained weights; empty: that of the command line.
            screen: for what there is to say; empty: standard output.

        Raises:
            UserError: no finished run, or weights that are not found.
        """
        cache_dir, screen = cache_dir or cache_folder(), screen or Screen()
        run = load_run(Path(folder).expanduser(), cache_dir, screen)
        return predictor_of(run, calibration_of(run, cache_dir, screen))

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 without calibration."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    def __call__(self, files: Sequence[str | Path]) -> list[Prediction]:
        """Predictions of picture files, one for each, in their order; a file that is none has an `error`."""
        return [prediction for chunk in self.stream(files) for prediction in chunk]

    def stream(
        self, files: Sequence[str | Path], screen: Screen | None = None, title: str = "Predicting"
    ) -> Iterator[list[Prediction]]:
        """The same, `batch_size` files at a time (the last time fewer), however many there are.

        Files are decoded on all cores ahead of the devices; a few batches are in memory at a time. Each chunk is a
        batch of its own, so its numbers do not depend on where a stream started, if that was at a multiple of
        `batch_size`.

        Args:
            files: paths.
            screen: for a progress bar; empty: none.
            title: of the bar.
        """
        underway: deque[list[tuple[str, str | None]]] = deque()

        def decode(file: str | Path) -> UInt8[np.ndarray, "size size channels"] | str:
            try:
                return resize(decode_file(Path(file), self.form.channels), self.form.size, self.form.resampling)
            except UndecodableError as reason:
                return str(reason)

        decoded = map_in_order(decode, files, screen=screen or _silent(), title=title, unit="files")
        with closing(decoded) as results:
            pairs = zip(map(str, files), results, strict=True)
            chunks = iter(lambda: tuple(islice(pairs, self.batch_size)), ())
            batches = (self._batch(chunk, underway) for chunk in chunks)
            for logits in infer_stream(self.network, self.variables, batches, self.mesh):
                yield self._predictions(underway.popleft(), logits)

    def _batch(
        self,
        chunk: tuple[tuple[str, UInt8[np.ndarray, "size size channels"] | str], ...],
        underway: deque[list[tuple[str, str | None]]],
    ) -> UInt8[np.ndarray, "batch size size channels"]:
        """The chunk's pictures as a batch, black where there is none; names and errors are kept in `underway`."""
        images = np.zeros((self.batch_size, self.form.size, self.form.size, self.form.channels), np.uint8)
        for row, (_, result) in enumerate(chunk):
            if not isinstance(result, str):
                images[row] = result
        underway.append([(file, result if isinstance(result, str) else None) for file, result in chunk])
        return images

    def _predictions(
        self, chunk: list[tuple[str, str | None]], logits: Float[np.ndarray, "batch outputs"]
    ) -> list[Prediction]:
        shares = probabilities(logits, self.temperature)
        best = shares.argmax(axis=1)
        return [
            Prediction(file, error=error)
            if error is not None
            else Prediction(file, self.classes[best[row]], float(shares[row, best[row]]), shares[row], logits[row])
            for row, (file, error) in enumerate(chunk)
        ]


def predictor_of(run: TrainedRun, calibration: Calibration | None) -> Predictor:
    """A predictor on all local devices, for batches of the run's `eval_batch_size`."""
    config, mesh = run.config, local_mesh()
    batch_size = padded_batch(config.eval_batch_size, mesh)
    return Predictor(
        run=run,
        network=run.network,
        variables=on_devices(run.network, run.variables, mesh, batch_size=batch_size),
        classes=run.classes,
        form=Form(run.network.input_shape[0], config.dataset.channels, config.dataset.resampling),
        batch_size=batch_size,
        calibration=calibration,
        mesh=mesh,
    )


def _silent() -> Screen:
    from rich.console import Console

    return Screen(Console(quiet=True, force_terminal=False))
