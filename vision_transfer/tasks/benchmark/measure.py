"""Measures cases, ours alone or in turns with peers; each worker is a process of its own.

Of a benchmark's cases, each record is kept at once, and the same command continues.
"""

import base64
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.models.network import all_parameter_shapes
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.files import absolute_path
from vision_transfer.tasks.benchmark.cases import Case, peer_request, small_convnet_step
from vision_transfer.tasks.benchmark.roofline import CASE, case_key, roofline, with_doubts
from vision_transfer.tasks.benchmark.worker import Worker, spread, take_turns, worker
from vision_transfer.tasks.export.inference_network import PlainNetwork, plain_network
from vision_transfer.tasks.export.keras_layers import keras_layers
from vision_transfer.tasks.export.onnx_graph import onnx_model

OURS = "ours"
MODULES = "vision_transfer.tasks.benchmark"
# Peers that run our export and cannot train.
INFERENCE_ONLY = frozenset({"onnxruntime"})
# Several processes on one GPU: none takes memory that it does not use (by default JAX takes three quarters of it all).
SHARED_DEVICE = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
SECONDS_PER_MINUTE = 60
Record = dict[str, Any]


def measure_case(
    config: Config, case: Case, cache: Path, trace: Path | None, earlier: Sequence[Record], hosts: str | None
) -> Record:
    """The record of a case; `status` is "measured", or "out of memory" with a `reason`.

    The devices' peaks and the input path are taken from the `earlier` records, and measured after the case where these
    have none of its kind. A profiler trace and the HLO go into the folder `trace`, if given. `hosts` is the flag of the
    first one, where the devices of several do the case together.

    Raises:
        UserError: the process that measures failed.
    """
    facts: Record = {**case.facts, "seconds": None}
    measured = [record for record in earlier if record["status"] == "measured"]
    peak = next((record["peak"] for record in measured if record["precision"] == facts["precision"]), None)
    feed = next((record["feed"] for record in measured if _fed_key(record) == _fed_key(facts)), None)
    with our_worker(
        config, case, cache, trace, measure_peak=peak is None, measure_feed=feed is None, hosts=hosts
    ) as ours:
        if "out_of_memory" in ours.facts:
            return {**facts, "status": "out of memory", "reason": ours.facts["out_of_memory"]}
        seconds = _in_turns(config, {OURS: ours})[OURS]
        last = ours.end()
    times, peak = spread(seconds), peak or last["peak"]
    assert peak is not None
    # a CPU's compiler does not see into our kernels
    moved = ours.facts["compiler"]["bytes"] * ours.facts["devices"] or facts["table"]["bytes"]
    return {
        **facts,
        **ours.facts,
        **last,
        "status": "measured",
        "seconds": times,
        "repeats": seconds,
        "images_per_second": case.batch / times["median"],
        "mfu": facts["table"]["flops"] / times["median"] / peak["flops"],
        "bandwidth_share": moved / times["median"] / peak["bandwidth"],
        "peak": peak,
        "feed": feed or last["feed"],
        "roofline": roofline(facts["table"]["flops"], moved, peak),
        "trace": None if trace is None else str(trace),
    }


def measure_input_path(config: Config, root: str, cache: Path) -> dict[str, Any]:
    """Images per second of decoding and of feeding the folder `root`, and those of the small convnet's step."""
    step = small_convnet_step(config)
    with our_worker(config, step, cache) as ours:
        seconds = _in_turns(config, {OURS: ours})[OURS]
    height, _, channels = step.network.input_shape
    request = {
        "root": absolute_path(root),
        "size": height,
        "channels": channels,
        "batch": step.batch,
        "repeats": config.benchmark.repeats,
        "cache": str(cache),
    }
    with worker("the input path", f"{MODULES}.input_path", request) as input_path:
        rates = input_path.facts
    return {"step": {"name": step.name, "images_per_second": step.batch / spread(seconds)["median"]}, **rates}


def compare(
    config: Config, cases: list[Case], peers: tuple[str, ...], python: str, cache: Path, screen: Screen
) -> list[dict[str, Any]]:
    """A record per case: seconds and peak memory of each library, and ratios ours / peer.

    A ratio of times is that of the medians; its quartiles are those of the ratios within each repeat. Peers that cannot
    train are left out of steps.
    """
    records = []
    with screen.bar("Comparing", len(cases), "cases") as advance:
        for case in cases:
            able = [peer for peer in peers if case.work == "forward" or peer not in INFERENCE_ONLY]
            with ExitStack() as running:
                workers = {OURS: running.enter_context(our_worker(config, case, cache, variables=SHARED_DEVICE))}
                request = peer_request(case)
                if any(peer.startswith("keras") for peer in able):
                    request["keras_layers"] = layers_for_keras(case)
                if INFERENCE_ONLY.intersection(able):
                    request["model"] = str(_exported(case, Path(running.enter_context(TemporaryDirectory()))))
                for peer in able:
                    library, _, variant = peer.partition("_")
                    module, asked = f"{MODULES}.peers.{library}_peer", {**request, "variant": variant}
                    other = worker(f"{case.name} in {peer}", module, asked, python, SHARED_DEVICE)
                    workers[peer] = running.enter_context(other)
                workers = {name: one for name, one in workers.items() if "out_of_memory" not in one.facts}
                if OURS not in workers:
                    raise UserError(f"{case.name}: needs more memory than the device has; give a smaller batch_size")
                seconds = _in_turns(config, workers)
                last = {name: one.end() for name, one in workers.items()}
            libraries = {
                name: {**one.facts, **last[name], "seconds": spread(seconds[name])} for name, one in workers.items()
            }
            ratios = {peer: _ratio(libraries, seconds, peer) for peer in able if peer in libraries}
            records.append({**case.facts, "libraries": libraries, "ratios": ratios})
            advance(1, case.name)
    return [_with_ratios_to_images(record, records) for record in records]


def layers_for_keras(case: Case) -> list[dict[str, Any]]:
    """The layers that run as our export describes them, up to the logits, as JSON values: class, config and inputs.

    Raises:
        UserError: a layer that Keras cannot express.
    """
    shapes: dict[str, Any] = all_parameter_shapes(case.network)
    plain = PlainNetwork(
        input_shape=case.input_shape,
        scale=np.ones(1, np.float32),
        offset=np.zeros(1, np.float32),
        rows=case.network.rows[case.first :],
        # Keras draws its own weights, so that shapes stand for them
        params=shapes,
        batch_stats={layer: {"mean": (), "variance": ()} for layer in shapes},
        class_kernel=np.eye(1, dtype=np.float32),
        classes=(),
    )
    return [
        {"class_name": layer.class_name, "config": layer.config, "inputs": [tensor.name for tensor in layer.inputs]}
        for layer in keras_layers(plain)[:-1]
    ]


def _exported(case: Case, folder: Path) -> Path:
    """An ONNX file of the case's network with random weights, drawn without a device."""
    rng, shapes = np.random.default_rng(0), all_parameter_shapes(case.network)
    params = {
        layer: {name: rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape) for name, shape in parameters.items()}
        for layer, parameters in shapes.items()
    }
    norms = {layer: parameters["scale"] for layer, parameters in shapes.items() if "scale" in parameters}
    batch_stats = {layer: {"mean": np.zeros(shape), "variance": np.ones(shape)} for layer, shape in norms.items()}
    classes = [str(number) for number in range(max(2, case.network.outputs))]
    file = folder / "model.onnx"
    plain = plain_network(case.network, {"params": params, "batch_stats": batch_stats}, 1.0, classes)
    file.write_bytes(onnx_model(plain))
    return file


def our_worker(
    config: Config,
    case: Case,
    cache: Path,
    trace: Path | None = None,
    *,
    measure_peak: bool = False,
    measure_feed: bool = False,
    variables: Mapping[str, str] | None = None,
    hosts: str | None = None,
) -> AbstractContextManager[Worker]:
    """A worker that runs a case of this package; see `ours`."""
    request = {
        **_any_request(config, cache, hosts),
        "case": base64.b64encode(pickle.dumps(case)).decode(),
        "trace": None if trace is None else str(trace),
        "measure_peak": measure_peak,
        "measure_feed": measure_feed,
    }
    return worker(case.name, f"{MODULES}.ours", request, variables=variables)


def _any_request(config: Config, cache: Path, hosts: str | None) -> dict[str, Any]:
    return {"hosts": hosts, "case": None, "cache": str(cache), "deterministic": config.deterministic}


def follow(config: Config, cache: Path, hosts: str) -> None:
    """Does on another host the cases that the first host measures, until that says that none is left.

    Raises:
        UserError: two workers one after the other failed, such as because the first host is gone.
    """
    failed = False
    while True:
        try:
            with worker("the first host's case", f"{MODULES}.ours", _any_request(config, cache, hosts)) as ours:
                if "out_of_memory" not in ours.facts:
                    ours.run(1)
                    ours.end()
                if "is_over" in ours.facts:
                    return
            failed = False
        except UserError:
            if failed:
                raise
            failed = True


def dismiss(config: Config, cache: Path, hosts: str) -> None:
    """Tells the hosts that follow that no case is left."""
    with worker("the end", f"{MODULES}.ours", _any_request(config, cache, hosts)) as ours:
        ours.end()


def _in_turns(config: Config, workers: dict[str, Worker]) -> dict[str, list[float]]:
    return take_turns(workers, config.benchmark.repeats, config.benchmark.seconds_per_repeat)


def _ratio(libraries: dict[str, dict[str, Any]], seconds: dict[str, list[float]], peer: str) -> dict[str, Any]:
    own, other = libraries[OURS], libraries[peer]
    pairs = spread([ours / theirs for ours, theirs in zip(seconds[OURS], seconds[peer], strict=True)])
    return {
        "time": own["seconds"]["median"] / other["seconds"]["median"],
        "time_quartiles": [pairs["first_quartile"], pairs["third_quartile"]],
        "peak_memory": _memory(own, other) / _memory(other, own),
    }


def _memory(library: dict[str, Any], other: dict[str, Any]) -> float:
    """Peak memory of the device where both libraries tell it, otherwise of the process."""
    on_device = library.get("device_memory_bytes") and other.get("device_memory_bytes")
    return library["device_memory_bytes" if on_device else "peak_memory_bytes"]


def _with_ratios_to_images(record: dict[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    """A record from cached features with ratios to the peers' step from images, which is what they run uncached."""
    same = ("work", "freeze", "batch")
    from_images = [
        other for other in records if other["source"] == "images" and all(other[name] == record[name] for name in same)
    ]
    if record["source"] == "images" or not from_images:
        return record
    own, others = record["libraries"][OURS], from_images[0]["libraries"]
    ratios = {
        peer: ratio
        | {
            "time_beside_images": own["seconds"]["median"] / others[peer]["seconds"]["median"],
            "peak_memory_beside_images": _memory(own, others[peer]) / _memory(others[peer], own),
        }
        for peer, ratio in record["ratios"].items()
        if peer in others
    }
    return record | {"ratios": ratios}


def measure(
    config: Config,
    cases: Sequence[Case],
    cache: Path,
    folder: Path,
    screen: Screen,
    done: Sequence[Record] = (),
    keep: Callable[[list[Record], int], None] = lambda records, left: None,
    hosts: str | None = None,
) -> list[Record]:
    """Measures the cases that `done` lacks until `config.benchmark.minutes` have passed; returns all records.

    `keep` is given the records, and the number of cases left, after each case. A case that runs out of memory ends its
    sweep: larger batches of the same work are not tried. One that fails otherwise is recorded with the `reason`, and is
    tried again by the next command.
    """
    began, longest = time.monotonic(), 0.0
    records = [record for record in done if record["status"] != "failed"]
    known = {case_key(record) for record in records}
    pending = [(number, case) for number, case in enumerate(cases) if case_key(case.identity) not in known]
    with screen.bar("Measuring", len(cases), "cases") as advance:
        advance(len(cases) - len(pending))
        for place, (number, case) in enumerate(pending):
            spent, minutes = time.monotonic() - began, config.benchmark.minutes
            if minutes and spent + longest > minutes * SECONDS_PER_MINUTE:
                left = len(pending) - place
                screen.say(
                    f"{left} of {len(cases)} cases are left after {duration(spent)}; the same command continues."
                )
                break
            trace = folder / "trace" / f"{number:02d}" if config.benchmark.trace else None
            try:
                record = _too_large(case, records) or measure_case(config, case, cache, trace, records, hosts)
            except UserError as error:
                screen.say(f"{case.name}: failed; the record has the reason, and the next command tries again.")
                record = {**case.facts, "seconds": None, "status": "failed", "reason": str(error)}
            records = with_doubts([*records, record])
            keep(records, len(pending) - place - 1)
            longest = max(longest, time.monotonic() - began - spent)
            advance(1, case.name)
    return records


def _too_large(case: Case, records: Sequence[Record]) -> Record | None:
    """The record of a case that is not tried, since a batch of the same work ran out of memory; None for others."""
    facts: Record = {**case.facts, "seconds": None, "status": "not tried"}
    failed = [
        record["batch"]
        for record in records
        if record["status"] == "out of memory" and _sweep_key(record) == _sweep_key(facts)
    ]
    if not failed or case.batch < min(failed):
        return None
    return facts | {"reason": f"a batch of {min(failed)} needs more memory than there is"}


def _sweep_key(record: Record) -> tuple[Any, ...]:
    return tuple(record[name] for name in CASE if name != "batch")


def _fed_key(record: Record) -> tuple[Any, ...]:
    """The values that the input path depends on."""
    return tuple(
        record[name] for name in ("backbone", "cached", "batch", "precision" if record["cached"] else "source")
    )
