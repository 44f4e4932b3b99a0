"""Starting the program again with memory in huge pages, where the system gives them only to those who ask.

A training step on a CPU takes and returns buffers of megabytes all the time; in pages of 4 kB the kernel spends much of
the step on handing them out. Glibc asks for pages of 2 MB by a setting that is read before a process begins. On 2 cores
a step of the 150-pixel convnet took 0.72 of Keras's time with it and 0.88 without (`configs/benchmark.py` with
`--config.benchmark.peers=keras`, medians).
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.hugetlb"
# Ask for transparent huge pages (2 would take them from a reserve that few systems have).
TRANSPARENT = f"{TUNABLE}=1"
# The first glibc that knows the setting.
OLDEST_GLIBC = (2, 35)
KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Replaces this process by the same command with huge pages; returns where that would change nothing."""
    environment = environment_with_huge_pages(os.environ, _glibc_version(), _kernel_setting())
    if environment is not None and sys.orig_argv:
        os.execve(sys.executable, sys.orig_argv, environment)


def environment_with_huge_pages(
    environment: Mapping[str, str], glibc: tuple[int, ...], kernel_setting: str
) -> dict[str, str] | None:
    """The environment that asks for huge pages, or None where it already does or asking is of no use.

    Args:
        environment: variables of the process.
        glibc: version of the C library; empty for another one.
        kernel_setting: what the kernel says of transparent huge pages: `always [madvise] never`.
    """
    tunables = environment.get(VARIABLE, "")
    if TUNABLE in tunables or "[madvise]" not in kernel_setting or glibc < OLDEST_GLIBC:
        return None
    return {**environment, VARIABLE: ":".join(filter(None, [tunables, TRANSPARENT]))}


def without_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment before `environment_with_huge_pages`."""
    before = dict(environment)
    tunables = [tunable for tunable in before.pop(VARIABLE, "").split(":") if tunable not in ("", TRANSPARENT)]
    return before | ({VARIABLE: ":".join(tunables)} if tunables else {})


def _glibc_version() -> tuple[int, ...]:
    """(2, 36), or () where the C library is another or does not say."""
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
