"""A tiny VGG-like network and cases of it."""

import pytest

from vision_transfer.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, GlobalAveragePool, MaxPool
from vision_transfer.models.network import Network
from vision_transfer.models.precision import Numerics
from vision_transfer.tasks.benchmark.cases import Case
from vision_transfer.training.optimizers import OptimizerSpec


@pytest.fixture(scope="session")
def network():
    """Builds three blocks of convolutions that are wide enough for Winograd's method, and a head."""

    def build(precision="float32"):
        backbone = (
            Conv("block1_conv1", 16, padding="same"),
            MaxPool("block1_pool"),
            Conv("block2_conv1", 32, padding="same"),
            Conv("block2_conv2", 32, padding="valid"),
            MaxPool("block2_pool"),
            Conv("block3_conv1", 48, padding="same"),
            MaxPool("block3_pool"),
        )
        head = (Flatten("flatten"), Dense("hidden", 24, "relu"), Dropout("drop", 0.5), Dense("logits", 1))
        return Network(backbone, head, (29, 29, 3), "caffe", Numerics(precision))

    return build


@pytest.fixture(scope="session")
def normed_network():
    """A network with the layer kinds that the other one lacks."""
    backbone = (Conv("conv1", 16, activation="linear"), BatchNorm("norm1", activation="relu"), MaxPool("pool1"))
    head = (GlobalAveragePool("average"), Dense("logits", 3))
    return Network(backbone, head, (12, 12, 3), "rescale")


@pytest.fixture(scope="session")
def case_of(network):
    """Builds a case of the network."""

    def build(work="step", freeze="none", source="images", *, batch=4, precision="float32", optimizer=None, **fields):
        return Case(work, network(precision), freeze, source, batch, optimizer or OptimizerSpec("rmsprop"), **fields)

    return build
