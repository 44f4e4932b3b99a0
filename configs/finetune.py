r"""Fine-tune the last stage of a pretrained network on a small data set: our recipe for VGG16, and the textbooks'.

    vision-transfer --config=finetune
    vision-transfer --config=finetune --config.dataset.root=PATH/TO/cats_vs_dogs_small
    vision-transfer --config=finetune:backbone=efficientnet_lite0 --config.dataset.root=FOLDER

Stage `head` trains a small head on the average of the frozen base's last map. Stage `block5` starts from its best epoch
and also trains the last three convolutions at a small learning rate, with early stopping after three epochs without
improvement (`patience=3`). The stage with the lower validation loss is tested. Both stages start from cached features,
so the frozen layers are computed once. Another `backbone` has a stage of the name of its own last stage, at the size of
its own images; `configs/recommended.py` is the recipe for your own images.

Expected on cats and dogs, mean (range) over seeds 0 to 4: validation 0.984 (0.980 to 0.989), test 0.978 (0.975 to
0.983). On 2 cores (AMD EPYC) a seed takes 11 min with an empty cache, and 3 to 5 min once the features are cached.
Validation chose `block5` for three seeds and the head alone for two.

Choices were made on the validation split of cats and dogs, stage `head` (`--config.schedule=head`), means over seeds:

| head | pixels | validation loss | accuracy | seeds |
| --- | --- | --- | --- | --- |
| flattened map, linear layer, RMSprop: `configs/feature_extraction.py:edition=2` | 180 | 2.78 | 0.977 | 3 |
| average, ReLU layer, Adam with a cosine: `--config.dataset.image_size=180` | 180 | 0.068 | 0.982 | 5 |
| the same, as it is here | 224 | 0.049 | 0.986 | 5 |
| the same with four variants of each image, edition 2's `config.augment` and `bank=4` | 224 | 0.048 | 0.983 | 5 |

The flattened head has 25 times as many parameters, and its wrong answers have logits of about 100. The bank quadruples
the time for the frozen layers without a gain in accuracy.

The textbooks' recipes:

    vision-transfer --config=finetune:edition=1 --config.dataset.root=cats_vs_dogs_small
    vision-transfer --config=finetune:edition=1,mask=block5_conv1_only \
        --config.dataset.root=cats_vs_dogs_small
    vision-transfer --config=finetune:edition=1,joint=True --config.dataset.root=cats_vs_dogs_small
    vision-transfer --config=finetune:edition=2,bank=4 --config.dataset.root=cats_vs_dogs_small
    vision-transfer --config=finetune:edition=2,init_from=runs/feature_extraction_edition2_augmented-… \
        --config.dataset.root=cats_vs_dogs_small

They reproduce chapter 5.3 of Chollet's "Deep Learning with Python" (2017; `edition=1`) and chapter 8.3 of its second
edition (2021; `edition=2`). Published: edition 1 test 0.968 (readers report 0.939 to 0.97); edition 2 test 0.985. Both
continue from the augmented run of `configs/feature_extraction.py`, whose values are in
`vision_transfer/config/chollet.py`:

- without `init_from`, a recipe does both: its stage `head` is that run, and stage `block5` starts from its last epoch,
  as in the books' notebooks;
- with `init_from=RUN` there is no stage `head`: `block5` starts from the parameters that this finished run tested.

`mask=block5_conv1_only` unfreezes one convolution of block 5 (2,359,808 parameters), and `joint=True` trains a new head
and block 5 together in one stage, as two slide decks on that chapter do. `bank=K` keeps K fixed variants of each image
instead of drawing fresh ones in each epoch, so the frozen layers are computed K times.

Expected on cats and dogs and 2 cores (AMD EPYC): `edition=2,bank=4`, mean (range) over seeds 0 to 2, validation 0.980
(0.976 to 0.984) and test 0.975 (0.974 to 0.977), in 15 min a seed without the frozen layers, which an earlier run had
computed; `edition=2,init_from=RUN` with fresh variants, seed 0, validation 0.982 and test 0.975 (95 % interval 0.963 to
0.983), in 30 epochs of about 108 s while the machine did other work; `edition=1` with fresh variants, seed 0,
validation 0.933 in the last epoch and 0.944 in the best, test 0.938 (95 % interval 0.921 to 0.951), in 130 epochs of
about 40 s; `edition=1,bank=4`, seed 0, validation 0.926 in the last epoch and 0.931 in the best, test 0.936 (95 %
interval 0.919 to 0.950), after 42 min of training.
"""

from vision_transfer.config import ConfigDict, chollet, default_config, stage, with_stages
from vision_transfer.config.arguments import check_choices, check_needs, parse_recipe
from vision_transfer.models.backbones.registry import BACKBONES

VGG16 = "vgg16"
OURS = 0
MASKS = ("block5", "block5_conv1_only")
# Keys of the textbooks' recipes that ours does not have.
TEXTBOOK_KEYS = ("mask", "joint", "strength", "bank", "init_from")


def get_config(argument: str | None = None) -> ConfigDict:
    """`edition` is 1 or 2 (default: our own recipe); `strength` defaults to strong with `joint`, else to mild."""
    recipe = parse_recipe(
        argument, backbone=VGG16, edition=OURS, mask="block5", joint=False, strength="", bank=0, init_from=""
    )
    check_choices(argument, recipe, backbone=tuple(name for name, entry in BACKBONES.items() if entry.fine_tune_from))
    check_choices(argument, recipe, edition=(OURS, *chollet.EDITIONS), mask=MASKS)
    if recipe.strength:
        check_choices(argument, recipe, strength=chollet.STRENGTHS)
    if recipe.edition == OURS:
        for key in TEXTBOOK_KEYS:
            check_needs(argument, key, False, "edition=1 or edition=2")
        return _ours(recipe.backbone)
    check_choices(argument, recipe, backbone=(VGG16,))
    check_needs(argument, "joint", recipe.edition == 1, "edition=1")
    check_needs(argument, "strength", recipe.edition == 1, "edition=1")
    check_needs(argument, "init_from", not recipe.joint, "joint=False, since that trains a new head")
    config = default_config()
    parts = (
        f"finetune_edition{recipe.edition}",
        "joint" if recipe.joint else "",
        "conv1" if recipe.mask == "block5_conv1_only" else "",
    )
    config.name = "_".join(filter(None, parts))
    config.augment.bank = recipe.bank
    if recipe.init_from:
        config.init_from = recipe.init_from
    return _first_edition(config, recipe) if recipe.edition == 1 else _second_edition(config, recipe)


def _ours(name: str) -> ConfigDict:
    """Average pooling, dense 256 with ReLU, dropout 0.5; tests the best stage."""
    backbone = BACKBONES[name]
    config = default_config()
    config.name = "finetune" if name == VGG16 else f"finetune_{name}"
    config.model.backbone = name
    if backbone.image_size != BACKBONES[VGG16].image_size:
        config.dataset.image_size = backbone.image_size
    config.model.pooling = "average"
    config.model.hidden = (256,)
    config.model.activation = "relu"
    config.model.dropout = 0.5
    config.evaluate = "best_stage"
    adam = {"name": "adam", "lr_schedule": "cosine"}
    last = "below:block5_conv1" if name == VGG16 else f"below:{backbone.fine_tune_from}"
    stages = {
        "head": stage(freeze="all", epochs=20, optimizer=adam | {"lr": 1e-3}),
        backbone.fine_tune_from: stage(freeze=last, epochs=10, patience=3, optimizer=adam | {"lr": 5e-5}),
    }
    return with_stages(config, **stages)


def _first_edition(config: ConfigDict, recipe: ConfigDict) -> ConfigDict:
    chollet.vgg16_first_edition(config, dropout=0.0)
    chollet.generator_augmentation(config, recipe.strength or ("strong" if recipe.joint else "mild"))
    freeze = "only:block5_conv1" if recipe.mask == "block5_conv1_only" else "below:block5_conv1"
    block5 = _block5(freeze, epochs=100)
    if recipe.joint or recipe.init_from:
        return with_stages(config, block5=block5)
    return with_stages(config, head=chollet.head_first_edition(), block5=block5)


def _second_edition(config: ConfigDict, recipe: ConfigDict) -> ConfigDict:
    chollet.vgg16_second_edition(config)
    chollet.layers_augmentation(config)
    freeze = "only:block5_conv1" if recipe.mask == "block5_conv1_only" else "last:4"
    block5 = _block5(freeze, epochs=30)
    if recipe.init_from:
        return with_stages(config, block5=block5)
    return with_stages(config, head=chollet.head_second_edition(augment=True), block5=block5)


def _block5(freeze: str, epochs: int) -> ConfigDict:
    return stage(freeze=freeze, epochs=epochs, start_from="last", optimizer={"name": "rmsprop", "lr": 1e-5})
