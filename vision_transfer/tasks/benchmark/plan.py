"""Which cases a config asks for; nothing is computed and no data are read."""

from dataclasses import dataclass

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.freezing import resolve
from vision_transfer.models.backbones import backbone_layers
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network
from vision_transfer.models.precision import Numerics
from vision_transfer.runs.build import DataFacts, build_augmentation, build_network
from vision_transfer.tasks.benchmark.cases import Case, can_be_cached
from vision_transfer.train.optimizers import OptimizerSpec

PEERS = ("keras", "torch")
DEFAULT_IMAGE_SIZE = 180
# The small convnet for cats and dogs, that trains from scratch.
SMALL_CONVNET, SMALL_SIZE, SMALL_HIDDEN = "convnet_150", 150, 512


@dataclass(frozen=True)
class Named:
    """A case with a name for readers."""

    name: str
    case: Case


def network_of(config: Config) -> Network:
    """The network that the config describes, for images of its size and `config.benchmark.classes` classes."""
    size = config.dataset.image_size or DEFAULT_IMAGE_SIZE
    return build_network(config, DataFacts(config.benchmark.classes, (size, size, config.dataset.channels)))


def listed(values: tuple[str, ...]) -> tuple[str, ...]:
    """The names in a field that lists some; `keras,torch` arrives as one text from the command line."""
    return tuple(name.strip() for text in values for name in text.split(",") if name.strip())


def peers_of(config: Config) -> tuple[str, ...]:
    """The peers to compare with.

    Raises:
        UserError: an unknown peer.
    """
    peers = listed(config.benchmark.peers)
    for name in peers:
        if name not in PEERS:
            raise UserError(f"config.benchmark.peers: got {name!r}; allowed are {', '.join(PEERS)}")
    return peers


def depth_cases(config: Config) -> list[Named]:
    """The forward pass of each batch, and the step under each freeze spec, from images and from cached features.

    Raises:
        UserError: a freeze spec that does not fit the network.
    """
    network = network_of(config)
    return [*_forwards(config, network), *_steps(config, network, config.benchmark.freeze, "config.benchmark.freeze")]


def comparison_cases(config: Config) -> list[Named]:
    """What is compared with peers: forward, the steps of `config.benchmark.peer_freeze`, and the small convnet's."""
    network = network_of(config)
    steps = _steps(config, network, config.benchmark.peer_freeze, "config.benchmark.peer_freeze")
    named = [*_forwards(config, network), *steps]
    if config.benchmark.small_convnet:
        named.append(small_convnet_step(config))
    return named


def small_convnet_step(config: Config) -> Named:
    """The training step of the small convnet for cats and dogs, from scratch."""
    small = Network(
        backbone_layers(SMALL_CONVNET),
        head_layers(1, flatten=True, hidden=(SMALL_HIDDEN,), activation="relu"),
        (SMALL_SIZE, SMALL_SIZE, 3),
        "rescale",
        Numerics(config.precision),
    )
    case = Case("step", small, "none", "images", config.batch_size, _optimizer(config))
    return Named(f"{SMALL_CONVNET} at {SMALL_SIZE}, step, batch {config.batch_size}", case)


def _forwards(config: Config, network: Network) -> list[Named]:
    batches = config.benchmark.forward_batches or (config.batch_size,)
    return [
        Named(f"forward, batch {batch}", Case("forward", network, "none", "images", batch, _optimizer(config)))
        for batch in batches
    ]


def _steps(config: Config, network: Network, specs: tuple[str, ...], field: str) -> list[Named]:
    named = []
    for spec in specs:
        try:
            resolve(spec, network)
        except UserError as error:
            raise UserError(f"{field}: {error}") from error
        for source in ("images", "features"):
            if source == "features" and not can_be_cached(network, spec):
                continue
            case = Case(
                "step", network, spec, source, config.batch_size, _optimizer(config), build_augmentation(config)
            )
            origin = f"cached {case.cached}" if case.cached else "images"
            named.append(Named(f"step, frozen: {spec}, from {origin}, batch {config.batch_size}", case))
    return named


def _optimizer(config: Config) -> OptimizerSpec:
    return OptimizerSpec(config.benchmark.optimizer)
