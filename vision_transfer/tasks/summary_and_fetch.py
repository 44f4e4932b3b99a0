"""The modes `summary` and `fetch`: a config's network, and what it needs from the network."""

from pathlib import Path

from vision_transfer.config import Config
from vision_transfer.data.download import PUBLIC_FILES, fetch_dataset
from vision_transfer.data.find import find_source
from vision_transfer.data.formats.tfds import is_tfds, prepare_tfds
from vision_transfer.runs.build import (
    DataFacts,
    build_network,
    check_weights_exist,
    loads_pretrained_weights,
    resolve_stages,
    with_each_backbone,
)
from vision_transfer.runs.initial_weights import load_weights
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.ablation.masks import masks_table
from vision_transfer.tasks.train.messages import say_summary


def summarise(config: Config, cache_dir: Path, screen: Screen) -> None:
    """Prints the network with what is trainable in each stage; decodes and trains nothing."""
    source = find_source(config.dataset, cache_dir, screen)
    size = config.dataset.image_size or source.default_size
    for one in with_each_backbone(config):
        network = build_network(one, DataFacts(len(source.classes), (size, size, config.dataset.channels)))
        say_summary(one, source.name, len(source.classes), network, resolve_stages(one, network), screen)
        if config.task == "ablation":
            screen.say(masks_table(config.ablation.masks, network, one.model.backbone))


def fetch(config: Config, cache_dir: Path, screen: Screen) -> None:
    """Fetches the weights and the public data set that the config names, so that a later run needs no network."""
    for one in with_each_backbone(config):
        check_weights_exist(one)
        if loads_pretrained_weights(one):
            weights = load_weights(one, cache_dir, screen, image_size=one.dataset.image_size)
            screen.say(f"{weights.source}\nsha256 {weights.sha256}\n{weights.licence}")
    if is_tfds(config.dataset.name):
        screen.say(f"{config.dataset.name} is in {prepare_tfds(config.dataset, screen)}.")
    elif config.dataset.name in PUBLIC_FILES:
        screen.say(f"{config.dataset.name} is in {fetch_dataset(config.dataset.name, cache_dir, screen)}.")
    else:
        screen.say(
            f"dataset.name={config.dataset.name}: no download; these have one: {', '.join(sorted(PUBLIC_FILES))}; "
            "and TensorFlow Datasets, as tfds:NAME."
        )
