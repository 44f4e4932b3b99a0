"""The mode `predict`: a table of classes and probabilities for any number of picture files."""

import time
from pathlib import Path

from filelock import FileLock, Timeout
from rich.markup import escape
from rich.table import Table as ScreenTable

from vision_transfer.errors import UserError
from vision_transfer.predict.calibrate import say_calibration
from vision_transfer.predict.csv_table import Content, Table, append, resume
from vision_transfer.predict.image_files import find_pictures, shown
from vision_transfer.predict.predictor import Predictor
from vision_transfer.runs.prepare import device_text
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.provenance import code_digest, json_digest, params_sha256, versions

LOCKS = "locks"


def predict(workdir: Path, images: str | None, out: str | None, cache_dir: Path, screen: Screen) -> None:
    """Writes predictions of all pictures; goes on where an earlier command was stopped.

    Args:
        workdir: folder of a finished run.
        images: a file, a folder or a pattern; see `find_pictures`.
        out: the CSV file to write.
        cache_dir: root of all caches.
        screen: for progress and the summary.

    Raises:
        UserError: a flag is missing; no run, no pictures; `out` cannot be written, or another process writes it.
    """
    if images is None or out is None:
        raise UserError("--mode=predict needs --images=PICTURES (file, folder or pattern) and --out=predictions.csv")
    path = Path(out).expanduser()
    files = find_pictures(images)
    lock = FileLock(cache_dir / LOCKS / f"{json_digest(str(path.absolute()))}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock.acquire(timeout=0):
            _predict(Predictor.load(workdir, cache_dir, screen), files, path, screen)
    except Timeout as error:
        raise UserError(
            f"--out={path}: another process is writing this file; wait for it, or give another file"
        ) from error


def _predict(predictor: Predictor, files: list[str], out: Path, screen: Screen) -> None:
    if predictor.calibration is not None:
        say_calibration(predictor.calibration, screen)
    table = Table(out, predictor.classes, _digest(predictor), predictor.batch_size)
    content = resume(table, files)
    done = content.rows
    if done:
        screen.say(escape(f"{out}: {done:,} of {len(files):,} files are done already; going on from there."))
    began = time.monotonic()
    append(table, predictor.stream(files[done:], screen), content)
    _say(table, content, len(files) - done, time.monotonic() - began, screen)


def _digest(predictor: Predictor) -> str:
    """Of all that determines the numbers of a table."""
    return json_digest(
        {
            "params": params_sha256(predictor.run.variables["params"]),
            "statistics": params_sha256(predictor.run.variables["batch_stats"]),
            "classes": predictor.classes,
            "config": predictor.run.result["digest"],
            "temperature": predictor.temperature,
            "batch_size": predictor.batch_size,
            "code": code_digest(),
            "versions": versions(),
            "device": device_text(),
        }
    )


def _say(table: Table, content: Content, done: int, seconds: float, screen: Screen) -> None:
    """How many pictures of each class there are, what could not be read, and how long it took."""
    summary = ScreenTable(title=escape(f"Predictions in {table.out}"), title_justify="left")
    summary.add_column("Class")
    summary.add_column("Pictures", justify="right")
    for name in table.classes:
        summary.add_row(escape(name), f"{content.counts[name]:,}")
    if content.counts[""]:
        summary.add_row("not a picture", f"{content.counts['']:,}", style="yellow")
    screen.say(summary)
    for file, error in content.errors:
        screen.say(escape(f"no prediction: {shown(file)}: {error}"), style="yellow")
    if content.counts[""] > len(content.errors):
        screen.say(f"no prediction: {content.counts[''] - len(content.errors):,} more; the table says why")
    if done:
        screen.say(f"{done:,} files in {duration(seconds)}, {done / seconds:.1f} a second.")
