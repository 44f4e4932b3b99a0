"""A small ablation of a small convnet on the embedded digits: seconds, for tests.

python launch.py --config=tests/end_to_end/configs/small_ablation.py
"""

from vision_transfer.config import Config, default_config, stage, with_stages


def get_config() -> Config:
    """Six runs: three masks, two seeds, one size of the training set."""
    config = default_config()
    config.name = "small_ablation"
    config.task = "ablation"
    config.dataset.name = "embedded"
    config.dataset.image_size = 20
    config.dataset.channels = 1
    config.study.train_examples = (60,)
    config.study.seeds = (0, 1)
    config.study.least_steps = 1
    config.ablation.masks = ("all", "below:conv3", "below:conv2")
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.hidden = (16,)
    with_stages(
        config,
        head=stage(freeze="all", epochs=2, optimizer={"name": "adam", "lr": 3e-3}),
        tune=stage(freeze="none", epochs=2, optimizer={"name": "adam", "lr": 1e-3}),
    )
    config.log.report = False
    config.schedule = ()
    return config
