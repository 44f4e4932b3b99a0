"""`launch.py` as users start it: in its own process, working directory and cache."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from tests.end_to_end.preloaded import LAUNCH, preloaded
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.manifest import write_result
from vision_transfer.runtime.jax_setup import COMPILED_FOLDER

CONFIGS = Path(__file__).parent / "configs"
SMALL = f"--config={CONFIGS / 'small.py'}"
# No test waits longer for a process, however busy the machine is; each busy process that a test starts adds to it.
PATIENCE_SECONDS = 300 * (1 + int(os.environ.get("VISION_TRANSFER_CHAOS_LOAD", "0")))
# The only fields that differ in a resumed run, because they are measured.
TIMES = ("seconds", "epoch_seconds", "step_ms", "memory")


@dataclass(frozen=True)
class Finished:
    """The exit status and the output of a process."""

    status: int
    out: str
    err: str

    def assert_is_message(self, *parts):
        """Asserts exit status 2, no traceback, and a message with these parts."""
        assert self.status == 2, self.out + self.err
        assert "Traceback" not in self.err + self.out
        assert self.err.startswith("launch.py: ")
        for part in parts:
            assert part in self.err, self.err

    def assert_is_done(self):
        assert self.status == 0, self.out + self.err


@dataclass(frozen=True)
class Place:
    """A working directory and a cache, and `launch.py` started there with 80 columns and no network needed."""

    cwd: Path
    cache: Path
    variables: dict = field(default_factory=dict)

    def environment(self):
        kept = {name: value for name, value in os.environ.items() if name != "VISION_TRANSFER_DATA"}
        own = {"VISION_TRANSFER_CACHE": str(self.cache), "COLUMNS": "80", "PYTHONUTF8": "1"}
        return kept | own | self.variables

    def start(self, *flags, prefix=()):
        """Starts the process; stdout and stderr go to files, because a full pipe would block it."""
        self.cwd.mkdir(parents=True, exist_ok=True)
        out = (self.cwd / "stdout.txt").open("w")
        err = (self.cwd / "stderr.txt").open("w")
        with out, err:
            command = [*prefix, sys.executable, str(LAUNCH), *map(str, flags)]
            return subprocess.Popen(
                command, cwd=self.cwd, env=self.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    def finish(self, process):
        try:
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
        return Finished(process.returncode, self.output("stdout.txt"), self.output("stderr.txt"))

    def output(self, name="stdout.txt"):
        return (self.cwd / name).read_text(encoding="utf-8")

    def launch(self, *flags, prefix=()):
        """Does a command in a fork; in a process of its own where a prefix or variables could change its start."""
        if prefix or self.variables:
            return self.finish(self.start(*flags, prefix=prefix))
        self.cwd.mkdir(parents=True, exist_ok=True)
        status = preloaded().run(flags, self.cwd, self.environment(), PATIENCE_SECONDS)
        return Finished(status, self.output("stdout.txt"), self.output("stderr.txt"))

    def launch_in_turn(self, *commands):
        """Does commands until one fails; their outputs are one after the other."""
        finished = []
        for flags in commands:
            finished.append(self.launch(*flags))
            if finished[-1].status:
                break
        return Finished(finished[-1].status, "".join(one.out for one in finished), "".join(one.err for one in finished))

    def wait_for(self, process, happened):
        """Waits until `happened()` is true; returns False if the process ends first."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            if process.poll() is not None:
                return False
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.005)
        return True


@dataclass(frozen=True)
class Run:
    """A run's folder, read as another tool would read it."""

    path: Path

    def result(self):
        return json.loads((self.path / "result.json").read_text(encoding="utf-8"))

    def numbers(self):
        """`result.json` without times, which differ from run to run."""

        def without_times(value):
            if isinstance(value, dict):
                return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
            return [without_times(inner) for inner in value] if isinstance(value, list) else value

        return without_times(self.result())

    def metrics(self):
        """The lines of `metrics.jsonl` as dictionaries."""
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    def identity(self, **changes):
        """Edits `identity.json`, as if the run had been made under other conditions."""
        file = self.path / "identity.json"
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")
        if (self.path / "result.json").exists():
            self.seal()

    def seal(self):
        """Writes the manifest of a finished run that was changed, as if the run had written its files so."""
        write_result(RunFolder(self.path), self.result()["digest"], self.result())

    def assert_nothing_left_behind(self):
        """Asserts that there are no temporary files and no locks held."""
        assert [str(path) for path in self.path.rglob("*.writing-*")] == []
        with FileLock(self.path / ".lock", timeout=0):
            pass


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory, programs):
    """One cache for all tests not about caching; compilation takes most of a small run's time."""
    cache = tmp_path_factory.mktemp("shared") / "Zwischen speicher é"
    cache.mkdir()
    (cache / COMPILED_FOLDER).symlink_to(programs)
    return cache


@pytest.fixture
def place(tmp_path, shared_cache):
    return Place(tmp_path / "work", shared_cache)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory, shared_cache):
    """An uninterrupted run of `small.py` in a path with spaces and letters outside ASCII: place, output and folder."""
    place = Place(tmp_path_factory.mktemp("small") / "Prüf lauf 実験", shared_cache)
    finished = place.launch(SMALL, "--workdir=mein Lauf é", "--config.log.report=True")
    finished.assert_is_done()
    return place, finished, Run(place.cwd / "mein Lauf é")


@pytest.fixture
def copied_run(small_run, place):
    """A copy of that run, for a test to damage, and a function that starts its command again."""
    run = Run(place.cwd / "copy")
    shutil.copytree(small_run[2].path, run.path)
    return run, lambda *flags: place.launch(SMALL, "--workdir=copy", *flags)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Noise images of two classes, bright and dark, in train, `valid` and test; one training file is broken."""
    root = tmp_path_factory.mktemp("images") / "my [own] images"
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("valid", 4), ("test", 5)):
        for name, lowest in (("bright", 128), ("dark", 0)):
            for number in range(count):
                pixels = random.integers(lowest, lowest + 128, (24, 30, 3), dtype=np.uint8)
                path = root / split / name / f"{name} {number}.{'png' if number % 2 else 'jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    (root / "train" / "dark" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    return root
