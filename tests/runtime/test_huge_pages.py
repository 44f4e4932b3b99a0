"""When the program restarts with huge pages, and that it does so only once."""

import os
import subprocess
import sys

import pytest

from vision_transfer.runtime.huge_pages import environment_with_huge_pages, without_huge_pages

ASK = "always [madvise] never"
RESTART = """
import os, sys
from vision_transfer.runtime.huge_pages import restart_with_huge_pages
print("started", flush=True)
restart_with_huge_pages()
print(os.getpid(), sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))
"""


@pytest.mark.parametrize(
    ("tunables", "glibc", "kernel", "expected"),
    [
        (None, (2, 36), ASK, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=3", (2, 35), ASK, "glibc.malloc.check=3:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", (2, 36), ASK, None),
        (None, (2, 34), ASK, None),
        (None, (), ASK, None),
        (None, (2, 36), "[always] madvise never", None),
        (None, (2, 36), "always madvise [never]", None),
        (None, (2, 36), "", None),
    ],
)
def test_huge_pages_are_requested_where_they_help_and_the_user_has_not_decided(tunables, glibc, kernel, expected):
    before = {"PATH": "/bin"} | ({} if tunables is None else {"GLIBC_TUNABLES": tunables})
    after = environment_with_huge_pages(before, glibc, kernel)
    assert after is None or without_huge_pages(after) == before
    assert after == (None if expected is None else {"PATH": "/bin", "GLIBC_TUNABLES": expected})


def test_the_same_process_restarts_with_its_arguments(tmp_path):
    script = tmp_path / "with space.py"
    script.write_text(RESTART)
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, str(script), "--flag=a b", "é"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=60)
    *started, last = out.splitlines()
    assert process.returncode == 0
    assert 1 <= len(started) <= 2
    assert last.startswith(f"{process.pid} ['--flag=a b', 'é']")
