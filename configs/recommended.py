"""Our recommendation for your own images: EfficientNet-Lite0, a regularised linear head, fine-tuning where it pays."""

from vision_transfer.config import ConfigDict, default_config, stage, with_stages


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.name = "recommended"
    config.model.backbone = "efficientnet_lite0"
    config.model.pooling = "average"
    config.model.hidden = ()
    config.model.dropout = 0.0
    config.dataset.image_size = 224
    config.evaluate = "best_stage"
    adam = {"name": "adam", "lr_schedule": "cosine"}
    return with_stages(
        config,
        head=stage(freeze="all", epochs=40, l2=1e-4, optimizer=adam | {"lr": 3e-3}),
        tune=stage(freeze="none", epochs=15, patience=4, skip_from=0.98, optimizer=adam | {"lr": 3e-4}),
    )
