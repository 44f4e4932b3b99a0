"""One thing to measure: a forward pass or a training step of a network, as plain data that another process can read."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from vision_transfer.data.augmentation import AugmentConfig
from vision_transfer.data.augmentation.variants import Augmentation
from vision_transfer.features.cacheable import cached_layer
from vision_transfer.freezing import Mask, inference_layers, resolve
from vision_transfer.models import layers as layer_table
from vision_transfer.models.layers import Layer
from vision_transfer.models.network import Network
from vision_transfer.models.precision import Numerics
from vision_transfer.tasks.benchmark.costs import LayerCost, forward_costs, step_costs
from vision_transfer.train.optimizers import OptimizerSpec
from vision_transfer.train.step import StepProgram

Work = Literal["forward", "step"]
Source = Literal["images", "features"]


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        work: `forward` (inference) or `step` (training).
        network: the tables.
        freeze: spec of what does not train.
        source: whether it starts from images or from the cached features of the frozen prefix.
        batch: images, over all devices.
        optimizer: of a step.
        augmentation: of a step from images, or None.
    """

    work: Work
    network: Network
    freeze: str
    source: Source
    batch: int
    optimizer: OptimizerSpec
    augmentation: Augmentation | None = None

    @property
    def mask(self) -> Mask:
        """What trains."""
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
    def input_shape(self) -> tuple[int, ...]:
        """Of one input, without the batch."""
        return self.network.shapes[0 if self.start is None else self.network.index(self.start)]

    @property
    def program(self) -> StepProgram:
        """The step, as training would build it."""
        return StepProgram(
            network=self.network,
            start=self.start,
            inference_layers=inference_layers(self.network, self.mask),
            optimizer=self.optimizer,
            augmentation=self.augmentation if self.source == "images" else None,
        )

    @property
    def costs(self) -> list[LayerCost]:
        """Per layer, from the table."""
        if self.work == "forward":
            return forward_costs(self.network, self.batch, self.start)
        return step_costs(self.network, self.mask, self.batch, self.start)


def can_be_cached(network: Network, freeze: str) -> bool:
    """Whether a freeze spec leaves a prefix whose features can be cached."""
    return cached_layer(network, resolve(freeze, network)) is not None


def case_to_json(case: Case) -> dict[str, Any]:
    """JSON values for `case_from_json`, and for peers, which read `layers`, `trainable` and `input_shape`."""
    network = case.network
    first = 0 if case.start is None else network.index(case.start)
    return {
        "work": case.work,
        "network": {
            "backbone": [_row(layer) for layer in network.backbone],
            "head": [_row(layer) for layer in network.head],
            "input_shape": list(network.input_shape),
            "preprocessing": network.preprocessing,
            "precision": network.numerics.name,
        },
        "freeze": case.freeze,
        "source": case.source,
        "batch": case.batch,
        "optimizer": asdict(case.optimizer),
        "augmentation": None if case.augmentation is None else asdict(case.augmentation),
        "layers": [_row(layer) for layer in network.layers[first:]],
        "trainable": [name for name, parameters in case.mask.items() if any(parameters.values())],
        "input_shape": list(case.input_shape),
        "outputs": network.outputs,
    }


def case_from_json(values: dict[str, Any]) -> Case:
    """The case that `case_to_json` wrote."""
    network = values["network"]
    return Case(
        work=values["work"],
        network=Network(
            tuple(_layer(row) for row in network["backbone"]),
            tuple(_layer(row) for row in network["head"]),
            tuple(network["input_shape"]),
            network["preprocessing"],
            Numerics(network["precision"]),
        ),
        freeze=values["freeze"],
        source=values["source"],
        batch=values["batch"],
        optimizer=OptimizerSpec(**values["optimizer"]),
        augmentation=_augmentation(values["augmentation"]),
    )


def _row(layer: Layer) -> dict[str, Any]:
    return {"kind": type(layer).__name__, **asdict(layer)}


def _layer(row: dict[str, Any]) -> Layer:
    fields = {name: value for name, value in row.items() if name != "kind"}
    return getattr(layer_table, row["kind"])(**fields)


def _augmentation(values: dict[str, Any] | None) -> Augmentation | None:
    if values is None:
        return None
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values["config"].items()
    }
    return Augmentation(**{**values, "config": AugmentConfig(**fields)})
