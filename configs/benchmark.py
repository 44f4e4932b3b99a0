r"""Measure what training costs: FLOPs, bytes, time, memory and MFU by number of frozen layers.

    vision-transfer --config=benchmark
    vision-transfer --config=benchmark:backbone=convnet_150 --config.batch_size=32
    vision-transfer --config=benchmark --config.benchmark.trace=True
    vision-transfer --config=benchmark --config.benchmark.peers=keras,torch
    vision-transfer --config=benchmark --config.dataset.root=cats_vs_dogs_small \
        --config.benchmark.whole_runs=extraction,second_head,finetuning,recommended
    vision-transfer --config=benchmark --config.benchmark.target=tpu:v5e:2x2

In this order, the commands

1. measure each freeze depth on this machine's devices, from images and from cached features; if `dataset.root` names a
   folder, they also measure the input path together with the training step that it feeds;
2. measure another network;
3. add a profiler trace and the HLO;
4. alternate with Keras and PyTorch on the same work (extra `peers`; `benchmark.peer_python` may name another
   interpreter); `onnxruntime` is a peer for forward passes, on our own export;
5. compare whole runs, from our command to its result, with what Keras needs for the same;
6. compile for TPUs that are not attached (extra `tpu`), and measure nothing.

Except in whole runs, weights are random and images are noise: neither changes what a step costs. `docs/speed.md` has
the ratios to Keras on 2 cores (AMD EPYC), `docs/accelerators.md` the numbers for TPUs.
"""

from vision_transfer.config import ConfigDict, default_config
from vision_transfer.config.arguments import parse_recipe
from vision_transfer.models.backbones.registry import find_backbone
from vision_transfer.models.layers import CONVOLUTIONS, Row, stage_of, stage_starts, stages

# Of the small convnets, and of VGG in the book's recipe; others have the registry's, and average pooling.
IMAGE_SIZES = {"mnist_convnet": 28, "convnet_150": 150, "convnet_180": 180, "dense": 180, "vgg16": 180, "vgg19": 180}


def get_config(recipe: str | None = None) -> ConfigDict:
    """VGG16 at 180 pixels with the dense head of edition 2, batch 16; `backbone` is the name of another network."""
    values = parse_recipe(recipe, backbone="vgg16")
    backbone = find_backbone(values.backbone)
    config = default_config()
    config.name = "benchmark"
    config.task = "benchmark"
    config.batch_size = 16
    config.dataset.image_size = IMAGE_SIZES.get(values.backbone, backbone.image_size)
    config.dataset.channels = 1 if values.backbone == "mnist_convnet" else 3
    config.model.backbone = values.backbone
    config.model.weights = "random"
    config.model.hidden = (256,)
    config.model.dropout = 0.5
    if values.backbone not in IMAGE_SIZES:
        config.model.pooling = "average"
    config.benchmark.freeze = ("none", "all")
    config.benchmark.peer_freeze = ("none",)
    if any(stage_of(row) != row.name for row in backbone.rows):
        # a network to fine-tune, with the statistics of its batch norms as they are
        config.model.batch_norm_statistics = "pretrained"
        depths = {name: f"below:{start}" for name, start in zip(*_stages(backbone.rows), strict=True)}
        config.benchmark.freeze = ("none", *list(depths.values())[1:], "all")
        config.benchmark.peer_freeze = (depths.get(backbone.fine_tune_from, list(depths.values())[-1]), "none")
    config.benchmark.forward_batches = (16, 32)
    return config


def _stages(rows: tuple[Row, ...]) -> tuple[list[str], tuple[str, ...]]:
    """Names and first convolutions of the stages that have one."""
    names = [name for name, layers in stages(rows) if any(isinstance(layer, CONVOLUTIONS) for layer in layers)]
    return names, stage_starts(rows)
