"""One device and eight train alike: ragged batches, padding, batch statistics, penalties and dropout included."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vision_transfer.runtime.devices import padded_batch

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Arrays by name, by the way they were trained; the number of devices is set before JAX starts."""
    folder = tmp_path_factory.mktemp("devices")
    script = Path(__file__).with_name("on_eight_devices.py")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run(
        [sys.executable, script, folder], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return {file.stem: dict(np.load(file)) for file in folder.glob("*.npz")}


@pytest.mark.parametrize("name", ["eight", "eight_streamed"])
def test_eight_devices_train_as_one(outcomes, name):
    assert set(outcomes[name]) == set(outcomes["one"])
    for leaf, expected in outcomes["one"].items():
        np.testing.assert_allclose(outcomes[name][leaf], expected, atol=TOLERANCE, err_msg=leaf)


def test_rows_that_are_split_are_those_that_steps_ask_for(outcomes):
    split = outcomes["split"]
    np.testing.assert_array_equal(split["taken"], split["asked"])
    assert split["held"].max() == 2 * split["all"] / 11  # two of eleven examples


def test_split_rows_train_bit_for_bit_resumed(outcomes):
    """Also where the rows do not fit any more, and are sent in the order in which the stage began."""
    for name in ("resumed", "resumed_streamed"):
        for leaf, expected in outcomes["eight_split"].items():
            np.testing.assert_array_equal(outcomes[name][leaf], expected, err_msg=f"{name}: {leaf}")


def test_split_rows_train_as_the_same_batches_on_one_device(outcomes):
    """All but the first epoch and a half, which no single device can begin."""
    split, whole = outcomes["eight_split"], outcomes["eight"]
    for leaf, expected in split.items():
        np.testing.assert_allclose(outcomes["resumed_on_one"][leaf], expected, atol=TOLERANCE, err_msg=leaf)
    assert not np.array_equal(split["trainable.logits.kernel"], whole["trainable.logits.kernel"])
    np.testing.assert_allclose(split["validation_loss"], whole["validation_loss"], rtol=0.05)


def test_what_trained_has_moved_and_what_is_frozen_has_not(outcomes):
    one = outcomes["one"]
    assert np.abs(one["batch_stats.norm2.mean"]).min() > 10 * TOLERANCE
    np.testing.assert_array_equal(one["batch_stats.norm1.mean"], 0)
    np.testing.assert_array_equal(one["batch_stats.norm1.variance"], 1)
    assert np.abs(one["trainable.logits.bias"]).min() > 10 * TOLERANCE


@pytest.mark.parametrize("name", ["device", "host", "unaligned"])
def test_devices_of_a_cpu_share_what_is_only_read(outcomes, name):
    placements = outcomes["placements"]
    assert len(set(placements[f"{name}_addresses"].tolist())) == 1
    np.testing.assert_array_equal(placements[name], np.arange(1 << 16) + (name == "unaligned"))


def test_what_is_replicated_may_be_donated(outcomes):
    assert len(set(outcomes["placements"]["replicated_addresses"].tolist())) == 8


@pytest.mark.parametrize(("batch_size", "devices", "expected"), [(32, 8, 32), (33, 8, 40), (1, 8, 8), (7, 1, 7)])
def test_a_batch_is_padded_to_whole_rows_of_devices(batch_size, devices, expected):
    class FakeMesh:
        size = devices

    assert padded_batch(batch_size, FakeMesh) == expected
