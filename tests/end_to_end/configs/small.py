"""A small convnet from scratch on the embedded digits, then its last layers alone: seconds, for tests.

python launch.py --config=tests/end_to_end/configs/small.py:epochs=1
"""

from vision_transfer.config import Config, default_config, stage, with_stages
from vision_transfer.config.arguments import parse_recipe


def get_config(argument: str | None = None) -> Config:
    """Recipe: `epochs` of each stage; the number of training `images`, and of those that fit a device; 0 for all."""
    recipe = parse_recipe(argument, epochs=2, images=200, fitting=0)
    if recipe.fitting:
        from vision_transfer.training import device_feed

        device_feed._room = lambda mesh, parts: recipe.fitting * 20 * 20
    config = default_config()
    config.name = "small"
    # A report takes a few seconds; the test of the run folder turns it on.
    config.log.report = False
    config.dataset.name = "embedded"
    config.dataset.image_size = 20
    config.dataset.train_examples = recipe.images or None
    config.dataset.channels = 1
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.hidden = (16,)
    config.checkpoint.every_seconds = 0.0
    return with_stages(
        config,
        whole=stage(freeze="none", epochs=recipe.epochs, optimizer={"name": "adam", "lr": 3e-3}),
        top=stage(freeze="below:conv3", epochs=recipe.epochs, optimizer={"name": "rmsprop", "lr": 1e-4}),
    )
