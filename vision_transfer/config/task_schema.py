"""The schema of single tasks and modes: the fields of `config.benchmark`, `config.ablation` and their like.

`schema.py` has the fields of a run, and the `Config` that holds both.
"""

from dataclasses import dataclass
from typing import Literal

from vision_transfer.config.setting import LARGEST_SEED, setting

OptimizerName = Literal["rmsprop", "adam", "sgd"]
PrecisionName = Literal["float32", "tf32", "bfloat16"]
PeerName = Literal["keras", "keras_jax", "keras_torch", "torch", "torch_compile", "onnxruntime"]


@dataclass(frozen=True)
class BenchmarkConfig:
    """Fields of `config.benchmark`."""

    backbones: tuple[str, ...] = setting(
        (), "backbones to measure; default: model.backbone", own=True, instead_of=("model.backbone",)
    )
    precisions: tuple[PrecisionName, ...] = setting(
        (), "precisions to measure; default: precision", instead_of=("precision",)
    )
    batches: tuple[int, ...] = setting(
        (), "batch sizes of the steps, up to what fits; the ones nearest to batch_size come first", minimum=1
    )
    minutes: float = setting(0.0, "time after which no case is begun; the same command continues; 0: no end", minimum=0)
    freeze: tuple[str, ...] = setting(
        ("none", "all"),
        "freeze specs to measure, from nothing frozen to all; last_stage: as recipes fine-tune the backbone",
    )
    forward_batches: tuple[int, ...] = setting((), "batch sizes of the forward pass; default: batch_size", minimum=1)
    classes: int = setting(2, "classes of the head", minimum=2)
    optimizer: OptimizerName = setting("rmsprop", "optimizer of the measured steps")
    repeats: int = setting(10, "timed repeats of each case; the median is reported", minimum=1)
    seconds_per_repeat: float = setting(1.0, "a repeat runs as often as fills this time, at least once", minimum=0)
    trace: bool = setting(False, "write a profiler trace and the HLO of each case")
    target: str = setting(
        "",
        "compile for this instead of measuring here: tpu:TOPOLOGY, such as tpu:v5e:2x2; or compute what the chip needs "
        "at least: cuda:h100, cuda:a100, cuda:l4",
    )
    plan: int = setting(
        0,
        "training images whose epochs are planned, by arithmetic, on many chips of the target, such as cuda:h100 or "
        "tpu:v5e; batch_size is that of a chip",
        minimum=0,
    )
    plan_chips: tuple[int, ...] = setting((8, 64), "numbers of chips of a plan", minimum=1)
    peers: tuple[PeerName, ...] = setting(
        (),
        "libraries to measure in turns with this one; keras has TensorFlow below it, keras_jax and keras_torch these; "
        "torch_compile is torch after torch.compile; onnxruntime has forward passes only",
    )
    whole_runs: tuple[Literal["extraction", "second_head", "finetuning", "recommended"], ...] = setting(
        (), "whole runs to compare with Keras's, on the folder of dataset.root"
    )
    peer_python: str | None = setting(None, "interpreter that has the peers; default: this one")
    peer_freeze: tuple[str, ...] = setting(("none",), "freeze specs whose steps are compared with peers")
    small_convnet: bool = setting(True, "also compare the training step of convnet_150 with peers")


@dataclass(frozen=True)
class ClassifierConfig:
    """Fields of `config.classifier`, for the task classic_classifier."""

    kind: Literal["logistic_regression", "svm", "pairwise"] = setting(
        "logistic_regression",
        "classifier on the pooled features; pairwise: a logistic regression for each pair of classes, which vote",
    )
    pooled_layers: Literal["all", "select"] = setting(
        "all", "select: with model.pooling='layers', validation chooses the layers whose features the classifier sees"
    )
    c_values: tuple[float, ...] = setting(
        (1e-4, 1e-3, 1e-2, 0.1, 1.0), "values of C, the inverse strength of the l2 penalty; validation chooses one"
    )


@dataclass(frozen=True)
class DecisionConfig:
    """Fields of `config.decision`, of which one besides `positive` may be set."""

    positive: str | None = setting(None, "the class that a threshold for two classes accepts; default: the second")
    cost: tuple[float, ...] = setting(
        (), "costs of a false positive and of a false negative, such as 1,5: the threshold of least cost on validation"
    )
    least_recall: float | None = setting(
        None, "the highest threshold that has this recall on validation", minimum=0, maximum=1
    )
    least_precision: float | None = setting(
        None, "the lowest threshold that has this precision on validation", minimum=0, maximum=1
    )
    abstain_risk: float | None = setting(
        None,
        "no decision below the lowest confidence from which at most this share of the validation images that are "
        "decided is wrong",
        minimum=0,
        below=1,
    )


@dataclass(frozen=True)
class StudyConfig:
    """Fields of `config.study`, for transfer curves and ablations."""

    seeds: tuple[int, ...] = setting(
        (0, 1, 2),
        "seeds that each run is repeated with; a seed also draws the images of a subset",
        minimum=0,
        maximum=LARGEST_SEED,
        instead_of=("seed", "dataset.subset_seed"),
    )
    train_examples: tuple[int, ...] = setting((100, 1000, 10000, 0), "sizes of the training sets; 0: all images")
    least_steps: int = setting(50, "steps that count as an epoch where a pass over the data has fewer", minimum=1)
    source_name: str = setting("mnist", "dataset.name of a transfer curve's pretraining")
    source_root: str | None = setting(None, "dataset.root of a transfer curve's pretraining")


@dataclass(frozen=True)
class AblationConfig:
    """Fields of `config.ablation`."""

    masks: tuple[str, ...] = setting(
        ("every_cut",),
        "freeze specs to compare; every_cut: from the head alone to everything, layer by layer; every_block: one block "
        "of the backbone at a time; last_stage: everything from the stage on from which recipes fine-tune the backbone",
        instead_of=("stages.tune.freeze",),
    )
    backbones: tuple[str, ...] = setting(
        (), "backbones to compare; default: model.backbone", own=True, instead_of=("model.backbone",)
    )
    pooling: tuple[Literal["average", "layers"], ...] = setting(
        (),
        "values of model.pooling to compare: heads on the last map, and on the maps of all stages; default: its own",
        instead_of=("model.pooling",),
    )
    batch_norm_statistics: tuple[Literal["auto", "pretrained", "batch"], ...] = setting(
        (),
        "values of model.batch_norm_statistics to compare, where a batch norm trains; default: its own",
        instead_of=("model.batch_norm_statistics",),
    )
    batch_sizes: tuple[int, ...] = setting(
        (), "values of batch_size to compare; default: its own", minimum=1, instead_of=("batch_size",)
    )
    learning_rates: tuple[float, ...] = setting(
        (), "learning rates of the stage tune; default: its own", instead_of=("stages.tune.optimizer.lr",)
    )
    multipliers: tuple[str, ...] = setting(
        ("none",),
        "values of stages.tune.optimizer.lr_multipliers; semicolons separate the rules of one value; none: no rules",
        instead_of=("stages.tune.optimizer.lr_multipliers",),
    )
    schedules: tuple[Literal["head_first", "together", "gradual"], ...] = setting(
        ("head_first",),
        "head_first (head, then the whole mask), together (one stage), gradual (layer by layer)",
        instead_of=("schedule",),
    )
    epochs_a_layer: int = setting(1, "epochs before gradual unfreezing goes one layer deeper", minimum=1)


@dataclass(frozen=True)
class SearchConfig:
    """Fields of `config.search`."""

    minutes: float = setting(
        10.0, "time that all runs of the search may take together; more minutes continue an earlier search", minimum=0
    )
    backbones: tuple[str, ...] = setting(
        ("efficientnet_lite0", "efficientnet_lite2", "vgg16"),
        "pretrained backbones to try",
        own=True,
        instead_of=("model.backbone",),
    )
    image_sizes: tuple[int, ...] = setting(
        (128, 224), "sides of the images in pixels to try", minimum=1, instead_of=("dataset.image_size",)
    )
    pooling: tuple[Literal["average", "quarters", "layers", "layers_in_quarters"], ...] = setting(
        ("average", "layers_in_quarters"),
        "what heads see: the average of the last map; quarters: of each of its quarters; layers: of the maps of all "
        "stages, too; layers_in_quarters: of each quarter of these maps",
        instead_of=("model.pooling", "model.pooling_grid"),
    )
    heads: tuple[Literal["linear", "logistic_regression", "svm", "pairwise"], ...] = setting(
        ("linear", "logistic_regression", "pairwise"),
        "heads on the frozen backbone to try; linear ones on all stages only where no other is listed",
        instead_of=("classifier.kind",),
    )
    freeze: tuple[str, ...] = setting(
        ("none", "last_stage"),
        "freeze specs of fine-tuning to try; last_stage as in ablation.masks",
        instead_of=("stages.tune.freeze", "schedule"),
    )
    learning_rates: tuple[float, ...] = setting(
        (3e-4, 1e-4), "learning rates of fine-tuning to try", instead_of=("stages.tune.optimizer.lr",)
    )
    # After one epoch ways differ by what they have not forgotten yet: on 1,000 images of CIFAR-10 a rate of 1e-4 had
    # 0.892 and one of 3e-4 had 0.862, after seven epochs 0.902 and 0.912.
    least_epochs: int = setting(3, "epochs of the first round of fine-tuning, at least", minimum=1)
    most_epochs: int = setting(
        15, "epochs of the last round of fine-tuning, at most", minimum=1, instead_of=("stages.tune.epochs",)
    )


@dataclass(frozen=True)
class SlurmConfig:
    """Fields of `config.slurm`, for `--launcher=slurm`."""

    cluster: Literal["slurm", "local"] = setting("slurm", "where jobs are submitted; local: processes on this machine")
    partition: str | None = setting(None, "partition of the jobs; default: the cluster's default")
    minutes: int = setting(240, "time limit of a job; a job that reaches it is requeued and resumes", minimum=1)
    nodes: int = setting(1, "nodes of a job", minimum=1)
    tasks_per_node: int = setting(1, "workers of a job on each node; several have one accelerator each", minimum=1)
    gpus: int = setting(0, "accelerators of a job on each node", minimum=0)
    cpus: int = setting(8, "cores of a worker", minimum=1)
    memory_gb: int = setting(16, "memory of a job in GB on each node", minimum=1)


@dataclass(frozen=True)
class ProbeConfig:
    """Fields of `config.probe`."""

    backbones: tuple[str, ...] = setting(
        (), "backbones to probe and compare; default: model.backbone", own=True, instead_of=("model.backbone",)
    )
    large_from: int = setting(1000, "number of training images from which the probe calls a set large", minimum=1)


@dataclass(frozen=True)
class CheckConfig:
    """Fields of `config.check`, for `--mode=check`."""

    labels: Literal["auto", "always", "never"] = setting(
        "auto",
        "look for wrong labels with VGG16's features: auto (if its weights are on this machine), always (fetches "
        "them), never",
    )
