"""The schema of the configuration: every field with its default, its type, its meaning and what it may hold."""

from dataclasses import dataclass
from typing import Any


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
    "task": Field(
        "train",
        "what the command does with this config",
        choices=("train", "benchmark", "classic_classifier", "transfer_curve", "ablation", "probe"),
    ),
    "seed": Field(0, "seed of initialisation, data order, dropout and augmentation", minimum=0),
    "dataset.name": Field(
        "auto",
        "auto (cats_vs_dogs_small if it is there, else embedded), folder, csv, embedded, mnist, fashion_mnist, "
        "cifar10, idx, npz or tfds:NAME",
    ),
    "dataset.root": Field(
        None, "folder of the data set, or a CSV file with the columns path, label and, if you like, split", kind=str
    ),
    "dataset.image_size": Field(
        None, "height and width in pixels; empty: the data set's own, or 224 for folders", kind=int, minimum=1
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
    "dataset.test_fraction": Field(0.2, "the same for a test split; more than 0", minimum=0, below=1),
    "dataset.split_seed": Field(0, "another seed holds out other images", minimum=0),
    "dataset.group_near_duplicates": Field(
        True, "pictures of a folder or table that show the same stay on one side of splits that are made here"
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
    "init_from": Field(
        None, "folder of a finished run whose tested parameters are started from; empty: model.weights says", kind=str
    ),
    "init_from_layers": Field(
        "auto",
        "what is taken of that run: all layers, or the backbone with a new head; auto: all where its classes are the "
        "same as here, else the backbone",
        choices=("auto", "all", "backbone"),
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
    "balance": Field(
        "none",
        "for classes of unequal size: class_weights (each class's losses weigh the same together, as scikit-learn's "
        "balanced class weights in Keras), sampling (each class is drawn equally often)",
        choices=("none", "class_weights", "sampling"),
    ),
    "batch_size": Field(32, "examples per training step, over all devices", minimum=1),
    "eval_batch_size": Field(32, "examples per step of evaluation and feature extraction", minimum=1),
    "schedule": Field((), "names of the stages in the order in which they run; their content is in config.stages"),
    "evaluate": Field(
        "best",
        "parameters that are tested: of the last stage's best epoch by the monitored value, of its last epoch, or "
        "(best_stage) of the best epoch of all stages",
        choices=("best", "last", "best_stage"),
    ),
    "features.cache": Field(True, "keep the outputs of the frozen prefix on disk and train from them"),
    "features.dtype": Field(
        "float32", "in which they are kept; bfloat16 takes half the space", choices=("float32", "bfloat16")
    ),
    "features.budget_gb": Field(
        None,
        "most disk (in 10⁹ bytes) that the features of all runs may take together; what would take more is not cached; "
        "empty: a run adds at most half of what is free when it starts",
        kind=float,
        minimum=0,
    ),
    "log.report": Field(True, "write report.html at the end of the run"),
    "log.tensorboard": Field(False, "write event files for TensorBoard, too; needs tensorboardX (extra [log])"),
    "benchmark.freeze": Field(("none", "all"), "freeze specs whose steps are measured, from nothing frozen to all"),
    "benchmark.forward_batches": Field((), "batch sizes of the forward pass; empty: batch_size"),
    "benchmark.classes": Field(2, "classes that the head tells apart", minimum=2),
    "benchmark.optimizer": Field("rmsprop", "of the measured steps", choices=("rmsprop", "adam", "sgd")),
    "benchmark.repeats": Field(10, "timed repeats of each case, of which the median is reported", minimum=1),
    "benchmark.seconds_per_repeat": Field(1.0, "a repeat runs as often as fills this time, at least once", minimum=0),
    "benchmark.trace": Field(False, "write a profiler trace and the HLO of each case"),
    "benchmark.target": Field("", "compile for this instead of measuring here: tpu:TOPOLOGY, such as tpu:v5e:2x2"),
    "benchmark.peers": Field((), "libraries to measure in turns with this one: keras, torch"),
    "benchmark.whole_runs": Field(
        (),
        "whole runs to compare with Keras's, on the folder of dataset.root: extraction, second_head, finetuning",
    ),
    "benchmark.peer_python": Field(None, "interpreter that has the peers; empty: this one", kind=str),
    "benchmark.peer_freeze": Field(("none",), "freeze specs whose steps are compared with peers"),
    "benchmark.small_convnet": Field(True, "compare the training step of convnet_150 with peers, too"),
    "classifier.kind": Field(
        "logistic_regression",
        "what the task classic_classifier puts on the pooled features",
        choices=("logistic_regression", "svm"),
    ),
    "classifier.c_values": Field(
        (1e-4, 1e-3, 1e-2, 0.1, 1.0),
        "values of C, the inverse of the strength of the l2 penalty, of which validation chooses one",
    ),
    "study.seeds": Field((0, 1, 2), "seeds that a study repeats each of its runs with"),
    "study.train_examples": Field((100, 1000, 10000, 0), "sizes of the training sets of a transfer curve; 0: all"),
    "study.least_steps": Field(
        50, "steps that count as an epoch of a transfer curve's runs where a pass has fewer", minimum=1
    ),
    "study.source_name": Field("mnist", "dataset.name of a transfer curve's pretraining"),
    "study.source_root": Field(None, "dataset.root of that", kind=str),
    "ablation.masks": Field(
        ("every_cut",),
        "freeze specs that are compared; every_cut: from the head alone layer by layer to everything, every_block: one "
        "block of the backbone at a time",
    ),
    "ablation.learning_rates": Field((), "of the stage tune; empty: its own"),
    "ablation.multipliers": Field(
        ("none",),
        "values of stages.tune.optimizer.lr_multipliers, the rules of one with semicolons between; none: no rules",
    ),
    "ablation.schedules": Field(
        ("head_first",), "head_first (head, then all of the mask), together (one stage), gradual (layer by layer)"
    ),
    "ablation.epochs_a_layer": Field(1, "epochs before gradual unfreezing goes one layer deeper", minimum=1),
    "slurm.cluster": Field(
        "slurm", "where --launcher=slurm submits; local: processes here", choices=("slurm", "local")
    ),
    "slurm.partition": Field(None, "partition of the jobs; empty: the cluster's default", kind=str),
    "slurm.minutes": Field(240, "time limit of a job; one that reaches it is requeued and goes on", minimum=1),
    "slurm.gpus": Field(0, "accelerators of a job", minimum=0),
    "slurm.cpus": Field(8, "cores of a job", minimum=1),
    "slurm.memory_gb": Field(16, "memory of a job", minimum=1),
    "probe.large_from": Field(1000, "training images from which the probe calls a set large", minimum=1),
    "check.labels": Field(
        "auto",
        "look for wrong labels by VGG16's features (--mode=check): auto (if its weights are on this machine), always "
        "(fetches them), never",
        choices=("auto", "always", "never"),
    ),
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
    "optimizer.lr_multipliers": Field(
        (),
        "what the learning rate of single parameters is multiplied by: 'PATTERN=FACTOR' of paths LAYER/PARAMETER, "
        "'layer_decay=FACTOR', 'block_decay=FACTOR'",
    ),
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
