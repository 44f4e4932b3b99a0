"""A small study."""

import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.tasks.study.plan import PlannedRun, Study


def planned(name, seed=0, start=None, compared=True, **labels):
    config = with_stages(default_config(), head=stage())
    config.name, config.seed = name, seed
    return PlannedRun(name, checked(config), labels | {"seed": seed}, start, compared)


@pytest.fixture
def study():
    """A pretraining and two runs that start from it."""
    return Study(
        "small",
        (
            base := planned("base", compared=False),
            planned("a", 0, base, method="features"),
            planned("b", 1, base, method="features"),
        ),
    )
