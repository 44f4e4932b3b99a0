"""`--mode=report`: the page of one run, or of several side by side."""

from collections.abc import Sequence
from pathlib import Path

from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen


def report_of_finished_run(path: Path, cache_dir: Path, screen: Screen) -> None:
    """Writes the report at the end of a run; a failure is printed and does not affect the run."""
    from vision_transfer.tasks.report.page import write_report

    # the run has already printed what loading data and weights would print again
    silent = screen.silent()
    try:
        write_report(path, cache_dir, silent)
    # no error of any kind in the page may cost the run's result
    except Exception as error:
        screen.say(
            f"report.html was not written ({type(error).__name__}: {error}); the result is not affected. To try "
            f"again: --mode=report --workdir={path} --debug",
            style="yellow",
        )


def report(paths: Sequence[Path], out: Path | None, cache_dir: Path, screen: Screen) -> Path:
    """Writes the page of one run, or of several; prints and returns its path.

    Benchmarks are compared in Markdown. `out` is by default `report.html` in the run's folder, or `comparison.html` or
    `benchmarks.md` in the working directory.

    Raises:
        UserError: a folder is not a run's, or benchmarks and runs are mixed.
    """
    from vision_transfer.tasks.benchmark.difference import is_benchmark, write_difference

    benchmarks = [path for path in paths if is_benchmark(path)]
    if benchmarks:
        if len(paths) == 1 or len(benchmarks) < len(paths):
            raise UserError(f"--workdir: {benchmarks[0]} is a benchmark; give two or more, to compare them")
        file = write_difference(paths, Path("benchmarks.md") if out is None else out, screen)
    elif len(paths) == 1:
        from vision_transfer.tasks.report.page import write_report

        file = write_report(paths[0], cache_dir, screen, out)
    else:
        from vision_transfer.tasks.report.comparison import write_comparison

        file = write_comparison(paths, Path("comparison.html") if out is None else out, cache_dir, screen)
    screen.say(f"The report is in {file}.")
    return file
