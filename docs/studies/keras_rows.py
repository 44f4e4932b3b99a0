"""Keras on the files of `docs/results.md`: the column "Keras" of its table.

    PYTHON docs/studies/keras_rows.py DATA keras_rows.jsonl [--rows=ROW,…] [--seeds=0,1,2] [--vgg16=FILE]

PYTHON is an interpreter with Keras 3, TensorFlow, SciPy and Pillow. DATA holds `cats_vs_dogs_small`,
`sign_language_digits` and `mnist`. Models, input pipelines and values are those of the textbooks that the configs name,
written with Keras alone. FILE has the weights of VGG16 without its classifier as `.weights.h5`; without it Keras
downloads them. Each row and seed is a line of the file; what is already in it is not run again. At the end the table is
printed.
"""

# pyright: basic

import argparse
import functools
import gzip
import itertools
import json
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

ImageDataGenerator = tf.keras.preprocessing.image.ImageDataGenerator
SPLITS = ("train", "validation", "test")


def convnet(shape, features, *, pool_last, head, rescale=False):
    """A chain of 3×3 convolutions with pools between them, then `head`."""
    rows = [keras.Input(shape)] + ([layers.Rescaling(1 / 255)] if rescale else [])
    for number, width in enumerate(features, start=1):
        rows.append(layers.Conv2D(width, 3, activation="relu"))
        if number < len(features) or pool_last:
            rows.append(layers.MaxPooling2D(2))
    return keras.Sequential([*rows, layers.Flatten(), *head])


def compiled(model, lr=1e-3, optimizer=keras.optimizers.RMSprop, loss="binary_crossentropy"):
    """The model, compiled in place."""
    model.compile(optimizer(lr), loss=loss, metrics=["accuracy"])
    return model


def fit(model, train, validation, **arguments):
    """Trains, and returns the model with the validation accuracies of all epochs."""
    history = model.fit(train, validation_data=validation, verbose=2, **arguments)
    return model, history.history.get("val_accuracy", [])


def accuracy(model, test):
    """That of the batches of a test split."""
    return float(model.evaluate(test, verbose=0, return_dict=True)["accuracy"])


def idx(path):
    """The array of a gzipped IDX file."""
    data = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)


def mnist(data, model):
    """Chapters 2.1 and 5.1 of the first edition, in batches of 64; the last epoch is tested."""
    images, labels, test_images, test_labels = (
        idx(data / "mnist" / f"{split}-{part}-ubyte.gz")
        for split in ("train", "t10k")
        for part in ("images-idx3", "labels-idx1")
    )
    compiled(model, loss="sparse_categorical_crossentropy")
    model.fit(images[..., None] / np.float32(255), labels, batch_size=64, epochs=5, verbose=2)
    return model.evaluate(test_images[..., None] / np.float32(255), test_labels, verbose=0)[1], []


def mnist_convnet(data, vgg16):
    """Chapter 5.1."""
    head = (layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax"))
    return mnist(data, convnet((28, 28, 1), (32, 64, 64), pool_last=False, head=head))


def mnist_dense(data, vgg16):
    """Chapter 2.1."""
    rows = (layers.Dense(512, activation="relu"), layers.Dense(10, activation="softmax"))
    return mnist(data, keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), *rows]))


def generators(folder, size, batch, class_mode, rescale=1 / 255, eval_batch=20, **augment):
    """Edition 1's readers of a folder: fresh random variants for training, files in order for the others."""
    plain = ImageDataGenerator(rescale=rescale)
    read = {"target_size": (size, size), "class_mode": class_mode}
    train = ImageDataGenerator(rescale=rescale, **augment).flow_from_directory(
        folder / "train", batch_size=batch, **read
    )
    return train, *(
        plain.flow_from_directory(folder / split, batch_size=eval_batch, shuffle=False, **read) for split in SPLITS[1:]
    )


def endless(iterator):
    """Batches without end: `steps_per_epoch` may be more than an epoch has."""
    return (next(iterator) for _ in itertools.count())


STRONG = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.2,
    "zoom_range": 0.2,
    "horizontal_flip": True,
}
MILD = {name: 20 if name == "rotation_range" else 0.1 for name in STRONG} | {"horizontal_flip": True}


def scratch_edition1(data, vgg16, augment=False):
    """Chapter 5.2 of the first edition; the last epoch is tested."""
    train, validation, test = generators(
        data / "cats_vs_dogs_small", 150, 32 if augment else 20, "binary", **(STRONG if augment else {})
    )
    head = (layers.Dense(512, activation="relu"), layers.Dense(1, activation="sigmoid"))
    model = convnet(
        (150, 150, 3), (32, 64, 128, 128), pool_last=True, head=((layers.Dropout(0.5),) if augment else ()) + head
    )
    model, accuracies = fit(
        compiled(model, 1e-4), endless(train), validation, steps_per_epoch=100, epochs=100 if augment else 30
    )
    return accuracy(model, test), accuracies


def folders(folder, size):
    """Edition 2's readers of a folder."""
    return (
        keras.utils.image_dataset_from_directory(folder / split, image_size=(size, size), batch_size=32).prefetch(2)
        for split in SPLITS
    )


def best_epoch(model, train, validation, test, epochs, scratch="best.keras"):
    """Trains, and tests the epoch with the lowest validation loss."""
    keep = keras.callbacks.ModelCheckpoint(scratch, save_best_only=True, monitor="val_loss")
    _, accuracies = fit(model, train, validation, epochs=epochs, callbacks=[keep])
    tested = accuracy(keras.models.load_model(scratch), test)
    Path(scratch).unlink()
    return tested, accuracies


def augmentation():
    """Edition 2's layers."""
    return (layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.2))


def scratch_edition2(data, vgg16, augment=False):
    """Chapter 8.2 of the second edition; the epoch with the lowest validation loss is tested."""
    head = ((layers.Dropout(0.5),) if augment else ()) + (layers.Dense(1, activation="sigmoid"),)
    network = convnet((180, 180, 3), (32, 64, 128, 256, 256), pool_last=False, head=head, rescale=True)
    if augment:
        network = keras.Sequential([keras.Input((180, 180, 3)), *augmentation(), network])
    return best_epoch(compiled(network), *folders(data / "cats_vs_dogs_small", 180), epochs=100 if augment else 30)


def base(vgg16, size):
    """VGG16 without its classifier."""
    return keras.applications.VGG16(weights=vgg16, include_top=False, input_shape=(size, size, 3))


def features_of_splits(folder, network, rescale=None):
    """The outputs of a network for the files of each split, in order, and their classes."""
    found = []
    for split in SPLITS:
        files = ImageDataGenerator(rescale=rescale).flow_from_directory(
            folder / split, target_size=network.input_shape[1:3], shuffle=False, batch_size=20
        )
        found.append((network.predict(files, verbose=0), files.classes))
    return found


def features_edition1(data, vgg16, augment=False):
    """Chapter 5.3 of the first edition, with the base frozen; the last epoch is tested."""
    folder, frozen = data / "cats_vs_dogs_small", base(vgg16, 150)
    frozen.trainable = False
    dense = (layers.Dense(256, activation="relu"), layers.Dense(1, activation="sigmoid"))
    if augment:
        train, validation, test = generators(folder, 150, 20, "binary", **MILD)
        model = compiled(keras.Sequential([frozen, layers.Flatten(), *dense]), 2e-5)
        model, accuracies = fit(model, endless(train), validation, steps_per_epoch=100, epochs=30)
        return accuracy(model, test), accuracies
    hidden, output = dense
    model = keras.Sequential([keras.Input((4, 4, 512)), layers.Flatten(), hidden, layers.Dropout(0.5), output])
    (maps, classes), validation, test = features_of_splits(folder, frozen, rescale=1 / 255)
    model, accuracies = fit(compiled(model, 2e-5), maps, validation, y=classes, batch_size=20, epochs=30)
    return model.evaluate(*test, verbose=0)[1], accuracies


def sign_language(data, vgg16):
    """The course notebook: raw pixels, the last five layers of VGG16; the last epoch is tested.

    The outputs of the frozen layers are computed once. Batches, their order and initial weights are those of the
    notebook's code, which computes these outputs in each step.
    """
    network = base(vgg16, 224)
    for layer in network.layers[:-5]:
        layer.trainable = False
    cut = network.layers[-5].output
    head = (layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax"))
    model = keras.Sequential([keras.Input(cut.shape[1:]), *network.layers[-4:], *head])
    compiled(model, 1e-4, keras.optimizers.Adam, "categorical_crossentropy")
    folder = data / "sign_language_digits"

    def batches(files, maps, classes):
        return ((maps[index], np.eye(10)[classes[index]]) for index in files.index_generator)

    train, validation, (test_maps, test_classes) = signs_below_block5(folder, vgg16)
    files = generators(folder, 224, 10, "categorical", eval_batch=30)
    model, accuracies = fit(
        model,
        batches(files[0], *train),
        batches(files[1], *validation),
        steps_per_epoch=18,
        validation_steps=3,
        epochs=20,
    )
    return model.evaluate(test_maps, np.eye(10)[test_classes], verbose=0)[1], accuracies


@functools.cache
def signs_below_block5(folder, vgg16):
    """The outputs of VGG16's `block4_pool` for the signs of each split, and their classes."""
    network = base(vgg16, 224)
    return features_of_splits(folder, keras.Model(network.input, network.get_layer("block4_pool").output))


ROWS = {
    "mnist.py:model=dense": mnist_dense,
    "mnist.py:model=convnet": mnist_convnet,
    "sign_language.py": sign_language,
    "from_scratch.py:edition=1": scratch_edition1,
    "from_scratch.py:edition=2": scratch_edition2,
    "feature_extraction.py:edition=1": features_edition1,
    "from_scratch.py:edition=1,augment=True": lambda *given: scratch_edition1(*given, augment=True),
    "from_scratch.py:edition=2,augment=True": lambda *given: scratch_edition2(*given, augment=True),
    "feature_extraction.py:edition=1,augment=True": lambda *given: features_edition1(*given, augment=True),
}


def main():
    """Runs what the file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", default=";".join(ROWS), help="separated by semicolons")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--vgg16", default="imagenet")
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.file.read_text().splitlines()] if given.file.exists() else []
    for row, seed in itertools.product(given.rows.split(";"), map(int, given.seeds.split(","))):
        if any(line["row"] == row and line["seed"] == seed for line in lines):
            continue
        keras.utils.set_random_seed(seed)
        began = time.monotonic()
        tested, accuracies = ROWS[row](given.data, given.vgg16)
        line = {"row": row, "seed": seed, "test": round(float(tested), 4), "seconds": round(time.monotonic() - began)}
        if accuracies:
            line |= {"validation_best": round(max(accuracies), 4), "validation_last": round(accuracies[-1], 4)}
        line |= {"keras": keras.__version__}
        lines.append(line)
        with given.file.open("a") as out:
            out.write(json.dumps(line) + "\n")
    for row in ROWS:
        runs = [line for line in lines if line["row"] == row]
        if runs:
            tests = [line["test"] for line in runs]
            spread = f"{np.mean(tests):.3f} ({min(tests)} to {max(tests)})"
            print(f"| {row} | {spread}, {len(runs)} seeds | {runs[0]['seconds']} s |")


if __name__ == "__main__":
    main()
