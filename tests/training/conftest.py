"""A small network to train, its variables, and the arguments of a step."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer import freezing
from vision_transfer.config.schema import OptimizerConfig, StageConfig
from vision_transfer.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.training.optimizers import OptimizerSpec
from vision_transfer.training.stage import Stage
from vision_transfer.training.step import Examples, StepOrder, StepProgram

CLASSES = 3


@pytest.fixture(scope="session")
def small_network():
    """Builds a network of two blocks for 8×8 images, with or without dropout and batch norm."""

    def build(*, dropout=0.0, batch_norm=False):
        norm = (BatchNorm("norm2", activation="relu"),) if batch_norm else ()
        backbone = (
            Conv("conv1", 4, padding="same"),
            MaxPool("pool1"),
            Conv("conv2", 5, padding="same", activation="linear" if batch_norm else "relu"),
            *norm,
            MaxPool("pool2"),
            Conv("conv3", 6, padding="same"),
        )
        drop = (Dropout("drop", dropout),) if dropout else ()
        head = (Flatten("flatten"), Dense("hidden", 7, "relu"), *drop, Dense("logits", CLASSES))
        return Network(backbone, head, (8, 8, 3), preprocessing="rescale")

    return build


@pytest.fixture(scope="session")
def small_data():
    """Builds `(images, labels)`: noise with a mean that tells the class."""

    def build(count, seed=0):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, CLASSES, count).astype(np.int32)
        means = np.array([60, 120, 180])[labels][:, None, None, None]
        images = np.clip(rng.normal(means, 40, (count, 8, 8, 3)), 0, 255).astype(np.uint8)
        return images, labels

    return build


@pytest.fixture(scope="session")
def prepared():
    """`(program, trainable, frozen, batch_stats)` for a network and a freeze spec; parameters from a seed."""

    def prepare(network, freeze, *, optimizer=None, seed=0, start=None, **program):
        params, batch_stats = random_variables(network, seed)
        mask = freezing.resolve(freeze, network)
        trainable, frozen = freezing.partition(params, mask)
        step_program = StepProgram(
            network,
            start,
            freezing.inference_layers(network, mask),
            optimizer or OptimizerSpec("rmsprop"),
            **program,
        )
        return step_program, trainable, {"params": frozen}, batch_stats

    return prepare


@pytest.fixture(scope="session")
def stage_of():
    """Builds a stage of a network from a freeze spec and fields of its config; keywords of the optimizer apart."""

    def build(network, freeze, *, name="stage", optimizer=None, augmentation=None, **settings):
        mask = freezing.resolve(freeze, network)
        settings = StageConfig(freeze=freeze, optimizer=OptimizerConfig(**(optimizer or {})), **settings)
        return Stage(name, settings, mask, freezing.cut(network, mask), augmentation=augmentation)

    return build


@pytest.fixture(scope="session")
def variables_of():
    """Draws the variables of a network from a seed."""

    def build(network, seed=0):
        params, batch_stats = random_variables(network, seed)
        return {"params": params, "batch_stats": batch_stats}

    return build


def random_variables(network, seed):
    """Parameters of a sensible size, and statistics as batch norms start; drawn by numpy, which compiles nothing."""
    rng = np.random.default_rng(seed)
    params = {
        layer: {
            name: jnp.asarray(rng.normal(0, 0.5 / math.sqrt(math.prod(shape[:-1])), shape), jnp.float32)
            for name, shape in parameters.items()
        }
        for layer, parameters in all_parameter_shapes(network).items()
    }
    norms = [layer.name for layer in network.layers if isinstance(layer, BatchNorm)]
    batch_stats = {
        name: {"mean": jnp.zeros(params[name]["bias"].shape), "variance": jnp.ones(params[name]["bias"].shape)}
        for name in norms
    }
    return params, batch_stats


@pytest.fixture(scope="session")
def examples_of():
    """Images and labels as a step's examples, numbered from 0."""

    def build(images, labels):
        return Examples(jnp.asarray(images), jnp.asarray(labels), jnp.arange(len(labels), dtype=jnp.uint32))

    return build


@pytest.fixture(scope="session")
def order_of():
    """The order of some steps, from lists of rows and of weights, at one rate or one per step."""

    def build(rows, rate, weights=None):
        rows = np.asarray(rows, np.int32)
        weights = np.ones(rows.shape, np.float32) if weights is None else np.asarray(weights, np.float32)
        return StepOrder(rows, weights, np.broadcast_to(np.float32(rate), len(rows)).copy())

    return build
