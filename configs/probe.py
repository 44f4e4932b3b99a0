"""Which layers to freeze, predicted in minutes and without fine-tuning.

    python launch.py --config=configs/probe.py --config.dataset.root=FOLDER --config.dataset.image_size=112

One pass through the frozen network averages the map of every convolution and pool; each layer's averages are scored by
a cross-validated logistic probe, nearest class means and LogME. The run's folder gets the scores (`probe.json`) and the
transferability curve (`probe.png`); the screen gets the table and a freeze spec with the reasons for it, in the terms
of the textbooks' table: small or large data, similar or different domain. Only
training images are looked at, so that validation and test stay what they are.
`vision_transfer/tasks/probe/recommend.py` states the rule.

On cats and dogs, sign language, CIFAR-10 and Fashion-MNIST (1,000 to 2,000 images) it took 2.6 to 6.5 minutes on 2
cores (AMD EPYC), and what it recommended was within the interval of the mask that an ablation chose
(`docs/ablation.md`).

The averages are cached: the same images probed again, with others or with another rule, are not computed again.
"""

from vision_transfer.config import Config, default_config


def get_config() -> Config:
    """VGG16 with its ImageNet weights; `model.backbone`, `model.weights_path` and `init_from` name another network."""
    config = default_config()
    config.name = "probe"
    config.task = "probe"
    config.model.pooling = "average"
    config.model.hidden = ()
    return config
