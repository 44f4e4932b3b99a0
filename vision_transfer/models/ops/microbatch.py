"""Loops over groups of images of a batch, so that intermediate results stay in a CPU's cache."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

Tree = TypeVar("Tree")
Result = TypeVar("Result")


def map_images(function: Callable[[Tree], Result], images: int, batch: Tree) -> Result:
    """`function` of the batch, `images` rows at a time (a divisor of the batch)."""
    count = len(jax.tree.leaves(batch)[0]) // images
    if count == 1:
        return function(batch)
    results = lax.map(lambda index: function(_group(batch, index, images)), jnp.arange(count))
    return jax.tree.map(lambda values: values.reshape(-1, *values.shape[2:]), results)


def sum_images(function: Callable[[Tree], Result], images: int, batch: Tree) -> Result:
    """The sum of `function` over the groups of `images` rows of the batch."""
    count = len(jax.tree.leaves(batch)[0]) // images
    if count == 1:
        return function(batch)

    def add(total: Result, index: Array) -> tuple[Result, None]:
        return jax.tree.map(jnp.add, total, function(_group(batch, index, images))), None

    shapes = jax.eval_shape(lambda: function(_group(batch, jnp.int32(0), images)))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.scan(add, zeros, jnp.arange(count))[0]


def _group(batch: Tree, index: Array, images: int) -> Tree:
    """Rows of one group. (Reshaping the batch into groups makes XLA copy it.)"""
    return jax.tree.map(lambda values: lax.dynamic_slice_in_dim(values, index * images, images), batch)
