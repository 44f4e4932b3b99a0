"""Losses and hits against scikit-learn and plain formulas in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

from vision_transfer.training.losses import example_losses, hits, kernel_penalty


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_losses_are_cross_entropy(outputs):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20, outputs)).astype(np.float32)
    labels = rng.integers(0, max(2, outputs), 20)
    probabilities = expit(logits.astype(float)) if outputs == 1 else softmax(logits.astype(float), axis=1)
    losses = example_losses(jnp.asarray(logits), jnp.asarray(labels))
    for loss, probability, label in zip(losses, probabilities, labels, strict=True):
        expected = log_loss([label], [probability], labels=list(range(max(2, outputs))))
        assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_losses_of_very_sure_networks_stay_finite(logit):
    wrong = int(logit < 0)
    assert float(example_losses(jnp.full((1, 1), logit), jnp.array([wrong]))[0]) == pytest.approx(200)
    assert float(example_losses(jnp.array([[0.0, logit]]), jnp.array([wrong]))[0]) == pytest.approx(200)


def test_hits():
    np.testing.assert_array_equal(
        hits(jnp.array([[-1.0], [1.0], [1.0], [0.0]]), jnp.array([0, 0, 1, 0])), [True, False, True, True]
    )
    np.testing.assert_array_equal(hits(jnp.array([[1.0, 2, 0], [3, 2, 0]]), jnp.array([1, 2])), [True, False])


def test_the_penalty_is_of_kernels():
    params = {
        "a": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([9.0, 9])},
        "norm": {"scale": jnp.array([9.0])},
        "separable": {"depthwise_kernel": jnp.array([3.0]), "pointwise_kernel": jnp.array([-4.0])},
    }
    assert float(kernel_penalty(params, 0.1, 0.01)) == pytest.approx(0.1 * 10 + 0.01 * 30)
    assert float(kernel_penalty({}, 0.1, 0.01)) == 0
