"""The task `ablation`: a plan, its runs by one or several workers, then tables, figures and conclusions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from vision_transfer.config import Config
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.models.network import Network
from vision_transfer.runs.build import DataFacts
from vision_transfer.runs.folder import Identity, default_folder
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.files import claimed_folder
from vision_transfer.tasks.ablation.all_runs import do_all, failures
from vision_transfer.tasks.ablation.estimate import Estimate, estimate, flops_per_second, seconds_per_flop
from vision_transfer.tasks.ablation.figures import draw_figures, points
from vision_transfer.tasks.ablation.grid import MASK, ablation, networks_of
from vision_transfer.tasks.ablation.launchers import PROCESSES, SLURM, read_launcher
from vision_transfer.tasks.ablation.sweep import SweepFolder, finished_run, forget, refusal
from vision_transfer.tasks.ablation.tables import COLUMNS, SCREEN_COLUMNS, write_tables
from vision_transfer.tasks.figures import draw_or_say_why
from vision_transfer.tasks.study.conclusions import conclusions_by_setting
from vision_transfer.tasks.study.plan import BACKBONE, POOLING, SIZE, Study, check_study, with_fingerprints
from vision_transfer.tasks.study.runs import FinishedRun, conditions, warn_of_several_conditions
from vision_transfer.tasks.study.tables import cells_of, grouped, label_text
from vision_transfer.tasks.tables import screen_table

# Labels that have a column in the plan, with its name.
PLAN_COLUMNS = {BACKBONE: "Backbone", POOLING: "Pooling", MASK: "Mask", SIZE: "Images"}


@dataclass(frozen=True)
class Plan:
    """A sweep before it starts: its runs, its networks by `network_name`, the sizes of the splits, and its folder."""

    study: Study
    networks: dict[str, Network]
    sizes: dict[str, int]
    folder: SweepFolder


def run_ablation(
    config: Config, options: RunOptions, screen: Screen, launcher: str | None = None, *, dry_run: bool = False
) -> Path:
    """Does an ablation, or what remains of it; returns its folder. A dry run stops after the plan.

    `options` are those of every run, with the sweep's folder as `workdir`; for `launcher` see `read_launcher`.

    Raises:
        UserError: an invalid config or unusable data, failed runs, or a sweep that is in use by another process.
        Stopped: asked to stop; the same command resumes.
    """
    kind, workers = read_launcher(launcher)
    plan = make_plan(config, options, screen)
    # Other processes have their own devices, which this one must not open.
    now = None if options.reuse or kind else conditions()
    say_plan(plan, [] if options.rerun else _finished(plan, now, beside=True), kind, workers, screen)
    if dry_run:
        return plan.folder.path
    busy = UserError(f"{plan.folder.path}: this sweep is in use by another process; wait for it to end")
    with claimed_folder(plan.folder.path, busy):
        if options.rerun:
            forget(plan.study, plan.folder, finished=True)
        do_all(plan.study, plan.folder, options, (kind, workers), config.slurm, screen)
        _report(plan, config.name.replace("_", " "), screen)
    return plan.folder.path


def make_plan(config: Config, options: RunOptions, screen: Screen) -> Plan:
    """The runs of a config, for its data; raises `UserError` if either cannot be used."""
    dataset = load_dataset(config.dataset, cache_dir=options.cache_dir, screen=screen)
    networks = networks_of(config, DataFacts(len(dataset.classes), dataset.train.image_shape))
    study = ablation(config, networks, len(dataset.train))
    check_study(study)
    study = with_fingerprints(study, options.cache_dir, screen)
    folder = options.workdir or default_folder(study.name, study.digest).path
    sizes = {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)}
    return Plan(study, networks, sizes, SweepFolder(folder))


def say_plan(plan: Plan, done: Sequence[FinishedRun], kind: str, workers: int, screen: Screen) -> None:
    """Shows the runs, what they share, and the expected time and disk space of those that remain."""
    finished = {one.run.name: one for one in done}
    runs = plan.study.runs
    columns = [name for name in PLAN_COLUMNS if name in runs[0].labels]
    groups: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        groups.setdefault(tuple(label_text(run.labels[name]) for name in columns), []).append(run.name)
    rows = [[*names, f"{len(own)}", f"{sum(name in finished for name in own)}"] for names, own in groups.items()]
    title, header = f"The plan of {plan.study.name}", [*map(PLAN_COLUMNS.__getitem__, columns), "Runs", "Finished"]
    screen.say(screen_table(title, header, rows, len(columns) - 1))
    remaining = [run for run in runs if run.name not in finished]
    screen.say(f"{len(runs)} runs, {len(remaining)} remaining. Sweep: {plan.folder.path}; runs: runs/.")
    if remaining:
        cost = estimate(remaining, plan.networks, plan.sizes)
        screen.say(_shared_text(cost))
        screen.say(_time_text(plan, cost, list(finished.values()), kind, workers))
        features, checkpoints = decimal(cost.feature_bytes), decimal(cost.checkpoint_bytes)
        screen.say(f"Disk space: at most {features} for features and {checkpoints} for checkpoints.")


def _shared_text(cost: Estimate) -> str:
    layers = [
        f"{layer} of {name}" if len(cost.prefixes) > 1 else layer
        for name, prefixes in cost.prefixes.items()
        for layer in prefixes
    ]
    cached = f"features of {', '.join(layers)} are computed once" if layers else "no features are cached"
    return (
        f"Shared: {cost.stages} stages, {cost.trained} of them to train ({cost.heads} different first stages for "
        f"{len(cost.flops_by_run)} runs); {cached}."
    )


def _time_text(plan: Plan, cost: Estimate, finished: list[FinishedRun], kind: str, workers: int) -> str:
    """The expected time at the speed of finished runs or, without any, of a matrix product on this machine."""
    amount = f"{cost.flops / 1e12:,.1f} TFLOP"
    shared = f", with {workers} workers on the same cores" if kind == PROCESSES else ""
    if finished:
        done = estimate([one.run for one in finished], plan.networks, plan.sizes).flops_by_run
        seconds = seconds_per_flop(finished, done) * cost.flops
        return f"Time: about {duration(seconds)} for {amount}, at the speed of {len(finished)} finished runs{shared}."
    if kind == SLURM:
        return f"Time: {amount}, at the speed of the cluster's devices."
    seconds = cost.flops / flops_per_second()
    return (
        f"Time: about {duration(seconds)} for {amount}, at the speed of matrix products on this CPU{shared}, plus "
        "loading and compilation. The estimate improves once a run is finished."
    )


def _report(plan: Plan, title: str, screen: Screen) -> None:
    finished = _finished(plan, None, beside=False)
    if finished:
        groups, paragraphs = grouped(finished), conclusions_by_setting(finished)
        files = write_tables(finished, groups, paragraphs, plan.folder.path)
        figures, found = plan.folder.path / "figures", points(groups, plan.networks)
        draw_or_say_why(figures, lambda: files.extend(draw_figures(found, figures, title)), screen)
        screen.say()
        title = f"{title} of {' and '.join(plan.networks)}"
        screen.say(screen_table(title, *cells_of(groups, COLUMNS), len(groups[0].labels), kept=SCREEN_COLUMNS))
        for paragraph in paragraphs:
            screen.say(" ".join(paragraph))
            screen.say()
        screen.say(f"Tables and figures: {', '.join(map(str, files))}")
        warn_of_several_conditions(finished, screen)
    lines = failures(plan.study, plan.folder)
    refused = {run.name: refusal(run, plan.folder) for run in plan.study.runs}
    left = [f"  {name}" for name, reason in refused.items() if reason is not None]
    if left:
        title = f"{len(left)} of {len(refused)} runs were left as they are, computed under other conditions:"
        screen.say("\n".join([title, *left, "--rerun does them again; --reuse takes them"]), style="yellow")
    if lines or (not finished and not left):
        title = f"{len(lines)} of {len(plan.study.runs)} runs failed; the same command tries them again:"
        raise UserError("\n".join([title, *lines]))


def _finished(plan: Plan, now: Identity | None, *, beside: bool) -> list[FinishedRun]:
    found = (finished_run(run, plan.folder, now, beside=beside) for run in plan.study.runs)
    return [one for one in found if one is not None]
