"""Candidates of a search without data or networks."""

import numpy as np
import pytest

from vision_transfer.tasks.search.candidates import Base, Candidate, Tuning
from vision_transfer.tasks.search.choose import Scored


@pytest.fixture
def scored():
    """Makes a scored candidate: outcomes by image, cost, and fine-tuning epochs (0: a head)."""

    def make(correct, cost=1.0, loss=0.5, *, epochs=0, size=128, lr=1e-4, head="linear"):
        tuning = Tuning("none", lr, epochs) if epochs else None
        candidate = Candidate(Base("efficientnet_lite0", size), head, tuning)
        return Scored(candidate, np.asarray(correct, bool), loss, cost, cost, (len(correct),))

    return make
