"""`--mode=predict`: a table of classes and probabilities for any number of image files."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from filelock import FileLock
from rich.table import Table as ScreenTable

from vision_transfer.data.formats.image_files import display
from vision_transfer.errors import UserError
from vision_transfer.predict import Predictor
from vision_transfer.predict.csv_table import Content, Table, append, resume
from vision_transfer.predict.decision import ABSTAIN, meaning, reason
from vision_transfer.predict.image_files import find_images
from vision_transfer.predict.several import common_batch, load_several, stream_of
from vision_transfer.predict.temperature import Calibration
from vision_transfer.runs.prepare import device_text
from vision_transfer.runtime import hosts
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.files import held, user_path
from vision_transfer.runtime.provenance import code_digest, json_digest, params_sha256, versions

LOCKS = "locks"


def predict(
    runs: Sequence[Path], images: str | None, out: str | None, cache_dir: Path, screen: Screen, views: str | None = None
) -> None:
    """Writes a finished run's predictions of all images to the CSV file `out`; resumes a table that was interrupted.

    Of several runs the probabilities are averaged. `views` are those that `Predictor.load` takes. Several hosts share
    out the batches, so that the first one writes the file that it would write alone.

    Raises:
        UserError: a flag is missing; no run, images or views of that name, or runs of other classes; `out` is not
            writable or in use elsewhere.
    """
    if images is None or out is None:
        raise UserError("--mode=predict needs --images=IMAGES (file, folder or pattern) and --out=predictions.csv")
    path = user_path(out)
    files = find_images(images, screen)
    with hosts.scratch_folder() as scratch:
        path = path if scratch is None else scratch / path.name
        lock = (scratch or cache_dir) / LOCKS / f"{json_digest(str(path.absolute()))}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with held(FileLock(lock)) as mine:
            if not mine:
                raise UserError(f"--out={path}: another process is writing this file; wait for it or give another file")
            _predict(_loaded(runs, cache_dir, screen, views), files, path, screen)


def _loaded(runs: Sequence[Path], cache_dir: Path, screen: Screen, views: str | None) -> Sequence[Predictor]:
    """The predictors on each host; the first one loads them before the others, as that may complete a run's folder."""
    if not hosts.is_first():
        hosts.barrier()
    members = load_several(runs, cache_dir, screen, views)
    if hosts.is_first():
        hosts.barrier()
    return members


def _predict(members: Sequence[Predictor], files: list[str], out: Path, screen: Screen) -> None:
    for member in members:
        if member.calibration is not None:
            _say_calibration(member.calibration, screen)
    decision = members[0].decision if len(members) == 1 else None
    if decision is not None:
        screen.say(f"Decision: {meaning(decision)} ({reason(decision)}).")
    if len(members) > 1:
        screen.say(f"Probabilities are the mean of {len(members)} runs; thresholds of single runs are not used.")
    digests = [_digest(member) for member in members]
    digest = digests[0] if len(digests) == 1 else json_digest(digests)
    size = common_batch(members)
    table = Table(out, members[0].classes, digest, size, decision is not None)
    hosts.compare("runs and images", {"runs": table.digest, "images": json_digest([display(file) for file in files])})
    content = resume(table, files)
    done = hosts.from_first("rows that are done", content.rows)
    if done:
        screen.say(f"{out}: resuming after {done:,} of {len(files):,} files.")
    began = time.monotonic()
    batches = [files[start : start + size] for start in range(done, len(files), size)]
    chunks = hosts.shared_out(batches, lambda own: stream_of(members, list(chain.from_iterable(own)), screen))
    append(table, chunks, content)
    _say_summary(table, content, len(files) - done, time.monotonic() - began, screen)


def _digest(predictor: Predictor) -> str:
    """Digest of everything that determines the numbers of a table."""
    return json_digest(
        {
            "params": params_sha256(predictor.run.variables["params"]),
            "statistics": params_sha256(predictor.run.variables["batch_stats"]),
            "classes": predictor.classes,
            "config": predictor.run.result["digest"],
            "temperature": predictor.temperature,
            "decision": None if predictor.decision is None else asdict(predictor.decision),
            "batch_size": predictor.batch_size,
            "views": [view.__name__ for view in predictor.views],
            "code": code_digest(also=("predict/views.py",)),
            "versions": versions(),
            "device": device_text(),
        }
    )


def _say_calibration(calibration: Calibration, screen: Screen) -> None:
    if calibration.temperature == 1:
        images = calibration.validation.examples
        screen.say(
            f"Probabilities are the network's own: cross-validation on {images:,} validation images shows no gain by a "
            "temperature, so it stays 1."
        )
        return
    screen.say(f"Calibrated: logits are divided by the temperature {calibration.temperature:.3f}.")
    for split, fit in (("validation, used for the fit", calibration.validation), ("test", calibration.test)):
        if fit is not None:
            (nll, new_nll), (ece, new_ece) = fit.nll, fit.ece
            screen.say(
                f"  {split} ({fit.examples:,} images): negative log-likelihood {nll:.4f} → {new_nll:.4f}, "
                f"calibration error {ece:.4f} → {new_ece:.4f}"
            )


def _say_summary(table: Table, content: Content, done: int, seconds: float, screen: Screen) -> None:
    summary = ScreenTable(title=f"Predictions in {table.out}", title_justify="left")
    summary.add_column("Decision" if table.decides else "Class")
    summary.add_column("Images", justify="right")
    for name in (*table.classes, *([ABSTAIN] if content.counts[ABSTAIN] else [])):
        summary.add_row(name, f"{content.counts[name]:,}")
    if content.counts[""]:
        summary.add_row("not an image", f"{content.counts['']:,}", style="yellow")
    screen.say(summary)
    for file, error in content.errors:
        screen.say(f"no prediction: {display(file)}: {error}", style="yellow")
    if content.counts[""] > len(content.errors):
        screen.say(f"no prediction: {content.counts[''] - len(content.errors):,} more; the table gives the reasons")
    if done:
        screen.say(f"{done:,} files in {duration(seconds)}, {done / seconds:.1f} per second.")
