"""Lowered programs: only the requested gradients, plain convolutions on accelerators; JAX's transformations."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from vision_transfer.models.ops.convolution import convolution, uses_winograd

IMAGES = (2, 20, 20, 64)
KERNEL = (3, 3, 64, 64)


def _loss(images, kernel, bias, implementation="auto"):
    outputs = convolution(images, kernel, bias, padding="same", relu=True, pool=True, implementation=implementation)
    return jnp.sum(outputs**2)


@pytest.fixture(scope="module")
def arrays():
    random = np.random.default_rng(0)
    shapes = (IMAGES, KERNEL, KERNEL[-1:])
    return tuple(random.standard_normal(shape, dtype=np.float32) for shape in shapes)


def _products(function, *arrays):
    """FLOPs of the compiled program's matrix products; a batch of one chunk has no loops, whose bodies count once."""
    return jax.jit(function).lower(*arrays).compile().cost_analysis()["flops"]


def test_only_the_gradients_asked_for_are_computed(arrays):
    forward = _products(_loss, *arrays)
    by_images = _products(jax.grad(_loss, 0), *arrays)
    by_kernel = _products(jax.grad(_loss, 1), *arrays)
    by_bias = _products(jax.grad(_loss, 2), *arrays)
    everything = _products(jax.grad(_loss, (0, 1, 2)), *arrays)
    # 16 tiles of 5 an image; the images' gradient has tiles of its own.
    product = 2 * 49 * 2 * 16 * 64 * 64
    assert uses_winograd(IMAGES, KERNEL, "same", "cpu")
    assert by_bias < forward + 0.5 * product
    assert everything - by_kernel > 0.9 * product
    assert everything - by_images > 0.9 * product


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [((4, 60, 60, 64), 64), ((8, 30, 30, 64), 64), ((2, 40, 40, 3), 16), ((2, 4, 4, 64), 64)],
    ids=["strips of images", "groups of images", "few channels", "tiny maps"],
)
def test_unasked_gradients_vanish_from_every_method(shape, outputs):
    arrays = jnp.ones(shape), jnp.ones((3, 3, shape[-1], outputs)), jnp.ones(outputs)

    def work(argnums):
        """Products and convolutions in the compiled program's text."""
        text = jax.jit(jax.grad(_loss, argnums)).lower(*arrays).compile().as_text()
        return sum(text.count(f" {operation}(") for operation in ("dot", "convolution"))

    assert work(0) < work((0, 1))
    assert work(1) < work((0, 1))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_a_plain_convolution(platform, arrays):
    program = export.export(jax.jit(jax.value_and_grad(_loss, (0, 1, 2))), platforms=[platform])(*arrays)
    text = program.mlir_module()
    assert text.count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in text
    assert "stablehlo.while" not in text


def test_a_cpu_gets_tile_products(arrays):
    text = export.export(jax.jit(_loss), platforms=["cpu"])(*arrays).mlir_module()
    assert "stablehlo.convolution" not in text
    assert "stablehlo.dot_general" in text


def test_exports_with_a_symbolic_batch_for_all_platforms(arrays):
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *IMAGES[1:]), jnp.float32)

    def run(images, kernel, bias):
        return convolution(images, kernel, bias, padding="same", relu=True, pool=True)

    program = export.export(jax.jit(run), platforms=["cpu", "cuda", "tpu"])(images, *arrays[1:])
    expected = jax.jit(run)(*arrays)
    np.testing.assert_allclose(program.call(*arrays), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_bfloat16_takes_the_plain_convolution():
    images, kernel, bias = (jnp.ones(shape, jnp.bfloat16) for shape in (IMAGES, KERNEL, KERNEL[-1:]))
    text = jax.jit(_loss).lower(images, kernel, bias).as_text()
    assert "stablehlo.convolution" in text


def test_works_inside_vmap_remat_and_loops(arrays):
    expected = jax.jit(jax.grad(lambda *arrays: _loss(*arrays, implementation="lax"), (0, 1)))(*arrays)

    def looped(images, kernel, bias, times):
        def step(_, total):
            gradients = jax.grad(jax.checkpoint(_loss), (0, 1))(images, kernel, bias)
            return jax.tree.map(jnp.add, total, gradients)

        return jax.lax.fori_loop(0, times, step, (jnp.zeros_like(images), jnp.zeros_like(kernel)))

    for got, wanted in zip(jax.jit(looped)(*arrays, 2), expected, strict=True):
        np.testing.assert_allclose(got, 2 * wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
    stacked = tuple(np.stack([array, array]) for array in arrays)
    mapped = jax.jit(jax.vmap(jax.grad(_loss, (0, 1))))(*stacked)
    for got, wanted in zip(mapped, expected, strict=True):
        np.testing.assert_allclose(got[1], wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from vision_transfer.models.ops.convolution import convolution
assert len(jax.devices()) == 2
mesh = Mesh(np.array(jax.devices()), ("batch",))
random = np.random.default_rng(0)
images, kernel, bias = (random.standard_normal(s, dtype=np.float32) for s in ((4, 45, 45, 16), (3, 3, 16, 16), (16,)))
def loss(images, kernel):
    return jnp.sum(convolution(images, kernel, bias, padding="same", relu=True, pool=True) ** 2)
def sharded(images, kernel):
    return jax.lax.psum(jax.grad(loss, 1)(images, kernel), "batch")
split = jax.shard_map(sharded, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P(), check_vma=False)
whole = jax.jit(jax.grad(loss, 1))(images, kernel)
np.testing.assert_allclose(jax.jit(split)(images, kernel), whole, rtol=1e-3, atol=1e-2)
by_compiler = jax.jit(jax.grad(loss, 1))(jax.device_put(images, jax.NamedSharding(mesh, P("batch"))), kernel)
np.testing.assert_allclose(by_compiler, whole, rtol=1e-3, atol=1e-2)
"""


def test_works_with_the_batch_on_two_devices():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
