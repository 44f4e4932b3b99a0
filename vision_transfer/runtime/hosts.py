"""One run over many hosts: how they find each other, agree, and end together.

Each host is a process that was started with the same command. The first one, of rank 0, owns the run's folder; each
other one has a scratch folder, so that code that writes need not ask which host it is on. Numbers and results that all
need go through the devices (`runtime/devices.py`), words through the store of keys that JAX's coordinator, on the first
host, keeps. A thread on each host watches that store: it ends the process when another host has ended or is lost, so
that nothing waits for a host that is gone. Alone, a process is the first host of one, and every function here returns
at once.

The state of this module belongs to the process because JAX's does: one coordinator, one store of keys and one abort for
each process, and no way to ask for a second. Passing it as a value would only repeat it.
"""

# JAX types its store of keys and its functions on trees only in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false, reportMissingTypeStubs=false

import ctypes
import itertools
import json
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

from vision_transfer.errors import UserError, visible
from vision_transfer.runtime.preemption import leave
from vision_transfer.runtime.program import program_name

# EX_TEMPFAIL of sysexits.h: Slurm, Kubernetes and xpk can be told to start a run again that ends with it.
LOST_STATUS, USER_ERROR_STATUS = 75, 2
SECONDS_BETWEEN_TRIES = 0.5
# Seconds for all hosts to start; the variable is for clusters that start them slowly.
START_VARIABLE, START_SECONDS = "VISION_TRANSFER_HOSTS_SECONDS", 300
# Between two signs of life of a host, and how old the last one of a lost host is. JAX itself waits for 100 s, and then
# aborts the process.
BEAT_SECONDS, LOST_SECONDS = 2.0, 60.0
# So that the others hear of the end, and that none of them finds the coordinator gone before it has left.
HEARD_SECONDS, LAST_SECONDS = 5.0, 0.5
# A host waits this long for the others, which may decode or extract meanwhile; the watching thread ends it sooner.
LONGEST_WAIT_SECONDS = 7 * 24 * 3600
# What JAX's errors say where a collective operation has lost a host.
LOST_WORDS = ("UNAVAILABLE", "Gloo", "NCCL", "Connection reset", "Connection closed", "Socket closed", "heartbeat")
ENDED = "ended"
Item = TypeVar("Item")
Result = TypeVar("Result")
# Of barriers, which all hosts come to in the same order.
_numbers = itertools.count()
# This host has said why it ends, and needs no other's words.
_ending = threading.Event()


def start(text: str) -> None:
    """Joins the other hosts; call it before JAX computes.

    Args:
        text: `auto`, for what JAX finds in the variables of Slurm, Kubernetes, MPI or TPU pods; or
            `COORDINATOR:PORT,COUNT,RANK`.

    Raises:
        UserError: the text is neither, or the hosts do not find each other in time.
    """
    place = {} if text == "auto" else _place(text)
    # It would take SIGTERM from the program, which then could not save.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    given = os.environ.get(START_VARIABLE) or str(START_SECONDS)
    if not given.isdecimal():
        raise UserError(f"${START_VARIABLE}: got {given!r}; allowed is a whole number of seconds")
    seconds = int(given)
    _when_jax_aborts(lambda: _leave_unfound(_not_found(text, seconds, "JAX aborted this process")))
    try:
        if place.get("process_id"):
            _wait_for(str(place["coordinator_address"]), seconds)
        cast(Any, jax.distributed).initialize(
            **place, initialization_timeout=seconds, shutdown_timeout_seconds=int(HEARD_SECONDS)
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(_not_found(text, seconds, str(error).partition("\n")[0])) from error
    if not several():
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        return
    _when_jax_aborts(lambda: _leave_alone("JAX aborted this process"))
    threading.Thread(target=_watch, daemon=True).start()


def _not_found(text: str, seconds: int, reason: str) -> str:
    return (
        f"--hosts={text}: the hosts did not find each other within {seconds} s ({reason}). Start the same command "
        "on each of them, with the address of the first one, one count for all, and each rank from 0 once; the "
        f"port must be open. ${START_VARIABLE} sets another time limit in seconds"
    )


def _wait_for(coordinator: str, seconds: int) -> None:
    """Returns when something listens at an address; JAX itself would abort the process if nothing ever does.

    Raises:
        OSError: nothing listens there in time.
    """
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=BEAT_SECONDS).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(SECONDS_BETWEEN_TRIES)
        else:
            return


def _place(text: str) -> dict[str, Any]:
    parts = text.split(",")
    _, colon, port = parts[0].rpartition(":")
    if len(parts) != 3 or not colon or not all(part.isdecimal() for part in (port, *parts[1:])):
        raise UserError(f"--hosts={text}: expected auto, or COORDINATOR:PORT,COUNT,RANK such as 10.0.0.1:1234,4,0")
    count, rank = int(parts[1]), int(parts[2])
    if rank >= count:
        raise UserError(f"--hosts={text}: rank {rank} of {count} hosts; ranks are 0 to {count - 1}")
    return {
        "coordinator_address": parts[0],
        "num_processes": count,
        "process_id": rank,
        "cluster_detection_method": "deactivate",
    }


def rank_of(text: str) -> int:
    """This host's rank by the flag; nothing is started.

    Raises:
        UserError: it is no `COORDINATOR:PORT,COUNT,RANK`.
    """
    return _place(text)["process_id"]


def several() -> bool:
    """Whether this process is one of several hosts."""
    # `jax.process_count` would start JAX, alone, where it was not started before.
    return (_state().num_processes or 1) > 1


def is_first() -> bool:
    """Whether this host owns the run's folder."""
    return not several() or jax.process_index() == 0


def compare(topic: str, facts: Mapping[str, Any]) -> None:
    """Checks that all hosts have the same facts.

    Args:
        topic: names the facts in the message; used once.
        facts: JSON values by name.

    Raises:
        UserError: some differ; the message says which host has what.
    """
    if not several():
        return
    _client().key_value_set(f"{topic}/{jax.process_index()}", json.dumps(dict(facts)))
    by_host = [json.loads(_value(f"{topic}/{rank}")) for rank in range(jax.process_count())]
    lines: list[str] = []
    for name in sorted({name for found in by_host for name in found}):
        ranks: dict[str, list[int]] = {}
        for rank, found in enumerate(by_host):
            ranks.setdefault(json.dumps(found.get(name)), []).append(rank)
        if len(ranks) > 1:
            said = (f"host {', '.join(map(str, having))}: {value}" for value, having in ranks.items())
            lines.append(f"  {name}: {'; '.join(said)}")
    if lines:
        raise UserError(
            f"the hosts of this run differ in their {topic}:\n" + "\n".join(lines) + "\nGive all the same command, "
            "checkout, environment and data"
        )


def from_first(topic: str, value: Any) -> Any:
    """The first host's JSON value, on all hosts; a topic is used once."""
    if not several():
        return value
    if is_first():
        _client().key_value_set(f"{topic}/first", json.dumps(value))
    return json.loads(_value(f"{topic}/first"))


def tree_from_first(tree: Any) -> Any:
    """The first host's arrays, bit for bit, on all hosts; shapes and dtypes are equal on all."""
    if not several():
        return tree
    # as bytes, since hosts are summed, and -0.0 + 0.0 is 0.0
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf) for leaf in leaves]
    sent = multihost_utils.broadcast_one_to_all(
        [np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8) for array in arrays]
    )
    received = [
        np.frombuffer(np.asarray(one).tobytes(), array.dtype).reshape(array.shape).copy()
        for one, array in zip(sent, arrays, strict=True)
    ]
    return jax.tree.unflatten(structure, received)


def agreed(seconds: float, due: bool, received: int | None) -> tuple[float, bool, int | None]:
    """The values that all hosts go by after a dispatch, since clocks and signals differ.

    Returns:
        The first host's `seconds` and `due`, and the number of a signal that any host has received, or None.
    """
    if not several():
        return seconds, due, received
    found = multihost_utils.process_allgather(np.array([seconds, due, received or 0], np.float32))
    return float(found[0, 0]), bool(found[0, 1]), int(found[:, 2].max()) or None


def own_share(count: int) -> slice:
    """The items of `count` that fall to this host: every one whose number, divided by the hosts, leaves its rank."""
    return slice(jax.process_index(), count, jax.process_count())


def shared_out(items: Sequence[Item], compute: Callable[[Sequence[Item]], Iterator[Result]]) -> Iterator[Result]:
    """The result of each item, in order, on all hosts; `compute` yields one for each item of a host's share."""
    results = compute(items[own_share(len(items))])
    for _ in range(0, len(items), jax.process_count()):
        for found in _gathered(list(itertools.islice(results, 1))):
            yield from found


def _gathered(value: Any) -> list[Any]:
    """The values of all hosts, by rank, on all of them; they are sent between the devices as bytes."""
    if not several():
        return [value]
    own = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(own)], np.int32)).reshape(-1)
    # Each size is a program, so there should be few.
    padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)
    padded[: len(own)] = own
    received = multihost_utils.process_allgather(padded)
    return [pickle.loads(values[:size].tobytes()) for values, size in zip(np.asarray(received), sizes, strict=True)]


def barrier() -> None:
    """Waits until all hosts have come to this call."""
    if several():
        _client().wait_at_barrier(f"barrier {next(_numbers)}", 1000 * LONGEST_WAIT_SECONDS)


@contextmanager
def scratch_folder() -> Iterator[Path | None]:
    """A folder for what this host writes where the first one writes into the run's folder; None on the first host."""
    if is_first():
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="vision_transfer-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def finish() -> None:
    """Waits until all hosts are done, and ends this one; returns where there is only one."""
    if not several():
        return
    with suppress(JaxRuntimeError):
        _client().wait_at_barrier("done", 1000 * LONGEST_WAIT_SECONDS)
    _leave_after_the_others(0)


def end(status: int, message: str) -> None:
    """Tells the other hosts that this one ends, and waits until they have heard; they end with the same status."""
    if not several():
        return
    _ending.set()
    with suppress(JaxRuntimeError):  # another host was first
        _client().key_value_set(ENDED, json.dumps([jax.process_index(), status, message]))
    with suppress(JaxRuntimeError):
        _client().wait_at_barrier(ENDED, int(1000 * HEARD_SECONDS))
    if is_first():
        time.sleep(LAST_SECONDS)


def leave_if_lost(error: Exception) -> None:
    """Ends this process with `LOST_STATUS` if JAX's error is that another host is gone."""
    if several() and isinstance(error, JaxRuntimeError) and any(word in str(error) for word in LOST_WORDS):
        time.sleep(BEAT_SECONDS)  # the watching thread says more, if the host could still say why it ended
        _leave_alone(str(error).partition("\n")[0][:200])


def _state() -> Any:
    """JAX's own state, as there is no public name for the store of keys that its collectives of hosts use."""
    from jax._src.distributed import global_state

    return global_state


def _client() -> Any:
    return _state().client


def _value(key: str) -> str:
    return _client().blocking_key_value_get(key, 1000 * LONGEST_WAIT_SECONDS)


def _watch() -> None:
    """Ends this process when another host ends; on the first host, also finds hosts that show no sign of life."""
    client, own, count = _client(), jax.process_index(), jax.process_count()
    seen: dict[int, tuple[int, float]] = {rank: (0, time.monotonic()) for rank in range(1, count)}
    while True:
        try:
            rank, status, message = json.loads(client.blocking_key_value_get(ENDED, int(1000 * BEAT_SECONDS)))
        except JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                _leave_alone(str(error).partition("\n")[0][:200])
            client.key_value_increment(f"beat/{own}", 1)
            lost = _lost(client, seen) if own == 0 else None
            if lost is None:
                continue
            message, rank, status = f"no sign of life for {LOST_SECONDS:.0f} s", lost, LOST_STATUS
            client.key_value_set(ENDED, json.dumps([rank, status, message]))
        if rank == own or _ending.is_set():
            return
        # Without a message the host was asked to stop, as this one may have been.
        if message:
            _say(f"host {rank} ended this run: {message}")
        with suppress(JaxRuntimeError):
            client.wait_at_barrier(ENDED, int(1000 * HEARD_SECONDS))
        _leave_after_the_others(status)


def _lost(client: Any, seen: dict[int, tuple[int, float]]) -> int | None:
    """The rank of a host whose count of beats has not changed for too long, or None; notes the counts in `seen`."""
    now = time.monotonic()
    for key, text in client.key_value_dir_get("beat/"):
        rank = int(key.rpartition("/")[2])
        if rank in seen and seen[rank][0] != int(text):
            seen[rank] = int(text), now
    return next((rank for rank, (_, since) in seen.items() if now - since > LOST_SECONDS), None)


def _leave_after_the_others(status: int) -> None:
    if is_first():
        time.sleep(LAST_SECONDS)
    leave(status)


def _leave_alone(reason: str) -> None:
    _say(f"another host is gone ({reason}). Start the same command on all hosts again to resume")
    leave(LOST_STATUS)


def _leave_unfound(message: str) -> None:
    _say(message)
    leave(USER_ERROR_STATUS)


def _when_jax_aborts(leave_instead: Callable[[], None]) -> None:
    """Replaces JAX's abort, where the coordinator or the heartbeat of a host is gone, by another end of the process.

    JAX takes no Python function for this: a callback of its client ends in `std::bad_cast` (0.10).
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: leave_instead())
    _handlers.append(handler)
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)


# A handler that Python frees would be called all the same.
_handlers: list[Any] = []


def _say(message: str) -> None:
    sys.stderr.write(f"{program_name()}: {visible(message, keep=chr(10))}\n")
