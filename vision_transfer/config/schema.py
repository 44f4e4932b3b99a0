"""The schema of the configuration: every field with its type, default, meaning and bounds, each declared once.

From these declarations come the `ConfigDict` that config files change, the check of its values, the help, and
`docs/configuration.md`. A bound or a choice of a tuple holds for each of its elements.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vision_transfer.config.setting import LARGEST_SEED, group, setting
from vision_transfer.config.task_schema import (
    AblationConfig,
    BenchmarkConfig,
    CheckConfig,
    ClassifierConfig,
    DecisionConfig,
    OptimizerName,
    PrecisionName,
    ProbeConfig,
    SearchConfig,
    SlurmConfig,
    StudyConfig,
)

Decode = Literal["cache", "stream"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Fields of `config.stages.NAME.optimizer`."""

    name: OptimizerName = setting(
        "rmsprop", "Keras's RMSprop, Adam or SGD; FILE.py:NAME for an Optax transformation of your own", own=True
    )
    lr: float = setting(1e-3, "learning rate (the highest, where a schedule changes it)", minimum=0)
    lr_multipliers: tuple[str, ...] = setting(
        (),
        "factors of the learning rate of single parameters: 'PATTERN=FACTOR' for paths LAYER/PARAMETER, "
        "'layer_decay=FACTOR', 'block_decay=FACTOR'",
    )
    lr_schedule: Literal["constant", "cosine"] = setting("constant", "learning rate over the stage")
    warmup_steps: int = setting(0, "steps over which the learning rate rises linearly from 0", minimum=0)
    momentum: float = setting(0.0, "momentum of SGD and RMSprop", minimum=0, below=1)
    weight_decay: float = setting(0.0, "decoupled weight decay of kernels, times the learning rate", minimum=0)
    clip_norm: float | None = setting(
        None, "largest norm of the gradient of all trainable parameters; default: no clipping", minimum=0
    )
    ema: float = setting(
        0.0,
        "decay of an exponential moving average of the trainable parameters, which is then evaluated; 0: none",
        minimum=0,
        below=1,
    )


@dataclass(frozen=True)
class StageConfig:
    """Fields of `config.stages.NAME`: what is frozen, how long the rest trains, and by which optimizer."""

    freeze: str = setting(
        "all", "what does not train: none, all, below:NAME, last:N (these train), only:NAME,… (these train), regex:…"
    )
    epochs: int = setting(20, "most epochs of this stage", minimum=1)
    steps_per_epoch: int | None = setting(
        None, "steps that count as an epoch; default: one pass over the data", minimum=1
    )
    least_steps: int = setting(
        1, "least steps of an epoch, unless steps_per_epoch is set: few images are passed over several times", minimum=1
    )
    validation_steps: int | None = setting(None, "batches of validation per epoch; default: the whole split", minimum=1)
    monitor: Literal["validation_loss", "validation_accuracy", "validation_accuracy_then_loss"] = setting(
        "validation_loss",
        "metric that chooses the best epoch (the third takes, of the epochs with the highest accuracy, the one with "
        "the lowest loss); only a strictly better value replaces it, NaN never does",
    )
    loss: Literal["cross_entropy"] = setting(
        "cross_entropy", "loss that training minimises; FILE.py:NAME for one of your own", own=True
    )
    patience: int | None = setting(
        None, "stop after this many epochs without a better monitored value; default: never", minimum=1
    )
    start_from: Literal["best", "last"] = setting(
        "best", "epoch of the previous stage whose parameters this stage starts from"
    )
    skip_from: float | None = setting(
        None,
        "the schedule ends before this stage if the stage before it has at least this validation accuracy in its best "
        "epoch; default: never",
        minimum=0,
    )
    augment: bool = setting(
        True, "train on the variants that config.augment describes; False: on the images as they are"
    )
    label_smoothing: float = setting(
        0.0, "share of each label spread evenly over all classes in training", minimum=0, below=1
    )
    l1: float = setting(0.0, "weight of the sum of absolute values of the trainable kernels in the loss", minimum=0)
    l2: float = setting(0.0, "weight of the sum of squares of the trainable kernels in the loss", minimum=0)
    optimizer: OptimizerConfig = group(OptimizerConfig)


@dataclass(frozen=True)
class SplitsConfig:
    """Fields of `config.dataset.splits`, in TensorFlow Datasets' notation of sub-splits."""

    train: str | None = setting(
        None,
        "what to train on, of a TensorFlow Dataset: train[:80%], train[1000:], train+extra; default: its split train",
    )
    validation: str | None = setting(None, "the same for validation, such as train[80%:]; default: its own, if any")
    test: str | None = setting(None, "the same for the test; default: its own, if any")


@dataclass(frozen=True)
class DatasetConfig:
    """Fields of `config.dataset`."""

    name: str = setting(
        "auto",
        "auto (cats_vs_dogs_small if it is there, else embedded), folder, csv, embedded, mnist, fashion_mnist, "
        "cifar10, idx, npz, tfds:NAME (TensorFlow Datasets) or tfds (one that is prepared in root)",
    )
    root: str | None = setting(
        None, "folder of the data set, or a CSV file with the columns path, label and, optionally, split"
    )
    image_size: int | None = setting(
        None, "height and width in pixels; default: the data set's own, or 224 for folders", minimum=1, maximum=16_384
    )
    channels: Literal[1, 3] = setting(3, "3 for RGB, 1 for grey")
    value_range: tuple[float, ...] = setting(
        (),
        "values that become 0 and 255 in grey files of 16 bits, 32 bits or floating point, such as 0,4095; default: "
        "the upper 8 of 16 bits",
    )
    resampling: Literal["bilinear", "nearest"] = setting(
        "bilinear",
        "bilinear as Keras's image_dataset_from_directory (no antialiasing), nearest as its flow_from_directory",
    )
    train_examples: int | None = setting(
        None, "train on a class-balanced subset of this many images; default: all", minimum=1
    )
    subset_seed: int = setting(0, "seed of that subset; larger subsets contain smaller ones", minimum=0)
    validation_fraction: float = setting(
        0.1, "share of the training images held out where the data has no validation split", minimum=0, below=1
    )
    test_fraction: float = setting(0.2, "the same for a test split; more than 0", minimum=0, below=1)
    split_seed: int = setting(0, "another seed holds out other images", minimum=0)
    group_near_duplicates: bool = setting(
        True, "near-duplicate images of a folder or table stay on one side of splits that are made here"
    )
    grouped_by: str | None = setting(
        None,
        "what belongs together and is never divided by a split or fold made here, such as all images of a patient: a "
        "regular expression over file names whose first (...) names the group, or a CSV's column (default: its column "
        "group)",
    )
    folds: int = setting(0, "cross-validation: the number of folds, 2 or more; 0: none", minimum=0)
    fold: int | None = setting(None, "number of the fold, from 0, that is the test of a single run", minimum=0)
    splits: SplitsConfig = group(SplitsConfig)
    decode: Decode = setting(
        "cache",
        "cache: decode all images once and keep them on disk; stream: decode those that are used each time, where the "
        "decoded images do not fit the disk; the same pixels and numbers",
    )


@dataclass(frozen=True)
class ModelConfig:
    """Fields of `config.model`."""

    backbone: str = setting(
        "vgg16",
        "vgg16, vgg19, efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, mobilenet_v2, mobilenet_v2_torch, "
        "xception, resnet50, resnet50_torch, densenet121, mnist_convnet, convnet_150, convnet_180 "
        "or dense (no convolutions); FILE.py:NAME for one of your own (docs/own_parts.md)",
        own=True,
    )
    head: str | None = setting(
        None, "FILE.py:NAME of a head of your own; default: that of the fields below from pooling on", own=True
    )
    backbone_output: str | None = setting(
        None, "last layer of the backbone to keep, such as block3_pool; default: all layers"
    )
    batch_norm: bool = setting(False, "batch norm after each convolution of a small convnet")
    batch_norm_statistics: Literal["auto", "pretrained", "batch"] = setting(
        "auto",
        "of batch norms in training: pretrained (the running statistics, which never move), or batch where a norm "
        "trains; auto: pretrained where weights are loaded",
    )
    weights: Literal["imagenet", "random"] = setting("imagenet", "initial weights of the backbone")
    weights_path: str | None = setting(
        None,
        "a weights file (.h5, .keras, .pth, .safetensors, .onnx) instead of the published ones; hf:OWNER/NAME for one "
        "of the Hugging Face hub",
    )
    preprocessing: Literal["caffe", "torch", "tf", "lite", "rescale", "raw"] | None = setting(
        None,
        "transformation of pixels of 0–255; default: that of the weights, rescale without any",
    )
    pooling: Literal["flatten", "average", "layers"] = setting(
        "flatten", "between backbone and head: flatten the map, average over it, or over the maps of several layers"
    )
    pooled_layers: tuple[str, ...] = setting((), "rows that pooling='layers' averages; default: pools, ends of stages")
    pooling_grid: int = setting(
        1, "rows and columns of the cells over which maps are averaged; 2: the head sees each quarter", minimum=1
    )
    hidden: tuple[int, ...] = setting((256,), "features of the head's hidden dense layers", minimum=1)
    activation: Literal["linear", "relu"] = setting("linear", "activation of the hidden layers")
    dropout: float = setting(0.5, "rate of the head's dropout; 0: none", minimum=0, below=1)
    dropout_place: Literal["before_hidden", "before_output"] = setting("before_output", "position of the dropout")
    output: Literal["auto", "sigmoid", "softmax"] = setting("auto", "auto: one sigmoid for two classes, else softmax")


@dataclass(frozen=True)
class AugmentConfig:
    """Fields of `config.augment`."""

    preset: Literal["none", "keras_layers", "image_data_generator"] = setting(
        "none",
        "convention of augmentation: keras_layers (RandomFlip, …) or image_data_generator; FILE.py:NAME for an "
        "augmentation of your own",
        own=True,
    )
    flip: Literal["none", "horizontal", "vertical", "horizontal_and_vertical"] = setting("none", "directions of flips")
    rotation: float = setting(
        0.0, "largest rotation: a fraction of a turn (layers) or degrees (generator)", minimum=0, maximum=360
    )
    height_shift: float = setting(0.0, "largest shift of rows, as a fraction of the height", minimum=0, maximum=1)
    width_shift: float = setting(0.0, "largest shift of columns, as a fraction of the width", minimum=0, maximum=1)
    shear: float = setting(0.0, "largest shear: columns per row (layers) or degrees (generator)", minimum=0, maximum=90)
    zoom: float = setting(0.0, "zoom factors lie in [1 - zoom, 1 + zoom]", minimum=0, below=1)
    fill: Literal["nearest", "reflect", "constant", "wrap"] | None = setting(
        None, "values outside of the image; default: reflect (layers) or nearest (generator)"
    )
    crop_scale: tuple[float, ...] = setting(
        (), "smallest and largest share of the area of a random resized crop; default: no crop", minimum=0, maximum=1
    )
    brightness: float = setting(0.0, "brightness factors lie in [1 - b, 1 + b]", minimum=0)
    contrast: float = setting(0.0, "the same for contrast", minimum=0)
    saturation: float = setting(0.0, "the same for saturation", minimum=0)
    bank: int = setting(
        0,
        "keep this many fixed variants of each image, so that the prefix can be cached; 0: fresh ones in each epoch",
        minimum=0,
    )
    bank_seed: int = setting(
        0, "seed of the bank's variants, shared by runs of all seeds", minimum=0, maximum=LARGEST_SEED
    )


@dataclass(frozen=True)
class FeaturesConfig:
    """Fields of `config.features`."""

    cache: bool = setting(True, "keep the outputs of the frozen prefix on disk and train from them")
    dtype: Literal["float32", "bfloat16"] = setting("float32", "type of stored features; bfloat16 takes half the space")
    budget_gb: float | None = setting(
        None,
        "most disk (in 10⁹ bytes) for the features of all runs together; features beyond it are not cached; default: "
        "a run adds at most half of the disk that is free when it starts",
        minimum=0,
    )


@dataclass(frozen=True)
class LogConfig:
    """Fields of `config.log`."""

    report: bool = setting(True, "write report.html at the end of the run")
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = setting(
        "none",
        "where the metrics, figures and report also go: event files for TensorBoard, Weights & Biases, or MLflow; each "
        "needs the extra of its name",
    )


@dataclass(frozen=True)
class CheckpointConfig:
    """Fields of `config.checkpoint`."""

    every_seconds: float = setting(
        60.0, "longest time between two checkpoints; one is always written at the end of a stage", minimum=0
    )


@dataclass(frozen=True)
class Config:
    """One experiment.

    `stages` holds the stages by name; `schedule` gives their order. `extra` holds fields of the user's own.
    """

    name: str = setting("run", "first part of the run folder's name")
    task: Literal["train", "benchmark", "classic_classifier", "transfer_curve", "ablation", "probe", "search"] = (
        setting("train", "what the command does with this config")
    )
    seed: int = setting(
        0, "seed of initialisation, data order, dropout and augmentation", minimum=0, maximum=LARGEST_SEED
    )
    init_from: str | None = setting(None, "folder of a finished run to start from; default: see model.weights")
    init_from_layers: Literal["auto", "all", "backbone"] = setting(
        "auto",
        "layers taken from that run: all, or the backbone with a new head; auto: all if its classes are the same as "
        "here, else the backbone",
    )
    precision: PrecisionName = setting(
        "float32",
        "float32 with float32 products, tf32 (the device's fast products), bfloat16 (activations and products)",
    )
    deterministic: bool = setting(False, "use only GPU operations that give the same bits every time; slower")
    balance: Literal["none", "class_weights", "sampling"] = setting(
        "none",
        "for classes of unequal size: class_weights (the losses of each class have the same total weight, as "
        "scikit-learn's balanced class weights in Keras), sampling (each class is drawn equally often)",
    )
    batch_size: int = setting(32, "examples per training step, over all devices", minimum=1)
    eval_batch_size: int = setting(32, "examples per step of evaluation and feature extraction", minimum=1)
    metrics: tuple[str, ...] = setting((), "FILE.py:NAME of metrics of your own, of validation and test", own=True)
    schedule: tuple[str, ...] = setting((), "names of the stages of config.stages, in the order in which they run")
    evaluate: Literal["best", "last", "best_stage"] = setting(
        "best",
        "parameters to test: best (the last stage's best epoch by the monitored value), last (its last epoch), "
        "best_stage (the best epoch of all stages)",
    )
    dataset: DatasetConfig = group(DatasetConfig)
    model: ModelConfig = group(ModelConfig)
    augment: AugmentConfig = group(AugmentConfig)
    features: FeaturesConfig = group(FeaturesConfig)
    log: LogConfig = group(LogConfig)
    benchmark: BenchmarkConfig = group(BenchmarkConfig)
    classifier: ClassifierConfig = group(ClassifierConfig)
    decision: DecisionConfig = group(DecisionConfig)
    study: StudyConfig = group(StudyConfig)
    ablation: AblationConfig = group(AblationConfig)
    slurm: SlurmConfig = group(SlurmConfig)
    probe: ProbeConfig = group(ProbeConfig)
    search: SearchConfig = group(SearchConfig)
    check: CheckConfig = group(CheckConfig)
    checkpoint: CheckpointConfig = group(CheckpointConfig)
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    stages: Mapping[str, StageConfig] = dataclasses.field(default_factory=dict[str, StageConfig])
