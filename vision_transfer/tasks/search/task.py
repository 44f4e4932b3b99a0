"""The task `search`: trains candidates round by round within a number of minutes, chooses one, and tests it once."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from vision_transfer.config import Config, digested
from vision_transfer.data.dataset import Dataset
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.freezing import resolve
from vision_transfer.models.layers import layer_names, layers_of
from vision_transfer.models.network import Network
from vision_transfer.runs.build import DataFacts, build_network
from vision_transfer.runs.folder import FolderBusy, OtherConditions, RunFolder, default_folder
from vision_transfer.runs.predictions import OutOfFold
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runs.trained import joined
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.files import absolute_path, claimed_folder, remove
from vision_transfer.runtime.provenance import json_digest
from vision_transfer.runtime.terminal import SafeConsole
from vision_transfer.tasks.ablation.all_runs import SHARED_STAGES, do_all
from vision_transfer.tasks.ablation.estimate import flops_per_second
from vision_transfer.tasks.ablation.launchers import read_launcher
from vision_transfer.tasks.ablation.sweep import SweepFolder, failed_seconds, failure, finished_run, refusal
from vision_transfer.tasks.folds import read_folds
from vision_transfer.tasks.search.candidates import Base, Candidate, bases, with_base, with_usable_heads
from vision_transfer.tasks.search.choose import chosen
from vision_transfer.tasks.search.journal import JOURNAL, Entry, Journal
from vision_transfer.tasks.search.next_round import all_scored, judged_runs, next_round
from vision_transfer.tasks.search.page import Outcome, write_page
from vision_transfer.tasks.search.plan import Search
from vision_transfer.tasks.search.rounds import Round
from vision_transfer.tasks.study.plan import Study, starting_paths
from vision_transfer.tasks.study.runs import conditions, launch, read_finished
from vision_transfer.tasks.train.messages import say_doubts

LOGS, ROUNDS = "logs", "rounds"


def search(config: Config, options: RunOptions, screen: Screen, launcher: str | None = None) -> Path:
    """Searches for the best model within `search.minutes`, or what remains of them; returns the search's folder.

    `search.md` there says what was tried, what was chosen and why; `search.json` has the same for programs. With more
    minutes than before the search goes on where it ended. For `launcher` see `read_launcher`; the time is that of all
    runs together, so that several workers do not change what a search finds.

    Raises:
        UserError: an invalid config, unusable data, too little time for a single head, or no run that did not fail.
        Stopped: asked to stop; the same command goes on.
    """
    workers = read_launcher(launcher)
    plan = _prepare(config, options, screen)
    busy = UserError(f"{plan.folder}: this search is in use by another process; wait for it to end")
    with claimed_folder(plan.folder, busy):
        if options.rerun:
            remove(plan.folder / JOURNAL)
            remove(plan.folder / ROUNDS)
        # the devices of workers are theirs
        speed = flops_per_second(on_accelerator=not workers[0])
        journal = Journal(plan.folder, plan.digest, 1 / speed)
        if not options.reuse:
            _check_unchanged(journal, by_workers=bool(workers[0]))
        shared = None if options.rerun else SHARED_STAGES
        # the run of a fold is tested on images of training
        own = replace(options, workdir=None, shared_stages=shared, test=bool(plan.folds))
        budget = 60 * config.search.minutes
        screen.say(f"Search in {plan.folder}: {duration(journal.seconds)} of {duration(budget)} used so far.")
        for planned in journal.rounds:
            _do_round(plan, planned, journal, own, workers, screen)
        while (planned := next_round(plan, journal, budget)) is not None:
            journal.begin(planned)
            _do_round(plan, planned, journal, own, workers, screen)
        scored = all_scored(plan, journal)
        if not scored:
            errors = [f"  {one.name}: {entry.error}" for one, entry in journal.entries.items()]
            raise UserError("\n".join(["every run of the search failed:", *errors]))
        trials = [one for one in scored if one.candidate.on_first_fold]
        whole = [one for one in scored if not one.candidate.on_first_fold]
        winner = chosen(whole)
        journal.note_test(winner.candidate)
        last = "trained on the images of all folds and tested" if plan.folds else "tested"
        screen.say(f"Chosen: {winner.candidate.name}; it is {last} now.", style="bold")
        # With --rerun a candidate's own run has been done again already.
        again = options.rerun and bool(plan.folds)
        tested = replace(own, test=True, rerun=again, out_of_fold=_out_of_fold(plan, winner.candidate, journal))
        folder = launch(plan.run_config(winner.candidate), tested, screen.silent())
        ahead = next_round(plan, journal, budget + 600)
        outcome = Outcome(whole, trials, winner, folder, journal, budget, plan.folds, ahead)
        write_page(outcome, plan.folder, screen)
    return plan.folder


def _prepare(config: Config, options: RunOptions, screen: Screen) -> Search:
    listed = bases(config)
    if not listed or not config.search.heads:
        raise UserError("config.search: backbones, image_sizes and heads must each have at least one value")
    first = with_base(config, listed[0]).dataset
    by_folds = bool(first.folds) and first.fold is None
    whole = load_dataset(first, cache_dir=options.cache_dir, screen=screen)
    data = load_dataset(replace(first, fold=0), cache_dir=options.cache_dir, screen=screen) if by_folds else whole
    sizes = {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
    numbers = ", ".join(f"{count:,} {split}" for split, count in sizes.items())
    screen.say(f"{data.name}: {len(data.classes)} classes; {numbers}; {data.note}")
    say_doubts(data, screen)
    if by_folds:
        screen.say(
            f"Candidates are compared on the images of all {first.folds} folds; these numbers are of one fold's run."
        )
    if not len(data.validation):
        raise UserError(
            f"config.dataset.validation_fraction: got {first.validation_fraction:g}, which leaves no validation image; "
            "a search chooses on validation, so give more"
        )
    config = with_usable_heads(config, len(data.classes))
    networks = {base: _network(config, base, data) for base in listed}
    spaces = replace(config.search, minutes=0.0)
    digest = json_digest([digested(config), *starting_paths(config), repr(spaces), data.fingerprint])
    folder = options.workdir or default_folder(config.name, digest).path
    plan = Search(config, networks, sizes, len(whole.test), folder, digest)
    _check_ways(plan)
    return plan


def _check_unchanged(journal: Journal, *, by_workers: bool) -> None:
    """Raises OtherConditions where other code, versions or devices than those of later runs computed an earlier one.

    Workers have devices of their own, which this process must not open; they look at them themselves.
    """
    for candidate, entry in journal.entries.items():
        for folder in entry.folders:
            recorded = RunFolder(folder).identity()
            if recorded is None:
                continue
            if differences := conditions(recorded.get("device") if by_workers else None).differences(recorded):
                raise OtherConditions(
                    f"{folder}: {candidate.name} was trained under other conditions than later runs would be:\n  "
                    + "\n  ".join(differences)
                    + "\n--rerun searches again from the start; --reuse takes earlier runs as they are"
                )


def _check_ways(plan: Search) -> None:
    """Raises UserError for a freeze spec that a network cannot have, or that trains nothing but the head."""
    for base, network in plan.networks.items():
        names = layer_names(layers_of(network.backbone))
        for way in plan.ways(base):
            assert way.tuning is not None, "a way to fine-tune"
            try:
                mask = resolve(way.tuning.freeze, network)
            except UserError as error:
                raise UserError(f"config.search.freeze, {base.backbone}: {error}") from error
            if not any(any(mask.get(name, {}).values()) for name in names):
                raise UserError(
                    f"config.search.freeze: {way.tuning.freeze!r} trains no layer of {base.backbone}; heads on the "
                    "frozen network are tried anyway, so leave it out"
                )


def _network(config: Config, base: Base, data: Dataset) -> Network:
    shape = (base.image_size, base.image_size, data.train.images.shape[-1])
    return build_network(with_base(config, base), DataFacts(len(data.classes), shape))


def _out_of_fold(plan: Search, candidate: Candidate, journal: Journal) -> OutOfFold | None:
    """The predictions of a candidate's runs of all folds, None without folds."""
    if not plan.folds:
        return None
    runs = zip(plan.runs(candidate), journal.entries[candidate].folders, strict=True)
    finished = [read_finished(run, folder, None) for run, folder in runs]
    return read_folds([one for one in finished if one is not None]).predictions


def _do_round(
    plan: Search, planned: Round, journal: Journal, options: RunOptions, launcher: tuple[str, int], screen: Screen
) -> None:
    """Trains the candidates of a round that are not in the journal yet, here or by workers."""
    waiting = [one for one in planned.candidates if one not in journal.entries or one in journal.failed_before]
    if not waiting:
        return
    number = journal.rounds.index(planned) + 1
    screen.say(f"Round {number}: {planned.title}, about {duration(planned.seconds)}", style="bold")
    if launcher[0]:
        _do_by_workers(plan, number, waiting, journal, options, launcher, screen)
        return
    (plan.folder / LOGS).mkdir(exist_ok=True)
    for candidate in waiting:
        with (plan.folder / LOGS / f"{number}.txt").open("a", encoding="utf-8") as stream:
            own = replace(screen, console=SafeConsole(file=stream, width=120, force_terminal=False))
            began = time.monotonic()
            try:
                folders = [launch(run.config, options, own).path for run in plan.runs(candidate)]
            except (FolderBusy, OtherConditions):  # no failure of the candidate
                raise
            except UserError as error:
                _note_failed(journal, candidate, str(error), time.monotonic() - began, screen)
                continue
        _note(plan, journal, candidate, folders, screen)


def _do_by_workers(
    plan: Search,
    number: int,
    waiting: list[Candidate],
    journal: Journal,
    options: RunOptions,
    launcher: tuple[str, int],
    screen: Screen,
) -> None:
    folder = SweepFolder(plan.folder / ROUNDS / str(number))
    by_candidate = {one: plan.runs(one) for one in waiting}
    runs = tuple(chain.from_iterable(by_candidate.values()))
    do_all(Study(f"{plan.config.name} round {number}", runs), folder, options, launcher, plan.config.slurm, screen)
    for candidate, own in by_candidate.items():
        if reasons := [reason for run in own if (reason := refusal(run, folder)) is not None]:
            raise OtherConditions(reasons[0])
        done = [(run, finished_run(run, folder, None, tested=options.test)) for run in own]
        if missing := [run for run, found in done if found is None]:
            seconds = sum(float(found.result["seconds"]["total"]) for _, found in done if found is not None)
            seconds += sum(failed_seconds(run, folder) for run in missing)
            _note_failed(journal, candidate, failure(missing[0], folder) or "not done", seconds, screen)
        else:
            _note(plan, journal, candidate, [found.folder for _, found in done if found is not None], screen)


def _note(plan: Search, journal: Journal, candidate: Candidate, folders: Sequence[Path], screen: Screen) -> None:
    """Records the folders of a candidate's runs."""
    parts, places = judged_runs(plan, folders), tuple(Path(absolute_path(str(folder))) for folder in folders)
    judged, known = joined(parts), {place for entry in journal.entries.values() for place in entry.folders}
    # a way that was compared on the first fold has its run already
    own = sum(part.seconds["total"] for part, place in zip(parts, places, strict=True) if place not in known)
    forward = judged.seconds["features"] + (0.0 if candidate.tuning is None else judged.seconds["evaluate"])
    epochs = 0 if candidate.tuning is None else candidate.tuning.epochs
    entry = Entry(places, own, forward, epochs * judged.epoch_seconds, judged.seconds["total"])
    journal.note(candidate, entry)
    kind = "out of fold" if plan.folds else "validation"
    accuracy = float(judged.correct.mean())
    reached = f"{kind} {accuracy:.4f}, loss {judged.loss:.4f}, {duration(entry.seconds)}"
    screen.say(f"  {candidate.name}: {reached}")


def _note_failed(journal: Journal, candidate: Candidate, error: str, seconds: float, screen: Screen) -> None:
    """Records the error that ended a run of a candidate, and the time of its runs, which counts as that of others."""
    journal.note(candidate, Entry((), seconds, error=error))
    screen.say(f"  {candidate.name}: failed: {error}", style="red")
