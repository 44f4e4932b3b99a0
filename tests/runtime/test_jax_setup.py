"""Settings made before JAX starts."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from vision_transfer.errors import UserError
from vision_transfer.runtime import jax_setup

SCRIPT = """
import os, sys
from pathlib import Path
from vision_transfer.runtime import jax_setup
jax_setup.configure(Path(sys.argv[1]), deterministic=sys.argv[2] == "True")
import jax.numpy
# XLA ends the process at an unknown flag.
print(float(jax.numpy.ones(3).sum()), os.environ.get("XLA_FLAGS", ""))
"""


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_deterministic_switch_reaches_xla_and_keeps_other_flags(tmp_path, deterministic):
    given = "--xla_cpu_enable_fast_math=false"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(deterministic)],
        env={**os.environ, "XLA_FLAGS": given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"3.0 {given}")
    assert (jax_setup.DETERMINISTIC_FLAG in done.stdout) == deterministic


def test_the_deterministic_switch_is_refused_once_jax_has_started(tmp_path, monkeypatch):
    """As in a notebook on a GPU: the run, and the key of its features, would claim what is not so.

    The other way round, the key says what is so: the flag stays, perhaps the user's own.
    """
    jax.devices()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.raises(UserError, match=r"config\.deterministic: got True, .*start a new process"):
        jax_setup.configure(tmp_path, deterministic=True)
    monkeypatch.setenv("XLA_FLAGS", jax_setup.DETERMINISTIC_FLAG)
    jax_setup.configure(tmp_path)
    assert jax_setup.is_deterministic()


@pytest.mark.skipif(jax_setup.has_tpus() or Path("/dev/nvidiactl").exists(), reason="has TPUs or GPUs")
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_an_installed_libtpu_is_not_loaded_without_tpus(tmp_path):
    (tmp_path / "libtpu.py").write_text("def get_library_path(): return '/nowhere/libtpu.so'\n")
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    platforms = []
    for paths in (sys.path, [str(tmp_path), *sys.path]):
        done = subprocess.run(
            [sys.executable, "-c", f"{SCRIPT}\nprint(jax.config.jax_platforms)", str(tmp_path), "False"],
            env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        platforms.append(done.stdout.splitlines()[-1])
    assert platforms == ["None", "cpu"]


def test_processes_of_other_libraries_see_only_what_the_user_set():
    own = f"--xla_a=1 {jax_setup.CPU_SCHEDULER_FLAG} {jax_setup.DETERMINISTIC_FLAG}"
    tunables = "glibc.malloc.check=3:glibc.malloc.hugetlb=1"
    seen = jax_setup.environment_of_others({"XLA_FLAGS": own, "GLIBC_TUNABLES": tunables, "PATH": "/bin"})
    assert seen == {"XLA_FLAGS": "--xla_a=1", "GLIBC_TUNABLES": "glibc.malloc.check=3", "PATH": "/bin"}
    alone = {"XLA_FLAGS": jax_setup.CPU_SCHEDULER_FLAG, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert jax_setup.environment_of_others(alone) == {}
