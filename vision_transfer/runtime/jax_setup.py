"""Set-up of JAX before its first computation: XLA flags, CPU devices, the cache of compiled programs."""

import importlib.util
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import jax

from vision_transfer.errors import UserError
from vision_transfer.runtime.compilation import return_memory_after_compiling
from vision_transfer.runtime.huge_pages import without_huge_pages
from vision_transfer.runtime.program_cache import use_digests

COMPILED_FOLDER = "compiled"
# Programs that compile faster are not cached.
SHORTEST_COMPILATION_KEPT_SECONDS = 0.2
# So that each device gets at least four images of a typical batch of 32.
MOST_CPU_DEVICES = 8
# Files of TPUs: up to v4, and of later ones.
TPU_DEVICES = ("accel[0-9]*", "vfio/[0-9]*")
# A user who sets it has chosen the number of devices.
HOST_DEVICES_FLAG = "xla_force_host_platform_device_count"
# XLA then uses no operation that adds in a varying order, and chooses none by timing.
DETERMINISTIC_FLAG = "--xla_gpu_deterministic_ops=true"
# Orders operations so that the fewest bytes are alive. XLA's default runs more operations at once, but each core is
# busy already: the temporaries of a full VGG16 step of 16 images took 1,452 instead of 778 MB at the same speed.
# XLA ends the process at an unknown flag, so only tested versions of JAX get it.
CPU_SCHEDULER_FLAG = "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
OLDEST_WITH_SCHEDULER, FIRST_UNTRIED = (0, 10), (0, 13)


def configure(cache: Path, *, deterministic: bool = False) -> None:
    """Makes each CPU core a device and enables the cache of compiled programs; call it before JAX computes.

    Cores that are separate devices do not wait for each other between operations: VGG16's forward pass at 180 pixels
    took 58 to 63 ms per image on two devices, and 72 to 86 ms on one device with two threads. With `deterministic`
    (`config.deterministic`) GPUs use only operations that give the same bits every time.

    Raises:
        UserError: JAX has opened a GPU without this choice in this process; it reads flags once.
    """
    if deterministic and not is_deterministic() and _has_started() and jax.default_backend() != "cpu":
        raise UserError(
            "config.deterministic: got True, but JAX has already started in this process without it; start a new "
            "process (in a notebook: restart the kernel)"
        )
    if deterministic:
        _add_xla_flag(DETERMINISTIC_FLAG)
    if OLDEST_WITH_SCHEDULER <= jax.__version_info__[:2] < FIRST_UNTRIED:
        _add_xla_flag(CPU_SCHEDULER_FLAG)
    _leave_out_absent_tpus()
    if HOST_DEVICES_FLAG not in os.environ.get("XLA_FLAGS", ""):
        # In another program JAX may have computed already, and then keeps the devices that it has.
        with suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", cpu_devices())
    keep_programs(cache / COMPILED_FOLDER, SHORTEST_COMPILATION_KEPT_SECONDS)
    return_memory_after_compiling()


def keep_programs(folder: Path, shortest: float) -> None:
    """Makes JAX keep in a folder what it compiles in `shortest` seconds or more, and find it there."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # XLA's caches of its own parts would enter the folder's path into the key of each program, so that a cache that was
    # moved or copied would be of no use.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    use_digests()


def _leave_out_absent_tpus() -> None:
    """Keeps JAX from looking for TPUs where libtpu is installed and there are none: it prints errors, and waits.

    A user who sets `$JAX_PLATFORMS` has chosen.
    """
    if os.environ.get("JAX_PLATFORMS") or importlib.util.find_spec("libtpu") is None or has_tpus():
        return
    has_cuda = any(importlib.util.find_spec(name) for name in ("jax_cuda12_plugin", "jax_cuda13_plugin"))
    jax.config.update("jax_platforms", "cuda,cpu" if has_cuda and Path("/dev/nvidiactl").exists() else "cpu")


def has_tpus() -> bool:
    """Whether this machine has TPUs, by their files; asks no library."""
    return any(any(Path("/dev").glob(pattern)) for pattern in TPU_DEVICES)


def environment_of_others(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the settings this program made for itself, for processes of other libraries."""
    others = without_huge_pages(environment)
    own = (CPU_SCHEDULER_FLAG, DETERMINISTIC_FLAG)
    flags = [flag for flag in others.pop("XLA_FLAGS", "").split() if flag not in own]
    return others | ({"XLA_FLAGS": " ".join(flags)} if flags else {})


def _has_started() -> bool:
    """Whether JAX has opened its devices in this process."""
    devices: int = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    try:
        jax.config.update("jax_num_cpu_devices", devices + 1)  # which JAX refuses once it has started
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", devices)
    return False


def is_deterministic() -> bool:
    """Whether XLA may use only operations that give the same bits every time."""
    return DETERMINISTIC_FLAG in os.environ.get("XLA_FLAGS", "").split()


def _add_xla_flag(flag: str) -> None:
    """Adds a flag to `$XLA_FLAGS` unless the user has set it."""
    flags = os.environ.get("XLA_FLAGS", "")
    if flag.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = " ".join([*flags.split(), flag])


def cpu_devices() -> int:
    """The number of devices that `configure` makes of the cores of a CPU."""
    return min(cores(), MOST_CPU_DEVICES)


def cores() -> int:
    """The number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
