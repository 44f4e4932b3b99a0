"""The configuration: every field with its default, its type, its meaning and what it may hold.

A file in `configs/` starts from `default_config()` and changes values. One schema, `FIELDS` and `STAGE_FIELDS`, makes
the defaults and checks the result; `validate` names the field, what it got and what is allowed.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict, config_dict

from vision_transfer.errors import UserError

# An ml_collections.ConfigDict; no type checker can know its fields.
Config = Any


@dataclass(frozen=True)
class Field:
    """One value of the configuration.

    Attributes:
        default: the value, or None for a field that may stay empty.
        meaning: one sentence for the reader.
        kind: type of a field that may stay empty; otherwise the default's.
        choices: the allowed values, if they can be listed.
        minimum: smallest allowed number.
        below: numbers must be less than this.
    """

    default: Any
    meaning: str
    kind: type | None = None
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    below: float | None = None


FIELDS: dict[str, Field] = {
    "name": Field("run", "first part of the run folder's name"),
    "task": Field("train", "what the command does with this config", choices=("train", "benchmark")),
    "seed": Field(0, "seed of initialisation, data order, dropout and augmentation", minimum=0),
    "dataset.name": Field(
        "auto",
        "auto (cats_vs_dogs_small if it is there, else embedded), folder, embedded, mnist, fashion_mnist, cifar10, "
        "idx, npz or tfds:NAME",
    ),
    "dataset.root": Field(None, "folder of the data set", kind=str),
    "dataset.image_size": Field(
        None, "height and width in pixels; empty: the data set's own, or 180 for folders", kind=int, minimum=1
    ),
    "dataset.channels": Field(3, "3 for RGB, 1 for grey", choices=(1, 3)),
    "dataset.resampling": Field(
        "bilinear",
        "bilinear as Keras's image_dataset_from_directory (no antialiasing), nearest as its flow_from_directory",
        choices=("bilinear", "nearest"),
    ),
    "dataset.train_examples": Field(
        None, "train on a class-balanced subset of this many images; empty: all", kind=int, minimum=1
    ),
    "dataset.subset_seed": Field(0, "seed of that subset; smaller subsets lie inside larger ones", minimum=0),
    "dataset.validation_fraction": Field(
        0.1, "share of the training images held out where the data has no validation split", minimum=0, below=1
    ),
    "model.backbone": Field(
        "vgg16", "vgg16, vgg19, mnist_convnet, convnet_150, convnet_180 or dense (no convolutions)"
    ),
    "model.backbone_output": Field(
        None, "last layer of the backbone to keep, such as block3_pool; empty: all", kind=str
    ),
    "model.batch_norm": Field(False, "batch norm behind each convolution of a small convnet"),
    "model.weights": Field("imagenet", "where the backbone starts", choices=("imagenet", "random")),
    "model.weights_path": Field(
        None, "a weights file (.h5, .onnx, .safetensors) instead of the published ones", kind=str
    ),
    "model.preprocessing": Field(
        None,
        "what is done to pixels of 0–255; empty: caffe for VGG (torch with torchvision's weights), rescale otherwise",
        kind=str,
        choices=("caffe", "torch", "rescale", "raw"),
    ),
    "model.pooling": Field(
        "flatten",
        "between backbone and head: flatten, or average over the map",
        choices=("flatten", "average"),
    ),
    "model.hidden": Field((256,), "features of the head's hidden dense layers"),
    "model.activation": Field("linear", "activation of the hidden layers", choices=("linear", "relu")),
    "model.dropout": Field(0.5, "rate of the head's dropout; 0 for none", minimum=0, below=1),
    "model.dropout_place": Field(
        "before_output", "where the dropout stands", choices=("before_hidden", "before_output")
    ),
    "model.output": Field(
        "auto", "auto: one sigmoid for two classes, softmax for more", choices=("auto", "sigmoid", "softmax")
    ),
    "augment.preset": Field(
        "none",
        "whose conventions augmentation follows: keras_layers (RandomFlip, …) or image_data_generator",
        choices=("none", "keras_layers", "image_data_generator"),
    ),
    "augment.flip": Field(
        "none", "directions to flip in", choices=("none", "horizontal", "vertical", "horizontal_and_vertical")
    ),
    "augment.rotation": Field(0.0, "largest rotation: a fraction of a turn (layers) or degrees (generator)", minimum=0),
    "augment.height_shift": Field(0.0, "largest shift of rows, as a fraction of the height", minimum=0),
    "augment.width_shift": Field(0.0, "largest shift of columns, as a fraction of the width", minimum=0),
    "augment.shear": Field(0.0, "largest shear: columns per row (layers) or degrees (generator)", minimum=0),
    "augment.zoom": Field(0.0, "zoom factors lie in [1 - zoom, 1 + zoom]", minimum=0, below=1),
    "augment.fill": Field(
        None,
        "what lies outside; empty: reflect (layers) or nearest (generator)",
        kind=str,
        choices=("nearest", "reflect", "constant", "wrap"),
    ),
    "augment.crop_scale": Field((), "smallest and largest share of the area of a random resized crop; empty: no crop"),
    "augment.brightness": Field(0.0, "brightness factors lie in [1 - b, 1 + b]", minimum=0),
    "augment.contrast": Field(0.0, "the same for contrast", minimum=0),
    "augment.saturation": Field(0.0, "the same for saturation", minimum=0),
    "augment.bank": Field(
        0,
        "keep this many fixed variants of each image, so that the prefix can be cached; 0: fresh each epoch",
        minimum=0,
    ),
    "augment.bank_seed": Field(0, "seed of the bank's variants, shared by runs of all seeds", minimum=0),
    "precision": Field(
        "float32",
        "float32 with float32 products, tf32 (the device's fast products), bfloat16 (activations and products)",
        choices=("float32", "tf32", "bfloat16"),
    ),
    "deterministic": Field(False, "only operations of a GPU that give the same bits every time; slower"),
    "batch_size": Field(32, "examples per training step, over all devices", minimum=1),
    "eval_batch_size": Field(32, "examples per step of evaluation and feature extraction", minimum=1),
    "schedule": Field((), "names of the stages in the order in which they run; their content is in config.stages"),
    "evaluate": Field(
        "best",
        "parameters that are tested: of the best epoch by the monitored value, or the last",
        choices=("best", "last"),
    ),
    "features.cache": Field(True, "keep the outputs of the frozen prefix on disk and train from them"),
    "benchmark.freeze": Field(("none", "all"), "freeze specs whose steps are measured, from nothing frozen to all"),
    "benchmark.forward_batches": Field((), "batch sizes of the forward pass; empty: batch_size"),
    "benchmark.classes": Field(2, "classes that the head tells apart", minimum=2),
    "benchmark.optimizer": Field("rmsprop", "of the measured steps", choices=("rmsprop", "adam", "sgd")),
    "benchmark.repeats": Field(10, "timed repeats of each case, of which the median is reported", minimum=1),
    "benchmark.seconds_per_repeat": Field(1.0, "a repeat runs as often as fills this time, at least once", minimum=0),
    "benchmark.trace": Field(False, "write a profiler trace and the HLO of each case"),
    "benchmark.target": Field("", "compile for this instead of measuring here: tpu:TOPOLOGY, such as tpu:v5e:2x2"),
    "benchmark.peers": Field((), "libraries to measure in turns with this one: keras, torch"),
    "benchmark.peer_python": Field(None, "interpreter that has the peers; empty: this one", kind=str),
    "benchmark.peer_freeze": Field(("none",), "freeze specs whose steps are compared with peers"),
    "benchmark.small_convnet": Field(True, "compare the training step of convnet_150 with peers, too"),
    "checkpoint.every_seconds": Field(
        60.0,
        "longest time between two checkpoints inside an epoch; one is always written at its end",
        minimum=0,
    ),
}

STAGE_FIELDS: dict[str, Field] = {
    "freeze": Field(
        "all", "what does not train: none, all, below:LAYER, last:N (these train), only:NAME,… (these train), regex:…"
    ),
    "epochs": Field(20, "most epochs of this stage", minimum=1),
    "steps_per_epoch": Field(None, "steps that count as an epoch; empty: one pass over the data", kind=int, minimum=1),
    "validation_steps": Field(
        None, "batches of validation per epoch; empty: all of the split", kind=int, minimum=1
    ),
    "monitor": Field(
        "validation_loss",
        "what the best epoch is chosen by; strictly better replaces, NaN never does",
        choices=("validation_loss", "validation_accuracy"),
    ),
    "patience": Field(
        None, "stop after this many epochs without a better monitored value; empty: never", kind=int, minimum=1
    ),
    "start_from": Field("best", "parameters of the previous stage that this one starts from", choices=("best", "last")),
    "optimizer.name": Field("rmsprop", "Keras's RMSprop, Adam or SGD", choices=("rmsprop", "adam", "sgd")),
    "optimizer.lr": Field(1e-3, "learning rate (the highest, where a schedule changes it)", minimum=0),
    "optimizer.lr_schedule": Field("constant", "learning rate over the stage", choices=("constant", "cosine")),
    "optimizer.warmup_steps": Field(0, "steps over which the learning rate rises linearly from 0", minimum=0),
    "optimizer.momentum": Field(0.0, "momentum of SGD and RMSprop", minimum=0, below=1),
    "optimizer.weight_decay": Field(0.0, "decoupled weight decay of kernels, times the learning rate", minimum=0),
    "optimizer.clip_norm": Field(
        None, "largest norm of the gradient of all that trains; empty: no clipping", kind=float, minimum=0
    ),
    "optimizer.ema": Field(
        0.0, "decay of an exponential moving average of the trainable parameters, which is then evaluated; 0: none",
        minimum=0, below=1,
    ),
    "label_smoothing": Field(0.0, "share of each label spread evenly over all classes in training", minimum=0, below=1),
    "l1": Field(0.0, "weight of the sum of absolute values of the trainable kernels in the loss", minimum=0),
    "l2": Field(0.0, "weight of the sum of squares of the trainable kernels in the loss", minimum=0),
}  # fmt: skip

# Fields that say where or how often something is written: they do not change a run's numbers, so its digest omits them.
NOT_IN_DIGEST = ("dataset.root", "model.weights_path", "checkpoint", "benchmark")


def default_config() -> Config:
    """All fields at their defaults, no stages; locked, so that an unknown field is an error where it is set."""
    config = _tree(FIELDS)
    config.stages = ConfigDict()
    return config.lock()


def stage(**values: Any) -> Config:
    """A stage at its defaults, changed by `values`; nested values as dictionaries: `optimizer={'lr': 1e-5}`."""
    config = _tree(STAGE_FIELDS).lock()
    config.update(values)
    return config


def with_stages(config: Config, **stages: Config) -> Config:
    """Sets the stages and, by their order here, the schedule."""
    with config.unlocked():
        config.stages = ConfigDict(stages)
    config.schedule = tuple(stages)
    return config


def validate(config: Config) -> None:
    """Checks every value against the schema.

    Raises:
        UserError: with one line per field that is wrong.
    """
    problems = list(_problems(config))
    if problems:
        raise UserError("\n".join(problems))


def digested(config: Config) -> dict[str, Any]:
    """The part of a configuration that determines a run's numbers, as plain JSON values."""
    flat = {f"{path}": value for path, value in flatten(config).items()}
    return {
        path: value
        for path, value in flat.items()
        if not any(path == omitted or path.startswith(f"{omitted}.") for omitted in NOT_IN_DIGEST)
    }


def meaning_of(path: str) -> str:
    """The meaning of the field at a dotted path: `batch_size`, `stages.head.optimizer.lr`."""
    group, _, rest = path.partition(".")
    field = STAGE_FIELDS.get(rest.partition(".")[2]) if group == "stages" else FIELDS.get(path)
    return field.meaning if field else "of this config only"


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """Leaves of a configuration by dotted path, sorted; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for key in sorted(config):
        value = config[key]
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _tree(fields: Mapping[str, Field]) -> Config:
    config = ConfigDict()
    for path, field in fields.items():
        *parents, name = path.split(".")
        node: Any = config
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        node[name] = config_dict.placeholder(field.kind) if field.default is None else field.default
    return config


def _problems(config: Config) -> Iterator[str]:
    yield from _field_problems(config, FIELDS, "config")
    schedule, stages = config.schedule, config.stages
    if config.task == "train" and not schedule:
        yield "config.schedule: is empty; it lists the stages to run, such as ('head', 'block5')"
    for name in schedule:
        if name not in stages:
            yield f"config.schedule: names stage {name!r}, not in config.stages ({', '.join(stages)})"
        elif schedule.count(name) > 1:
            yield f"config.schedule: stage {name!r} stands in it twice; give the second one a name of its own"
        else:
            yield from _field_problems(stages[name], STAGE_FIELDS, f"config.stages.{name}")
    for features in config.model.hidden:
        if not isinstance(features, int) or features < 1:
            yield f"config.model.hidden: got {config.model.hidden!r}; allowed are whole numbers from 1"
            break


def _field_problems(config: Config, fields: Mapping[str, Field], where: str) -> Iterator[str]:
    for path, field in fields.items():
        value = _get(config, path)
        if value is None:
            continue
        if field.choices and value not in field.choices:
            yield f"{where}.{path}: got {value!r}; allowed are {', '.join(map(str, field.choices))}"
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{where}.{path}: got {value!r}; allowed is a finite number ({field.meaning})"
        elif field.minimum is not None and not value >= field.minimum:
            yield f"{where}.{path}: got {value!r}; allowed is {field.minimum:g} or more ({field.meaning})"
        elif field.below is not None and not value < field.below:
            yield f"{where}.{path}: got {value!r}; allowed is less than {field.below:g} ({field.meaning})"


def _get(config: Config, path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value[part]
    return value
