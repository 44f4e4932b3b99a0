"""L2-SP as an optimizer of one's own: Adam, with a pull of the backbone towards the weights that the stage starts from.

The loss is increased by α/2·Σ(w - w₀)² over the backbone and β/2·Σw² over the head (Li, Grandvalet and Davoine 2018,
"Explicit inductive bias for transfer learning with convolutional networks", arXiv:1802.01483).
"""

# pyright: basic

import jax
import jax.numpy as jnp
import optax

from vision_transfer.training.optimizers import scale_by_keras_adam

ALPHA, BETA = 0.1, 0.01


def l2_sp() -> optax.GradientTransformation:
    """Adam with a learning rate of 1 on the gradient of the loss and both penalties."""

    def init(params: optax.Params) -> optax.OptState:
        return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)

    def update(updates, state, params=None):
        def pulled(path, gradient, leaf, start):
            return gradient + (BETA * leaf if path[0].key.startswith("head_") else ALPHA * (leaf - start))

        return jax.tree_util.tree_map_with_path(pulled, updates, params, state), state

    return optax.chain(optax.GradientTransformation(init, update), scale_by_keras_adam(), optax.scale(-1.0))
