"""A trained network applied to image files: three lines of Python, and bounded memory for any number of files.

>>> from vision_transfer.predict import Predictor
>>> predictor = Predictor.load("runs/finetune-0123456789ab")
>>> predictor(["a.jpg", "b.png"])
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
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
from vision_transfer.models.network import Params
from vision_transfer.predict.decision import Decision, decide, kept_decision
from vision_transfer.predict.temperature import Calibration, calibration_of, probabilities
from vision_transfer.predict.views import View, as_it_is, views_of
from vision_transfer.runs.load import TrainedRun, load_run
from vision_transfer.runtime.cache_folder import cache_folder
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh, padded_batch
from vision_transfer.runtime.files import user_path


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file; all but `file` and `error` are None if the file cannot be decoded.

    Attributes:
        class_name: the most probable class.
        probability: of that class, calibrated if the run can be.
        probabilities: of each class, in the order of the run's classes.
        logits: the output of the network itself, the mean over the predictor's views.
        decision: the class that the run's threshold decides for, or `abstain`; None where the run has none.
        error: why the file cannot be decoded, or None.
    """

    file: str
    class_name: str | None = None
    probability: float | None = None
    probabilities: Float64[np.ndarray, "classes"] | None = None
    logits: Float[np.ndarray, "outputs"] | None = None
    error: str | None = None
    decision: str | None = None


@dataclass(frozen=True)
class Predictor:
    """A finished run's network, ready to classify images; `calibration` is None if probabilities are not calibrated.

    `decision` is the threshold that the run was given, or None. Logits are averaged over the `views` of an image;
    temperature and threshold are those of the image alone.

    The `variables` are on the devices, with kernels prepared for `batch_size`.
    """

    run: TrainedRun
    variables: dict[str, Params]
    form: Form
    batch_size: int
    calibration: Calibration | None
    mesh: Mesh
    decision: Decision | None = None
    views: tuple[View, ...] = (as_it_is,)

    @staticmethod
    def load(
        folder: str | Path, cache_dir: Path | None = None, screen: Screen | None = None, views: str | None = None
    ) -> "Predictor":
        """The network of a finished run's folder, with the parameters that were tested, on all local devices.

        Defaults are the command line's cache, for pretrained weights, messages on standard output, and no views;
        "flip", "shifts" or "flip,shifts" average over 2, 3 or 4 passes.

        Raises:
            UserError: no finished run, weights that are not found, or unknown views.
        """
        seen = views_of(views)
        cache_dir, screen, mesh = cache_dir or cache_folder(), screen or Screen(), local_mesh()
        run = load_run(user_path(folder), cache_dir, screen)
        calibration = calibration_of(run, cache_dir, screen)
        batch_size = padded_batch(run.config.eval_batch_size, mesh)
        variables = on_devices(run.network, run.variables, mesh, batch_size=batch_size)
        data = run.config.dataset
        form = Form(run.network.input_shape[0], data.channels, data.resampling)
        return Predictor(run, variables, form, batch_size, calibration, mesh, kept_decision(run.folder), seen)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of probabilities."""
        return self.run.classes

    @property
    def temperature(self) -> float:
        """The divisor of the logits; 1 without calibration."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    def __call__(self, files: str | Path | Sequence[str | Path]) -> list[Prediction]:
        """Predictions for a file or several, one each, in order; a file that cannot be decoded has an `error`."""
        files = [files] if isinstance(files, str | Path) else files
        return [prediction for chunk in self.stream(files) for prediction in chunk]

    def logits(
        self, batches: Iterable[UInt8[np.ndarray, "batch size size channels"]]
    ) -> Iterator[Float[np.ndarray, "batch outputs"]]:
        """Logits of each batch of `batch_size` images, averaged over the views."""
        seen = (view(images) for images in batches for view in self.views)
        outputs = infer_stream(self.run.network, self.variables, seen, self.mesh)
        while group := list(islice(outputs, len(self.views))):
            yield np.mean(group, axis=0)

    def stream(self, files: Sequence[str | Path], screen: Screen | None = None) -> Iterator[list[Prediction]]:
        """Predictions for any number of files, in lists of `batch_size` (the last may be shorter).

        All cores decode files ahead of the devices; a few batches are in memory at a time. Each list is a batch of its
        own, so its numbers do not depend on where a stream started, as long as that was at a multiple of `batch_size`.
        A screen shows the progress.
        """
        waiting: deque[list[Prediction]] = deque()

        def decode(file: str | Path) -> UInt8[np.ndarray, "size size channels"] | str:
            try:
                pixels = decode_file(Path(file), self.form.channels, self.run.config.dataset.value_range)
                return resize(pixels, self.form.size, self.form.resampling)
            except UndecodableError as reason:
                return str(reason)

        def batches(decoded: Iterable[np.ndarray | str]) -> Iterator[UInt8[np.ndarray, "batch size size channels"]]:
            pairs = zip(map(str, files), decoded, strict=True)
            while chunk := list(islice(pairs, self.batch_size)):
                # Rows without an image stay black.
                images = np.zeros((self.batch_size, self.form.size, self.form.size, self.form.channels), np.uint8)
                for row, (_, result) in enumerate(chunk):
                    if not isinstance(result, str):
                        images[row] = result
                waiting.append(
                    [Prediction(file, error=found if isinstance(found, str) else None) for file, found in chunk]
                )
                yield images

        screen = screen or Screen().silent()
        with closing(map_in_order(decode, files, screen=screen, title="Predicting", unit="files")) as decoded:
            for logits in self.logits(batches(decoded)):
                yield self._completed(waiting.popleft(), logits)

    def _completed(self, chunk: list[Prediction], logits: Float[np.ndarray, "batch outputs"]) -> list[Prediction]:
        shares, classes = probabilities(logits, self.temperature), self.classes
        best = shares.argmax(axis=1)
        decided: list[str | None] = [None] * len(shares)
        if self.decision is not None:
            # The threshold is of probabilities at this temperature, which the run may not have any more.
            decided = [*decide(self.decision, classes, probabilities(logits, self.decision.temperature))]
        return [
            Prediction(
                one.file,
                classes[best[row]],
                float(shares[row, best[row]]),
                shares[row],
                logits[row],
                decision=decided[row],
            )
            if one.error is None
            else one
            for row, one in enumerate(chunk)
        ]
