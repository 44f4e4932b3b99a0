"""A head on an earlier layer of VGG16: what the textbooks advise for few images that look little like ImageNet's.

    python launch.py --config=configs/lower_layers.py:layer=block4_pool --config.dataset.root=FOLDER
    python launch.py --config=configs/lower_layers.py:layer=block3_pool,head=logistic --config.dataset.root=FOLDER
    python launch.py --config=configs/lower_layers.py:layer=block2_pool,head=svm --config.dataset.root=FOLDER

The maps of `layer` (`block2_pool` to `block5_pool`) are averaged over height and width; on the 128 to 512 numbers that
are left stands a dense head, or logistic regression or a linear support vector machine by scikit-learn on standardised
features, whose C is chosen on validation. FOLDER is that of cats and dogs or of the sign-language digits, say.

With seed 0, cats and dogs at 180 pixels (1,000 validation and 1,000 test images) and the sign-language digits at 128
(`size=128`; 300 validation images, 50 test images, 2 points each); test with its 95 % interval:

| layer, head | cats, validation | test | signs, validation | test |
| --- | --- | --- | --- | --- |
| `block5_pool`, logistic | 0.972 | 0.967 (0.954 to 0.976) | 0.900 | 0.960 (0.865 to 0.989) |
| `block5_pool`, svm | 0.966 | 0.967 (0.954 to 0.976) | 0.890 | 0.900 (0.786 to 0.957) |
| `block5_pool`, dense | 0.983 | 0.970 (0.958 to 0.979) | 0.913 | 0.960 (0.865 to 0.989) |
| `block4_pool`, logistic | 0.952 | 0.948 (0.932 to 0.960) | 0.977 | 1.000 (0.929 to 1.000) |
| `block4_pool`, svm | 0.951 | 0.954 (0.939 to 0.965) | 0.963 | 0.980 (0.895 to 0.997) |
| `block4_pool`, dense | 0.952 | 0.953 (0.938 to 0.965) | 0.967 | 0.960 (0.865 to 0.989) |
| `block3_pool`, logistic | 0.855 | 0.843 (0.819 to 0.864) | 0.927 | 0.940 (0.838 to 0.979) |
| `block3_pool`, svm | 0.858 | 0.854 (0.831 to 0.875) | 0.900 | 0.940 (0.838 to 0.979) |
| `block3_pool`, dense | 0.826 | 0.809 (0.783 to 0.832) | 0.913 | 1.000 (0.929 to 1.000) |
| `block2_pool`, logistic | 0.763 | 0.740 (0.712 to 0.766) | 0.823 | 0.860 (0.738 to 0.930) |
| `block2_pool`, svm | 0.760 | 0.748 (0.720 to 0.774) | 0.820 | 0.860 (0.738 to 0.930) |
| `block2_pool`, dense | 0.753 | 0.726 (0.698 to 0.753) | 0.810 | 0.840 (0.715 to 0.917) |

So validation chooses the last layer for cats and dogs, which are among ImageNet's classes, and `block4_pool` for signs,
which are not. A layer's features take 1 to 4 minutes on 2 cores (AMD EPYC) with other work beside it, a head 9 to 25 s.

On 1,000 training images of 48 pixels, `block4_pool` with logistic regression had 0.693 (0.692 to 0.695, 3 subsets) on
the test of the CIFAR-10 subset and 0.853 (0.851 to 0.858) on Fashion-MNIST's, far above fine-tuning there:
`docs/ablation.md` has the commands and the comparison.
"""

from vision_transfer.config import Config, default_config, stage, with_stages
from vision_transfer.config.arguments import check_choices, parse_recipe

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
