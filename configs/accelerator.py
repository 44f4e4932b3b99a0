r"""Measure what an accelerator does with these networks: one command, 25 minutes at a time, continued by the same one.

    vision-transfer --config=accelerator --workdir=runs/accelerator
    vision-transfer --config=accelerator:small=True --workdir=runs/small
    vision-transfer --config=accelerator --config.benchmark.target=tpu:v6e:2x2
    vision-transfer --config=accelerator --config.benchmark.target=cuda:h100
    vision-transfer --mode=report --workdir=runs/before,runs/after

In this order, the commands

1. measure the forward pass and the steps of the head, of the last stage and of everything, from images and from cached
   features, of four backbones in three precisions at batches of powers of two, up to what fits. A batch of 64 in
   bfloat16 comes first, then what is nearest to it, since 25 minutes do not suffice for all; given again, the command
   goes on with what is left;
2. do the same with a small network in about a minute, so that it can be tried on a CPU;
3. compile the same cases for TPUs that are not attached (extra `tpu`), and measure nothing;
4. compute what the cases need at least by the data sheet of an H100 (also `a100`, `l4`), and measure nothing;
5. compare two such folders, of two commits, chips or versions: ratios with intervals, and what became slower.

`benchmark.json` has a record for each case, `benchmark.csv` and `benchmark.md` the same as tables; impossible
numbers are marked there, with their likely cause. Weights are random and images are noise: neither changes what a step
costs. `configs/benchmark.py` measures one network by freeze depth, beside Keras and PyTorch if asked to.
"""

from vision_transfer.config import ConfigDict, default_config
from vision_transfer.config.arguments import parse_recipe


def get_config(recipe: str | None = None) -> ConfigDict:
    """The suite; with `small`, of the convnet for MNIST at batches of 2 and 4."""
    values = parse_recipe(recipe, small=False)
    config = default_config()
    config.name = "accelerator"
    config.task = "benchmark"
    config.precision = "bfloat16"
    config.model.weights = "random"
    config.model.pooling = "average"
    config.model.hidden = (256,)
    config.model.dropout = 0.5
    config.model.batch_norm_statistics = "pretrained"
    config.benchmark.freeze = ("none", "last_stage", "all")
    config.benchmark.repeats = 7
    config.benchmark.seconds_per_repeat = 0.3
    if values.small:
        config.batch_size = 2
        config.precision = "float32"
        config.dataset.image_size, config.dataset.channels = 28, 1
        config.benchmark.backbones = ("mnist_convnet",)
        config.benchmark.batches = (2, 4)
        config.benchmark.freeze = ("none", "last_stage")
        config.benchmark.repeats, config.benchmark.seconds_per_repeat = 3, 0.0
        return config
    config.batch_size = 64
    config.benchmark.backbones = ("vgg16", "resnet50", "efficientnet_lite0", "xception")
    config.benchmark.precisions = ("bfloat16", "tf32", "float32")
    config.benchmark.batches = (8, 16, 32, 64, 128, 256, 512, 1024)
    config.benchmark.minutes = 25.0
    return config
