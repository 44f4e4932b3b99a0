"""Cases, the forward passes and training steps that a config asks to measure; no data are read."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vision_transfer.config import Config
from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.augmentation.augment import augmentation_of
from vision_transfer.errors import UserError
from vision_transfer.feature_cache.cacheable import cached_layer
from vision_transfer.freezing import Mask, counts, cut, inference_layers, resolve
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.layers import (
    Block,
    Conv,
    DepthwiseConv,
    MaxPool,
    Padding,
    Row,
    SeparableConv,
    ZeroPad,
    description,
)
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.ops.windows import Margins, margins_of
from vision_transfer.models.precision import Numerics
from vision_transfer.models.shapes import Shape, output_shape, zeros_around
from vision_transfer.runs.build import DataFacts, build_network
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

    @property
    def mask(self) -> Mask:
        """Which parameters train."""
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
    def facts(self) -> dict[str, Any]:
        """Facts for `benchmark.json` that need no measuring: name, parameters, FLOPs and bytes, as JSON values."""
        costs, parameters = self.costs, counts(all_parameter_shapes(self.network), self.mask)
        return {
            **{name: getattr(self, name) for name in ("name", "work", "freeze", "source", "cached", "start", "batch")},
            "parameters": {"trainable": parameters.trainable, "frozen": parameters.frozen},
            "table": {**asdict(total(costs)), "layers": [asdict(row) for row in costs]},
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
            case _:
                pass
        found.append({**values, "before": before})
        earlier[row.name] = before = output_shape(row, before, earlier)
    return found


def _zeros(padding: Padding, before: Shape, size: int, strides: int) -> Margins:
    return margins_of(padding, before[:2], (size, size), (strides, strides))


def depth_cases(config: Config) -> list[Case]:
    """The forward pass of each batch, and the step under each freeze spec, from images and from cached features.

    Raises:
        UserError: a freeze spec that does not fit the network.
    """
    return _cases(config, "freeze", config.benchmark.freeze)


def comparison_cases(config: Config) -> list[Case]:
    """Cases for comparing with peers: forward, the steps of `config.benchmark.peer_freeze`, and the small convnet's.

    Raises:
        UserError: a freeze spec that does not fit the network.
    """
    cases = _cases(config, "peer_freeze", config.benchmark.peer_freeze)
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


def _cases(config: Config, field: str, specs: Sequence[str]) -> list[Case]:
    size, batch = config.dataset.image_size or DEFAULT_IMAGE_SIZE, config.batch_size
    optimizer = OptimizerSpec(config.benchmark.optimizer)
    network = build_network(config, DataFacts(config.benchmark.classes, (size, size, config.dataset.channels)))
    cases = [
        Case("forward", network, "none", "images", images, optimizer, name=f"forward, batch {images}")
        for images in config.benchmark.forward_batches or (batch,)
    ]
    augmentation, keeps = augmentation_of(config.augment), keeps_pretrained_statistics(config)
    for spec in specs:
        try:
            cached = cached_layer(network, resolve(spec, network))
        except UserError as error:
            raise UserError(f"config.benchmark.{field}: {error}") from error
        name = f"step, frozen: {spec}, from {{}}, batch {batch}"
        step = ("step", network, spec)
        cases.append(Case(*step, "images", batch, optimizer, augmentation, name.format("images"), keeps))
        if cached is not None:
            name = name.format(f"cached {cached}")
            cases.append(Case(*step, "features", batch, optimizer, augmentation, name, keeps))
    return cases
