r"""Find the best model for your images in the minutes that you have, and how good it really is.

    vision-transfer --config=search --config.dataset.root=FOLDER --config.search.minutes=10

The features of each backbone at each image size are computed once, the cheapest first, and heads are trained on them.
The time left goes to successive halving over ways to fine-tune: several briefly, the best third again for longer, until
one is left. Everything is compared on the validation split; the cheapest candidate that is within one standard error of
the best is chosen, and only that one is tested. `search.md` in the search's folder says what was tried, what it cost,
what was chosen and why, and what ten more minutes would try. The chosen model is a run like any other: predict, export,
explain and report work on it.

Found with one core (AMD EPYC) of a machine that did other work, seed 0, with heads on averages only
(`--config.search.pooling="('average',)"`; by default heads on the quarters of all stages' maps are tried, too):

| data | minutes | chosen | validation | test (95 %) |
| --- | ---: | --- | ---: | ---: |
| cats and dogs, 2,000 images | 20 | Lite0 at 224 px, logistic regression | 0.994 | 0.993 (0.986 to 0.997) |
| sign language, 1,712 | 20 | Lite0 at 128 px, everything, 3e-4, 14 epochs | 0.993 | 0.980 (0.895 to 0.997) of 50 |
| CIFAR-10, 1,000 (as `npz`) | 10 | Lite2 at 224 px, logistic regression | 0.870 | 0.851 (0.828 to 0.872) |
| Fashion-MNIST, 1,000 | 12 | Lite0 at 128 px, everything, 3e-4, 15 epochs | 0.883 | 0.872 (0.865 to 0.878) |

Fashion-MNIST had both cores, and only Lite0 at 128 pixels to choose from. With the default, both cores and
`--config.search.minutes=8`, the choice for CIFAR-10 was Lite0 at 224 px, logistic regression on all stages in quarters:
0.866, test 0.845 (0.821 to 0.866).

The same command goes on after an interruption; with more minutes, it goes on where it ended. With few images, let it
compare candidates by cross-validation (`--config.dataset.folds=5`, `docs/own_images.md`). On sign language,
on a fraction of a core and stopped after 16 of 35 minutes, this was enough for one way to fine-tune: Lite0 at 128 px
from `block6` on, 3e-4, 7 epochs, 0.959 out of fold on 2,012 images (0.949 to 0.967; the best head 0.930), test 0.960
(0.865 to 0.989) of 50. Training everything, which the table's search chose, did not fit: by five folds it takes five
times as long as on one split.
"""

from vision_transfer.config import ConfigDict, default_config, stage, with_stages


def get_config() -> ConfigDict:
    """EfficientNet-Lite at two sizes, two heads; the last stage or everything at two rates."""
    config = default_config()
    config.name = "search"
    config.task = "search"
    config.model.backbone = "efficientnet_lite0"
    config.model.pooling = "average"
    config.model.hidden = ()
    config.model.dropout = 0.0
    monitor = "validation_accuracy_then_loss"
    adam = {"name": "adam", "lr_schedule": "cosine"}
    return with_stages(
        config,
        head=stage(freeze="all", epochs=40, monitor=monitor, l2=1e-4, optimizer=adam | {"lr": 3e-3}),
        tune=stage(freeze="none", epochs=15, monitor=monitor, optimizer=adam | {"lr": 3e-4}),
    )
