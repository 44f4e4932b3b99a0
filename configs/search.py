r"""Find the best model for your images in the minutes that you have, and how good it really is.

    vision-transfer --config=search --config.dataset.root=FOLDER --config.search.minutes=10

The features of each backbone at each image size are computed once, the cheapest first, and heads are trained on them.
The time left goes to successive halving over ways to fine-tune, where the heads are best or, if the time is not enough
for that, where it is cheapest: several briefly, the best third again for longer, until one is left. Everything is
compared on the validation split; the cheapest candidate that is within one standard error of the best is chosen, and
only that one is tested. `search.md` in the search's folder says what was tried, what it cost, what was chosen and why,
and what ten more minutes would try. The chosen model is a run like any other: predict, export, explain and report work
on it.

Ways that train everything see each image a little turned, shifted and scaled, anew in each epoch. Where a mirrored
image is of the same class, add `--config.augment.flip=horizontal`.

Found with two cores (AMD EPYC with AVX-512), seed 0, while the machine did a little other work:

| data | minutes | chosen | validation | test (95 %) |
| --- | ---: | --- | ---: | ---: |
| cats and dogs, 2,000 images | 10 | Lite0, 224 px, logistic regression | 0.994 | 0.993 (0.986 to 0.997) |
| signs by folds, 2,012 | 20 | Lite0, 128 px, all trains | 0.991 (0.984 to 0.995) | 1.000 (0.929 to 1.000) of 50 |
| Fashion-MNIST, 1,000 | 10 | Lite2, 128 px, quarters, logistic regression | 0.885 | 0.873 (0.866 to 0.879) |
| CIFAR-10, 1,000 | 10 | Lite2, 224 px, all trains | 0.912 | 0.888 (0.867 to 0.906) |

Sign language also needs `--config.dataset.folds=5`, Fashion-MNIST `--config.dataset.name=idx
--config.dataset.train_examples=1000 --config.dataset.validation_fraction=0.02`, and CIFAR-10 `--config.dataset.name=npz
--config.dataset.train_examples=1000`. Quarters are those of all stages' maps, pairs a logistic regression for each pair
of classes.

What fits into the time decides. On a processor without AVX-512, on which products of matrices took six times as long,
the same minutes end with heads: 0.982 by folds on signs (Lite0, 224 px, quarters, pairs), and a test of 0.824 on
CIFAR-10 (Lite2, 128 px, quarters, pairs).

The heads of the search on signs have 0.985 at most (VGG16, 128 px, quarters, pairs). Fine-tuning Lite0 for 8 epochs
instead of 9 has 0.990, and without variants (`--config.augment.preset=none`) 0.984: 33 errors of 2,012 beside 20 (p =
0.02, McNemar's exact test). Variants were tried once, with these values.

With more time, one run by hand is not better (p by McNemar's exact test): on CIFAR-10 15 epochs of all of Lite0 at 224
pixels, on the same variants, have a test of 0.890 (0.869 to 0.908; p = 0.92), and on Fashion-MNIST at 128 pixels 0.866
(0.860 to 0.873), which is worse (p = 0.04):

    vision-transfer --config=recommended --config.stages.head.augment=False --config.stages.tune.patience=None \
        --config.augment.preset=keras_layers --config.augment.rotation=0.03 --config.augment.height_shift=0.06 \
        --config.augment.width_shift=0.06 --config.augment.zoom=0.1 --config.dataset.root=FOLDER

besides the flags of the data above, and for Fashion-MNIST `--config.dataset.image_size=128
--config.stages.tune.validation_steps=32`.

The same command goes on after an interruption; with more minutes, it goes on where it ended. With few images, let it
compare candidates by cross-validation (`--config.dataset.folds=5`, `docs/own_images.md`).
"""

from vision_transfer.config import ConfigDict, default_config, stage, with_stages


def get_config() -> ConfigDict:
    """EfficientNet-Lite and VGG16 at two sizes, three heads; the last stage or everything at two rates."""
    config = default_config()
    config.name = "search"
    config.task = "search"
    config.model.backbone = "efficientnet_lite0"
    config.model.pooling = "average"
    config.model.hidden = ()
    config.model.dropout = 0.0
    # Mild, and without flips, which turn one digit or sign into another.
    config.augment.preset = "keras_layers"
    config.augment.rotation = 0.03
    config.augment.height_shift = 0.06
    config.augment.width_shift = 0.06
    config.augment.zoom = 0.1
    monitor = "validation_accuracy_then_loss"
    adam = {"name": "adam", "lr_schedule": "cosine"}
    return with_stages(
        config,
        head=stage(freeze="all", epochs=40, augment=False, monitor=monitor, l2=1e-4, optimizer=adam | {"lr": 3e-3}),
        tune=stage(freeze="none", epochs=15, monitor=monitor, optimizer=adam | {"lr": 3e-4}),
    )
