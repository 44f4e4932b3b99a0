"""Which of several choices no other beats: at least as good, and no dearer."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Positions of the choices that no other beats, by rising cost.

    A choice is beaten by one that costs no more and is worth no less, and is better in one of the two. Equal choices do
    not beat each other.

    Args:
        costs: the lower the better.
        values: the higher the better.
    """
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -values[place]))
    front: list[int] = []
    for place in order:
        best = front[-1] if front else place
        equal = (costs[place], values[place]) == (costs[best], values[best])
        if equal or values[place] > values[best]:
            front.append(place)
    return front
