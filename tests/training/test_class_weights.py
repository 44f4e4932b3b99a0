"""Class weights in the step: against Keras's own training, a step in float64, and scikit-learn's balanced weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_class_weight

from vision_transfer.errors import UserError
from vision_transfer.models.layers import Dense, Flatten
from vision_transfer.models.network import Network
from vision_transfer.training import step
from vision_transfer.training.losses import class_weights
from vision_transfer.training.optimizers import OptimizerSpec
from vision_transfer.training.step import Chunk, Constants, StepProgram, initial_state, run_steps, zero_totals

RATE, BATCH, EPOCHS = 0.1, 4, 3


def linear(outputs, shape):
    return Network((), (Flatten("flatten"), Dense("logits", outputs)), shape, "rescale")


def program_of(network, weights):
    return StepProgram(network, None, frozenset(), OptimizerSpec("sgd"), class_weights=tuple(map(float, weights)))


@pytest.mark.parametrize("case", ["softmax", "sigmoid"])
def test_training_with_class_weights_is_kerass(reference, mesh, examples_of, order_of, case):
    numbers = reference("class_weights")
    images, labels = numbers["images"], numbers[f"{case}_labels"]
    kernel = numbers[f"{case}_start"]
    program = program_of(linear(kernel.shape[1], images.shape[1:]), numbers[f"{case}_weights"])
    params = {"logits": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(kernel.shape[1])}}
    # Ten examples in batches of four: the last has two, and two rows of padding.
    order = order_of([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9]], RATE, [[1] * 4, [1] * 4, [1, 1, 0, 0]])
    state = initial_state(program, params, {})
    for epoch in range(EPOCHS):
        state = run_steps(
            state,
            Chunk(examples_of(images, labels), order, 0, 3),
            Constants({"params": {}}, jax.random.key(0)),
            program=program,
            mesh=mesh,
            resident=True,
        )
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(
                state.trainable["logits"][name], numbers[f"{case}_{name}"][epoch], rtol=1e-5, atol=1e-6
            )
        assert float(state.totals.loss / state.totals.weight) == pytest.approx(numbers[f"{case}_loss"][epoch], rel=1e-5)
        assert float(state.totals.hits / state.totals.weight) == pytest.approx(numbers[f"{case}_accuracy"][epoch])
        state = state._replace(totals=zero_totals())


@pytest.mark.parametrize("shape", ["column", "scalar"])
def test_a_loss_of_another_shape_is_refused(mesh, examples_of, order_of, monkeypatch, shape):
    """Broadcast with the weights, a column would be summed over all examples, and padding would count."""
    losses = {
        "column": lambda logits, labels: jnp.square(logits - labels[:, None]),
        "scalar": lambda logits, labels: jnp.mean(logits),
    }
    monkeypatch.setattr(step, "part", lambda reference: losses[shape])
    program = StepProgram(linear(1, (2, 2, 3)), None, frozenset(), OptimizerSpec("sgd"), loss="own.py:loss")
    state = initial_state(program, {"logits": {"kernel": jnp.zeros((12, 1)), "bias": jnp.zeros(1)}}, {})
    images, labels = np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 1, 0, 1], np.int32)
    with pytest.raises(UserError, match=r"own.py:loss: returned the shape .* return a loss for each example"):
        run_steps(
            state,
            Chunk(examples_of(images, labels), order_of([[0, 1, 2, 3]], RATE), 0, 1),
            Constants({"params": {}}, jax.random.key(0)),
            program=program,
            mesh=mesh,
            resident=True,
        )


def test_an_optimizer_may_keep_the_parameters(monkeypatch):
    """The state is donated, and no buffer can be donated twice."""
    keeping = optax.GradientTransformation(lambda params: {"start": params}, None)
    monkeypatch.setattr(step, "descent", lambda spec: keeping)
    program = StepProgram(linear(1, (2, 2, 3)), None, frozenset(), OptimizerSpec("sgd"))
    state = initial_state(program, {"logits": {"kernel": jnp.zeros((12, 1)), "bias": jnp.zeros(1)}}, {})
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state.trainable, state.optimizer))]
    assert len(set(buffers)) == len(buffers) == 4


def test_a_padded_step_by_hand(mesh, examples_of, order_of):
    """Softmax regression in float64; the padding shows an image of the heaviest class."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (4, 2, 2, 3)).astype(np.uint8)
    labels, weights = np.array([0, 1, 2, 2], np.int32), np.array([0.5, 2.0, 7.0])
    kernel = rng.normal(size=(12, 3))
    program = program_of(linear(3, (2, 2, 3)), weights)
    params = {"logits": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(3)}}
    order = order_of([[0, 1, 2, 3]], RATE, [[1, 1, 1, 0]])
    state = run_steps(
        initial_state(program, params, {}),
        Chunk(examples_of(images, labels), order, 0, 1),
        Constants({"params": {}}, jax.random.key(0)),
        program=program,
        mesh=mesh,
        resident=True,
    )
    inputs = images[:3].reshape(3, -1) / 255
    log_probabilities = log_softmax(inputs @ kernel, axis=1)
    losses = -log_probabilities[np.arange(3), labels[:3]] * weights[labels[:3]]
    errors = (np.exp(log_probabilities) - np.eye(3)[labels[:3]]) * weights[labels[:3], None] / 3
    np.testing.assert_allclose(state.trainable["logits"]["kernel"], kernel - RATE * inputs.T @ errors, atol=1e-6)
    np.testing.assert_allclose(state.trainable["logits"]["bias"], -RATE * errors.sum(0), atol=1e-6)
    assert float(state.totals.loss) == pytest.approx(losses.sum(), rel=1e-6)
    assert float(state.totals.weight) == 3


def test_weights_are_scikit_learns_balanced_ones():
    labels = np.random.default_rng(0).choice(4, 200, p=[0.6, 0.3, 0.08, 0.02]).astype(np.int32)
    found = class_weights(labels, 4)
    np.testing.assert_allclose(found, compute_class_weight("balanced", classes=np.arange(4), y=labels))
    assert np.mean(np.array(found)[labels]) == pytest.approx(1)
    # a class that a subset has left without examples
    assert class_weights(np.array([0, 0, 2], np.int32), 3) == (0.75, 0.0, 1.5)
