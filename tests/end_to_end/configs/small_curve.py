"""A transfer curve at one size on the embedded digits, which serve as both data sets: seconds, for tests.

python launch.py --config=tests/end_to_end/configs/small_curve.py
"""

from vision_transfer.config import Config, default_config, stage, with_stages


def get_config() -> Config:
    """Four runs: one pretraining, and three ways with one seed."""
    config = default_config()
    config.name = "small_curve"
    config.task = "transfer_curve"
    config.dataset.name = config.study.source_name = "embedded"
    config.dataset.image_size = 20
    config.dataset.channels = 1
    config.study.train_examples = (60,)
    config.study.seeds = (0,)
    config.study.least_steps = 4
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.hidden = (16,)
    fast = {"name": "adam", "lr": 3e-3}
    with_stages(
        config,
        pretrain=stage(freeze="none", epochs=2, optimizer=fast),
        head=stage(freeze="all", epochs=2, optimizer=fast),
        whole=stage(freeze="none", epochs=2, optimizer=fast),
        scratch=stage(freeze="none", epochs=2, optimizer=fast),
    )
    config.log.report = False
    config.schedule = ()
    return config
