"""Every program lowers for GPUs and TPUs on a machine without any, and states its precision there."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from vision_transfer.config.schema import AugmentConfig
from vision_transfer.tasks.benchmark.programs import abstract_program, running_step

PLATFORMS = ("cuda", "tpu")
DEPTHS = ("none", "below:block2_conv2", "below:block3_conv1", "only:block2_conv1", "all")
AUGMENTATION = AugmentConfig(
    "keras_layers", flip="horizontal", rotation=0.1, zoom=0.2, crop_scale=(0.5, 1.0), contrast=0.2
)


def lowered_text(case, mesh, platforms=PLATFORMS):
    # Donation and shardings of a real mesh are not tested here.
    program, shapes = abstract_program(case, mesh)
    return export.export(program, platforms=platforms)(*shapes).mlir_module()


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_the_forward_pass_lowers(case_of, mesh, precision):
    assert "convolution" in lowered_text(case_of("forward", precision=precision), mesh)


@pytest.mark.parametrize("freeze", DEPTHS)
def test_the_step_lowers_at_every_freeze_depth(case_of, mesh, freeze):
    assert "convolution" in lowered_text(case_of(freeze=freeze), mesh)


@pytest.mark.parametrize("freeze", ["below:block2_conv1", "all"])
def test_the_step_from_cached_features_lowers(case_of, mesh, freeze):
    lowered_text(case_of(freeze=freeze, source="features"), mesh)


@pytest.mark.parametrize("bank", [0, 4])
def test_the_step_on_augmented_images_lowers(case_of, mesh, bank):
    augmentation = replace(AUGMENTATION, bank=bank)
    plain, augmented = (lowered_text(case_of(augmentation=which), mesh) for which in (None, augmentation))
    assert len(augmented) > len(plain)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_accelerators_get_xlas_convolutions(case_of, mesh, platform):
    text = lowered_text(case_of("forward"), mesh, (platform,))
    convolutions = len([layer for layer in case_of().network.layers if type(layer).__name__ == "Conv"])
    assert text.count("stablehlo.convolution") == convolutions


@pytest.mark.parametrize(("precision", "stated"), [("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "DEFAULT")])
def test_every_product_states_its_precision(case_of, mesh, precision, stated):
    text = lowered_text(case_of(precision=precision), mesh, ("cuda",))
    products = [line for line in text.splitlines() if "stablehlo.convolution" in line or "stablehlo.dot" in line]
    assert products
    for line in products:
        if stated == "DEFAULT":
            assert "HIGH" not in line
        else:
            assert f"{stated}, {stated}" in line.replace("#stablehlo<precision ", "").replace(">", ""), line


def test_bfloat16_products_take_bfloat16_values(case_of, mesh):
    text = lowered_text(case_of("forward", precision="bfloat16"), mesh, ("tpu",))
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert convolutions
    assert all("xbf16>" in line and "xf32>" not in line for line in convolutions)


@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
@pytest.mark.parametrize("freeze", ["none", "below:block3_conv1"])
def test_parameters_and_the_optimizers_state_stay_float32(case_of, mesh, precision, freeze):
    program, shapes = abstract_program(case_of(freeze=freeze, precision=precision), mesh)
    state = jax.eval_shape(program, *shapes)
    leaves = jax.tree.leaves((state.trainable, state.optimizer, state.totals))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_a_bfloat16_step_moves_its_float32_parameters_by_less_than_bfloat16_resolves(case_of, mesh):
    case = case_of(freeze="all", source="features", precision="bfloat16")
    lower, (state, chunk, constants) = running_step(case, mesh)
    before = np.array(state.trainable["hidden"]["kernel"])
    state = lower().compile()(state, chunk, constants)
    moved = np.abs(np.array(state.trainable["hidden"]["kernel"]) - before)
    assert bool(jnp.isfinite(state.totals.loss))
    assert 0 < moved.max() < 2**-8 * np.abs(before).max()
