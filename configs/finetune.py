"""Fine-tuning the last block of an ImageNet VGG16 on a small data set: our recommended recipe.

    python launch.py --config=configs/finetune.py
    python launch.py --config=configs/finetune.py --config.dataset.root=PATH/TO/cats_vs_dogs_small

Stage `head` trains a new head on the frozen base; stage `block5` goes on from its best epoch and trains the last three
convolutions too, at a small rate. Both start from cached features, so that the frozen layers are computed once.
"""

from vision_transfer.config import Config, default_config, stage, with_stages


def get_config() -> Config:
    """VGG16, caffe input, Flatten, Dense 256, dropout 0.5."""
    config = default_config()
    config.name = "finetune"
    config.model.hidden = (256,)
    config.model.dropout = 0.5
    return with_stages(
        config,
        head=stage(freeze="all", epochs=20, optimizer={"name": "rmsprop", "lr": 1e-3}),
        block5=stage(freeze="below:block5_conv1", epochs=30, patience=10, optimizer={"name": "rmsprop", "lr": 1e-5}),
    )
