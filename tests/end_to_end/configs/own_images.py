"""A small convnet for an epoch on grey images of 20 pixels: seconds, for tests.

python launch.py --config=tests/end_to_end/configs/own_images.py --config.dataset.root=FOLDER
"""

from vision_transfer.config import Config, default_config, stage, with_stages


def get_config() -> Config:
    """One stage from scratch; a quarter of the images is held out for each of test and validation."""
    config = default_config()
    config.name = "own"
    config.dataset.image_size = 20
    config.dataset.channels = 1
    config.dataset.test_fraction = 0.25
    config.dataset.validation_fraction = 0.25
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.hidden = (16,)
    config.batch_size = 8
    return with_stages(config, whole=stage(freeze="none", epochs=2, optimizer={"name": "adam", "lr": 3e-3}))
