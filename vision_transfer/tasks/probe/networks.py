"""Several probed networks side by side: which network, up to which depth, and what to freeze."""

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
LABEL_COLUMNS = 3
DEPTHS = ("Network", "Layer", "Probe", "95 %")
DEPTH_LABEL_COLUMNS = 2
NOTE = (
    "Probe: cross-validated accuracy of a logistic probe on the averaged maps of the network's best layer (95 % Wilson "
    "interval), on the same folds for all networks. * as good as the best network's (McNemar's exact test, p ≥ 0.05, "
    "uncorrected). Freeze: recommended for these training images."
)
DEPTHS_NOTE = (
    "The same probe at the end of each stage, and on the averages of all these ends side by side. * as good as the "
    "best row."
)


@dataclass(frozen=True)
class ProbedNetwork:
    """The probe of one backbone: the scores of its layers, the recommendation, and the folder of both.

    `depths` are the scores at the ends of its stages, and last those of all of them together.
    """

    backbone: str
    scores: Sequence[LayerScores]
    depths: Sequence[LayerScores]
    advice: Recommendation
    folder: Path
    digest: str
    seconds: float

    @property
    def best(self) -> LayerScores:
        """The layer with the best logistic probe."""
        return best_layer(self.scores, lambda one: one.probe)


def say_networks(found: Sequence[ProbedNetwork], folder: Path, screen: Screen) -> None:
    """Shows a row for each network and each depth, and the best one's recommendation; writes both tables to a file."""
    chosen = best_network(found)
    networks = (HEADER, network_rows(found), LABEL_COLUMNS, NOTE)
    depths = (DEPTHS, depth_rows(found), DEPTH_LABEL_COLUMNS, DEPTHS_NOTE)
    write_text(folder / TABLE, f"{markdown_table(*networks)}\n{markdown_table(*depths)}")
    screen.say(screen_table("Which network, and what to freeze", *networks))
    screen.say(screen_table("Networks and depths", *depths))
    freeze = f"--config.stages.<stage>.freeze={chosen.advice.freeze}"
    screen.say(f"Best network: --config.model.backbone={chosen.backbone} {freeze}", style="bold")
    screen.say(f"Tables in {folder / TABLE}.")


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
            *_probe_cells(one.best, best),
            f"{one.scores[-1].probe:.3f}",
            duration(one.seconds),
        ]
        for one in found
    ]


def depth_rows(found: Sequence[ProbedNetwork]) -> list[list[str]]:
    """The cells below `DEPTHS`: each network from the input on, then all of its stages together."""
    best = best_layer([depth for one in found for depth in one.depths], lambda depth: depth.probe)
    return [[one.backbone, depth.layer, *_probe_cells(depth, best)] for one in found for depth in one.depths]


def _probe_cells(one: LayerScores, best: LayerScores) -> list[str]:
    """The accuracy, marked where it is as good as the best one's, and its interval."""
    mark = "*" if paired(one.correct, best.correct).p_value >= SIGNIFICANT else " "
    return [f"{one.probe:.3f}{mark}", interval_text(one.probe_interval)]
