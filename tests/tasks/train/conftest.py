"""A small run on the embedded digits."""

import pytest

from vision_transfer.config import checked, default_config, stage, with_stages


@pytest.fixture
def small_config():
    """One stage of two epochs of a dense network."""
    config = default_config()
    config.name = "small"
    config.dataset.name = "embedded"
    config.dataset.image_size = 8
    config.dataset.channels = 1
    config.dataset.train_examples = 60
    config.model.backbone = "dense"
    config.model.weights = "random"
    config.model.hidden = (8,)
    config.log.report = False
    return checked(with_stages(config, whole=stage(freeze="none", epochs=2)))
