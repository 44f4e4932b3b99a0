"""The task `ablation`: the plan, its runs by one worker or several, then tables and figures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from vision_transfer.config import Config
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.models.network import Network
from vision_transfer.runs.build import DataFacts, build_network, data_request
from vision_transfer.runs.folder import Identity, default_folder
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.files import held
from vision_transfer.tasks.ablation.conclusions import conclusions_by_size, write_sentences
from vision_transfer.tasks.ablation.estimate import Estimate, Sizes, estimate, flops_per_second
from vision_transfer.tasks.ablation.figures import draw_figures
from vision_transfer.tasks.ablation.grid import MASK, SIZE, ablation, run_key
from vision_transfer.tasks.ablation.launchers import PROCESSES, SLURM, Launcher, read_launcher, run_in_processes
from vision_transfer.tasks.ablation.points import points, seconds_per_flop
from vision_transfer.tasks.ablation.queue import conditions, work
from vision_transfer.tasks.ablation.slurm import run_in_jobs
from vision_transfer.tasks.ablation.sweep import SweepFolder, failures, finished_run, forget, write_plan
from vision_transfer.tasks.ablation.tables import screen_table, write_tables
from vision_transfer.tasks.study.data import with_fingerprints
from vision_transfer.tasks.study.plan import Study, check_study
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.train import task


@dataclass(frozen=True)
class Plan:
    """A sweep before it starts.

    Attributes:
        study: the runs.
        network: of all of them.
        sizes: of the splits.
        folder: of the sweep.
    """

    study: Study
    network: Network
    sizes: Sizes
    folder: SweepFolder


def run_ablation(
    config: Config, options: RunOptions, screen: Screen, launcher: str | None = None, *, dry_run: bool = False
) -> Path:
    """Runs an ablation whole, or what is left of it; returns its folder.

    Args:
        config: of the task.
        options: of every run; `workdir` is the sweep's folder.
        screen: for the plan, what the runs say, and the table.
        launcher: see `read_launcher`.
        dry_run: stop behind the plan.

    Raises:
        UserError: a config or data that cannot be used, runs that failed, or another process at work on the sweep.
        Stopped: asked to stop; the same command goes on from there.
    """
    chosen = read_launcher(launcher)
    plan = make_plan(config, options, screen)
    # Other processes have devices of their own, which this one must not open.
    now = None if options.reuse or chosen.kind else conditions()
    if options.rerun and not dry_run:
        forget(plan.study, plan.folder, finished=True)
    say_plan(plan, [] if options.rerun else _finished(plan, now, beside=True), chosen, screen)
    if dry_run:
        return plan.folder.path
    with held(plan.folder.lock("command")) as alone:
        if not alone:
            raise UserError(f"{plan.folder.path}: another process is at work on this sweep; wait for it")
        _do(plan, config, options, chosen, screen)
        _report(plan, f"{config.name.replace('_', ' ')} of {config.model.backbone}", screen)
    return plan.folder.path


def make_plan(config: Config, options: RunOptions, screen: Screen) -> Plan:
    """The runs of a config, against its data.

    Raises:
        UserError: a config or data that cannot be used.
    """
    dataset = load_dataset(data_request(config), cache_dir=options.cache_dir, screen=screen)
    network = build_network(config, DataFacts(len(dataset.classes), dataset.train.images.shape[1:]))
    study = ablation(config, network, len(dataset.train))
    check_study(study)
    study = with_fingerprints(study, options.cache_dir, screen)
    folder = options.workdir or default_folder(study.name, study.digest).path
    sizes = Sizes(len(dataset.train), len(dataset.validation), len(dataset.test))
    return Plan(study, network, sizes, SweepFolder(folder))


def say_plan(plan: Plan, done: list[FinishedRun], launcher: Launcher, screen: Screen) -> None:
    """Which runs there are, what they share, and what those that are not done will take."""
    finished = {one.run.name: one for one in done}
    study = plan.study
    table = Table(title=escape(f"The plan of {study.name}"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column, justify in (("Mask", "left"), ("Images", "right"), ("Runs", "right"), ("Finished", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    groups: dict[tuple[str, str], list[str]] = {}
    for run in study.runs:
        groups.setdefault((str(run.labels[MASK]), f"{run.labels[SIZE]:,}"), []).append(run.name)
    for (mask, images), names in groups.items():
        table.add_row(escape(mask), images, f"{len(names)}", f"{sum(name in finished for name in names)}")
    screen.say(table)
    left = [run for run in study.runs if run.name not in finished]
    screen.say(
        escape(f"{len(study.runs)} runs, {len(left)} of them to do. The sweep: {plan.folder.path}; runs: runs/.")
    )
    if left:
        cost = estimate(left, plan.network, plan.sizes)
        screen.say(escape(shared_text(cost)))
        screen.say(escape(_time_text(plan, cost, list(finished.values()), launcher)))
        screen.say(
            f"Disk, at most: {decimal(cost.feature_bytes)} of features and {decimal(cost.checkpoint_bytes)} of "
            "checkpoints."
        )


def shared_text(cost: Estimate) -> str:
    """What runs of a plan share."""
    cached = f"features of {', '.join(cost.prefixes)} computed once" if cost.prefixes else "no features cached"
    return (
        f"Shared: {cost.stages} stages, of which {cost.trained} are trained ({cost.heads} different first stages for "
        f"{cost.runs} runs); {cached}."
    )


def _time_text(plan: Plan, cost: Estimate, finished: list[FinishedRun], launcher: Launcher) -> str:
    """The expected time by the pace of finished runs, else by that of a matrix product here."""
    amount = f"{cost.flops / 1e12:,.1f} TFLOP"
    workers = f", with {launcher.count} workers on the same cores" if launcher.kind == PROCESSES else ""
    if finished:
        done = estimate([one.run for one in finished], plan.network, plan.sizes).flops_by_run
        seconds = seconds_per_flop(finished, done) * cost.flops
        return f"Time: about {duration(seconds)} for {amount}, by the pace of {len(finished)} finished runs{workers}."
    if launcher.kind == SLURM:
        return f"Time: {amount}, at the pace of the cluster's devices."
    seconds = cost.flops / flops_per_second()
    return (
        f"Time: about {duration(seconds)} for {amount}, if a CPU here keeps the pace of its matrix products{workers}; "
        "loading and compiling come on top. Known better when a run is finished."
    )


def _do(plan: Plan, config: Config, options: RunOptions, launcher: Launcher, screen: Screen) -> None:
    forget(plan.study, plan.folder, finished=False)
    given = {
        "cache_dir": str(options.cache_dir),
        "directory": str(Path.cwd()),
        "rerun": options.rerun,
        "reuse": options.reuse,
        "command": options.command,
    }
    write_plan(plan.study, plan.folder, given)
    progress = _progress(plan, screen)
    match launcher.kind:
        case "":
            work(plan.study, plan.folder, options, task.train, screen)
        case "processes":
            run_in_processes(plan.folder, launcher.count, progress, screen)
        case _:
            run_in_jobs(plan.folder, launcher.count, config.slurm, progress, screen)


def _progress(plan: Plan, screen: Screen) -> Callable[[], int]:
    """Counts runs that are recorded, and says a line for each new one."""
    files = {run.name: plan.folder.record_file(run_key(run.config)) for run in plan.study.runs}
    known = {name for name, file in files.items() if file.exists()}

    def count() -> int:
        for name, file in files.items():
            if name not in known and file.exists():
                known.add(name)
                screen.say(escape(f"{len(known)} of {len(files)} runs: {name}"))
        return len(known)

    return count


def _report(plan: Plan, title: str, screen: Screen) -> None:
    finished = _finished(plan, None, beside=False)
    if not finished:
        raise UserError(_failed(plan))
    found = points(finished, plan.network)
    sentences = conclusions_by_size(finished)
    files = [
        *write_tables(finished, found, plan.folder.path),
        write_sentences(sentences, plan.folder.path),
        *draw_figures(found, plan.folder.figures, title),
    ]
    screen.say()
    screen.say(screen_table(found, title))
    for paragraph in sentences:
        screen.say(escape(" ".join(paragraph)))
        screen.say()
    screen.say(escape(f"Tables and figures: {', '.join(map(str, files))}"))
    if failures(plan.study, plan.folder):
        raise UserError(_failed(plan))


def _finished(plan: Plan, now: Identity | None, *, beside: bool) -> list[FinishedRun]:
    found = (finished_run(run, plan.folder, now, beside=beside) for run in plan.study.runs)
    return [one for one in found if one is not None]


def _failed(plan: Plan) -> str:
    failed = failures(plan.study, plan.folder)
    lines = [f"  {name}: {error.splitlines()[0]}" for name, error in failed.items()]
    return "\n".join(
        [f"{len(failed)} of {len(plan.study.runs)} runs failed; the same command tries them again:", *lines]
    )
