"""Fine-tuning a network of random weights in two stages on a folder of tiny images: all but the weights, for tests.

python launch.py --config=tests/end_to_end/configs/random_weights.py --config.dataset.root=FOLDER
"""

from vision_transfer.config import Config, default_config, stage, with_stages
from vision_transfer.config.arguments import parse_recipe
from vision_transfer.models.backbones.registry import find_backbone


def get_config(argument: str | None = None) -> Config:
    """VGG16 or another `backbone` at 32 pixels, an epoch of the head and one of the last stage, in batches of 8."""
    backbone = parse_recipe(argument, backbone="vgg16").backbone
    last = find_backbone(backbone).fine_tune_from
    config = default_config()
    config.name = f"{backbone}_random"
    # A report takes a few seconds; the test of the run folder turns it on.
    config.log.report = False
    config.dataset.name = "folder"
    config.dataset.image_size = 32
    config.model.backbone = backbone
    config.model.weights = "random"
    config.model.hidden = (8,)
    config.batch_size = 8
    config.eval_batch_size = 8
    return with_stages(
        config,
        head=stage(freeze="all", epochs=1, optimizer={"name": "rmsprop", "lr": 1e-3}),
        **{last: stage(freeze=f"below:{last}", epochs=1, optimizer={"name": "rmsprop", "lr": 1e-5})},
    )
