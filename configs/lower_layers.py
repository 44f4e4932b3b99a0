"""A head on an earlier layer of VGG16: what the textbooks advise for few images that look little like ImageNet's.

    python launch.py --config=configs/lower_layers.py:layer=block4_pool --config.dataset.root=FOLDER
    python launch.py --config=configs/lower_layers.py:layer=block3_pool,head=logistic --config.dataset.root=FOLDER
    python launch.py --config=configs/lower_layers.py:layer=block2_pool,head=svm --config.dataset.root=FOLDER

The maps of `layer` (`block2_pool` to `block5_pool`) are averaged over height and width; on the 128 to 512 numbers that
are left stands a dense head, or logistic regression or a linear support vector machine by scikit-learn on standardised
features, whose C is chosen on validation. FOLDER is that of cats and dogs or of the sign-language digits, say.

On the sign-language digits with `size=128` (300 validation images, 50 test images: 2 points each):

| layer, head | C | validation | test, 95 % interval |
| --- | --- | --- | --- |
| `block3_pool`, logistic | 0.1 | 0.927 | 0.94 (0.838 to 0.979) |
| `block3_pool`, svm | 0.01 | 0.900 | 0.94 (0.838 to 0.979) |
| `block4_pool`, logistic | 0.1 | 0.977 | 1.00 (0.929 to 1.000) |
| `block4_pool`, svm | 0.01 | 0.963 | 0.98 (0.895 to 0.996) |

So validation chooses `block4_pool` with logistic regression. `block2_pool`, `block5_pool`, dense heads, and cats and
dogs have not been run yet.

On 1,000 training images of 48 pixels, `block4_pool` with logistic regression had 0.693 (0.692 to 0.695, 3 subsets) on
the test of the CIFAR-10 subset and 0.853 (0.851 to 0.858) on Fashion-MNIST's, far above fine-tuning there:
`docs/ablation.md` has the commands and the comparison.
"""

from vision_transfer.config import Config, default_config, stage, with_stages
from vision_transfer.recipe import check_choices, parse_recipe

CLASSIC = {"logistic": "logistic_regression", "svm": "svm"}


def get_config(argument: str | None = None) -> Config:
    """`layer` is a pool of VGG16; `head` is dense, logistic or svm; `size` that of the images in pixels."""
    recipe = parse_recipe(argument, layer="block4_pool", head="dense", size=180)
    check_choices(argument, recipe, head=("dense", *CLASSIC))
    config = default_config()
    config.name = f"lower_layers_{recipe.layer}_{recipe.head}"
    config.dataset.image_size = recipe.size
    config.model.backbone_output = recipe.layer
    config.model.pooling = "average"
    if recipe.head in CLASSIC:
        config.task = "classic_classifier"
        config.classifier.kind = CLASSIC[recipe.head]
        config.model.hidden = ()
        config.model.dropout = 0.0
        return with_stages(config, classifier=stage(freeze="all", epochs=1))
    # Linear: on features of this size, which nothing standardises, ReLUs die.
    config.model.hidden = (256,)
    config.model.dropout = 0.5
    return with_stages(
        config,
        head=stage(freeze="all", epochs=200, patience=30, optimizer={"name": "adam", "lr": 1e-4}),
    )
