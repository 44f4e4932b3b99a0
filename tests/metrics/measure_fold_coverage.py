"""How often the interval of an out-of-fold accuracy holds the accuracy on images that no fold has.

    VISION_TRANSFER_DATA=FOLDER python tests/metrics/measure_fold_coverage.py [IMAGES] [REPEATS]

From the CIFAR-10 subset, IMAGES images (300) are drawn at random as somebody's data set, and 1,000 others as the images
of the future, REPEATS times (20). Folds, held-out validation, classifiers and the interval are those of a run with
`--config.dataset.folds=5` and the task `classic_classifier`, on pooled features of EfficientNet-Lite0 at 96 pixels,
which are computed once. The accuracy to hold is that of the final model, trained on all IMAGES.
"""

import sys
from dataclasses import replace

import jax
import numpy as np

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.config.task_schema import ClassifierConfig
from vision_transfer.data.folds import deal
from vision_transfer.data.load import load_dataset
from vision_transfer.data.subset import hold_out
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.metrics.cross_validation import out_of_fold_interval
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.inference import infer
from vision_transfer.models.load import load_backbone_weights
from vision_transfer.models.network import Network
from vision_transfer.runtime.cache_folder import cache_folder
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.tasks.classic_classifier.fit import Examples, candidates, chosen

BACKBONE, SIZE, FOLDS, UNSEEN = "efficientnet_lite0", 96, 5, 1000
DATA = DatasetConfig()


def all_features():
    """Pooled features and labels of all images of the subset."""
    screen = Screen()
    dataset = load_dataset(replace(DATA, name="cifar10", image_size=SIZE), cache_dir=cache_folder(), screen=screen)
    weights = load_backbone_weights(BACKBONE, channels=3, cache_dir=cache_folder(), path=None, screen=screen)
    network = Network(backbone_rows(BACKBONE, global_average=True), (), (SIZE, SIZE, 3), weights.preprocessing)
    variables = jax.tree.map(np.asarray, {"params": weights.params, "batch_stats": weights.batch_stats})
    splits = (dataset.train, dataset.validation, dataset.test)
    features = [infer(network, variables, split.images, local_mesh(), batch_size=32) for split in splits]
    return np.concatenate(features), np.concatenate([split.labels for split in splits])


def fitted(features, labels, names):
    """The classifier that a run fits: C chosen on a validation split that is held out of the images."""
    train, validation = hold_out(labels, names, DATA.validation_fraction, "validation", DATA.split_seed)
    parts = [Examples(features[places], labels[places]) for places in (train, validation)]
    defaults = ClassifierConfig()
    return chosen(candidates(defaults.kind, defaults.c_values, *parts)).classifier


def right(classifier, features, labels):
    """Whether each image is classified correctly."""
    return np.argmax(classifier.logits(features), axis=1) == labels


def main(images=300, repeats=20):
    """Prints a line for each repeat, and how many intervals hold."""
    features, labels = all_features()
    held, held_by_images = 0, 0
    for repeat in range(repeats):
        order = np.random.default_rng(repeat).permutation(len(labels))
        own, unseen = order[:images], order[images : images + UNSEEN]
        names = [str(place) for place in own]
        dealt = deal(labels[own], names, FOLDS, DATA.split_seed, np.arange(images))
        correct = np.zeros(images, bool)
        for fold in range(FOLDS):
            rest, tested = own[dealt != fold], own[dealt == fold]
            classifier = fitted(features[rest], labels[rest], [str(place) for place in rest])
            correct[dealt == fold] = right(classifier, features[tested], labels[tested])
        final = right(fitted(features[own], labels[own], names), features[unseen], labels[unseen]).mean()
        low, high = out_of_fold_interval(correct, dealt)
        by_images = wilson_interval(int(correct.sum()), images)
        held, held_by_images = held + (low <= final <= high), held_by_images + (by_images[0] <= final <= by_images[1])
        print(f"{repeat}: {correct.mean():.3f} ({low:.3f} to {high:.3f}), unseen {final:.3f}", flush=True)
    print(f"{held} of {repeats} intervals hold; Wilson's over the images alone, {held_by_images}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
