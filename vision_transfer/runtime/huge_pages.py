"""Restarts the program with huge memory pages on systems that provide them only on request.

A training step on a CPU allocates and frees buffers of megabytes all the time; with pages of 4 kB the kernel spends
much of the step on mapping them (4.4 of 6 ms an image in VGG16's first layer). Glibc can request pages of 2 MB, but
reads that setting only when a process starts. On 2 cores a step of the 150-pixel convnet took 0.72 of Keras's time with
huge pages and 0.88 without (`configs/benchmark.py` with `--config.benchmark.peers=keras`, medians).
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.hugetlb"
# 1 requests transparent huge pages; 2 would take them from a reserve that few systems have.
TRANSPARENT = f"{TUNABLE}=1"
# The first glibc with this setting.
OLDEST_GLIBC = (2, 35)
KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Replaces this process by the same command with huge pages; returns if that would change nothing."""
    environment = environment_with_huge_pages(os.environ, _glibc_version(), _kernel_setting())
    if environment is not None and sys.orig_argv:
        os.execve(sys.executable, sys.orig_argv, environment)


def environment_with_huge_pages(
    environment: Mapping[str, str], glibc: tuple[int, ...], kernel_setting: str
) -> dict[str, str] | None:
    """The environment that requests huge pages, or None if it already does or requesting them is of no use.

    The version `glibc` is empty for another C library; `kernel_setting` is such as `always [madvise] never`.
    """
    tunables = environment.get(VARIABLE, "")
    if TUNABLE in tunables or "[madvise]" not in kernel_setting or glibc < OLDEST_GLIBC:
        return None
    return {**environment, VARIABLE: ":".join(filter(None, [tunables, TRANSPARENT]))}


def without_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """Undoes `environment_with_huge_pages`."""
    before = dict(environment)
    tunables = [tunable for tunable in before.pop(VARIABLE, "").split(":") if tunable not in ("", TRANSPARENT)]
    return before | ({VARIABLE: ":".join(tunables)} if tunables else {})


def _glibc_version() -> tuple[int, ...]:
    """Such as (2, 36), or () if the C library is not glibc or does not report its version."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(map(int, version.split("."))) if name == "glibc" else ()
    except (AttributeError, ValueError, OSError):
        return ()


def _kernel_setting() -> str:
    try:
        return KERNEL_SETTING.read_text(encoding="ascii")
    except OSError:
        return ""
