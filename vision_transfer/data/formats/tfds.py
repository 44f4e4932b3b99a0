"""TensorFlow Datasets by name, read by random access (`as_data_source`), which needs no TensorFlow.

Preparing a data set needs it, and a file format with random access; nothing is prepared or downloaded here, but the
error message gives the command.
"""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vision_transfer.data.dataset import DIGEST_BYTES, SPLIT_NAMES, digest
from vision_transfer.data.formats.image_files import DEFAULT_SIZE
from vision_transfer.data.images.decode import decode_image
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.source import Examples, Source
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.program import install_extra

PREFIX = "tfds:"


def tfds_source(name: str, root: Path | None, screen: Screen) -> Source:
    """A prepared TFDS data set of single-label images: `NAME`, `NAME/CONFIG` or `NAME:VERSION`; `root` is `data_dir`.

    Raises:
        UserError: TFDS is not installed, or the data set is unknown, not prepared, prepared without random access, or
            does not have one label per image.
    """
    try:
        tfds: Any = importlib.import_module("tensorflow_datasets")
    except ImportError:
        raise UserError(
            f"--config.dataset.name={PREFIX}{name} needs TensorFlow Datasets, which is not installed: "
            f"{install_extra('tfds')}"
        ) from None
    builder = _builder(tfds, name, root)
    image_key, label_key = _keys(builder, name)
    features = builder.info.features
    splits, content = {}, hashlib.blake2b(digest_size=DIGEST_BYTES)
    for split, names in SPLIT_NAMES.items():
        present = next((name for name in names if name in builder.info.splits), None)
        if present is None:
            continue
        records = builder.as_data_source(split=present, decoders={image_key: tfds.decode.SkipDecoding()})
        splits[split], records_digest = _examples(records, present, image_key, label_key, screen)
        content.update(split.encode() + records_digest)
    if "train" not in splits:
        raise UserError(
            f"--config.dataset.name={PREFIX}{name} has no split `train`, but {', '.join(builder.info.splits)}."
        )
    shape = features[image_key].shape
    return Source(
        name=builder.info.full_name,
        classes=tuple(features[label_key].names),
        splits=splits,
        content=content.hexdigest(),
        default_size=max(shape[:2]) if None not in shape[:2] else DEFAULT_SIZE,
        note=f"TensorFlow Datasets' {builder.info.full_name}, from {builder.data_dir}.",
        expected="a prepared TFDS data set of images with one label each",
    )


def _builder(tfds: Any, name: str, root: Path | None) -> Any:
    """The builder of a data set that is prepared and has random access."""
    try:
        builder = tfds.builder(name, data_dir=None if root is None else str(root))
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--config.dataset.name={PREFIX}{name}: {reason} See https://www.tensorflow.org/datasets/catalog for "
            "the names."
        ) from None
    folder = "" if root is None else f" --data_dir={root}"
    if not builder.is_prepared():
        raise UserError(
            f"--config.dataset.name={PREFIX}{name} is not prepared (nothing in {builder.data_dir}). This downloads and "
            f"prepares it, for which TensorFlow is needed once:\n"
            f"  pip install tensorflow-cpu && tfds build {name}{folder} --file_format=array_record"
        )
    file_format = builder.info.file_format
    if file_format is None or not file_format.value.startswith(("array_record", "parquet")):
        other = (root or Path.home() / "tensorflow_datasets").with_name("tensorflow_datasets_array_record")
        found = file_format and file_format.value
        raise UserError(
            f"--config.dataset.name={PREFIX}{name} is prepared in {builder.data_dir} as {found}, which has no random "
            "access. Prepare it again in another folder and give that one:\n"
            f"  pip install tensorflow-cpu && tfds build {name} --data_dir={other} --file_format=array_record\n"
            f"  --config.dataset.root={other}"
        )
    return builder


def _keys(builder: Any, name: str) -> tuple[str, str]:
    """The keys of the image and of its label."""
    features = builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    kinds = [type(features[key]).__name__ if key in features else "nothing" for key in keys[:2]]
    if kinds != ["Image", "ClassLabel"]:
        raise UserError(
            f"--config.dataset.name={PREFIX}{name}: {keys[0]} and {keys[1]} are {kinds[0]} and {kinds[1]}; expected "
            "an Image and a ClassLabel (one label per image)."
        )
    return keys[0], keys[1]


def _examples(records: Any, name: str, image_key: str, label_key: str, screen: Screen) -> tuple[Examples, bytes]:
    """The examples of a split, and a digest of its encoded images and labels; the images stay on disk."""

    def label_and_digest(index: int) -> tuple[int, bytes]:
        record = records[index]
        return int(record[label_key]), digest(record[image_key])

    seen = list(map_in_order(label_and_digest, range(len(records)), screen=screen, title=f"Reading {name}"))
    labels = np.array([label for label, _ in seen], np.int32)

    def pixels(index: int, channels: int) -> UInt8[np.ndarray, "height width channels"]:
        return decode_image(records[index][image_key], channels)

    content = b"".join(image for _, image in seen) + labels.astype("<i4").tobytes()
    return Examples(tuple(f"{name}/{index}" for index in range(len(seen))), labels, pixels), digest(content)
