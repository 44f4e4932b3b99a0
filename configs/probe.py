r"""Predict which layers to freeze, in minutes and without fine-tuning.

    vision-transfer --config=probe --config.dataset.root=FOLDER --config.dataset.image_size=112

Runs the frozen network once over the training images and averages the map of every convolution and pooling layer. Each
layer's averages are scored by a cross-validated logistic probe, by nearest class means and by LogME. The run's folder
gets the scores (`probe.json`) and the transferability curve (`probe.png`). The terminal shows the table, and a freeze
spec with the reasons for it in the textbooks' terms: small or large data, similar or different domain. Validation and
test images are not used, so they remain valid for judging the result. `vision_transfer/tasks/probe/recommend.py` states
the rule.

Expected on cats and dogs, sign language, CIFAR-10 and Fashion-MNIST (1,000 to 2,000 images): 2.6 to 6.5 minutes on 2
cores (AMD EPYC), and a recommendation within the interval of the mask that an ablation chose (`docs/ablation.md`).

Several networks are compared on the same images, each at its best layer and at the end of each stage, with what to
freeze in each:

    vision-transfer --config=probe --config.dataset.root=FOLDER --config.dataset.image_size=112 \
        --config.probe.backbones="('vgg16', 'efficientnet_lite0')"

The averages are cached: probing the same images again, together with others or with another rule, does not compute
them again.
"""

from vision_transfer.config import ConfigDict, default_config


def get_config() -> ConfigDict:
    """VGG16 with ImageNet weights; `probe.backbones`, `model.weights_path` and `init_from` set other networks."""
    config = default_config()
    config.name = "probe"
    config.task = "probe"
    config.model.pooling = "average"
    config.model.hidden = ()
    return config
