"""A folder of images with one fault of every kind that is found without a network."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def clean_folder(tmp_path, scene):
    """Two classes, each with 12 training, 6 validation and 6 test images, all different and without faults."""
    root = tmp_path / "pets"
    seed = 0
    for split, count in (("train", 12), ("validation", 6), ("test", 6)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(scene(seed)).save(root / split / name / f"{number}.png")
                seed += 1
    return root


@pytest.fixture
def faulty_folder(clean_folder, scene):
    """The same folder with faults, each named after its kind."""
    root = clean_folder
    train = root / "train"

    def compressed(source, target):
        with Image.open(source) as image:
            image.convert("RGB").save(target, "JPEG", quality=60)

    shutil.copy(train / "cat/0.png", root / "test/cat/leaked.png")
    compressed(train / "dog/1.png", root / "validation/dog/nearly leaked.jpg")
    compressed(train / "cat/3.png", train / "dog/conflict.jpg")
    shutil.copy(train / "dog/2.png", train / "dog/twice.png")
    compressed(train / "dog/4.png", train / "dog/nearly twice.jpg")
    (train / "cat/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    (train / "cat/empty.png").touch()

    file = io.BytesIO()
    Image.fromarray(scene(100)).save(file, "PNG")
    (train / "cat/really a png.jpg").write_bytes(file.getvalue())

    alpha = np.full((90, 120, 1), 255, np.uint8)
    alpha[:40] = 0
    Image.fromarray(np.concatenate([scene(101), alpha], axis=2)).save(train / "cat/alpha.png")
    Image.fromarray(np.concatenate([scene(102), np.full_like(alpha, 255)], axis=2)).save(train / "cat/opaque.png")
    Image.fromarray(scene(103)).quantize(64).save(train / "cat/palette.png")
    Image.fromarray(scene(104)).convert("CMYK").save(train / "cat/cmyk.jpg", quality=95)
    Image.fromarray(scene(105)[..., 0].astype(np.uint16) * 257).save(train / "cat/sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene(106)).save(train / "cat/turned.jpg", exif=exif, quality=95)
    frames = [Image.fromarray(scene(seed)) for seed in (107, 108)]
    frames[0].save(train / "cat/moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(scene(109, 20, 24)).save(train / "cat/small.png")
    Image.fromarray(scene(110, 64, 400)).save(train / "cat/wide.png")

    for seed, place in enumerate(("train/bird/0", "train/bird/1", "validation/bird/0", "test/bird/0")):
        (root / place).parent.mkdir(exist_ok=True)
        Image.fromarray(scene(200 + seed)).save(root / f"{place}.png")
    (root / "training").mkdir()
    return root
