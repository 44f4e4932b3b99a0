r"""Compare freeze specs: VGG16 on a small data set under several masks, each with three seeds.

    vision-transfer --config=ablation --config.dataset.root=PATH/TO/cats_vs_dogs_small --dry_run
    vision-transfer --config=ablation --config.dataset.root=PATH/TO/cats_vs_dogs_small
    vision-transfer --config=ablation:grid=sizes --launcher=processes:2

The command prints the plan (runs, what they share, expected time and disk space), then does the runs that are missing.
Run it again to resume an interrupted sweep. A finished run is never repeated; runs and head stages are shared with
other sweeps of the same name. The sweep's folder gets tables (Markdown, CSV, LaTeX) and figures.

Grids:

- `depths`: the head alone, and everything from block5_conv3, block5_conv2, block5_conv1, block4_conv3 or block4_conv1
  on, with all training images;
- `deep`: from the head alone to everything, one block at a time, with 300 training images and three epochs (for
  one layer at a time, set the mask `every_cut`);
- `surgical`: one block at a time with the head, with the same images and epochs;
- `sizes`: three depths with 100, 300, 1,000 and all training images;
- `rates`: block 5 with three learning rates, each with one rate for all layers, layer-wise decay, and one rate per
  block, under the three schedules;
- `networks`: EfficientNet-Lite0 and VGG16 with the linear head and the rates of `configs/recommended.py`, at 64 pixels;
  the head alone, the last stages or everything, with 100 and 1,000 training images and one seed;
- `batch_norm`: EfficientNet-Lite0 with 200 training images of 96 pixels; the head alone, the last stages or everything,
  in batches of 4, 8 and 32, with the pretrained statistics of its batch norms and with those of the batches
  (`docs/batch_norm.md`).

`docs/ablation.md` has the results of `networks`, `docs/batch_norm.md` those of `batch_norm`. Expected of the other
grids, whose head has a hidden layer, as test accuracies (on cats and dogs the test distinguishes no mask, not even the
head alone, from the one that validation chooses):

- `depths`, means of 3 seeds: cats and dogs 0.927 to 0.934, in an hour and a half on 2 cores (AMD EPYC); sign language
  0.953 (the head alone) to 1.000 on 50 test images, in 64 minutes;
- `sizes` on cats and dogs, means of 3 seeds: 0.907 to 0.908 with 100 images, 0.920 to 0.922 with 300, 0.928 to 0.934
  with 1,000;
- `deep` and `surgical` on cats and dogs, 1 seed: 0.912 to 0.925 and 0.913 to 0.923;
- `rates` has not been run on photos yet.

Each axis of a grid is a field of `config.ablation` or `config.study`, such as
`--config.ablation.masks="('all', 'only:block3_conv1')"`; `--config.ablation.pooling="('average', 'layers')"` compares
heads on the last map with heads on all stages. The masks `all`, `last_stage`, `every_block`, `every_cut` and
`none` fit every backbone, so a sweep compares networks too:

    vision-transfer --config=ablation --config.dataset.root=FOLDER \
        --config.ablation.backbones="('vgg16', 'efficientnet_lite0')" --config.ablation.masks="('all', 'last_stage')"
"""

from vision_transfer.config import ConfigDict, default_config, stage, with_stages
from vision_transfer.config.arguments import check_choices, parse_recipe

DEPTHS = (
    "all",
    "below:block5_conv3",
    "below:block5_conv2",
    "below:block5_conv1",
    "below:block4_conv3",
    "below:block4_conv1",
)
THREE_DEPTHS = ("all", "below:block5_conv3", "below:block5_conv1")
GRIDS = ("depths", "deep", "surgical", "sizes", "rates", "networks", "batch_norm")
EVERY_BLOCK_ON = ("all", *(f"below:block{block}_conv1" for block in (5, 4, 3, 2)), "none")
# For the grids `deep` and `surgical`, whose runs train through most of the network and take long.
FEW_IMAGES, FEW_EPOCHS = 300, 3
# Least number of steps in an epoch: six passes over 100 images.
LEAST_STEPS = 20


def get_config(argument: str | None = None) -> ConfigDict:
    """`grid` is one of `GRIDS`."""
    recipe = parse_recipe(argument, grid="depths")
    check_choices(argument, recipe, grid=GRIDS)
    config = default_config()
    config.name = "ablation"
    config.task = "ablation"
    config.dataset.image_size = 112
    config.log.report = False
    config.study.seeds = (0, 1, 2)
    config.study.train_examples = (0,)
    config.ablation.masks = DEPTHS
    config.study.least_steps = LEAST_STEPS
    match recipe.grid:
        case "deep" | "surgical":
            config.ablation.masks = EVERY_BLOCK_ON if recipe.grid == "deep" else ("all", "every_block")
            config.study.train_examples = (FEW_IMAGES,)
        case "sizes":
            config.ablation.masks = THREE_DEPTHS
            config.study.train_examples = (100, 300, 1000, 0)
        case "rates":
            config.ablation.masks = ("all", "below:block5_conv1")
            config.ablation.learning_rates = (1e-5, 3e-5, 1e-4)
            config.ablation.multipliers = ("none", "layer_decay=0.65", "block_decay=0.4")
            config.ablation.schedules = ("head_first", "together", "gradual")
        case "networks":
            return _networks(config)
        case "batch_norm":
            return _batch_norm(config)
    rmsprop = {"name": "rmsprop"}
    return with_schedule_left_open(
        config,
        head=stage(freeze="all", epochs=10, optimizer=rmsprop | {"lr": 1e-3}),
        tune=stage(
            freeze="none",
            epochs=FEW_EPOCHS if recipe.grid in ("deep", "surgical") else 10,
            optimizer=rmsprop | {"lr": 1e-5},
        ),
    )


def _linear_head(config: ConfigDict, name: str) -> None:
    """EfficientNet-Lite0 with the head of `configs/recommended.py`."""
    config.name = name
    config.model.backbone, config.model.pooling, config.model.hidden = "efficientnet_lite0", "average", ()
    config.model.dropout = 0.0


def _networks(config: ConfigDict) -> ConfigDict:
    """The stages of `configs/recommended.py`, the second one shorter."""
    _linear_head(config, "networks")
    config.dataset.image_size = 64
    config.study.seeds, config.study.train_examples = (0,), (100, 1000)
    config.ablation.backbones = ("efficientnet_lite0", "vgg16")
    config.ablation.masks = ("all", "last_stage", "none")
    monitor, adam = "validation_accuracy_then_loss", {"name": "adam", "lr_schedule": "cosine"}
    return with_schedule_left_open(
        config,
        head=stage(freeze="all", epochs=40, monitor=monitor, l2=1e-4, optimizer=adam | {"lr": 3e-3}),
        tune=stage(freeze="none", epochs=5, monitor=monitor, optimizer=adam | {"lr": 3e-4}),
    )


def _batch_norm(config: ConfigDict) -> ConfigDict:
    """Every run sees each image as often, whatever its batches."""
    _linear_head(config, "batch_norm")
    config.dataset.image_size = 96
    config.study.train_examples, config.study.least_steps = (200,), 1
    config.ablation.masks = ("all", "last_stage", "none")
    config.ablation.batch_sizes = (4, 8, 32)
    config.ablation.batch_norm_statistics = ("pretrained", "batch")
    adam = {"name": "adam"}
    return with_schedule_left_open(
        config,
        head=stage(freeze="all", epochs=10, optimizer=adam | {"lr": 1e-3}),
        tune=stage(freeze="none", epochs=FEW_EPOCHS, optimizer=adam | {"lr": 1e-4}),
    )


def with_schedule_left_open(config: ConfigDict, **stages: ConfigDict) -> ConfigDict:
    """Sets the stages that the sweep builds its runs from, without a schedule: each run gets its own."""
    with_stages(config, **stages)
    config.schedule = ()
    return config
