"""What one training step does to a batch norm that other libraries call frozen: the table of docs/batch_norm.md.

    python tests/reference/batch_norm_modes.py

Needs torch, keras and a backend of Keras.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch

VALUES = np.random.default_rng(0).normal(3, 2, (8, 5, 5, 4)).astype(np.float32)


def normalised_by_batch(outputs: np.ndarray, epsilon: float) -> bool:
    """Whether outputs (images, height, width, channels) are the values, normalised by their own statistics."""
    axes = (0, 1, 2)
    own = (VALUES - VALUES.mean(axes)) / np.sqrt(VALUES.var(axes) + epsilon)
    return np.allclose(outputs, own, atol=1e-4)


def torch_step(prepare: Callable[[Any], object], rate: float = 0.1) -> str:
    """One step of SGD, in the mode that `prepare` leaves."""
    norm = torch.nn.BatchNorm2d(4).train()
    prepare(norm)
    before = norm.running_mean.clone()
    outputs = norm(torch.tensor(VALUES).permute(0, 3, 1, 2))
    trained = [one for one in norm.parameters() if one.requires_grad]
    if trained:
        outputs.sum().backward()
        torch.optim.SGD(trained, lr=rate).step()
    by_batch = normalised_by_batch(outputs.detach().permute(0, 2, 3, 1).numpy(), norm.eps)
    return described(not torch.equal(before, norm.running_mean), by_batch)


def keras_step(*, trainable: bool = True, rate: float = 0.1) -> str:
    """One step of `fit`."""
    norm = keras.layers.BatchNormalization()
    norm.trainable = trainable
    model = keras.Sequential([keras.Input((5, 5, 4)), norm])
    before = keras.ops.convert_to_numpy(norm.moving_mean).copy()
    by_batch = normalised_by_batch(keras.ops.convert_to_numpy(model(VALUES, training=True)), norm.epsilon)
    norm.moving_mean.assign(before)
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse")
    model.fit(VALUES, VALUES, batch_size=len(VALUES), epochs=1, verbose=0)
    return described(not np.array_equal(before, keras.ops.convert_to_numpy(norm.moving_mean)), by_batch)


def described(moved: bool, by_batch: bool) -> str:
    """The cells of the table."""
    return f"{'move' if moved else 'rest'} | {'the batch' if by_batch else 'running statistics'}"


if __name__ == "__main__":
    print(f"PyTorch {torch.__version__}, Keras {keras.__version__} on {keras.backend.backend()}")
    print("PyTorch, requires_grad_(False), in train() |", torch_step(lambda norm: norm.requires_grad_(False)))
    print("PyTorch, learning rate 0, in train() |", torch_step(lambda _: None, rate=0.0))
    print(
        "PyTorch, track_running_stats = False, in train() |",
        torch_step(lambda norm: setattr(norm, "track_running_stats", False)),
    )
    print("PyTorch, eval() |", torch_step(lambda norm: norm.eval()))
    print("Keras, learning rate 0, in fit |", keras_step(rate=0.0))
    print("Keras, trainable = False, in fit |", keras_step(trainable=False))
