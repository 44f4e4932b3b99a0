"""Peaks of known chips, for MFU and rooflines, and the measured peaks of an unknown one."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from timeit import repeat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from vision_transfer.models.precision import Numerics, PrecisionName
from vision_transfer.runtime.devices import split_rows

# bfloat16 passes of a TPU for one product at `lax.Precision.HIGHEST`, `HIGH` and `DEFAULT`.
TPU_PASSES: dict[PrecisionName, int] = {"float32": 6, "tf32": 3, "bfloat16": 1}
# Side of the square matrices of the measured peak, values of the array of the measured bandwidth, number of attempts.
MEASURED_SIDE = 2048
MEASURED_VALUES = 16 << 20
MEASURED_TRIES = 5
# Chips to compute rooflines for without having one, by their names in `config.benchmark.target`.
COMPUTED = {"h100": "NVIDIA H100", "a100": "NVIDIA A100-SXM4-80GB", "l4": "NVIDIA L4"}
# Targets that epochs are planned for.
PLANNED = {f"cuda:{name}": kind for name, kind in COMPUTED.items()} | {
    "tpu:v4": "TPU v4",
    "tpu:v5e": "TPU v5 lite",
    "tpu:v5p": "TPU v5",
    "tpu:v6e": "TPU v6 lite",
}


@dataclass(frozen=True)
class Chip:
    """Peaks of one chip as its maker states them in `source`, without sparsity, in FLOP/s, bytes/s and bytes.

    The interconnect is all links to other chips of its kind together, 0 if not stated; the clock in cycles/s is 0 if no
    estimate in cycles is read.
    """

    flops: dict[PrecisionName, float]
    bandwidth: float
    memory: float
    interconnect: float
    clock: float
    source: str


def _tpu(bfloat16: float, bandwidth: float, memory: float, interconnect: float, clock: float, version: str) -> Chip:
    flops: dict[PrecisionName, float] = {precision: bfloat16 / passes for precision, passes in TPU_PASSES.items()}
    return Chip(flops, bandwidth, memory, interconnect, clock, f"https://cloud.google.com/tpu/docs/{version}")


def _gpu(float32: float, tf32: float, bfloat16: float, bandwidth: float, memory: float, source: str) -> Chip:
    return Chip({"float32": float32, "tf32": tf32, "bfloat16": bfloat16}, bandwidth, memory, 0.0, 0.0, source)


# By the start of JAX's `device_kind`, longer names before their own prefixes. The clock of a TPU is its peak
# divided by the multiply-adds of its matrix units per cycle (v5e: four of 128×128).
CHIPS: dict[str, Chip] = {
    "TPU v5 lite": _tpu(197e12, 819e9, 16e9, 200e9, 197e12 / (2 * 4 * 128**2), "v5e"),
    "TPU v5": _tpu(459e12, 2765e9, 95e9, 600e9, 459e12 / (2 * 8 * 128**2), "v5p"),
    "TPU v5p": _tpu(459e12, 2765e9, 95e9, 600e9, 459e12 / (2 * 8 * 128**2), "v5p"),
    "TPU v4": _tpu(275e12, 1228e9, 32e9, 300e9, 275e12 / (2 * 8 * 128**2), "v4"),
    "TPU v6 lite": _tpu(918e12, 1638e9, 32e9, 448e9, 0.0, "v6e"),
    "NVIDIA H200": _gpu(67e12, 494.5e12, 989e12, 4.8e12, 141e9, "https://www.nvidia.com/en-us/data-center/h200/"),
    "NVIDIA H100 PCIe": _gpu(51e12, 378e12, 756e12, 2.0e12, 80e9, "NVIDIA H100 data sheet, PCIe"),
    "NVIDIA H100 NVL": _gpu(60e12, 417.5e12, 835e12, 3.9e12, 94e9, "NVIDIA H100 data sheet, NVL"),
    "NVIDIA H100": _gpu(67e12, 494.5e12, 989e12, 3.35e12, 80e9, "https://www.nvidia.com/en-us/data-center/h100/"),
    "NVIDIA A100-SXM4-80GB": _gpu(19.5e12, 156e12, 312e12, 2.039e12, 80e9, "NVIDIA A100 data sheet, 80 GB SXM"),
    "NVIDIA A100 80GB PCIe": _gpu(19.5e12, 156e12, 312e12, 1.935e12, 80e9, "NVIDIA A100 data sheet, 80 GB PCIe"),
    "NVIDIA A100": _gpu(19.5e12, 156e12, 312e12, 1.555e12, 40e9, "NVIDIA A100 data sheet, 40 GB"),
    "NVIDIA L4": _gpu(30.3e12, 60e12, 121e12, 300e9, 24e9, "NVIDIA L4 data sheet"),
    "Tesla V100-PCIE": _gpu(14e12, 14e12, 14e12, 900e9, 16e9, "NVIDIA V100 data sheet, PCIe; no bfloat16 units"),
    "Tesla V100": _gpu(15.7e12, 15.7e12, 15.7e12, 900e9, 16e9, "NVIDIA V100 data sheet, SXM2; no bfloat16 units"),
    "Tesla T4": _gpu(8.1e12, 8.1e12, 8.1e12, 320e9, 16e9, "NVIDIA T4 data sheet; no bfloat16 units"),
}


def known_chip(device_kind: str) -> Chip | None:
    """The chip of this `device_kind`, or None."""
    # an L40S is no L4
    fits = (chip for kind, chip in CHIPS.items() if re.match(rf"{re.escape(kind)}(?![0-9A-Za-z])", device_kind))
    return next(fits, None)


def peaks(mesh: Mesh, numerics: Numerics) -> dict[str, Any]:
    """FLOP/s (`flops`) and bytes/s (`bandwidth`) of all devices of a mesh together, and the `source` of both."""
    chip = known_chip(mesh.devices.flat[0].device_kind)
    if chip is not None:
        return chip_peaks(chip, numerics.name, mesh.size)
    # each device its own matrices
    here = len(mesh.local_devices)
    matrices = split_rows(np.ones((here, MEASURED_SIDE, MEASURED_SIDE), np.float32), mesh).astype(numerics.dtype)
    values = split_rows(np.ones((here, MEASURED_VALUES), np.float32), mesh)

    def multiply(matrices: jax.Array) -> jax.Array:
        products = lax.dot_general(matrices, matrices, (((2,), (1,)), ((0,), (0,))), precision=numerics.precision)
        return jnp.asarray(products)

    return {
        "flops": 2 * mesh.size * MEASURED_SIDE**3 / _best_seconds(multiply, matrices),
        "bandwidth": 2 * values.nbytes / _best_seconds(lambda values: values + 1, values),
        "source": f"measured: products of {MEASURED_SIDE}×{MEASURED_SIDE} matrices, and a sum read and written",
    }


def chip_peaks(chip: Chip, precision: PrecisionName, chips: int) -> dict[str, Any]:
    """`peaks` of some chips of a kind together."""
    return {"flops": chip.flops[precision] * chips, "bandwidth": chip.bandwidth * chips, "source": chip.source}


def _best_seconds(operation: Callable[[jax.Array], jax.Array], operand: jax.Array) -> float:
    """The shortest time of several attempts."""
    compiled = jax.jit(operation)
    jax.block_until_ready(compiled(operand))
    return min(repeat(lambda: jax.block_until_ready(compiled(operand)), number=1, repeat=MEASURED_TRIES))
