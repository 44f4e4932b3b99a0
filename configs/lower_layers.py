"""Put a head on an earlier layer of VGG16: the textbooks' advice for few images that look little like ImageNet's.

    vision-transfer --config=lower_layers:layer=block4_pool --config.dataset.root=FOLDER
    vision-transfer --config=lower_layers:layer=block3_pool,head=logistic --config.dataset.root=FOLDER
    vision-transfer --config=lower_layers:layer=block2_pool,head=svm --config.dataset.root=FOLDER

The maps of `layer` (`block2_pool` to `block5_pool`) are averaged over height and width. The resulting 128 to 512
features go to a dense head, or, standardised, to scikit-learn's logistic regression (of all classes, or with
`head=pairwise` one for each pair of classes, which vote) or linear support vector machine, whose C is chosen on
validation. FOLDER is, for example, that of cats and dogs or of the sign-language digits. With another backbone
(`--config.model.backbone=efficientnet_lite0`) `layer` is `last`, `all` (the averages at the ends of all stages, side by
side) or `selected` (those of them that validation selects; `docs/freezing.md` compares the three).

Expected with seed 0 on cats and dogs at 180 pixels (1,000 validation and 1,000 test images) and on the sign-language
digits at 128 pixels (`size=128`; 300 validation images, and 50 test images, so that one image is 2 points); test with
its 95 % interval:

| layer, head | cats, validation | test | signs, validation | test |
| --- | --- | --- | --- | --- |
| `block5_pool`, logistic | 0.972 | 0.967 (0.954 to 0.976) | 0.900 | 0.960 (0.865 to 0.989) |
| `block5_pool`, svm | 0.966 | 0.967 (0.954 to 0.976) | 0.890 | 0.900 (0.786 to 0.957) |
| `block5_pool`, dense | 0.983 | 0.970 (0.958 to 0.979) | 0.913 | 0.960 (0.865 to 0.989) |
| `block4_pool`, logistic | 0.952 | 0.948 (0.932 to 0.960) | 0.977 | 1.000 (0.929 to 1.000) |
| `block4_pool`, svm | 0.951 | 0.954 (0.939 to 0.965) | 0.963 | 0.980 (0.895 to 0.996) |
| `block4_pool`, dense | 0.952 | 0.953 (0.938 to 0.965) | 0.967 | 0.960 (0.865 to 0.989) |
| `block3_pool`, logistic | 0.855 | 0.843 (0.819 to 0.864) | 0.927 | 0.940 (0.838 to 0.979) |
| `block3_pool`, svm | 0.858 | 0.854 (0.831 to 0.875) | 0.900 | 0.940 (0.838 to 0.979) |
| `block3_pool`, dense | 0.826 | 0.809 (0.783 to 0.832) | 0.913 | 1.000 (0.929 to 1.000) |
| `block2_pool`, logistic | 0.763 | 0.740 (0.712 to 0.766) | 0.823 | 0.860 (0.738 to 0.930) |
| `block2_pool`, svm | 0.760 | 0.748 (0.720 to 0.774) | 0.820 | 0.860 (0.738 to 0.930) |
| `block2_pool`, dense | 0.753 | 0.726 (0.698 to 0.753) | 0.810 | 0.840 (0.715 to 0.917) |

Validation chooses the last layer for cats and dogs, which are among ImageNet's classes, and `block4_pool` for signs,
which are not. On 2 cores (AMD EPYC, with other work running) the features of a layer take 1 to 4 minutes and a head 9
to 25 s.

By folds (`--config=lower_layers:layer=block4_pool,head=logistic,size=128 --config.dataset.folds=5`), each of 2,012 hand
signs predicted by a run that has not seen it, `block4_pool` has 0.971 (0.960 to 0.979). Averages of quarters see where
the fingers are (`--config.model.pooling_grid=2`): 0.983 (0.976 to 0.987) in 5 minutes on one core, and with three
variants of each image (`--config.augment.bank=3 --config.augment.preset=keras_layers --config.augment.rotation=0.03
--config.augment.width_shift=0.06 --config.augment.height_shift=0.06 --config.augment.zoom=0.1`) 0.986 (0.979 to 0.990)
in 11; the values 0.01 and 0.1 of C were tried for these two (`--config.classifier.c_values="(0.01,0.1)"`). With one
regression for each pair of classes (`head=pairwise`, all values of C) quarters have 0.986 (0.978 to 0.991) without
variants, where one for all classes has 0.980 (0.969 to 0.987). EfficientNet-Lite0's stages in quarters at 192 pixels
(`layer=all,head=logistic,size=192`, `--config.model.backbone=efficientnet_lite0`) have 0.973 (0.963 to 0.981).

On 1,000 training images of 48 pixels, `block4_pool` with logistic regression reaches 0.693 (0.692 to 0.695, 3 subsets)
on the test of the CIFAR-10 subset and 0.853 (0.851 to 0.858) on Fashion-MNIST's. Fine-tuning VGG16 at 48 pixels for
five epochs has 0.521 and 0.784 there; at 64 pixels its last stage has 0.710 and 0.852. `docs/ablation.md` has the
commands.
"""

from vision_transfer.config import ConfigDict, default_config, stage, with_stages
from vision_transfer.config.arguments import check_choices, parse_recipe

CLASSIC = {"logistic": "logistic_regression", "svm": "svm", "pairwise": "pairwise"}
# The ends of all stages, or those of them that validation selects.
SEVERAL = ("all", "selected")


def get_config(argument: str | None = None) -> ConfigDict:
    """`layer` is a pool of VGG16, last, all or selected; `head` is dense or one of `CLASSIC`; `size` is in pixels."""
    recipe = parse_recipe(argument, layer="block4_pool", head="dense", size=180)
    check_choices(argument, recipe, head=tuple(CLASSIC) if recipe.layer == "selected" else ("dense", *CLASSIC))
    config = default_config()
    config.name = f"lower_layers_{recipe.layer}_{recipe.head}"
    config.dataset.image_size = recipe.size
    config.model.pooling = "layers" if recipe.layer in SEVERAL else "average"
    config.classifier.pooled_layers = "select" if recipe.layer == "selected" else "all"
    if recipe.layer not in (*SEVERAL, "last"):
        config.model.backbone_output = recipe.layer
    if recipe.head in CLASSIC:
        config.task = "classic_classifier"
        config.classifier.kind = CLASSIC[recipe.head]
        config.model.hidden = ()
        config.model.dropout = 0.0
        return with_stages(config, classifier=stage(freeze="all", epochs=1))
    # The hidden layer stays linear: these features are large and not standardised, so ReLUs would die.
    config.model.hidden = (256,)
    config.model.dropout = 0.5
    return with_stages(
        config,
        head=stage(freeze="all", epochs=200, patience=30, optimizer={"name": "adam", "lr": 1e-4}),
    )
