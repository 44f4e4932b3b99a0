"""Cases, the forward passes and training steps that a config asks to measure; no data are read."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vision_transfer.config import Config, with_value
from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.augmentation.augment import augmentation_of
from vision_transfer.errors import UserError
from vision_transfer.feature_cache.cacheable import cached_layer
from vision_transfer.freezing import Mask, counts, cut, inference_layers, resolve
from vision_transfer.models.backbones.registry import backbone_rows, find_backbone
from vision_transfer.models.heads import head_layers
from vision_transfer.models.layers import (
    Block,
    Conv,
    DepthwiseConv,
    MaxPool,
    Padding,
    PoolLayers,
    Row,
    SeparableConv,
    ZeroPad,
    description,
)
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.ops.windows import Margins, grid_windows, margins_of
from vision_transfer.models.precision import Numerics
from vision_transfer.models.shapes import Shape, output_shape, zeros_around
from vision_transfer.runs.build import DataFacts, build_network
from vision_transfer.tasks.ablation.masks import expanded
from vision_transfer.tasks.benchmark.costs import LayerCost, forward_costs, step_costs, total
from vision_transfer.training.optimizers import OptimizerSpec
from vision_transfer.training.stage import keeps_pretrained_statistics
from vision_transfer.training.step import StepProgram

DEFAULT_IMAGE_SIZE = 180
# The small convnet for cats and dogs, which trains from scratch.
SMALL_CONVNET, SMALL_SIZE, SMALL_HIDDEN = "convnet_150", 150, 512


@dataclass(frozen=True)
class Case:
    """A forward pass (inference) or a training step, from images or from the cached features of the frozen prefix.

    `batch` counts the images on all devices; `augmentation` is of a step from images; with `pretrained_statistics`, no
    batch norm of the backbone moves its statistics.
    """

    work: Literal["forward", "step"]
    network: Network
    freeze: str
    source: Literal["images", "features"]
    batch: int
    optimizer: OptimizerSpec
    augmentation: AugmentConfig | None = None
    name: str = ""
    pretrained_statistics: bool = False
    backbone: str = ""

    @property
    def mask(self) -> Mask:
        """The mask of the parameters that train."""
        return resolve(self.freeze, self.network)

    @property
    def cached(self) -> str | None:
        """Layer whose output is the input; None for images."""
        return cached_layer(self.network, self.mask) if self.source == "features" else None

    @property
    def start(self) -> str | None:
        """First layer that runs; None for all, from images."""
        return None if self.cached is None else self.network.after(self.cached)

    @property
    def first(self) -> int:
        """Position of the first layer that runs."""
        return 0 if self.start is None else self.network.index(self.start)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input, without the batch."""
        return self.network.shape_before(self.network.rows[self.first].name)

    @property
    def program(self) -> StepProgram:
        """The step, as training builds it."""
        return StepProgram(
            network=self.network,
            start=self.start,
            inference_layers=inference_layers(
                self.network, self.mask, pretrained_statistics=self.pretrained_statistics
            ),
            optimizer=self.optimizer,
            cut=cut(self.network, self.mask),
            augmentation=self.augmentation if self.source == "images" else None,
        )

    @property
    def costs(self) -> list[LayerCost]:
        """Per layer that runs, from the layer table."""
        if self.work == "forward":
            return forward_costs(self.network, self.batch, self.start)
        return step_costs(self.network, self.mask, self.batch, self.start)

    @property
    def identity(self) -> dict[str, Any]:
        """The values that tell the case from others, and its name, as JSON values."""
        own = ("name", "backbone", "work", "freeze", "source", "batch")
        return {name: getattr(self, name) for name in own} | {"precision": self.network.numerics.name}

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for `benchmark.json` that need no measuring: identity, parameters, FLOPs and bytes, as JSON values."""
        parameters = counts(all_parameter_shapes(self.network), self.mask)
        return {
            **self.identity,
            "cached": self.cached,
            "start": self.start,
            "parameters": {"trainable": parameters.trainable, "frozen": parameters.frozen},
            "table": asdict(total(self.costs)),
        }


def peer_request(case: Case) -> dict[str, Any]:
    """A case as JSON values, for workers of other libraries."""
    return {
        "work": case.work,
        "source": case.source,
        "batch": case.batch,
        "optimizer": case.optimizer.name,
        "precision": case.network.numerics.name,
        "layers": _described(case.network.rows[case.first :], case.input_shape),
        "trainable": [name for name, parameters in case.mask.items() if any(parameters.values())],
        "inference_layers": sorted(case.program.inference_layers),
        "input_shape": case.input_shape,
        "outputs": case.network.outputs,
    }


def _described(rows: Sequence[Row], before: Shape) -> list[dict[str, Any]]:
    """The rows as JSON values, with what other libraries ask for: shapes before layers, and paddings as numbers."""
    found: list[dict[str, Any]] = []
    earlier: dict[str, Shape] = {}
    for row in rows:
        values = description(row)
        match row:
            case Block():
                values["branches"] = [_described(branch, before) for branch in row.branches]
            case Conv() | DepthwiseConv() | SeparableConv():
                strides = 1 if isinstance(row, SeparableConv) else row.strides
                values["zeros"] = _zeros(row.padding, before, row.kernel_size, strides)
            case MaxPool():
                values["zeros"] = _zeros(row.padding, before, row.size, row.strides or row.size)
            case ZeroPad():
                values["zeros"] = zeros_around(row, before[:2])
            case PoolLayers():
                maps = [earlier[name][:2] for name in row.layers]
                values["windows"] = [[grid_windows(extent, row.grid) for extent in extents] for extents in maps]
            case _:
                pass
        found.append({**values, "before": before})
        earlier[row.name] = before = output_shape(row, before, earlier)
    return found


def _zeros(padding: Padding, before: Shape, size: int, strides: int) -> Margins:
    return margins_of(padding, before[:2], (size, size), (strides, strides))


def depth_cases(config: Config) -> list[Case]:
    """The forward pass, and the step under each freeze spec, from images and from cached features.

    Each backbone, precision and batch that the config lists is combined with each other. The cases at `batch_size`
    in the first precision come first, then those with a batch twice or half that or in the second precision, and so
    on, since the time may not suffice for all.

    Raises:
        UserError: a freeze spec that does not fit the network.
    """
    settings = config.benchmark
    found: list[tuple[float, Case]] = []
    for rank, precision in enumerate(settings.precisions or (config.precision,)):
        for backbone in settings.backbones or (config.model.backbone,):
            own = with_value(with_value(config, "precision", precision), "model.backbone", backbone)
            cases = [
                *_forward_cases(own, settings.forward_batches or settings.batches or (config.batch_size,)),
                *_steps(own, "freeze", settings.freeze, settings.batches or (config.batch_size,)),
            ]
            found += [(rank + abs(math.log2(case.batch / config.batch_size)), case) for case in cases]
    is_sweep = bool(settings.backbones or settings.precisions or settings.batches)
    return [case for _, case in (sorted(found, key=lambda entry: entry[0]) if is_sweep else found)]


def comparison_cases(config: Config) -> list[Case]:
    """Cases for comparing with peers: forward, the steps of `config.benchmark.peer_freeze`, and the small convnet's.

    Raises:
        UserError: a freeze spec that does not fit the network.
    """
    cases = _forward_cases(config, config.benchmark.forward_batches or (config.batch_size,))
    cases += _steps(config, "peer_freeze", config.benchmark.peer_freeze, (config.batch_size,))
    return [*cases, small_convnet_step(config)] if config.benchmark.small_convnet else cases


def small_convnet_step(config: Config) -> Case:
    """The training step of the small convnet for cats and dogs, from scratch."""
    network = Network(
        backbone_rows(SMALL_CONVNET),
        head_layers(1, flatten=True, hidden=(SMALL_HIDDEN,), activation="relu"),
        (SMALL_SIZE, SMALL_SIZE, 3),
        "rescale",
        Numerics(config.precision),
    )
    name = f"{SMALL_CONVNET} at {SMALL_SIZE}, step, batch {config.batch_size}"
    optimizer = OptimizerSpec(config.benchmark.optimizer)
    return Case("step", network, "none", "images", config.batch_size, optimizer, name=name)


def _network(config: Config) -> Network:
    backbone = find_backbone(config.model.backbone)
    size = config.dataset.image_size or (backbone.image_size if config.benchmark.backbones else DEFAULT_IMAGE_SIZE)
    return build_network(config, DataFacts(config.benchmark.classes, (size, size, config.dataset.channels)))


def _forward_cases(config: Config, batches: Sequence[int]) -> list[Case]:
    network, optimizer, backbone = _network(config), OptimizerSpec(config.benchmark.optimizer), config.model.backbone
    return [
        Case(
            "forward", network, "none", "images", images, optimizer, name=f"forward, batch {images}", backbone=backbone
        )
        for images in batches
    ]


def _steps(config: Config, field: str, specs: Sequence[str], batches: Sequence[int]) -> list[Case]:
    network, backbone = _network(config), config.model.backbone
    shared = {
        "optimizer": OptimizerSpec(config.benchmark.optimizer),
        "augmentation": augmentation_of(config.augment),
        "pretrained_statistics": keeps_pretrained_statistics(config),
        "backbone": backbone,
    }
    cases: list[Case] = []
    for spec in expanded(specs, network, backbone):
        try:
            cached = cached_layer(network, resolve(spec, network))
        except UserError as error:
            raise UserError(f"config.benchmark.{field}: {error}") from error
        for batch in batches:
            frozen = f"step, frozen: {spec}, from"
            name = f"{frozen} images, batch {batch}"
            cases.append(Case("step", network, spec, "images", batch, name=name, **shared))
            if cached is not None:
                name = f"{frozen} cached {cached}, batch {batch}"
                cases.append(Case("step", network, spec, "features", batch, name=name, **shared))
    return cases
