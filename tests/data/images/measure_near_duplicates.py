"""Measures what the thresholds of `vision_transfer/data/images/near_duplicates.py` rest on.

    VISION_TRANSFER_DATA=FOLDER python tests/data/measure_near_duplicates.py

Copies of 300 photos, altered in ways that leave them the same to the eye, against their originals; and all pairs of
different images in two data sets.
"""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from vision_transfer.data.images.decode import decode_file
from vision_transfer.data.images.near_duplicates import gradient_correlation, perceptual_hashes, thumbnail

PHOTOS = 300


def altered(image):
    """The copies of an image, by what was done to it."""
    height, width = image.shape[:2]
    pillow, file = Image.fromarray(image), io.BytesIO()
    pillow.save(file, "JPEG", quality=30)
    margin = height // 20, width // 20
    return {
        "half the size": np.asarray(pillow.resize((width // 2, height // 2), Image.Resampling.BILINEAR)),
        "JPEG of quality 30": np.asarray(Image.open(file)),
        "1.3 times as bright": np.minimum(image * 1.3, 255).astype(np.uint8),
        "cropped by 5 % on each side": image[margin[0] : -margin[0], margin[1] : -margin[1]],
    }


def main():
    """Prints, for each alteration, bits apart and correlation; and the highest correlations of different images."""
    data = Path(os.environ["VISION_TRANSFER_DATA"])
    files = sorted((data / "cats_vs_dogs_small").rglob("*.jpg"))
    chosen = np.random.default_rng(0).choice(len(files), PHOTOS, replace=False)
    images = [decode_file(files[place], 3) for place in chosen]
    originals = np.stack([thumbnail(image) for image in images])
    copies = [altered(image) for image in images]
    for name in copies[0]:
        thumbnails = np.stack([thumbnail(copy[name]) for copy in copies])
        apart = np.bitwise_count(perceptual_hashes(originals) ^ perceptual_hashes(thumbnails))
        correlation = gradient_correlation(originals, thumbnails)
        print(f"{name}: at most {apart.max()} bits apart, correlation at least {correlation.min():.3f}")
    for name in ("cats_vs_dogs_small", "sign_language_digits"):
        places = sorted(path for path in (data / name).rglob("*") if path.is_file())
        thumbnails = np.stack([thumbnail(decode_file(path, 1)) for path in places])
        highest = []
        for first in range(len(places)):
            later = thumbnails[first + 1 :]
            found = gradient_correlation(np.broadcast_to(thumbnails[first], later.shape), later)
            highest += [(float(found[place]), first, first + 1 + place) for place in np.argsort(-found)[:2]]
        pairs = len(places) * (len(places) - 1) // 2
        print(f"{name}: {len(places)} images, {pairs:,} pairs; the highest correlations:")
        for correlation, first, second in sorted(highest, reverse=True)[:4]:
            print(f"  {correlation:.3f} {places[first].name} {places[second].name}")


if __name__ == "__main__":
    main()
