"""Fine-tuning a VGG16 of random weights in two stages on a folder of tiny images: all but the weights, for tests.

python launch.py --config=tests/end_to_end/configs/vgg_random.py --config.dataset.root=FOLDER
"""

from vision_transfer.config import Config, default_config, stage, with_stages


def get_config() -> Config:
    """VGG16 at 32 pixels, one epoch of the head and one of block5, in batches of 8."""
    config = default_config()
    config.name = "vgg_random"
    # A report takes a few seconds; the test of the run folder turns it on.
    config.log.report = False
    config.dataset.name = "folder"
    config.dataset.image_size = 32
    config.model.weights = "random"
    config.model.hidden = (8,)
    config.batch_size = 8
    config.eval_batch_size = 8
    return with_stages(
        config,
        head=stage(freeze="all", epochs=1, optimizer={"name": "rmsprop", "lr": 1e-3}),
        block5=stage(freeze="below:block5_conv1", epochs=1, optimizer={"name": "rmsprop", "lr": 1e-5}),
    )
