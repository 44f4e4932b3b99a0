"""Two short trainings, loss by loss, against Keras's own from the same start and on the same batches."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer import freezing
from vision_transfer.data.images.resize import resize_bilinear
from vision_transfer.feature_cache.cacheable import cached_layer
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.inference import infer
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.training.optimizers import OptimizerSpec
from vision_transfer.training.step import Chunk, Constants, StepProgram, initial_state, run_steps

LOSS_TOLERANCE = 1e-3
IDX_IMAGE_HEADER, IDX_LABEL_HEADER = 16, 8
FINETUNE_SIZE = 112


def train(program, mesh, trainable, frozen, examples, order):
    """The loss of each step and the parameters after the last."""
    state, losses = initial_state(program, trainable, {}), []
    for step in range(len(order.rates)):
        before = float(state.totals.loss)
        state = run_steps(
            state,
            Chunk(examples, order, step, 1),
            Constants(frozen, jax.random.key(0)),
            program=program,
            mesh=mesh,
            resident=True,
        )
        losses.append((float(state.totals.loss) - before) / order.rows.shape[1])
    return losses, state.trainable


def test_mnist_training_is_keras_s(reference, data_folder, mesh, examples_of, order_of):
    numbers = reference("mnist_training")
    count = 64 * len(numbers["loss"])
    with gzip.open(data_folder / "mnist" / "train-images-idx3-ubyte.gz") as stream:
        content = stream.read(IDX_IMAGE_HEADER + count * 28 * 28)
    images = np.frombuffer(content, np.uint8, offset=IDX_IMAGE_HEADER).reshape(count, 28, 28, 1)
    with gzip.open(data_folder / "mnist" / "train-labels-idx1-ubyte.gz") as stream:
        labels = np.frombuffer(stream.read(IDX_LABEL_HEADER + count), np.uint8, offset=IDX_LABEL_HEADER)
    head = head_layers(10, flatten=True, hidden=(64,), activation="relu")
    network = Network(backbone_rows("mnist_convnet"), head, (28, 28, 1), "rescale")
    starts = (jnp.asarray(numbers[f"start_{position:02d}"]) for position in range(10))
    params = {layer: {name: next(starts) for name in ("kernel", "bias")} for layer in all_parameter_shapes(network)}
    program = StepProgram(network, None, frozenset(), OptimizerSpec("rmsprop"))
    order = order_of(np.arange(count).reshape(-1, 64), 1e-3)
    losses, end = train(program, mesh, params, {"params": {}}, examples_of(images, labels.astype(np.int32)), order)
    np.testing.assert_allclose(losses, numbers["loss"], rtol=LOSS_TOLERANCE)
    norms = [float(jnp.linalg.norm(end[layer][name])) for layer in end for name in ("kernel", "bias")]
    np.testing.assert_allclose(sorted(norms), sorted(numbers["end_norms"]), rtol=LOSS_TOLERANCE)


@pytest.fixture(scope="module")
def sign_language(reference, data_folder, decode_as_tensorflow):
    """50 photos of hands, resized but not rounded, and their labels."""
    numbers = reference("finetune_training")
    images = [
        resize_bilinear(decode_as_tensorflow(data_folder / file), FINETUNE_SIZE, FINETUNE_SIZE)
        for file in numbers["files"]
    ]
    return np.stack(images), numbers["labels"].astype(np.int32)


def test_finetuning_is_keras_s(reference, vgg16_params, sign_language, mesh, examples_of, order_of):
    numbers, (images, labels) = reference("finetune_training"), sign_language
    network = Network(
        backbone_rows("vgg16", global_average=True),
        head_layers(10, flatten=False),
        (FINETUNE_SIZE, FINETUNE_SIZE, 3),
        "caffe",
    )
    params = vgg16_params | {"head_logits": {"kernel": numbers["head_kernel"], "bias": numbers["head_bias"]}}
    mask = freezing.resolve("last:5", network)
    assert freezing.counts(params, mask).trainable == numbers["trainable"].sum()
    assert freezing.counts(params, mask).trainable_tensors == len(numbers["trainable"])
    # From the cut on, as a run does it: the frozen blocks are computed once.
    cached = cached_layer(network, mask)
    assert (cached, freezing.cut(network, mask)) == ("block4_pool", "block5_conv1")
    inputs = infer(network, {"params": params}, images, mesh, batch_size=25, stop=cached)
    trainable, frozen = freezing.partition(params, mask)
    program = StepProgram(network, "block5_conv1", frozenset(), OptimizerSpec("adam"))
    order = order_of(np.arange(len(labels)).reshape(-1, 10), 1e-4)
    losses, end = train(
        program,
        mesh,
        jax.tree.map(jnp.asarray, trainable),
        {"params": jax.tree.map(jnp.asarray, frozen)},
        examples_of(inputs, labels),
        order,
    )
    np.testing.assert_allclose(losses, numbers["loss"], rtol=LOSS_TOLERANCE)
    np.testing.assert_allclose(end["block5_conv3"]["bias"], numbers["end_block5_conv3_bias"], atol=2e-5)
