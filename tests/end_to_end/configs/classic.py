"""A support vector machine on quarters of the layers that validation selects of a small random convnet: seconds.

python launch.py --config=tests/end_to_end/configs/classic.py
"""

from vision_transfer.config import Config, default_config, stage, with_stages


def get_config() -> Config:
    config = default_config()
    config.name = "classic"
    config.task = "classic_classifier"
    config.log.report = False
    config.dataset.name = "embedded"
    config.dataset.image_size = 20
    config.dataset.train_examples = 200
    config.dataset.channels = 1
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.pooling = "layers"
    config.model.pooling_grid = 2
    config.model.hidden = ()
    config.model.dropout = 0.0
    config.classifier.kind = "svm"
    config.classifier.c_values = (0.01, 0.1)
    config.classifier.pooled_layers = "select"
    return with_stages(config, classifier=stage(freeze="all", epochs=1))
