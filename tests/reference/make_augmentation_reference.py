"""Makes `augmentation.npz` and `augmentation_layers.npz` of this folder with Keras 3.15 on TensorFlow 2.21.

Run in an environment with `keras`, `tensorflow-cpu` and `scipy`:

    python make_augmentation_reference.py PHOTO.npy OUT_DIR

PHOTO.npy is a `(150, 150, 3)` float32 image: here the CC0 photo "Chelsea" (S. van der Walt, of scikit-image),
`tf.image.resize(photo, (150, 150), method="bilinear")`.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator

GRID = 8  # every eighth pixel of a result is kept
IDG_CASES = (
    {"theta": 30.0},
    {"tx": 12.5},
    {"ty": -20.0},
    {"shear": 15.0},
    {"zx": 0.8, "zy": 1.2},
    {"flip_horizontal": True},
    {"theta": -40.0, "tx": 10.0, "ty": -7.0, "shear": 10.0, "zx": 1.1, "zy": 0.9, "flip_horizontal": True},
)


def thin(image):
    return np.asarray(image).astype("f4")[::GRID, ::GRID]


def photo_reference(photo):
    """The whole photo; a grid of pixels of what both presets make of it."""
    out = {"image": photo}
    for number, case in enumerate(IDG_CASES):
        out[f"idg_{number}_params"] = np.array(repr(case))
        out[f"idg_{number}"] = thin(ImageDataGenerator(fill_mode="nearest").apply_transform(photo.copy(), case))
    for fill in ("constant", "reflect", "wrap"):
        generator = ImageDataGenerator(fill_mode=fill, cval=0.0)
        out[f"idg_fill_{fill}"] = thin(generator.apply_transform(photo.copy(), {"theta": 30.0, "tx": 25.0}))
    for name, layer in (
        ("rotation_+0.1", keras.layers.RandomRotation((0.1, 0.1))),
        ("rotation_-0.05", keras.layers.RandomRotation((-0.05, -0.05))),
        ("zoom_+0.2", keras.layers.RandomZoom((0.2, 0.2))),
        ("zoom_-0.2", keras.layers.RandomZoom((-0.2, -0.2))),
    ):
        out[f"keras_{name}"] = thin(layer(photo[None], training=True)[0])
    return out


def layers_reference(photo):
    """Layers and fills on a small image that is not square, in full."""
    small = photo[30:102:4, 10:106:4].round().astype("u1")
    batch = small[None].astype("f4")
    layers = keras.layers
    out = {"image": small}
    for fill in ("nearest", "reflect", "constant", "wrap"):
        rotation = layers.RandomRotation((0.07, 0.07), fill_mode=fill, fill_value=17.0)
        out[f"rotation_{fill}_bilinear"] = np.asarray(rotation(batch, training=True))[0]
        translation = layers.RandomTranslation((0.27, 0.27), (-0.16, -0.16), fill_mode=fill, fill_value=17.0)
        out[f"translation_{fill}"] = np.asarray(translation(batch, training=True))[0]
    zoom = layers.RandomZoom((0.3, 0.3), (-0.25, -0.25))
    out["zoom"] = np.asarray(zoom(batch, training=True))[0]
    shear = layers.RandomShear(x_factor=0.3)
    out["shear"] = np.asarray(shear.transform_images(batch, {"shear_factor": np.array([[0.3, 0.0]], "f4")}))[0]
    return out


if __name__ == "__main__":
    photo, out_dir = np.load(sys.argv[1]), Path(sys.argv[2])
    np.savez_compressed(out_dir / "augmentation.npz", **photo_reference(photo))
    np.savez_compressed(out_dir / "augmentation_layers.npz", **layers_reference(photo))
