"""Several probed networks side by side: which network, and what to freeze."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_transfer.metrics.significance import paired
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.files import write_text
from vision_transfer.tasks.probe.recommend import SIGNIFICANT, Recommendation
from vision_transfer.tasks.probe.scores import LayerScores, best_layer
from vision_transfer.tasks.tables import interval_text, markdown_table, screen_table

TABLE = "networks.md"
HEADER = ("Network", "Freeze", "Best layer", "Probe", "95 %", "Last layer", "Time")
NAMES = 3
NOTE = (
    "Probe: cross-validated accuracy of a logistic probe on the averaged maps of the network's best layer (95 % Wilson "
    "interval), on the same folds for all networks. * as good as the best network's (McNemar's exact test, p ≥ 0.05, "
    "uncorrected). Freeze: recommended for these training images."
)


@dataclass(frozen=True)
class ProbedNetwork:
    """The probe of one backbone: the scores of its layers, the recommendation, and the folder of both."""

    backbone: str
    scores: Sequence[LayerScores]
    advice: Recommendation
    folder: Path
    digest: str
    seconds: float

    @property
    def best(self) -> LayerScores:
        """The layer with the best logistic probe."""
        return best_layer(self.scores, lambda one: one.probe)


def say_networks(found: Sequence[ProbedNetwork], folder: Path, screen: Screen) -> None:
    """Shows a row for each network and the best one's recommendation, and writes the table to the folder."""
    chosen = best_network(found)
    rows = network_rows(found)
    write_text(folder / TABLE, markdown_table(HEADER, rows, NAMES, NOTE))
    screen.say(screen_table("Which network, and what to freeze", HEADER, rows, NAMES, NOTE))
    freeze = f"--config.stages.<stage>.freeze={chosen.advice.freeze}"
    screen.say(f"Best network: --config.model.backbone={chosen.backbone} {freeze}", style="bold")
    screen.say(f"Table in {folder / TABLE}.")


def best_network(found: Sequence[ProbedNetwork]) -> ProbedNetwork:
    """The network whose best layer has the highest probe; of equals the first."""
    return max(found, key=lambda one: one.best.probe)


def network_rows(found: Sequence[ProbedNetwork]) -> list[list[str]]:
    """The cells below `HEADER`, in the order given."""
    best = best_network(found).best
    return [
        [
            one.backbone,
            one.advice.freeze,
            one.best.layer,
            f"{one.best.probe:.3f}{'*' if paired(one.best.correct, best.correct).p_value >= SIGNIFICANT else ' '}",
            interval_text(one.best.probe_interval),
            f"{one.scores[-1].probe:.3f}",
            duration(one.seconds),
        ]
        for one in found
    ]
