"""TFDS by name and from folders, prepared here by a builder of our own; none of it needs TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest
import requests
from PIL import Image

from vision_transfer.config.schema import DatasetConfig, SplitsConfig
from vision_transfer.data.formats import tfds as tfds_format
from vision_transfer.data.formats.tfds import prepare_tfds
from vision_transfer.data.load import load_dataset
from vision_transfer.data.rows import will_need
from vision_transfer.errors import UserError

TRAIN, TEST = 40, 12


def random_images(seed, count):
    return np.random.default_rng(seed).integers(0, 255, (count, 9, 7, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def builders():
    """Builders that TFDS finds by name: `tiny_pets`, one without labels, one without images, one that fails."""
    import tensorflow_datasets as tfds

    class TinyPets(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        FEATURES = ("image", "label")

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
            features = {"image": image, "label": tfds.features.ClassLabel(names=["cat", "dog"]), "age": np.int64}
            kept = {name: features[name] for name in (*self.FEATURES, "age")}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(kept))

        def _split_generators(self, _):
            return {"train": self._generate_examples(0, TRAIN), "test": self._generate_examples(1, TEST)}

        def _generate_examples(self, seed, count):
            for number, image in enumerate(random_images(seed, count)):
                values = {"image": Image.fromarray(image), "label": number % 2, "age": number}
                yield f"{number:03d}", {name: values[name] for name in (*self.FEATURES, "age")}

    class NoLabels(TinyPets):
        FEATURES = ("image",)

    class NoImages(TinyPets):
        FEATURES = ("label",)

    class NeedsTensorflow(TinyPets):
        def _generate_examples(self, seed, count):
            raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
            yield

    class ByHand(TinyPets):
        MANUAL_DOWNLOAD_INSTRUCTIONS = "Register, and put pets.tar there."

        def _split_generators(self, downloads):
            return {"train": self._generate_examples(len(str(downloads.manual_dir)), TRAIN)}

    class Offline(TinyPets):
        def _split_generators(self, _):  # as TFDS's downloads do after minutes of trying
            raise requests.ConnectionError("no route to host")

    return TinyPets, NoLabels, NoImages, NeedsTensorflow, ByHand, Offline


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, builders):
    """A `data_dir` with `tiny_pets`, `no_labels` and `no_images`."""
    folder = tmp_path_factory.mktemp("tfds")
    for builder in builders[:3]:
        builder(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder


def load(tmp_path, screen, root, name="tfds:tiny_pets", decode="cache", **splits):
    config = DatasetConfig(
        name=name, root=str(root), image_size=7, resampling="nearest", splits=SplitsConfig(**splits), decode=decode
    )
    return load_dataset(config, cache_dir=tmp_path, screen=screen)


def test_examples_labels_and_names(prepared, tmp_path, screen):
    import tensorflow_datasets as tfds

    dataset = load(tmp_path, screen, prepared)
    assert dataset.name == "tiny_pets/1.0.0"
    assert dataset.classes == ("cat", "dog")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (36, 4, 12)
    # An independent reader: TFDS's own, which decodes all features.
    source = tfds.builder("tiny_pets", data_dir=str(prepared)).as_data_source(split="test")
    kept = np.floor((np.arange(7) + 0.5) * 9 / 7).astype(int)
    assert [image.tobytes() for image in dataset.test.images] == [one["image"][kept].tobytes() for one in source]
    assert dataset.test.labels.tolist() == [one["label"] for one in source]
    assert dataset.test.files == tuple(f"tiny_pets-test.array_record-00000-of-00001__{row}" for row in range(TEST))
    # The pixels are those that went in.
    assert {one["image"].tobytes() for one in source} == {image.tobytes() for image in random_images(1, TEST)}


def test_sub_splits_are_parts_of_a_split(prepared, tmp_path, screen):
    whole = load(tmp_path, screen, prepared, train="train", validation="test[:50%]", test="test[50%:]")
    parts = load(tmp_path, screen, prepared, train="train[:80%]", validation="train[80%:]")
    assert [len(split) for split in (whole.train, whole.validation, whole.test)] == [40, 6, 6]
    assert [len(split) for split in (parts.train, parts.validation, parts.test)] == [32, 8, 12]
    assert parts.train.files + parts.validation.files == whole.train.files
    np.testing.assert_array_equal(
        np.concatenate([parts.train.images, parts.validation.images]), np.asarray(whole.train.images)
    )
    assert parts.fingerprint != whole.fingerprint
    both = load(tmp_path, screen, prepared, train="train[:50%]+test[:4]", validation="train[50%:]", test="test[4:]")
    assert [len(split) for split in (both.train, both.validation, both.test)] == [24, 20, 8]


def test_records_are_decoded_when_they_are_used(prepared, tmp_path, screen):
    streamed = load(tmp_path, screen, prepared, decode="stream", train="train[:80%]", validation="train[80%:]")
    assert not list(tmp_path.rglob("images.npy"))
    cached = load(tmp_path, screen, prepared, train="train[:80%]", validation="train[80%:]")
    for one, other in ((streamed.train, cached.train), (streamed.validation, cached.validation)):
        will_need(one.images, np.arange(5))
        np.testing.assert_array_equal(one.images[np.arange(len(one))[::-1]], other.images[np.arange(len(one))[::-1]])
        np.testing.assert_array_equal(one.digests, other.digests)


def test_the_content_is_read_once(prepared, tmp_path, screen, monkeypatch):
    first = load(tmp_path, screen, prepared)
    calls = []
    monkeypatch.setattr(tfds_format, "_read_all", lambda *given: calls.append(given))
    assert load(tmp_path, screen, prepared).fingerprint == first.fingerprint
    assert calls == []


@pytest.mark.parametrize("damage", [lambda kept: kept[:-1], lambda kept: bytes([kept[0] ^ 1]) + kept[1:]])
def test_a_damaged_index_is_made_again(prepared, tmp_path, screen, damage):
    first = load(tmp_path, screen, prepared)
    for file in (tmp_path / "tfds").iterdir():
        file.write_bytes(damage(file.read_bytes()))
    assert load(tmp_path, screen, prepared).fingerprint == first.fingerprint


def test_a_prepared_folder_without_its_code(prepared, tmp_path, screen):
    by_name = load(tmp_path, screen, prepared)
    for folder in (prepared / "tiny_pets", prepared / "tiny_pets" / "1.0.0"):
        assert load(tmp_path, screen, folder, name="tfds").fingerprint == by_name.fingerprint
    with pytest.raises(UserError, match=r"holds 3 data sets; give one of .*tiny_pets/1\.0\.0"):
        load(tmp_path, screen, prepared, name="tfds")
    with pytest.raises(UserError, match=r"has no dataset_info\.json"):
        load(tmp_path, screen, tmp_path, name="tfds")


def test_reading_imports_no_tensorflow(prepared, tmp_path):
    script = (
        "import sys\nfrom rich.console import Console\n"
        "from pathlib import Path\n"
        "from vision_transfer.config.schema import DatasetConfig\n"
        "from vision_transfer.data.load import load_dataset\n"
        "from vision_transfer.runtime.console import Screen\n"
        f"config = DatasetConfig(name='tfds:tiny_pets', root={str(prepared)!r})\n"
        "screen = Screen(Console(quiet=True))\n"
        f"print(len(load_dataset(config, cache_dir=Path({str(tmp_path)!r}), screen=screen).train))\n"
        "print('tensorflow_datasets' in sys.modules, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "36\nTrue False\n", done.stderr


@pytest.mark.parametrize(
    ("name", "splits", "message"),
    [
        ("tfds:mnsit", {}, r"has no 'mnsit'; did you mean mnist"),
        ("tfds:tiny_pet", {}, r"did you mean tiny_pets"),
        ("tfds:qqqq", {}, r"has no 'qqqq'; https://www\.tensorflow\.org/datasets/catalog lists the names"),
        ("tfds:mnist:9.9.9", {}, r"cannot be loaded at version 9\.9\.9, only: 3\.0\.1"),
        ("tfds:", {}, r"(?s)catalog"),
        ("tfds:own/pets.py", {}, r"own builders are code that is not run here"),
        (
            "tfds:mnist",
            {},
            r"(?s)is not prepared.*--mode=fetch --config\.dataset\.name=tfds:mnist --config\.dataset\.root",
        ),
        ("tfds:no_labels", {}, r"has no ClassLabel among its features \(image, age\)"),
        ("tfds:no_images", {}, r"has no Image among its features \(label, age\)"),
        ("tfds:tiny_pets", {"train": "trian"}, r"splits\.train=trian: Unknown split 'trian'.*It has .*train"),
        ("tfds:tiny_pets", {"test": "test[:x]"}, r"splits\.test=test\[:x\]: Error parsing"),
        ("tfds:tiny_pets", {"train": "train[5:2]"}, r"splits\.train=train\[5:2\]: has no examples"),
        ("tfds:tiny_pets", {"train": "train+train"}, r"array_record-00000-of-00001__0 2 times"),
        ("tfds:tiny_pets", {"validation": "train[90%:]"}, r"train and validation share 4 examples, such as tiny_pets-"),
    ],
)
def test_what_is_wrong_and_what_to_do(prepared, tmp_path, screen, name, splits, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, screen, prepared, name, **splits)


def test_without_random_access(builders, tmp_path, screen, monkeypatch):
    builders[0](data_dir=str(tmp_path / "data"), file_format="array_record").download_and_prepare()
    info = tmp_path / "data" / "tiny_pets" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    config = DatasetConfig(name="tfds:tiny_pets", root=str(tmp_path / "data"))
    for use in (lambda: load(tmp_path, screen, tmp_path / "data"), lambda: prepare_tfds(config, screen)):
        with pytest.raises(UserError, match=r"(?s)as tfrecord, which has no random access.*--mode=fetch"):
            use()


def test_fetch_prepares_once(builders, tmp_path, screen):
    config = DatasetConfig(name="tfds:tiny_pets", root=str(tmp_path / "data"))
    for text in ("Preparing tiny_pets/1.0.0", "tfds:tiny_pets is already in"):
        assert prepare_tfds(config, screen) == tmp_path / "data" / "tiny_pets" / "1.0.0"
        assert text in screen.console.file.getvalue()
    assert len(load(tmp_path, screen, tmp_path / "data").test) == TEST


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needs_tensorflow", r"preparing it needs TensorFlow, once \(reading it does not\): pip install "),
        ("by_hand", r"(?s)must be downloaded by hand.*Register, and put pets\.tar there"),
        ("offline", r"could not be downloaded \(.*run the same command again, with a network"),
    ],
)
def test_what_cannot_be_prepared(builders, tmp_path, screen, name, message):
    with pytest.raises(UserError, match=message):
        prepare_tfds(DatasetConfig(name=f"tfds:{name}", root=str(tmp_path)), screen)
