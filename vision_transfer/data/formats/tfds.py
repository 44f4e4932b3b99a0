"""TensorFlow Datasets, read by random access (`as_data_source`), which needs no TensorFlow and imports none.

`prepare_tfds` (`--mode=fetch`) downloads and prepares them; most of TFDS's own builders need TensorFlow for this, once.
An example's name is TFDS's id of it, as `add_tfds_id` gives it: `mnist-train.array_record-00000-of-00001__42`.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.dataset import DIGEST_BYTES, SPLIT_NAMES, digest
from vision_transfer.data.formats.image_files import DEFAULT_SIZE
from vision_transfer.data.images.cache import kept_bytes
from vision_transfer.data.images.decode import decode_image
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.source import Examples, Source
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import user_path
from vision_transfer.runtime.program import install_extra, program

# `tfds:NAME`, or `tfds` alone for a folder that was prepared, by own code perhaps.
NAME = "tfds"
PREFIX = f"{NAME}:"
CATALOGUE = "https://www.tensorflow.org/datasets/catalog"
SUB_SPLITS = "https://www.tensorflow.org/datasets/splits"
INFO_FILE = "dataset_info.json"
FILE_FORMAT = "array_record"
INDEX_FOLDER = "tfds"
INDEX_VERSION = 1
# Records that one call reads; singly, they take ten times as long.
_RECORDS_PER_READ = 256


def is_tfds(name: str) -> bool:
    """Whether a `dataset.name` is one of TensorFlow Datasets."""
    return name == NAME or name.startswith(PREFIX)


def tfds_source(config: DatasetConfig, cache_dir: Path, screen: Screen) -> Source:
    """A prepared data set of single-label images; `dataset.root` is TFDS's `data_dir` or, without NAME, its folder.

    Raises:
        UserError: the data set is unknown, not prepared, prepared without random access, or has no image or no label;
            a split is unknown, empty, or shares examples with another.
    """
    from tensorflow_datasets import decode

    where, raw = f"--config.dataset.name={config.name}", decode.DeserializeMethod.RAW_BYTES
    builder = _prepared_builder(config, where)
    features = builder.info.features
    image, label = _image_and_label(features, builder.info.supervised_keys, where)
    splits, content = {}, b""
    for split, instruction in _instructions(config, builder.info.splits).items():
        shards = _shards(builder.info, split, instruction)
        source = builder.as_data_source(split=instruction, deserialize_method=raw)
        records = _Records(source, instruction, image, label)
        labels, of_split = _labels_and_digest(records, shards, cache_dir, screen)
        if labels.min(initial=0) < 0:
            raise UserError(
                f"{where}: {instruction} has images without a label (-1); name another part for this split, such as "
                f"--config.dataset.splits.{split}='train[90%:]'"
            )
        files = tuple(f"{file.name}__{number}" for file, numbers in shards for number in numbers)
        splits[split] = Examples(files, labels, records.pixels)
        content += split.encode() + of_split
    _check_disjoint(splits)
    shape = features[image].shape
    return Source(
        name=builder.info.full_name,
        classes=tuple(features[label].names),
        splits=splits,
        content=digest(content).hex(),
        default_size=max(shape[:2]) if None not in shape[:2] else DEFAULT_SIZE,
        note=f"TensorFlow Datasets' {builder.info.full_name}, from {builder.data_dir}.",
        expected="a prepared TFDS data set of images with one label each",
    )


def prepare_tfds(config: DatasetConfig, screen: Screen) -> Path:
    """Downloads a data set into TFDS's `data_dir` (`dataset.root`) and prepares it, unless it is there; its folder.

    Raises:
        UserError: there is no such data set, a file of it must be downloaded by hand, a module is missing, or the
            download or the disk failed.
    """
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    where, builder = f"--config.dataset.name={config.name}", find_builder(config)
    folder = Path(builder.data_dir)
    if builder.is_prepared():
        check_random_access(config, builder)
        screen.say(f"{config.name} is already in {folder}.")
        return folder
    screen.say(f"Preparing {builder.info.full_name} in {folder}")
    try:
        # Google's bucket has the data sets prepared, but as tfrecord.
        downloads = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_config=downloads, file_format=FILE_FORMAT)
    except Exception as error:
        causes = list(_causes(error))
        missing = next((cause for cause in causes if isinstance(cause, ImportError)), None)
        if missing is not None:
            raise UserError(f"{where}: {_how_to_get(missing)}") from None
        if isinstance(error, AssertionError) and builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise UserError(f"{where}: must be downloaded by hand. {error}") from None
        if any(isinstance(cause, requests.RequestException | DownloadError) for cause in causes):
            raise UserError(
                f"{where}: could not be downloaded ({_brief(error)}). What is complete is kept; run the same command "
                "again, with a network."
            ) from None
        if any(isinstance(cause, NonMatchingChecksumError) for cause in causes):
            raise UserError(f"{where}: its server has other files than TFDS expects ({_brief(error)})") from None
        if isinstance(error, OSError):
            raise UserError(f"{where}: cannot be prepared in {folder} ({_brief(error)})") from None
        raise
    return folder


def _how_to_get(missing: ImportError) -> str:
    """Advice on what to install for a module that a builder of TFDS imports."""
    module = (missing.name or str(missing)).partition(".")[0]
    if module == "tensorflow":
        return (
            f"preparing it needs TensorFlow, once (reading it does not): {install_extra('tfds')}; then run the same "
            "command again"
        )
    return f"preparing it needs the Python module {module}, which is not installed; install it and run this again"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def fetch_command(name: str, root: Path | str | None = None) -> str:
    """The command that prepares a data set of TFDS."""
    folder = "" if root is None else f" --config.dataset.root={root}"
    return f"{program()} --config=mnist --mode=fetch --config.dataset.name={name}{folder}"


def find_builder(config: DatasetConfig) -> Any:
    """TFDS's builder of the data set that `config` names, prepared or not.

    Raises:
        UserError: there is no such data set, or no such version or variant of it.
    """
    import tensorflow_datasets as tfds

    where, name = f"--config.dataset.name={config.name}", config.name.removeprefix(PREFIX)
    root = None if config.root is None else user_path(config.root)
    if name.endswith(".py") or name.startswith((".", "/", "~")):
        raise UserError(
            f"{where}: is a path, and own builders are code that is not run here. Prepare it with your own script "
            f"(`MyBuilder(data_dir=…, file_format={FILE_FORMAT!r}).download_and_prepare()`); then give "
            f"--config.dataset.name={NAME} and --config.dataset.root=FOLDER, the folder with {INFO_FILE}."
        )
    if config.name == NAME:
        return tfds.builder_from_directory(_folder_with_info(root))
    try:
        return tfds.builder(name, data_dir=None if root is None else str(root))
    except tfds.core.DatasetNotFoundError:
        own = [] if root is None or not root.is_dir() else [path.name for path in root.iterdir() if path.is_dir()]
        known = [*tfds.list_builders(with_community_datasets=False), *own]
        base = name.partition(":")[0].partition("/")[0]
        hint = "" if base in known else f"; {nearest_names(base, known, otherwise=f'{CATALOGUE} lists the names')}"
        raise UserError(f"{where}: TensorFlow Datasets has no {name!r}{hint}") from None
    except (ValueError, AssertionError, ImportError) as error:  # what TFDS raises for variants, versions and spelling
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{where}: {reason} See {CATALOGUE} for the names.") from None


def _folder_with_info(root: Path | None) -> Path:
    """The only folder at or below `root` that holds a prepared data set."""
    if root is None:
        raise UserError(
            f"--config.dataset.root is empty; --config.dataset.name={NAME} needs a folder with {INFO_FILE}."
        )
    # A data_dir has NAME/VERSION or NAME/VARIANT/VERSION.
    found = [file.parent for depth in range(4) for file in sorted(root.glob("*/" * depth + INFO_FILE))]
    if not found:
        raise UserError(f"--config.dataset.root={root}: has no {INFO_FILE}, so it is no prepared data set of TFDS.")
    if len(found) > 1:
        names = ", ".join(str(path) for path in found[:10])
        raise UserError(f"--config.dataset.root={root}: holds {len(found)} data sets; give one of {names}")
    return found[0]


def _prepared_builder(config: DatasetConfig, where: str) -> Any:
    """The builder of a data set that is prepared and has random access."""
    builder = find_builder(config)
    if not builder.is_prepared():
        raise UserError(
            f"{where} is not prepared (nothing in {builder.data_dir}). This downloads and prepares it:\n"
            f"  {fetch_command(config.name, config.root)}"
        )
    check_random_access(config, builder)
    return builder


def check_random_access(config: DatasetConfig, builder: Any) -> None:
    """Raises UserError if a data set is prepared in a format without random access."""
    file_format = builder.info.file_format and builder.info.file_format.value
    if file_format != FILE_FORMAT:
        raise UserError(
            f"--config.dataset.name={config.name} is prepared in {builder.data_dir} as {file_format}, which has no "
            f"random access. Prepare it again as {FILE_FORMAT}, in another folder:\n"
            f"  {fetch_command(config.name, 'FOLDER')}"
        )


def _image_and_label(features: Any, supervised: Sequence[str] | None, where: str) -> tuple[str, str]:
    """The keys of the image and of its label: those that TFDS supervises, or the only ones of their kind."""
    found = []
    for kind in ("Image", "ClassLabel"):
        keys = [key for key in features if type(features[key]).__name__ == kind]
        keys = [key for key in supervised or () if key in keys] or keys
        if len(keys) != 1:
            what = f"no {kind}" if not keys else f"several: {', '.join(keys)}"
            raise UserError(
                f"{where}: has {what} among its features ({', '.join(features)}); expected are images with one label "
                "each (an Image and a ClassLabel)"
            )
        found += keys
    return found[0], found[1]


def _instructions(config: DatasetConfig, present: Any) -> dict[str, str]:
    """The parts to read for each split: as the config says, or the data set's own split of that name."""
    chosen = {}
    for split, names in SPLIT_NAMES.items():
        instruction = getattr(config.splits, split) or next((name for name in names if name in present), None)
        if instruction is not None:
            chosen[split] = instruction
    if "train" not in chosen:
        raise UserError(
            f"--config.dataset.name={config.name} has no split `train`, but {', '.join(present)}: give "
            "--config.dataset.splits.train=…"
        )
    return chosen


def _shards(info: Any, split: str, instruction: str) -> list[tuple[Path, range]]:
    """The files of a split, and the numbers of its records in each."""
    where = f"--config.dataset.splits.{split}={instruction}"
    try:
        parts = info.splits[instruction].file_instructions
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{where}: {reason} It has {', '.join(info.splits)}; see {SUB_SPLITS}.") from None
    shards = [(Path(part.filename), range(part.skip, part.skip + part.take)) for part in parts]
    if not sum(len(numbers) for _, numbers in shards):
        raise UserError(f"{where}: has no examples; it has {', '.join(info.splits)}, see {SUB_SPLITS}.")
    names = [f"{file.name}__{number}" for file, numbers in shards for number in numbers]
    twice, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise UserError(f"{where}: has the example {twice} {times} times; give each once")
    return shards


def _check_disjoint(splits: dict[str, Examples]) -> None:
    """Raises UserError if two splits share an example: their metrics would reward memorisation."""
    owners: dict[str, str] = {}
    for split, examples in splits.items():
        shared = [file for file in examples.files if file in owners]
        if shared:
            other = owners[shared[0]]
            raise UserError(
                f"--config.dataset.splits: {other} and {split} share {len(shared):,} examples, such as {shared[0]}. "
                "Give parts that do not overlap, such as train[:80%] and train[80%:]."
            )
        owners |= dict.fromkeys(examples.files, split)


@dataclass(frozen=True)
class _Records:
    """The records of a split, which stay on disk; only an image and its label are taken out of one.

    They are parsed as the protocol buffers that they are: TFDS's own parser takes fifteen times as long for MNIST, and
    decodes features that nobody asked for.
    """

    source: Any
    instruction: str
    image: str
    label: str

    def read(self, rows: Sequence[int]) -> list[tuple[bytes, int]]:
        """The encoded images and the labels of some records."""
        from tensorflow_datasets.proto import tf_example_pb2

        example: Any = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
        features = [example.FromString(one).features.feature for one in self.source.__getitems__(rows)]
        return [(one[self.image].bytes_list.value[0], one[self.label].int64_list.value[0]) for one in features]

    def pixels(self, row: int, channels: int) -> UInt8[np.ndarray, "height width channels"]:
        """The decoded image of a record."""
        return decode_image(self.read([row])[0][0], channels)


def _labels_and_digest(
    records: _Records, shards: Sequence[tuple[Path, range]], cache_dir: Path, screen: Screen
) -> tuple[Int32[np.ndarray, "examples"], bytes]:
    """The labels of a split, and a digest of its encoded images and labels: read once, then kept in the cache.

    As long as no file of the split has another path, size or time, it is taken to hold the same records.
    """
    states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file, _ in shards]
    parts = [(numbers.start, numbers.stop) for _, numbers in shards]
    key = json.dumps([INDEX_VERSION, records.image, records.label, states, parts])
    file, count = cache_dir / INDEX_FOLDER / digest(key.encode()).hex(), sum(len(numbers) for _, numbers in shards)
    content = kept_bytes(file, DIGEST_BYTES + 4 * count, lambda: _read_all(records, count, screen))
    return np.frombuffer(content, "<i4", offset=DIGEST_BYTES).astype(np.int32), content[:DIGEST_BYTES]


def _read_all(records: _Records, count: int, screen: Screen) -> bytes:
    """The digest of a split, and its labels as little-endian int32."""

    def labels_and_digests(start: int) -> tuple[list[int], bytes]:
        read = records.read(range(start, min(start + _RECORDS_PER_READ, count)))
        return [label for _, label in read], b"".join(digest(image) for image, _ in read)

    starts, title = range(0, count, _RECORDS_PER_READ), f"Reading {records.instruction}"
    found = list(map_in_order(labels_and_digests, starts, screen=screen, title=title, unit="blocks"))
    labels = np.array([label for some, _ in found for label in some], "<i4").tobytes()
    return digest(b"".join(images for _, images in found) + labels) + labels
