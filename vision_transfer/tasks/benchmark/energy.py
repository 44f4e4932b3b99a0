"""Energy that NVIDIA GPUs have used, from the driver's own library (NVML), which is there wherever the driver is.

Source: NVML API reference, `nvmlDeviceGetTotalEnergyConsumption`: millijoules since the driver was loaded, of Volta and
later. The counter is that of the whole board, whoever uses it.
"""

import ctypes
import os

LIBRARY = "libnvidia-ml.so.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"
MILLI = 1e-3


class EnergyCounter:
    """The counters of the GPUs that this process sees; without any, it reads None."""

    def __init__(self, devices: int) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError:
            self._handles: list[ctypes.c_void_p] = []
            return
        names = [name for name in os.environ.get(VISIBLE, "").split(",") if name] or list(map(str, range(devices)))
        self._handles = []
        if self._library.nvmlInit_v2() == 0:
            self._handles = [handle for name in names[:devices] if (handle := self._handle(name)) is not None]

    def joules(self) -> float | None:
        """The sum over the GPUs, or None where a counter cannot be read; only differences mean something."""
        total = 0
        for handle in self._handles:
            millijoules = ctypes.c_ulonglong()
            if self._library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
                return None
            total += millijoules.value
        return total * MILLI if self._handles else None

    def _handle(self, name: str) -> ctypes.c_void_p | None:
        """Of a GPU by its number or its UUID, as `$CUDA_VISIBLE_DEVICES` has them."""
        handle = ctypes.c_void_p()
        if name.isdecimal():
            failed = self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
        else:
            failed = self._library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        return None if failed else handle
