"""Weights and images that a script under Keras and a test of ours draw alike, so that no file has to hold them.

A draw depends on its name and shape alone. The bits are numpy's raw Philox stream, which does not change with numpy's
version, unlike what `Generator.normal` makes of it.
"""

import math
import zlib

import numpy as np

# With it, every layer of the networks in `make_network_reference.py` has a standard deviation between 0.3 and 800,
# and MobileNetV2's activations reach both ends of relu6.
KERNEL_GAIN = 1.6
# Ends of the uniform distribution of everything that is not a kernel, by its name in Keras.
ENDS = {
    "bias": (-0.2, 0.2),
    "gamma": (0.8, 1.2),
    "beta": (-0.2, 0.2),
    "moving_mean": (-0.2, 0.2),
    "moving_variance": (0.7, 1.3),
    "input": (-1.0, 1.0),
    "cotangent": (-1.0, 1.0),
}


def draw(name, shape, low=-1.0, high=1.0):
    """Uniform float32 values between `low` and `high`, in the order of a C array; the seed is the CRC-32 of `name`."""
    bits = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(math.prod(shape))
    # A float32 holds 24 bits.
    unit = (bits >> np.uint64(40)).astype(np.float64) * 2**-24
    return (low + (high - low) * unit).astype(np.float32).reshape(shape)


def weight(layer, parameter, shape):
    """A parameter by its name in Keras (`gamma`, `depthwise_kernel`…) and its shape there.

    Kernels have the variance `KERNEL_GAIN` / fan-in. A kernel `(height, width, channels, 1)` is depthwise: its fan-in
    is the window.
    """
    name = f"{layer}/{parameter}"
    if parameter in ENDS:
        return draw(name, shape, *ENDS[parameter])
    depthwise = len(shape) == 4 and shape[-1] == 1
    fan_in = math.prod(shape[:2]) if depthwise else math.prod(shape[:-1])
    limit = math.sqrt(3 * KERNEL_GAIN / fan_in)
    return draw(name, shape, -limit, limit)


def torch_weight(network, tensor, shape):
    """A tensor of a PyTorch state dict by its name and shape there, with the same distributions as `weight`."""
    last = tensor.rpartition(".")[-1]
    kinds = {"bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if len(shape) == 1:
        return draw(f"{network}/{tensor}", shape, *ENDS[kinds.get(last, "gamma")])
    limit = math.sqrt(3 * KERNEL_GAIN / math.prod(shape[1:]))
    return draw(f"{network}/{tensor}", shape, -limit, limit)
