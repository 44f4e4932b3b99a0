"""Several networks side by side: the best one, and those that are as good."""

import numpy as np

from vision_transfer.tasks.probe.networks import (
    HEADER,
    ProbedNetwork,
    best_network,
    depth_rows,
    network_rows,
    say_networks,
)
from vision_transfer.tasks.probe.recommend import Recommendation
from vision_transfer.tasks.probe.scores import LayerScores

IMAGES = 100


def network(name, right, last, folder):
    """A network whose best of two layers classifies so many images correctly."""
    scores = [
        LayerScores(layer, 8, np.arange(IMAGES) < count, 0.5, -0.5) for layer, count in (("a", right), ("b", last))
    ]
    advice = Recommendation("below:b", "small", "different", "a", ("a",), ())
    together = LayerScores("all stages", 16, np.arange(IMAGES) < right + 2, 0.5, -0.5)
    return ProbedNetwork(name, scores, [scores[-1], together], advice, folder, name, 61.0)


def test_the_best_network_is_named_and_the_others_are_tested_against_it(tmp_path, screen):
    found = [network("poor", 50, 40, tmp_path), network("good", 90, 60, tmp_path), network("close", 88, 80, tmp_path)]
    assert best_network(found).backbone == "good"
    rows = network_rows(found)
    # 90 and 88 of the same images: two differ, p = 0.5.
    assert [row[HEADER.index("Probe")] for row in rows] == ["0.500 ", "0.900*", "0.880*"]
    assert [row[HEADER.index("Last layer")] for row in rows] == ["0.400", "0.600", "0.800"]
    # All stages of the best are right on 92.
    assert [row[:3] for row in depth_rows(found)] == [
        ["poor", "b", "0.400 "],
        ["poor", "all stages", "0.520 "],
        ["good", "b", "0.600 "],
        ["good", "all stages", "0.920*"],
        ["close", "b", "0.800 "],
        ["close", "all stages", "0.900*"],
    ]
    say_networks(found, tmp_path / "networks", screen)
    text = (tmp_path / "networks" / "networks.md").read_text(encoding="utf-8")
    assert text.count("| below:b | a |") == 3
    assert text.count("| all stages | 0.") == 3
