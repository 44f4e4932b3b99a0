"""Proofs from the compiled step that what is frozen costs nothing: FLOPs, gradients, optimizer state, constants."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import PartitionSpec

from vision_transfer import freezing
from vision_transfer.models import layer_modules
from vision_transfer.models.layers import Conv, Dense, GlobalAveragePool
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.ops.convolution import convolution
from vision_transfer.training.optimizers import OptimizerSpec
from vision_transfer.training.step import Chunk, Constants, Examples, initial_state, run_steps, single_step

# A batch so large that the optimizer's work on the parameters does not count beside the convolutions.
BATCH, SIZE = 16, 4
# All different, so that a tensor's shape says what it belongs to. Maps of 4×4 are too small for Winograd's method, of
# which no FLOPs can be counted, since it loops.
FEATURES = {"conv1": 52, "conv2": 56, "conv3": 60, "conv4": 68}
INPUT_CHANNELS, CLASSES = 48, 3
# Along an axis of 4, a window of 3 with one zero on either side meets 2 + 3 + 3 + 2 real values.
TAPS_PER_AXIS = 10
# Biases, ReLUs, the head and the optimizer are counted too; the convolutions are nearly all.
TOLERANCE = 0.03
SPECS = ("none", "below:conv2", "below:conv3", "below:conv4", "all")


@pytest.fixture(scope="module")
def network():
    backbone = tuple(Conv(name, features, padding="same") for name, features in FEATURES.items())
    head = (GlobalAveragePool("average"), Dense("logits", CLASSES))
    return Network(backbone, head, (SIZE, SIZE, INPUT_CHANNELS))


@pytest.fixture
def step_arguments(prepared):
    """The sharded step of a program on one device, and arguments for it."""

    def build(network, freeze, mesh, **options):
        program, trainable, frozen, batch_stats = prepared(network, freeze, **options)
        state = initial_state(program, trainable, batch_stats)
        shape = network.input_shape if program.start is None else network.shape_before(program.start)
        batch = Examples(jnp.zeros((BATCH, *shape)), jnp.zeros(BATCH, jnp.int32), jnp.arange(BATCH, dtype=jnp.uint32))
        constants = Constants(frozen, jax.random.key(0))
        arguments = (state, batch, jnp.ones(BATCH), jnp.float32(1e-3), constants)
        step = jax.shard_map(
            lambda *arguments: single_step(program, *arguments),
            mesh=mesh,
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        return step, arguments

    return build


def forward_flops():
    """FLOPs of each convolution forward; its gradient for the kernel takes as many, for its input as well."""
    inputs = (INPUT_CHANNELS, *FEATURES.values())
    return [
        2 * BATCH * TAPS_PER_AXIS**2 * before * after for before, after in zip(inputs, FEATURES.values(), strict=False)
    ]


def expected_flops(first_trainable):
    """Forward of all; for what trains the kernel's gradient; and down to the cut, but not through it, the input's."""
    flops = forward_flops()
    return sum(flops) + sum(flops[first_trainable:]) + sum(flops[first_trainable + 1 :])


def step_flops(step, arguments):
    return jax.jit(step).lower(*arguments).compile().cost_analysis()["flops"]


# A global norm reads every gradient there is: of a full gradient that is masked later it would read all.
CLIPPED = OptimizerSpec("rmsprop", clip_norm=1.0)


@pytest.fixture
def direct(monkeypatch):
    """Convolutions by XLA, whose FLOPs are those of the definition."""
    monkeypatch.setattr(layer_modules, "convolution", partial(convolution, implementation="lax"))


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize("first_trainable", [0, 2, 4])
def test_flops_are_those_of_the_forward_and_the_partial_backward(network, mesh, step_arguments, first_trainable):
    flops = step_flops(*step_arguments(network, SPECS[first_trainable], mesh, optimizer=CLIPPED))
    assert flops == pytest.approx(expected_flops(first_trainable), rel=TOLERANCE)


def test_flops_fall_alike_with_the_convolution_of_this_platform(network, mesh, step_arguments):
    """However a convolution is computed: nothing is computed for frozen kernels, before the cut and behind it."""
    convolutions = forward_flops()
    expected = {
        "below:conv3": expected_flops(2),
        # The inputs' gradients of conv3 and conv4, and one kernel's.
        "only:conv2": sum(convolutions) + convolutions[1] + sum(convolutions[2:]),
    }
    frozen = step_flops(*step_arguments(network, "all", mesh, optimizer=CLIPPED))
    for freeze, flops in expected.items():
        found = step_flops(*step_arguments(network, freeze, mesh, optimizer=CLIPPED))
        assert found / frozen == pytest.approx(flops / expected_flops(4), rel=TOLERANCE), freeze


def shapes_of_products(step, arguments):
    """Sorted shapes, in whatever layout, of all that convolutions and matrix products give, also inside calls."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("conv_general_dilated", "dot_general"):
                yield tuple(sorted(equation.outvars[0].aval.shape))
            for inner in jaxprs_in_params(equation.params):
                yield from walk(inner)

    return set(walk(jax.make_jaxpr(step)(*arguments).jaxpr))


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize(
    "freeze", [*SPECS, "only:conv2", "regex:.*/bias", "regex:conv2/kernel|logits/.*", "regex:conv1/.*"]
)
def test_no_gradient_of_a_frozen_tensor_is_computed(network, mesh, step_arguments, freeze):
    step, arguments = step_arguments(
        network, freeze, mesh, optimizer=OptimizerSpec("adam", clip_norm=1.0, weight_decay=1e-2)
    )
    mask = freezing.resolve(freeze, network)
    products = shapes_of_products(step, arguments)
    for layer, parameters in all_parameter_shapes(network).items():
        assert (tuple(sorted(parameters["kernel"])) in products) == mask[layer]["kernel"], layer


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize(("start", "prefix"), [(None, True), ("conv3", False)])
def test_a_step_from_the_cache_computes_nothing_of_the_prefix(network, mesh, step_arguments, start, prefix):
    step, (*arguments, constants) = step_arguments(network, "below:conv3", mesh, start=start)
    if not prefix:
        constants = constants._replace(frozen={"params": {}})  # and it must not ask for them
    products = shapes_of_products(step, (*arguments, constants))
    outputs = {layer: tuple(sorted((BATCH, SIZE, SIZE, features))) for layer, features in FEATURES.items()}
    assert {layer for layer, shape in outputs.items() if shape in products} == (
        set(FEATURES) if prefix else {"conv3", "conv4"}
    )


@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", 0), ("rmsprop", 1), ("adam", 2)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("freeze", ["all", "below:conv4", "regex:.*/bias", "none"])
def test_the_optimizers_state_is_for_what_trains_only(prepared, network, freeze, optimizer, moments, momentum):
    spec = OptimizerSpec(optimizer, momentum, weight_decay=1e-2, clip_norm=1.0)
    program, trainable, _, batch_stats = prepared(network, freeze, optimizer=spec)
    state = initial_state(program, trainable, batch_stats)
    moments += bool(momentum) and optimizer != "adam"
    counts = freezing.counts(all_parameter_shapes(network), freezing.resolve(freeze, network))
    arrays = [leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim]
    assert len(arrays) == moments * counts.trainable_tensors
    assert sum(leaf.nbytes for leaf in arrays) == moments * 4 * counts.trainable


def test_a_step_gives_back_nothing_that_is_frozen(network, mesh, step_arguments):
    step, arguments = step_arguments(network, "all", mesh, ema=0.9)
    shapes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(step, *arguments))]
    assert sorted(shapes) == sorted([(68, 3), (3,)] * 3 + [()] * 5)


def test_what_is_frozen_is_no_constant_of_the_program(mesh, prepared, examples_of, order_of):
    wide = Network((GlobalAveragePool("average"), Dense("frozen", 4096)), (Dense("logits", 2),), (1, 1, 512))
    program, trainable, frozen, batch_stats = prepared(wide, "all")
    assert frozen["params"]["frozen"]["kernel"].nbytes == 8 << 20
    text = run_steps.lower(
        initial_state(program, trainable, batch_stats),
        Chunk(examples_of(np.zeros((2, 1, 1, 512), np.float32), np.zeros(2, np.int32)), order_of([[0, 1]], 1e-3), 0, 1),
        Constants(frozen, jax.random.key(0)),
        program=program,
        mesh=mesh,
        resident=True,
    ).as_text()
    assert len(text) < 100_000


def test_rates_and_numbers_of_steps_compile_nothing(small_network, small_data, mesh, prepared, examples_of, order_of):
    program, trainable, frozen, batch_stats = prepared(small_network(), "below:conv3")
    examples = examples_of(*small_data(8))
    state = initial_state(program, trainable, batch_stats)
    sizes = []
    for start, count, rate in ((0, 1, 1e-3), (1, 2, 1e-2), (0, 3, 0.0), (2, 0, 1.0)):
        order = order_of([[0, 1], [2, 3], [4, 5]], rate)
        state = run_steps(
            state,
            Chunk(examples, order, start, count),
            Constants(frozen, jax.random.key(count)),
            program=program,
            mesh=mesh,
            resident=True,
        )
        sizes.append(run_steps._cache_size())
    assert int(state.step) == 6
    # The first call meets a state that no step has made; from the second on nothing may change.
    assert sizes[1] == sizes[-1] <= sizes[0] + 1
