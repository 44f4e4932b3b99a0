"""Measure what training costs: FLOPs, bytes, time, memory and MFU by number of frozen layers.

    python launch.py --config=configs/benchmark.py
    python launch.py --config=configs/benchmark.py:backbone=convnet_150 --config.batch_size=32
    python launch.py --config=configs/benchmark.py --config.benchmark.trace=True
    python launch.py --config=configs/benchmark.py --config.benchmark.peers=keras,torch
    python launch.py --config=configs/benchmark.py --config.dataset.root=cats_vs_dogs_small \
        --config.benchmark.whole_runs=extraction,second_head,finetuning
    python launch.py --config=configs/benchmark.py --config.benchmark.target=tpu:v5e:2x2

In this order, the commands

1. measure each freeze depth on this machine's devices, from images and from cached features; if `dataset.root` names a
   folder, they also measure the input path together with the training step that it feeds;
2. measure another network;
3. add a profiler trace and the HLO;
4. alternate with Keras and PyTorch on the same work (extra `peers`; `benchmark.peer_python` may name another
   interpreter);
5. compare whole runs, from our command to its result, with what Keras needs for the same;
6. compile for TPUs that are not attached (extra `tpu`), and measure nothing.

Except in whole runs, weights are random and images are noise: neither changes what a step costs. `docs/speed.md` has
the ratios to Keras on 2 cores (AMD EPYC), `docs/accelerators.md` the numbers for TPUs.
"""

from vision_transfer.config import ConfigDict, default_config
from vision_transfer.config.arguments import parse_recipe

IMAGE_SIZES = {"mnist_convnet": 28, "convnet_150": 150}
VGG_DEPTHS = ("none", *(f"below:block{block}_conv1" for block in range(2, 6)), "all")


def get_config(recipe: str | None = None) -> ConfigDict:
    """VGG16 at 180 pixels with the dense head of edition 2, batch 16; `backbone` is another network's name."""
    values = parse_recipe(recipe, backbone="vgg16")
    vgg = values.backbone.startswith("vgg")
    config = default_config()
    config.name = "benchmark"
    config.task = "benchmark"
    config.batch_size = 16
    config.dataset.image_size = IMAGE_SIZES.get(values.backbone, 180)
    config.dataset.channels = 1 if values.backbone == "mnist_convnet" else 3
    config.model.backbone = values.backbone
    config.model.weights = "random"
    config.model.hidden = (256,)
    config.model.dropout = 0.5
    config.benchmark.freeze = VGG_DEPTHS if vgg else ("none", "all")
    config.benchmark.peer_freeze = ("below:block5_conv1", "none") if vgg else ("none",)
    config.benchmark.forward_batches = (16, 32)
    return config
