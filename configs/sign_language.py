"""Ten hand signs by VGG16 with its last block trained: raw pixels in, global average, Adam.

    python launch.py --config=configs/sign_language.py --config.dataset.root=FOLDER
    python launch.py --config=configs/sign_language.py:recipe=ours --config.dataset.root=FOLDER

`recipe=classic` reproduces a widely copied course notebook on the Sign Language Digits data (1,712 training, 300
validation and 50 test images): 18 steps of 10 images and 3 batches of 30 validation images per epoch, 20 epochs; so
each epoch sees about a tenth of the data. Published: test 0.98. `recipe=ours` uses all data and the input that the
weights were trained with.
"""

from vision_transfer.config import Config, default_config, stage, with_stages
from vision_transfer.recipe import parse_recipe


def get_config(argument: str | None = None) -> Config:
    """`recipe` is classic or ours."""
    recipe = parse_recipe(argument, recipe="classic")
    config = default_config()
    config.name = f"sign_language_{recipe.recipe}"
    config.dataset.image_size = 224
    config.dataset.resampling = "nearest"
    config.model.pooling = "average"
    config.model.hidden = ()
    config.model.dropout = 0.0
    if recipe.recipe == "ours":
        config.model.preprocessing = "caffe"
        config.batch_size = 32
        return with_stages(
            config,
            head=stage(freeze="all", epochs=20, optimizer={"name": "adam", "lr": 1e-3}),
            block5=stage(freeze="last:5", epochs=10, patience=3, optimizer={"name": "adam", "lr": 1e-4}),
        )
    config.model.preprocessing = "raw"
    config.batch_size = 10
    config.eval_batch_size = 30
    config.evaluate = "last"
    return with_stages(
        config,
        block5=stage(
            freeze="last:5",
            epochs=20,
            steps_per_epoch=18,
            validation_steps=3,
            optimizer={"name": "adam", "lr": 1e-4},
        ),
    )
