"""Makes `torch_networks.json` and `torch_networks.npz` of this folder: torchvision's networks, and what they compute.

Run in an environment with `torch` 2.13:

    python make_torch_reference.py OUT_DIR

The modules are written after torchvision's `resnet.py` and `mobilenetv2.py`, with its names of tensors, padding and
epsilons. Weights are those of `formula.torch_weight`, the images those of `SHAPE`; the computation is in float64.
Nothing is preprocessed, and the classifiers are left out.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from formula import torch_weight, weight
from torch import nn

# As in `make_network_reference.py`.
SHAPE = (2, 75, 90, 3)
CHANNEL_STRIDE = 8
# Width, number of blocks.
RESNET50_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
# Expansion, channels, number of blocks, stride (Sandler et al. 2018, table 2).
MOBILENET_V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Bottleneck(nn.Module):
    """The stride is in the 3×3 convolution."""

    def __init__(self, inputs, width, stride, projects):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        shortcut = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
        self.downsample = shortcut if projects else nn.Identity()

    def forward(self, values):
        inner = torch.relu(self.bn1(self.conv1(values)))
        inner = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(inner)))))
        return torch.relu(inner + self.downsample(values))


class ResNet50(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for number, (width, blocks) in enumerate(RESNET50_STAGES, start=1):
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(inputs, width, 2 if block == 0 and number > 1 else 1, block == 0))
                inputs = 4 * width
            self.add_module(f"layer{number}", nn.Sequential(*stage))

    def forward(self, values):
        values = self.maxpool(torch.relu(self.bn1(self.conv1(values))))
        return self.layer4(self.layer3(self.layer2(self.layer1(values))))


def convolution(inputs, outputs, size, stride=1, groups=1):
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        wide = inputs * expansion
        first = [] if expansion == 1 else [convolution(inputs, wide, 1)]
        last = (nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.conv = nn.Sequential(*first, convolution(wide, wide, 3, stride, wide), *last)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, values):
        return values + self.conv(values) if self.is_residual else self.conv(values)


class MobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        layers, inputs = [convolution(3, 32, 3, 2)], 32
        for expansion, outputs, blocks, stride in MOBILENET_V2_STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(inputs, outputs, stride if block == 0 else 1, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers, convolution(inputs, 1280, 1))

    def forward(self, values):
        return self.features(values)


def main():
    shapes, arrays = {}, {}
    images = torch.from_numpy(weight("images", "input", SHAPE).astype(np.float64)).permute(0, 3, 1, 2)
    for name, network in (("resnet50_torch", ResNet50()), ("mobilenet_v2_torch", MobileNetV2())):
        state = network.state_dict()
        shapes[name] = {tensor: list(values.shape) for tensor, values in state.items()}
        drawn = {tensor: torch.from_numpy(torch_weight(name, tensor, shape)) for tensor, shape in shapes[name].items()}
        network.load_state_dict(drawn)
        with torch.no_grad():
            outputs = network.double().eval()(images).permute(0, 2, 3, 1).numpy()
        arrays[f"{name}/mean"] = outputs.mean((1, 2, 3)).astype(np.float32)
        arrays[f"{name}/channels"] = outputs[..., ::CHANNEL_STRIDE].astype(np.float32)
    folder = Path(sys.argv[1])
    # A line for each tensor.
    (folder / "torch_networks.json").write_text(json.dumps(shapes).replace("], ", "],\n") + "\n")
    np.savez_compressed(folder / "torch_networks.npz", **arrays)


if __name__ == "__main__":
    main()
