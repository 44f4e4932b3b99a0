"""A data set of TFDS, from `--mode=fetch` to the metrics of a run trained on a part of it."""

import json

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tests.end_to_end.conftest import SMALL
from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.summary_and_fetch import fetch

TRAIN, TEST = 60, 20


class TwoColours(tfds.core.GeneratorBasedBuilder):
    """Dark and bright images, which any network tells apart; TFDS finds it by name in this process."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"picture": tfds.features.Image(), "kind": tfds.features.ClassLabel(names=["dark", "bright"])}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("picture", "kind")
        )

    def _split_generators(self, _):
        return {"train": self._generate_examples(0, TRAIN), "test": self._generate_examples(1, TEST)}

    def _generate_examples(self, seed, count):
        for number, noise in enumerate(np.random.default_rng(seed).integers(0, 60, (count, 20, 20, 3))):
            kind = number % 2
            yield number, {"picture": Image.fromarray((noise + 150 * kind).astype(np.uint8)), "kind": kind}


def test_fetched_trained_on_a_part_and_evaluated(place, tmp_path):
    config = default_config()
    config.dataset.name = "tfds:two_colours"
    config.dataset.root = str(tmp_path / "tfds")
    config.model.backbone = "dense"
    config.model.weights = "random"
    with_stages(config, whole=stage(freeze="none"))
    fetch(checked(config), place.cache, Screen())
    # Another process, without the builder's code.
    flags = [f"--config.dataset.{name}={config.dataset[name]}" for name in ("name", "root")]
    parts = ["--config.dataset.splits.train=train[:70%]", "--config.dataset.splits.validation=train[70%:]"]
    quick = {"dataset.train_examples": 42, "model.backbone": "dense", "batch_size": 8, "stages.top.freeze": "all"}
    quick |= {"stages.whole.steps_per_epoch": 150, "checkpoint.every_seconds": 60}
    done = place.launch(
        SMALL,
        *flags,
        *parts,
        *(f"--config.{name}={value}" for name, value in quick.items()),
        f"--workdir={tmp_path / 'run'}",
    )
    done.assert_is_done()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["dataset"]["name"] == "two_colours/1.0.0"
    assert result["dataset"]["classes"] == ["dark", "bright"]
    assert result["dataset"]["sizes"] == {"train": 42, "validation": 18, "test": TEST}
    assert result["test"]["accuracy"] == 1
    evaluated = place.launch("--mode=evaluate", f"--workdir={tmp_path / 'run'}")
    evaluated.assert_is_done()
    assert "20 images" in evaluated.out
