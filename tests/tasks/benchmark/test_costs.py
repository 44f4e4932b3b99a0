"""The table's FLOPs and bytes against the compiler's count of the same step, with XLA's convolutions."""

import jax
import pytest

from vision_transfer import freezing
from vision_transfer.freezing import resolve
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.layers import Conv
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.tasks.benchmark.cases import Case
from vision_transfer.tasks.benchmark.costs import layer_costs, step_costs, total
from vision_transfer.tasks.benchmark.programs import abstract_program
from vision_transfer.training.optimizers import OptimizerSpec

# A platform where convolutions are XLA's; the compiler counts before it fuses anything.
PLATFORM = "cuda"
# Only the compiler counts the gradients of ReLU and pooling, dropout, the loss and the optimizer.
STEP_TOLERANCE = 0.03
OPTIMIZER_FLOPS_PER_PARAMETER = 8
DEPTHS = ("none", "below:block2_conv1", "below:block2_conv2", "below:block3_conv1", "only:block2_conv1", "all")


def compilers_count(case, mesh):
    program, shapes = abstract_program(case, mesh)
    return program.trace(*shapes).lower(lowering_platforms=(PLATFORM,)).cost_analysis()


def test_forward_flops_are_the_compilers(case_of, mesh):
    case = case_of("forward")
    assert total(case.costs).flops == pytest.approx(compilers_count(case, mesh)["flops"], rel=0.01)


@pytest.mark.parametrize("freeze", DEPTHS)
def test_step_flops_under_each_freeze_depth_are_the_compilers(network, freeze, mesh):
    # A batch large enough to make the optimizer's work small; what is left of it is added.
    case = Case("step", network(), freeze, "images", 64, OptimizerSpec("rmsprop"))
    trainable = freezing.counts(all_parameter_shapes(case.network), case.mask).trainable
    expected = total(case.costs).flops + OPTIMIZER_FLOPS_PER_PARAMETER * trainable
    assert expected == pytest.approx(compilers_count(case, mesh)["flops"], rel=STEP_TOLERANCE)


@pytest.mark.parametrize("freeze", ["below:block2_conv1", "below:block3_conv1", "all"])
def test_a_step_from_cached_features_costs_only_what_runs(network, freeze, mesh):
    images, cached = (
        Case("step", network(), freeze, source, 64, OptimizerSpec("rmsprop")) for source in ("images", "features")
    )
    skipped = total(images.costs).flops - total(cached.costs).flops
    counted = compilers_count(images, mesh)["flops"] - compilers_count(cached, mesh)["flops"]
    assert cached.start is not None
    assert skipped == pytest.approx(counted, rel=STEP_TOLERANCE)


def test_the_gradient_of_a_cut_layers_input_costs_nothing(network):
    rows = {row.name: row for row in step_costs(network(), resolve("below:block2_conv2", network()), 1)}
    assert rows["block2_conv1"].input_gradient.flops == rows["block2_conv1"].kernel_gradient.flops == 0
    assert rows["block2_conv2"].input_gradient.flops == 0 < rows["block2_conv2"].kernel_gradient.flops
    assert rows["block3_conv1"].input_gradient.flops > 0


def test_bytes_of_a_convolution_are_its_operands_and_its_result(mesh):
    network = Network((Conv("conv", 32, padding="same", activation="linear"),), (), (16, 16, 16))
    (row,) = layer_costs(network, 8)
    images, kernel, outputs = 8 * 16 * 16 * 16, 3 * 3 * 16 * 32, 8 * 16 * 16 * 32
    assert row.forward.bytes == 4 * (images + kernel + 32 + outputs)

    def convolve(images, kernel):
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((8, 16, 16, 16), (3, 3, 16, 32))]
    counted = jax.jit(convolve).lower(*shapes).cost_analysis()
    assert row.forward.bytes == pytest.approx(counted["bytes accessed"], rel=0.001)


def test_vgg16_forward_is_its_known_15_billion_multiplications():
    """15.35 G for the convolutions at 224 pixels, of which those with padding's zeros are not counted here."""
    network = Network(backbone_rows("vgg16"), (), (224, 224, 3), "caffe")
    flops = sum(row.forward.flops for row in layer_costs(network, 1))
    assert 0.95 * 2 * 15.35e9 < flops < 2 * 15.35e9


def test_every_layer_kind_is_counted(normed_network, mesh):
    case = Case("forward", normed_network, "none", "images", 16, OptimizerSpec("rmsprop"))
    assert total(case.costs).flops == pytest.approx(compilers_count(case, mesh)["flops"], rel=0.02)


def test_the_small_convnets_step_is_counted(mesh):
    network = Network(backbone_rows("convnet_150"), head_layers(1, flatten=True, hidden=(64,)), (46, 46, 3), "rescale")
    case = Case("step", network, "none", "images", 64, OptimizerSpec("sgd", 0.9))
    assert total(case.costs).flops == pytest.approx(compilers_count(case, mesh)["flops"], rel=STEP_TOLERANCE)
