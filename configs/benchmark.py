"""What a network costs: FLOPs, bytes, time, memory and MFU, and how they fall with the number of frozen layers.

    python launch.py --config=configs/benchmark.py
    python launch.py --config=configs/benchmark.py:backbone=convnet_150 --config.batch_size=32
    python launch.py --config=configs/benchmark.py --config.benchmark.trace=True
    python launch.py --config=configs/benchmark.py --config.benchmark.peers=keras,torch
    python launch.py --config=configs/benchmark.py --config.dataset.root=cats_vs_dogs_small \
        --config.benchmark.whole_runs=extraction,second_head,finetuning
    python launch.py --config=configs/benchmark.py --config.benchmark.target=tpu:v5e:2x2

The first measures each freeze depth on this machine's devices, from images and from cached features; with a folder in
`dataset.root` also the input path beside the step that it feeds. The third adds a profiler trace and the HLO. The
fourth runs the same work in turns with Keras and PyTorch (extra `peers`; `benchmark.peer_python` may name another
interpreter); the fifth whole runs, ours from the command to its result, and what Keras needs for the same.
The last compiles for TPUs that are not here (extra `tpu`) and measures nothing. Weights are random and images are
noise, but for the whole runs: neither changes what a step costs.
"""

from vision_transfer.config import Config, default_config
from vision_transfer.config.arguments import parse_recipe

IMAGE_SIZES = {"mnist_convnet": 28, "convnet_150": 150}
VGG_DEPTHS = ("none", *(f"below:block{block}_conv1" for block in range(2, 6)), "all")


def get_config(recipe: str | None = None) -> Config:
    """VGG16 at 180 pixels with edition 2's dense head, batch 16; `backbone=NAME` for another network."""
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
