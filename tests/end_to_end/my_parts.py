"""A small residual network, and the other parts of a run that a user may bring."""

import jax
import numpy as np
import optax

from vision_transfer.models.layers import Activate, Block, Conv, Dense, GlobalAveragePool, MaxPool, Merge


def my_backbone():
    branch = (Conv("block_conv1", 16, padding="same"), Conv("block_conv2", 16, padding="same", activation="linear"))
    return [
        Conv("stem", 16, padding="same"),
        MaxPool("pool"),
        Block("block", (branch, ()), Merge("block_add", "add")),
        Activate("block_relu"),
    ]


def my_head(outputs):
    return [GlobalAveragePool("head_pool"), Dense("head_logits", outputs)]


def my_optimizer():
    return optax.adamw(learning_rate=1.0)


def my_augmentation(image, key):
    return jax.numpy.clip(image * jax.random.uniform(key, minval=0.8, maxval=1.2), 0, 255)


def focal_loss(logits, labels):
    log_probability = -optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return -((1 - jax.numpy.exp(log_probability)) ** 2) * log_probability


def top_2(logits, labels):
    return np.mean((np.argsort(logits)[:, -2:] == labels[:, None]).any(axis=1))
