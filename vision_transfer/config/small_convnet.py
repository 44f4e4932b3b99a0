"""The recipe shared by `configs/cifar10.py` and `configs/fashion_mnist.py`: a small convnet with modern training."""

from vision_transfer.config.config_dict import ConfigDict, default_config, stage, with_stages


def modern_small_convnet(
    dataset: str, *, channels: int, largest_shift: float, batch_size: int, epochs: int
) -> ConfigDict:
    """The convnet of `configs/mnist.py` with batch norm, dropout, augmentation, weight decay and a cosine schedule.

    Args:
        dataset: `dataset.name`, and the name of the run.
        channels: 3 for RGB, 1 for grey.
        largest_shift: fraction of the height and of the width.
        batch_size: examples per step.
        epochs: the learning rate falls to 0 over them.
    """
    config = default_config()
    config.name = dataset
    config.dataset.name = dataset
    config.dataset.channels = channels
    config.model.backbone = "mnist_convnet"
    config.model.batch_norm = True
    config.model.weights = "random"
    config.model.preprocessing = "rescale"
    config.model.hidden = (128,)
    config.model.activation = "relu"
    config.model.dropout = 0.25
    config.augment.preset = "image_data_generator"
    config.augment.flip = "horizontal"
    config.augment.height_shift = largest_shift
    config.augment.width_shift = largest_shift
    config.batch_size = batch_size
    config.eval_batch_size = 250
    return with_stages(
        config,
        train=stage(
            freeze="none",
            epochs=epochs,
            monitor="validation_accuracy",
            optimizer={"name": "adam", "lr": 2e-3, "lr_schedule": "cosine", "warmup_steps": 100, "weight_decay": 0.01},
        ),
    )
