"""The first device against the CPU: `pytest -m accelerator` runs these and the marked ones of other files.

Where the first device is a CPU they compare it with itself, so that they are known to run before there is a chip.
"""

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from vision_transfer.models.inference import infer
from vision_transfer.models.network import apply_watching
from vision_transfer.models.precision import Numerics
from vision_transfer.runtime.devices import BATCH_AXIS, replicate
from vision_transfer.tasks.benchmark.cases import Case
from vision_transfer.tasks.benchmark.programs import running_step
from vision_transfer.training.optimizers import OptimizerSpec

pytestmark = pytest.mark.accelerator

CLOSE = 1e-4
# A product of bfloat16 values has 8 bits, and so has each of the layers that it passes.
BFLOAT16_LAYER = 2**-8
# Of the norm of all gradients: rounding also moves maxima of pools and signs before ReLUs.
BFLOAT16_GRADIENT = 0.2
STEPS = 20
SGD = OptimizerSpec("sgd", 0.9)


def on(device):
    return Mesh(np.array([device]), (BATCH_AXIS,))


@pytest.fixture(scope="module")
def meshes():
    """The first device, and the CPU."""
    return on(jax.devices()[0]), on(jax.devices("cpu")[0])


@pytest.fixture
def images(every_row):
    return np.random.default_rng(0).integers(0, 256, (4, *every_row.input_shape), np.uint8)


def relative(found, expected):
    """The largest difference, as a share of the largest value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_activations_of_every_kind_of_layer_are_the_cpus(every_row, varied_variables, images, meshes):
    variables, names = varied_variables(every_row), [row.name for row in every_row.rows]
    watch = jax.jit(partial(apply_watching, every_row, layers=names))
    (logits, found), (expected_logits, expected) = (
        watch(*jax.device_put((variables, images), mesh.devices.flat[0])) for mesh in meshes
    )
    assert relative(logits, expected_logits) < CLOSE
    assert {
        name: relative(found[name], expected[name]) for name in names if relative(found[name], expected[name]) > CLOSE
    } == {}


def test_features_are_the_cpus(every_row, varied_variables, images, meshes):
    variables = varied_variables(every_row)
    found, expected = (infer(every_row, variables, images, batch_size=2, mesh=mesh, stop="average") for mesh in meshes)
    assert relative(found, expected) < CLOSE


@cache
def compiled_step(case, mesh):
    """The program of a case, its state at the start as host arrays, and its other arguments."""
    lower, (state, chunk, constants) = running_step(case, mesh)
    return lower().compile(), jax.tree.map(np.array, state), chunk, constants


def after(case, mesh, steps, rate):
    """The state after some steps at a rate."""
    compiled, state, chunk, constants = compiled_step(case, mesh)
    order = chunk.order._replace(rates=jnp.full_like(chunk.order.rates, rate))
    state = compiled(replicate(state, mesh), chunk._replace(order=order, steps=chunk.steps * steps), constants)
    assert int(state.bad_step) == -1
    return state


def trained(case, mesh, steps, rate):
    """The trainable parameters before and after some steps at a rate, as host arrays."""
    return compiled_step(case, mesh)[1].trainable, jax.tree.map(np.array, after(case, mesh, steps, rate).trainable)


def gradients_of(case, mesh):
    """All gradients of one step as a vector: the first step of descent at rate 1 moves each parameter by its own."""
    moved = jax.tree.map(np.subtract, *trained(case, mesh, 1, 1.0))
    return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moved)])


def largest_difference(found, expected):
    return max(relative(*leaves) for leaves in zip(*map(jax.tree.leaves, (found, expected)), strict=True))


@pytest.mark.parametrize("freeze", ["none", "below:block3_conv1"])
def test_gradients_are_the_cpus(case_of, meshes, freeze):
    found, expected = (gradients_of(case_of(freeze=freeze, optimizer=SGD), mesh) for mesh in meshes)
    assert relative(found, expected) < CLOSE


def test_twenty_steps_of_training_are_the_cpus(case_of, meshes):
    (before, found), (_, expected) = (trained(case_of(optimizer=SGD), mesh, STEPS, 1e-4) for mesh in meshes)
    assert largest_difference(found, expected) < CLOSE
    assert largest_difference(before, expected) > CLOSE


@pytest.fixture
def small_case(normed_network):
    """Builds a step of a network that compiles fast, in a precision."""

    def build(precision="float32"):
        return Case("step", replace(normed_network, numerics=Numerics(precision)), "none", "images", 4, SGD)

    return build


def test_bfloat16_stays_within_its_rounding(small_case, meshes):
    exact, rounded = small_case(), small_case("bfloat16")
    _, state, chunk, _ = compiled_step(exact, meshes[1])
    variables = {"params": state.trainable, "batch_stats": state.batch_stats}
    found, expected = (
        infer(case.network, variables, np.array(chunk.examples.inputs), batch_size=4, mesh=mesh)
        for case, mesh in zip((rounded, exact), meshes, strict=True)
    )
    assert 0 < relative(found, expected) < BFLOAT16_LAYER * len(exact.network.layers)
    gradients, exact_gradients = (gradients_of(case, mesh) for case, mesh in zip((rounded, exact), meshes, strict=True))
    difference = np.linalg.norm(gradients - exact_gradients) / np.linalg.norm(exact_gradients)
    assert 0 < difference < BFLOAT16_GRADIENT


def digest(state):
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))).hexdigest()


SCRIPT = """
import jax, pickle, runpy, sys
names = runpy.run_path(sys.argv[1])
mesh = names["on"](jax.devices()[0])
print(names["digest"](names["after"](pickle.load(sys.stdin.buffer), mesh, names["STEPS"], 1e-4)), end="")
"""


def test_two_processes_end_with_the_same_bits(small_case, meshes):
    """A GPU chooses its algorithms anew in each, unless `tests/conftest.py` made it deterministic."""
    case, command = small_case(), [sys.executable, "-c", SCRIPT, __file__]
    other = subprocess.run(command, input=pickle.dumps(case), capture_output=True, check=True)
    assert other.stdout.decode() == digest(after(case, meshes[0], STEPS, 1e-4))


def test_nothing_crosses_to_the_host_inside_an_epoch(case_of, meshes):
    compiled, state, chunk, constants = compiled_step(case_of(optimizer=SGD), meshes[0])
    state, placed = replicate((state, chunk._replace(steps=chunk.steps * STEPS)), meshes[0])
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            state = compiled(state, placed, constants)
        jax.block_until_ready(state)
    assert int(state.step) == 3 * STEPS
