"""The highest memory so far, of this process and of its devices."""

import sys

import jax

try:
    import resource
except ImportError:  # there is none on Windows
    resource = None

# getrusage counts in kilobytes, but for macOS.
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def process_peak_bytes() -> int | None:
    """Largest resident memory of this process so far, or None where the system does not say."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT


def device_peak_bytes() -> int | None:
    """Largest memory in use on one of the local devices so far, or None where they do not say, as CPUs."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    known = [peak for peak in peaks if peak is not None]
    return max(known) if known else None
