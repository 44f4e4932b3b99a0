"""TFDS by name; reading needs tensorflow_datasets, preparing the data for it TensorFlow too."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError

installed = {name: importlib.util.find_spec(name) is not None for name in ("tensorflow_datasets", "tensorflow")}
needs_tfds = pytest.mark.skipif(not all(installed.values()), reason="needs tensorflow_datasets and tensorflow")

BUILDER = """
import numpy as np
import tensorflow_datasets as tfds

class {class_name}(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        label = tfds.features.ClassLabel(names=["cat", "dog"])
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({{"image": image, "label": label}}), supervised_keys=("image", "label")
        )

    def _split_generators(self, _):
        return {{"train": self._generate_examples(0, 20), "test": self._generate_examples(1, 6)}}

    def _generate_examples(self, seed, count):
        images = np.random.default_rng(seed).integers(0, 255, (count, 9, 7, 3), dtype=np.uint8)
        for number, image in enumerate(images):
            yield f"{{number:03d}}", {{"image": image, "label": number % 2}}
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a data set prepared for random access, and one prepared without."""
    folder = tmp_path_factory.mktemp("tfds")
    for name, class_name, file_format in (("tiny", "Tiny", "array_record"), ("serial", "Serial", "tfrecord")):
        (folder / "code" / name).mkdir(parents=True)
        (folder / "code" / name / "__init__.py").touch()
        (folder / "code" / name / f"{name}.py").write_text(BUILDER.format(class_name=class_name))
        script = (
            f"from {name}.{name} import {class_name}\n"
            f"{class_name}(data_dir={str(folder / 'data')!r}, file_format={file_format!r}).download_and_prepare()"
        )
        subprocess.run([sys.executable, "-c", script], cwd=folder / "code", check=True, capture_output=True)
    return folder / "data"


@pytest.mark.skipif(installed["tensorflow_datasets"], reason="tensorflow_datasets is installed")
def test_not_installed(tmp_path, screen):
    with pytest.raises(
        UserError, match=r"tfds:mnist needs TensorFlow Datasets.*pip install .*(tensorflow-datasets|tfds)"
    ):
        load_dataset(DatasetConfig(name="tfds:mnist"), cache_dir=tmp_path, screen=screen)


@needs_tfds
def test_examples_by_random_access(prepared, tmp_path, screen):
    request = DatasetConfig(name="tfds:tiny", root=prepared, image_size=7, resampling="nearest")
    dataset = load_dataset(request, cache_dir=tmp_path, screen=screen)
    assert dataset.name == "tiny/1.0.0"
    assert dataset.classes == ("cat", "dog")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (18, 2, 6)
    assert np.bincount(dataset.test.labels).tolist() == [3, 3]
    again = load_dataset(request, cache_dir=tmp_path, screen=screen)
    assert again.fingerprint == dataset.fingerprint
    # The order is TFDS's; the pixels are those that went in.
    images = np.random.default_rng(1).integers(0, 255, (6, 9, 7, 3), dtype=np.uint8)
    kept = np.floor((np.arange(7) + 0.5) * 9 / 7).astype(int)
    expected = {image[kept].tobytes() for image in images}
    assert {image.tobytes() for image in dataset.test.images} == expected


@needs_tfds
def test_without_random_access(prepared, tmp_path, screen):
    with pytest.raises(UserError, match=r"(?s)as tfrecord, which has no random access.*--file_format=array_record"):
        load_dataset(DatasetConfig(name="tfds:serial", root=prepared), cache_dir=tmp_path, screen=screen)


@needs_tfds
def test_not_prepared(prepared, tmp_path, screen):
    command = rf"tfds build mnist --data_dir={prepared} --file_format=array_record"
    with pytest.raises(UserError, match=rf"(?s)mnist is not prepared.*{command}"):
        load_dataset(DatasetConfig(name="tfds:mnist", root=prepared), cache_dir=tmp_path, screen=screen)


@needs_tfds
@pytest.mark.parametrize("name", ["no_such_data_set", "", "../x", "tiny:2.0.0"])
def test_unknown(prepared, tmp_path, screen, name):
    with pytest.raises(UserError, match=r"See https://www.tensorflow.org/datasets/catalog"):
        load_dataset(DatasetConfig(name=f"tfds:{name}", root=prepared), cache_dir=tmp_path, screen=screen)
