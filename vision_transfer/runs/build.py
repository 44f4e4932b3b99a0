"""Resolves a config against the data, in this one place: network, masks, stages."""

from dataclasses import dataclass

from vision_transfer.config import Config, with_value
from vision_transfer.config.own_parts import call_part
from vision_transfer.data.augmentation.augment import augmentation_of
from vision_transfer.errors import UserError
from vision_transfer.feature_cache.cacheable import cached_layer
from vision_transfer.freezing import cut, resolve
from vision_transfer.models.backbones.registry import backbone_rows, find_backbone, own_rows
from vision_transfer.models.heads import head_layers, pairwise_head
from vision_transfer.models.network import Network
from vision_transfer.models.precision import Numerics
from vision_transfer.models.preprocessing import RGB_PREPROCESSING
from vision_transfer.training.lr_multipliers import resolve_multipliers
from vision_transfer.training.stage import Stage, starts_pretrained

RGB = 3


@dataclass(frozen=True)
class DataFacts:
    """Facts of the data that shape a network: number of classes, and `(height, width, channels)` of an image."""

    classes: int
    image_shape: tuple[int, int, int]


def loads_pretrained_weights(config: Config) -> bool:
    """Whether the backbone starts from weights that were trained elsewhere, and not from an earlier run's."""
    return config.init_from is None and starts_pretrained(config)


def with_each_backbone(config: Config) -> list[Config]:
    """The config with each of the backbones that its task compares; the config alone if the task compares none.

    Raises:
        UserError: several backbones, and weights that fit only one.
    """
    compared = {"ablation": config.ablation.backbones, "probe": config.probe.backbones}.get(config.task, ())
    if len(compared) > 1 and (config.model.weights_path or config.init_from):
        field = "config.model.weights_path" if config.model.weights_path else "config.init_from"
        raise UserError(
            f"{field}: has the weights of one network, and config.{config.task}.backbones names {len(compared)}; "
            "compare networks with published or random weights, or name one"
        )
    return [with_value(config, "model.backbone", name) for name in dict.fromkeys(compared)] or [config]


def check_weights_exist(config: Config) -> None:
    """Raises UserError if the config wants published weights of a backbone that has none."""
    model = config.model
    elsewhere = model.weights_path is not None or config.init_from is not None
    if model.weights == "imagenet" and not find_backbone(model.backbone).releases and not elsewhere:
        raise UserError(
            f"config.model.weights: there are no ImageNet weights for {model.backbone!r}; set it to 'random', or give "
            "a file in config.model.weights_path"
        )


def build_network(config: Config, facts: DataFacts) -> Network:
    """The network that the config describes, for these data.

    Raises:
        UserError: fields that contradict each other or the data.
    """
    model = config.model
    known = find_backbone(model.backbone)
    check_weights_exist(config)
    if loads_pretrained_weights(config) and model.weights_path is None and facts.image_shape[-1] != RGB:
        raise UserError(
            f"config.dataset.channels: got {facts.image_shape[-1]}; the ImageNet weights of {model.backbone} take "
            "RGB images, so set it to 3 (grey images are repeated)"
        )
    pooling = None if model.head else model.pooling
    if model.pooling_grid > 1 and pooling not in ("average", "layers"):
        raise UserError(
            f"config.model.pooling_grid: got {model.pooling_grid}; a grid needs config.model.pooling='average' or "
            "'layers', and no own head"
        )
    backbone = backbone_rows(
        model.backbone,
        output=model.backbone_output,
        batch_norm=model.batch_norm,
        global_average=pooling == "average",
        pooled_layers=tuple(model.pooled_layers) if pooling == "layers" else None,
        pooling_grid=model.pooling_grid,
    )
    outputs = _outputs(model.output, facts.classes)
    if config.task == "classic_classifier" and config.classifier.kind == "pairwise" and facts.classes > 2:
        head = pairwise_head(facts.classes)
    elif model.head is None:
        head = head_layers(
            outputs,
            flatten=pooling == "flatten",
            hidden=tuple(model.hidden),
            activation=model.activation,
            dropout=model.dropout,
            dropout_place=model.dropout_place,
        )
    else:
        head = own_rows(model.head, call_part(model.head, outputs))
    network = Network(
        backbone,
        head,
        input_shape=facts.image_shape,
        preprocessing=model.preprocessing or known.preprocessing,
        numerics=Numerics(config.precision),
    )
    if model.weights_path is None and config.init_from is None:  # else the file or the run says what it takes
        check_preprocessing(network)
    return network


def check_preprocessing(network: Network) -> None:
    """Raises UserError for images that the preprocessing, which has a mean for each of three channels, cannot take."""
    channels = network.input_shape[-1]
    if network.preprocessing in RGB_PREPROCESSING and channels != RGB:
        raise UserError(
            f"config.dataset.channels: got {channels}; the network's preprocessing, {network.preprocessing!r}, takes "
            "RGB images, so set it to 3 (grey images are repeated), or config.model.preprocessing=rescale"
        )


def resolve_stages(config: Config, network: Network) -> list[Stage]:
    """The stages in the order of the schedule.

    Raises:
        UserError: a freeze spec or a multiplier that does not fit the network; the stage is named.
    """
    stages: list[Stage] = []
    for name in config.schedule:
        settings = config.stages[name]
        try:
            mask = resolve(settings.freeze, network)
        except UserError as error:
            raise UserError(f"config.stages.{name}.{error}") from error
        try:
            resolve_multipliers(settings.optimizer.lr_multipliers, network)
        except UserError as error:
            raise UserError(f"config.stages.{name}.optimizer.{error}") from error
        cached = cached_layer(network, mask) if config.features.cache else None
        start = None if cached is None else network.after(cached)
        augmentation = augmentation_of(config.augment) if settings.augment else None
        stages.append(Stage(name, settings, mask, cut(network, mask), cached, start, augmentation))
    return stages


def cached_variants(stage: Stage) -> int:
    """Variants of each training image whose features may be cached: 0 with fresh augmentation, K with a bank of K."""
    return 1 if stage.augmentation is None else stage.augmentation.bank


def _outputs(kind: str, classes: int) -> int:
    if kind == "sigmoid" and classes != 2:
        raise UserError(f"config.model.output: a sigmoid tells two classes apart, the data has {classes}; use softmax")
    if kind == "sigmoid" or (kind == "auto" and classes == 2):
        return 1
    return classes
