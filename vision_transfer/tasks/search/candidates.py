"""Candidates of a search: what distinguishes one model from another, and the config of the run that trains it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from vision_transfer.config import Config
from vision_transfer.data.batches import batches_per_pass
from vision_transfer.models.network import Network
from vision_transfer.tasks.ablation.grid import HEAD, TUNE
from vision_transfer.tasks.ablation.masks import EVERYTHING, expanded
from vision_transfer.tasks.classic_classifier.fit import MOST_PAIRED_CLASSES

# The head that gradient descent trains, as fine-tuning needs it; the others are classic classifiers.
LINEAR = "linear"
AVERAGE = "average"
# Value of `search.pooling` → `model.pooling`, `model.pooling_grid`, and words.
POOLING = {
    AVERAGE: ("average", 1, ""),
    "quarters": ("average", 2, ", quarters"),
    "layers": ("layers", 1, ", all stages"),
    "layers_in_quarters": ("layers", 2, ", all stages in quarters"),
}


@dataclass(frozen=True)
class Base:
    """A pretrained backbone, the side of its images in pixels, and what is pooled: candidates share its features.

    `pooling` is a value of `search.pooling`.
    """

    backbone: str
    image_size: int
    pooling: str = AVERAGE

    @property
    def sees_last_map_only(self) -> bool:
        """Whether heads see no earlier map."""
        return POOLING[self.pooling][0] == "average"

    @property
    def name(self) -> str:
        """`efficientnet_lite0 at 224 px`."""
        return f"{self.backbone} at {self.image_size} px{POOLING[self.pooling][-1]}"


@dataclass(frozen=True)
class Tuning:
    """Fine-tuning after the head: the freeze spec, the highest learning rate, and the number of epochs."""

    freeze: str
    lr: float
    epochs: int


@dataclass(frozen=True)
class Candidate:
    """A model to train: a head on a frozen base and, with `tuning`, the base with it.

    In a search by folds one with `on_first_fold` is trained and judged on the first fold only.
    """

    base: Base
    head: str = LINEAR
    tuning: Tuning | None = None
    on_first_fold: bool = False

    @property
    def name(self) -> str:
        """The candidate in words, different for each."""
        if self.tuning is None:
            return f"{self.base.name}, {self.head.replace('_', ' ')} head"
        what = "everything trains" if self.tuning.freeze == EVERYTHING else f"frozen {self.tuning.freeze}"
        epochs = "1 epoch" if self.tuning.epochs == 1 else f"{self.tuning.epochs} epochs"
        fold = ", first fold" if self.on_first_fold else ""
        return f"{self.base.name}, {what}, rate {self.tuning.lr:g}, {epochs}{fold}"

    def after(self, epochs: int) -> "Candidate":
        """The same fine-tuning with another number of epochs, on as many folds."""
        assert self.tuning is not None, "only fine-tuning has epochs"
        return replace(self, tuning=replace(self.tuning, epochs=epochs))


def bases(config: Config) -> list[Base]:
    """The bases that a config lists, without duplicates."""
    search = config.search
    listed = [Base(*values) for values in product(search.backbones, search.image_sizes, search.pooling)]
    return list(dict.fromkeys(listed))


def with_usable_heads(config: Config, classes: int) -> Config:
    """The config without pairwise heads for two classes, where they are logistic regressions, and for too many."""
    fits = 2 < classes <= MOST_PAIRED_CLASSES
    heads = tuple(head for head in config.search.heads if head != "pairwise" or fits)
    return replace(config, search=replace(config.search, heads=heads or config.search.heads))


def heads_on(config: Config, base: Base) -> list[Candidate]:
    """The heads to try on a base.

    On all stages only the classic classifiers, if there are any: fine-tuning, which needs a linear head to begin with,
    does not continue those.
    """
    classic = [head for head in config.search.heads if head != LINEAR]
    heads = config.search.heads if base.sees_last_map_only or not classic else classic
    return [Candidate(base, head) for head in dict.fromkeys(heads)]


def tunings(config: Config, base: Base, network: Network) -> Iterator[Candidate]:
    """Ways to fine-tune a base, from the config's list of freeze specs and rates, each for one epoch."""
    specs = expanded(config.search.freeze, network, base.backbone)
    for spec, lr in product(specs, dict.fromkeys(config.search.learning_rates)):
        yield Candidate(base, tuning=Tuning(spec, lr, 1))


def with_base(config: Config, base: Base) -> Config:
    """The config for the images and the backbone of a base."""
    pooling, grid, _ = POOLING[base.pooling]
    return replace(
        config,
        dataset=replace(config.dataset, image_size=base.image_size),
        model=replace(config.model, backbone=base.backbone, pooling=pooling, pooling_grid=grid),
    )


def run_config(config: Config, candidate: Candidate, train_images: int, validation_images: int) -> Config:
    """The config of a candidate's run, made of the stages `head` and `tune`; the seed is the search's.

    An epoch of fine-tuning is validated on at most as many images as it trains on, drawn anew for each epoch; what
    candidates are compared on is the whole split. Ways with a frozen part see no fresh variants of images, for which it
    would have to be computed again and again, and train from the cache. A way is judged by its fine-tuned network, also
    where its head was better before: the head is a candidate of its own.
    """
    own = replace(with_base(config, candidate.base), name=f"{config.name}_run", task="train", evaluate="best")
    head = replace(config.stages[HEAD], freeze="all")
    if candidate.head != LINEAR:
        classifier = replace(config.classifier, kind=candidate.head)
        return replace(
            own,
            task="classic_classifier",
            classifier=classifier,
            schedule=(HEAD,),
            stages={HEAD: head},
        )
    if candidate.tuning is None:
        return replace(own, schedule=(HEAD,), stages={HEAD: head})
    tuning, tune = candidate.tuning, config.stages[TUNE]
    steps = tune.validation_steps
    if steps is None and validation_images > train_images:
        steps = batches_per_pass(train_images, config.eval_batch_size)
    tune = replace(
        tune,
        freeze=tuning.freeze,
        augment=tune.augment and (tuning.freeze == EVERYTHING or config.augment.bank > 0),
        epochs=tuning.epochs,
        skip_from=None,
        validation_steps=steps,
        optimizer=replace(tune.optimizer, lr=tuning.lr),
    )
    return replace(own, schedule=(HEAD, TUNE), stages={HEAD: head, TUNE: tune})
