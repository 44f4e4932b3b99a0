"""`search.md` and its figure: what a search tried, what each candidate cost, which it chose, and what would be next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_transfer.metrics.significance import paired
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.files import write_text
from vision_transfer.tasks.figures import COLOURS, draw_or_say_why, new_axes, save_png, wrapped
from vision_transfer.tasks.search.choose import Scored, best, front
from vision_transfer.tasks.search.journal import Journal
from vision_transfer.tasks.search.rounds import Round
from vision_transfer.tasks.tables import interval_text, markdown_table, screen_table

PAGE, FIGURE = "search.md", "front.png"
COLUMNS = ("95 %", "Loss", "TFLOP", "Time")
TERA = 1e12


@dataclass(frozen=True)
class Outcome:
    """The end of a search.

    Attributes:
        scored: all candidates that were trained and judged on all images, in their order.
        trials: those that were compared on the first fold only.
        winner: the chosen one.
        folder: of its run, tested.
        journal: rounds and entries.
        budget: seconds that were allowed.
        folds: that candidates were compared by, 0 for validation.
        ahead: the round that ten more minutes would begin with, or None.
    """

    scored: Sequence[Scored]
    trials: Sequence[Scored]
    winner: Scored
    folder: RunFolder
    journal: Journal
    budget: float
    folds: int
    ahead: Round | None

    @property
    def compared_on(self) -> str:
        """The images that candidates were compared on, in words."""
        images = len(self.winner.correct)
        return f"{images:,} images, each out of fold" if self.folds else f"{images:,} validation images"

    @property
    def header(self) -> tuple[str, ...]:
        """Of the table of candidates."""
        return ("Candidate", "Out of fold" if self.folds else "Validation", *COLUMNS)


def write_page(outcome: Outcome, folder: Path, screen: Screen) -> None:
    """Writes `search.md` and the figure of the front, and shows the table and the sentences."""
    rows, paragraphs = table_rows(outcome), sentences(outcome)
    draw_or_say_why(folder / FIGURE, lambda: draw_front(outcome, folder / FIGURE), screen)
    front_note = "* on the Pareto front of training cost and accuracy."
    time_note = "Time: of its runs, without what earlier ones had left it."
    if outcome.trials:
        time_note += " First fold: judged on its images only, to compare ways to fine-tune with each other."
    cost_note = f"TFLOP: to train it from the images{', for all folds and their tests' if outcome.folds else ''}."
    of_what = "the accuracy on new images, approximately" if outcome.folds else "the accuracy (Wilson)"
    note = f"{front_note} 95 %: interval of {of_what}. {cost_note} {time_note}"
    figure = f"![Accuracy against training cost]({FIGURE})\n"
    errors = {one.name: " ".join(entry.error.split()) for one, entry in outcome.journal.entries.items() if entry.error}
    failures = [f"- {name} failed: {error}\n" for name, error in errors.items()]
    parts = ["# Search\n", *(f"{text}\n" for text in paragraphs), figure, markdown_table(outcome.header, rows, 1, note)]
    write_text(folder / PAGE, "\n".join([*parts, *failures]))
    screen.say()
    # The other columns would leave no room for names.
    kept = (outcome.header[1], "Time")
    screen.say(screen_table("Candidates, the best first", outcome.header, rows, 1, f"{front_note} {time_note}", kept))
    for text in paragraphs:
        screen.say(text)
    model = outcome.folder.path
    screen.say(f"Page: {folder / PAGE}. The chosen run, with a report of its own: {model}.")
    screen.say(f"Use it with --mode=predict --workdir={model} --images=FILES --out=FILE.csv")


def table_rows(outcome: Outcome) -> list[list[str]]:
    """The cells below the header, the best candidate first; those of the first fold at the end."""
    on_front = front(outcome.scored)
    return [
        [
            one.candidate.name + (" *" if one in on_front else ""),
            f"{one.accuracy:.4f}",
            interval_text(one.interval),
            f"{one.loss:.4f}",
            f"{one.cost / TERA:,.1f}",
            duration(one.seconds),
        ]
        for group in (outcome.scored, outcome.trials)
        for one in sorted(group, key=Scored.rank)
    ]


def sentences(outcome: Outcome) -> list[str]:
    """Sentences: the choice and its reason, how good it is, what the search cost, and what more time would try."""
    winner, top, result = outcome.winner, best(outcome.scored), outcome.folder.result()
    assert result is not None, "the chosen run is tested"
    if winner is top:
        why = f"It has the highest accuracy on {outcome.compared_on}: {winner.accuracy:.4f}"
        cheaper = [one for one in outcome.scored if one.cost < winner.cost]
        why += "; every cheaper candidate is more than one standard error below it." if cheaper else "."
    elif winner.accuracy == top.accuracy:
        why = f"It is the cheapest of those with the highest accuracy on {outcome.compared_on}: "
        why += f"{winner.accuracy:.4f}."
    else:
        compared = paired(winner.correct, top.correct)
        why = (
            f"On {outcome.compared_on}, it has {winner.accuracy:.4f}; the highest is {top.accuracy:.4f} "
            f"({top.candidate.name}). The difference is within one standard error (p = {compared.p_value:.2g}, "
            f"McNemar's exact test), and training it costs {winner.cost / top.cost:.2g} times as much."
        )
    test = result["test"]
    low, high = test["accuracy_ci95"]
    reached = f"{test['accuracy']:.4f} on {test['examples']:,} images (95 % {low:.4f} to {high:.4f})."
    used = f"Test, used once for this run: {reached}"
    if "folds" in test:
        used = f"There is no test split. Out of fold it has {reached} It was chosen by these, so expect a little less."
    elif len(outcome.journal.tested) > 1:
        others = len(outcome.journal.tested) - 1
        used += (
            f" Earlier, with fewer minutes, {others} other {'choice was' if others == 1 else 'choices were'} tested."
        )
    runs = len(outcome.scored) + len(outcome.trials)
    spent = (
        f"{runs} {'candidate' if runs == 1 else 'candidates'} took {duration(outcome.journal.seconds)} of "
        f"{duration(outcome.budget)}, without {'the last run' if outcome.folds else 'the test'}."
    )
    if outcome.ahead is None:
        ahead = "Nothing new fits into ten more minutes: give more, or add backbones, sizes or rates to config.search."
    else:
        names = "; ".join(one.name for one in outcome.ahead.candidates)
        ahead = f"Ten more minutes (--config.search.minutes={outcome.budget / 60 + 10:g}) would try: {names}."
    return [f"Chosen: {winner.candidate.name}. {why}", used, spent, ahead]


def draw_front(outcome: Outcome, path: Path) -> None:
    """Writes a PNG: accuracy against training cost, the front, and the chosen candidate."""
    from matplotlib.ticker import LogLocator

    figure, axes = new_axes(9, 5)
    steps = front(outcome.scored)
    groups = {"frozen backbone, a head": False, "fine-tuned": True}
    for number, (label, tuned) in enumerate(groups.items()):
        own = [one for one in outcome.scored if (one.candidate.tuning is not None) == tuned]
        for place, one in enumerate(own):
            low, high = one.interval
            axes.errorbar(
                one.cost / TERA,
                one.accuracy,
                # at 0 and 1 rounding can take an end of the interval past the accuracy
                yerr=[[max(0.0, one.accuracy - low)], [max(0.0, high - one.accuracy)]],
                fmt="os"[number],
                color=COLOURS[number],
                elinewidth=0.8,
                label=label if place == 0 else None,
            )
    costs, accuracies = [one.cost / TERA for one in steps], [one.accuracy for one in steps]
    axes.plot(costs, accuracies, color="0.5", linestyle="--", zorder=0, label="Pareto front")
    winner = outcome.winner
    ring = {"s": 220, "facecolors": "none", "edgecolors": "black", "label": "chosen"}
    axes.scatter([winner.cost / TERA], [winner.accuracy], **ring)
    axes.set_xscale("log")
    # costs seldom differ by more than a factor of ten, and a formatter of logarithms writes formulas
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("operations to train it from the images, TFLOP")
    axes.set_ylabel(f"accuracy {'out of fold' if outcome.folds else 'on validation'}, 95 % interval")
    figure.legend(frameon=False, loc="outside lower center", ncols=4)
    figure.suptitle(wrapped(f"Chosen: {winner.candidate.name}", 8.5))
    save_png(figure, path)
