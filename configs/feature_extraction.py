r"""Feature extraction: a new head on a frozen ImageNet VGG16, the textbooks' experiment on cats and dogs.

    vision-transfer --config=feature_extraction:edition=2 --config.dataset.root=cats_vs_dogs_small
    vision-transfer --config=feature_extraction:edition=1 --config.dataset.root=cats_vs_dogs_small
    vision-transfer --config=feature_extraction:edition=1,augment=True \
        --config.dataset.root=cats_vs_dogs_small
    vision-transfer --config=feature_extraction:edition=1,augment=True,strength=strong \
        --config.dataset.root=cats_vs_dogs_small
    vision-transfer --config=feature_extraction:edition=2,augment=True,bank=4 \
        --config.dataset.root=cats_vs_dogs_small

Reproduces chapter 5.3 of Chollet's "Deep Learning with Python" (2017; `edition=1`) and chapter 8.3 of its second
edition (2021; `edition=2`). Published: edition 1 validation 0.90 to 0.907, with augmentation about 0.96 (readers with
newer Keras report 0.90 to 0.906; `docs/results.md`); edition 2 validation about 0.9, with augmentation test 0.975. With
`augment=True` every epoch draws fresh variants, as in the books; `bank=K` keeps K fixed variants of each image, so the
frozen layers are computed K times instead of once per epoch.

Expected on cats and dogs, mean (range) over seeds 0 to 2. Times are for 2 cores (AMD EPYC): the first seed, and another
seed that finds the features in the cache.

| recipe | best validation | test | first, another |
| --- | --- | --- | --- |
| `edition=1` | 0.905 (0.903 to 0.907) | 0.885 (0.881 to 0.888) | 173 s, 26 s |
| `edition=2` | 0.980 (0.980 to 0.981) | 0.971 (0.970 to 0.972) | 184 s, 28 s |
| `edition=2,augment=True,bank=4` | 0.983 (0.980 to 0.985) | 0.974 (0.966 to 0.983) | –, 66 s |

The bank compared with fresh variants, edition 1, seed 0:

| recipe | best validation | test (95 % interval) | time |
| --- | --- | --- | --- |
| `edition=1,augment=True` | 0.909 | 0.901 (0.881 to 0.918) | 45 min |
| `edition=1,augment=True,bank=4` | 0.909 | 0.903 (0.883 to 0.920) | 4.5 min, of which the frozen layers took 4 |

With the bank, seeds 1 and 2 both reach 0.913 on validation, 0.892 and 0.900 on the test, and took 30 s each. With fresh
variants each of the 30 epochs runs the whole network: 2,000 variants in 85 to 99 s, including the 1,000 validation
images, whose features are now cached. Edition 2 has 50 such epochs; `edition=2,augment=True`, seed 0, has a best
validation of 0.986 and a test of 0.975 (0.963 to 0.983), in epochs of 45 s on cores with AVX-512.

The values are in `vision_transfer/config/chollet.py`, because `configs/finetune.py` continues from the same runs.
"""

from vision_transfer.config import ConfigDict, chollet, default_config, with_stages
from vision_transfer.config.arguments import check_choices, check_needs, parse_recipe


def get_config(argument: str | None = None) -> ConfigDict:
    """`edition` is 1 or 2; `strength`, mild or strong, is for edition 1's augmentation."""
    recipe = parse_recipe(argument, edition=2, augment=False, bank=0, strength="mild")
    check_choices(argument, recipe, edition=chollet.EDITIONS, strength=chollet.STRENGTHS)
    check_needs(argument, "bank", recipe.augment, "augment=True")
    check_needs(argument, "strength", recipe.augment and recipe.edition == 1, "edition=1,augment=True")
    config = default_config()
    config.name = f"feature_extraction_edition{recipe.edition}{'_augmented' if recipe.augment else ''}"
    config.augment.bank = recipe.bank
    if recipe.edition == 1:
        chollet.vgg16_first_edition(config, dropout=0.0 if recipe.augment else 0.5)
        if recipe.augment:
            chollet.generator_augmentation(config, recipe.strength)
        return with_stages(config, head=chollet.head_first_edition())
    chollet.vgg16_second_edition(config)
    if recipe.augment:
        chollet.layers_augmentation(config)
    return with_stages(config, head=chollet.head_second_edition(augment=recipe.augment))
