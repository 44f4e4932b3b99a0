"""The energy counter against a library of two GPUs that counts what the test says."""

import ctypes

import pytest

from vision_transfer.tasks.benchmark.ours import VISIBLE, EnergyCounter

MILLIJOULES = {0: 1500, 1: 40_000}


class Nvml:
    """Gives handles by number or UUID, and the millijoules of each; 1 is NVML's way to say that something failed."""

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number, handle):
        handle._obj.value = number.value + 1
        return 0

    def nvmlDeviceGetHandleByUUID(self, name, handle):
        handle._obj.value = {b"GPU-one": 2}.get(name)
        return int(handle._obj.value is None)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, counted):
        counted._obj.value = MILLIJOULES.get(handle.value - 1, 0)
        return int(handle.value - 1 not in MILLIJOULES)


@pytest.mark.parametrize(
    ("visible", "devices", "joules"),
    [(None, 1, 1.5), (None, 2, 41.5), ("1", 1, 40.0), ("GPU-one", 1, 40.0), ("GPU-other", 1, None), ("7", 1, None)],
)
def test_the_gpus_that_this_process_sees_are_summed(monkeypatch, visible, devices, joules):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Nvml())
    monkeypatch.delenv(VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    assert EnergyCounter(devices).joules() == joules


def test_without_a_driver_there_is_no_number(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert EnergyCounter(1).joules() is None
