"""A small run on the embedded digits."""

import pytest

from vision_transfer.config import checked, default_config, stage, with_stages


@pytest.fixture(scope="session")
def small():
    """Makes the configuration, with a tracker: two stages of two epochs of a dense network."""

    def make(tracker="none"):
        config = default_config()
        config.name = "small"
        config.dataset.name = "embedded"
        config.dataset.image_size = 8
        config.dataset.channels = 1
        config.dataset.train_examples = 60
        config.model.backbone = "dense"
        config.model.weights = "random"
        config.model.hidden = (8,)
        config.log.tracker = tracker
        return checked(with_stages(config, **{name: stage(freeze="none", epochs=2) for name in ("first", "second")}))

    return make
