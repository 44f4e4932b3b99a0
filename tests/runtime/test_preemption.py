"""Signals: noted by the handler, obeyed at safe points, and enforced where there are none."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.preemption import Stopped, StopSignal

ROOT = Path(__file__).resolve().parents[2]
STARTS = """
import gc, os, sys, time
from vision_transfer.runtime import preemption
stop = preemption.StopSignal()
stop.install()
"""


def python(body, *, after="ready", number=signal.SIGTERM, times=1):
    """Runs code in a process, sends it a signal when it says that it is ready; status, output and seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS + body], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == f"{after}\n"
        began = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.3 if times > 1 else 0)
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err, time.monotonic() - began


@pytest.fixture
def asked():
    stop = StopSignal()
    stop.received = signal.SIGTERM
    return stop


@pytest.mark.parametrize("act", [lambda screen: screen.say("x"), lambda screen: screen.silent().say("x")])
def test_a_line_is_a_safe_point(asked, act):
    with pytest.raises(Stopped):
        act(Screen(check=asked.check))


def test_a_step_of_a_bar_is_a_safe_point(asked, screen):
    with Screen(screen.console, asked.check).bar("x", 3) as advance, pytest.raises(Stopped):
        advance(1)


def test_it_is_raised_once(asked):
    with pytest.raises(Stopped):
        asked.check()
    asked.check()


def test_it_waits_for_the_end_of_what_is_deferred(asked):
    with pytest.raises(Stopped) as stopped, asked.deferred():
        asked.check()
    assert stopped.value.status == 143


def test_the_handler_never_raises():
    """Raised inside a callback of the garbage collector, it was printed and swallowed."""
    status, out, err, _ = python(
        "gc.callbacks.append(lambda phase, info: [None for _ in range(20000)])\n"
        "print('ready', flush=True)\n"
        "while stop.received is None: gc.collect()\n"
        "try: stop.check()\n"
        "except preemption.Stopped as stopped: print('at a safe point', flush=True); preemption.leave(stopped.status)\n"
    )
    assert (status, out, err) == (143, "at a safe point\n", "")


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_wait_without_a_safe_point_is_ended(number, expected):
    status, out, err, seconds = python(
        "import threading\nprint('ready', flush=True)\nthreading.Lock().acquire() and threading.Event().wait(600)\n",
        number=number,
    )
    assert (status, err) == (expected, "")
    assert out.startswith("Stopped. ") and seconds < 10


def test_a_second_signal_ends_what_is_deferred():
    status, _, _, seconds = python(
        "with stop.deferred():\n    print('ready', flush=True)\n    time.sleep(600)\n", times=2
    )
    assert status == 143 and seconds < 8


@pytest.mark.parametrize("times", [1, 2])
def test_a_reader_that_stopped_reading_does_not_keep_the_process(times):
    """The main thread holds the stream's lock while it waits, and the thread that ends the process writes, too."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS + "print('ready', flush=True)\nwhile True: print('x' * 1000)\n"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )
    with process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(1)  # until the pipe is full
        for _ in range(times):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        try:
            assert process.wait(timeout=10) == 143
        finally:
            process.kill()


def test_devices_that_compute_do_not_delay_the_end():
    status, out, err, seconds = python(
        "import jax, jax.numpy as jnp\n"
        "step = jax.jit(lambda x: jax.lax.fori_loop(0, 3000, lambda _, y: jnp.tanh(y @ y), x))\n"
        "kept = [step(jnp.ones((700, 700)) * number) for number in range(4)]\n"
        "print('ready', flush=True)\n"
        "while stop.received is None: time.sleep(0.01)\n"
        "preemption.leave(143)\n"
    )
    assert (status, out, err) == (143, "", "") and seconds < 10


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed in /proc")
def test_children_end_with_it():
    """And not before it, which would look like a failure: it went on, and ended with another status."""
    status, _, err, _ = python(
        "import subprocess, threading\n"
        "for _ in range(300): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, file=sys.stderr, flush=True)\nprint('ready', flush=True)\nchild.wait()\n"
    )
    assert status == 143
    child = int(err)
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_before_it_is_installed_a_signal_ends_the_process_with_its_status():
    code = (
        "from vision_transfer.runtime.preemption import leave_when_asked\nleave_when_asked()\n"
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 143
