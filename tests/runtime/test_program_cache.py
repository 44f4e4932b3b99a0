"""Compiled programs on disk: found again, also where the cache was copied to, and never used when damaged."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from vision_transfer.runtime.program_cache import ProgramCache

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from pathlib import Path
from vision_transfer.runtime import jax_setup
jax_setup.SHORTEST_COMPILATION_KEPT_SECONDS = 0.0
jax_setup.configure(Path(sys.argv[1]))
import jax, jax.monitoring
misses = []
jax.monitoring.register_event_listener(lambda event, **_: misses.append(event) if "cache_misses" in event else None)
print(float(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((8, 8)))), len(misses))
"""


def compiles(cache):
    """The result of a program, and how many programs were compiled."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(cache)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    value, misses = done.stdout.split()
    return float(value), int(misses)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    value, misses = compiles(folder)
    assert value == 512 and misses > 0
    return folder


def test_a_cache_is_of_use_in_another_place(cache, tmp_path):
    import shutil

    copy = shutil.copytree(cache, tmp_path / "another place")
    assert compiles(copy) == (512, 0)


def test_damaged_programs_are_compiled_again(cache):
    files = sorted((cache / "compiled").glob("*-cache"))
    for number, file in enumerate(files):
        content = bytearray(file.read_bytes())
        content[len(content) * (1 + number) // (2 + len(files))] ^= 1
        file.write_bytes(content if number else content[: len(content) // 2])
    assert compiles(cache) == (512, len(files))
    assert compiles(cache) == (512, 0)


@pytest.mark.parametrize("place", [0, 50, -1, -33, -40])
def test_every_byte_counts(tmp_path, place):
    programs = ProgramCache(tmp_path)
    assert programs.get("key") is None
    programs.put("key", bytes(range(100)))
    assert programs.get("key") == bytes(range(100))
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)
    assert programs.get("key") is None
    programs.put("key", b"again")
    assert programs.get("key") == b"again"


def test_the_installed_jax_takes_it():
    assert importlib.util.find_spec("jax._src.compilation_cache_interface") is not None
