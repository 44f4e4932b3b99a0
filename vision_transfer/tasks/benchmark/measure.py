"""Measures cases one after the other, ours alone or in turns with peers; each worker is a process of its own."""

import base64
import pickle
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from vision_transfer.config import Config
from vision_transfer.models.network import all_parameter_shapes
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.benchmark.cases import Case, peer_request, small_convnet_step
from vision_transfer.tasks.benchmark.worker import Worker, spread, take_turns, worker
from vision_transfer.tasks.export.inference_network import plain_network
from vision_transfer.tasks.export.onnx_graph import onnx_model

OURS = "ours"
MODULES = "vision_transfer.tasks.benchmark"
# Peers that run our export and cannot train.
INFERENCE_ONLY = frozenset({"onnxruntime"})


def measure(config: Config, cases: list[Case], cache: Path, folder: Path, screen: Screen) -> list[dict[str, Any]]:
    """A record per case for `benchmark.json`; with `config.benchmark.trace`, traces and HLO in `folder`."""
    records: list[dict[str, Any]] = []
    peak: dict[str, Any] = {}
    with screen.bar("Measuring", len(cases), "cases") as advance:
        for number, case in enumerate(cases):
            trace = folder / "trace" / f"{number:02d}" if config.benchmark.trace else None
            with our_worker(config, case, cache, trace, measure_peak=not peak) as ours:
                seconds = _in_turns(config, {OURS: ours})[OURS]
                last = ours.end()
            peak = peak or {"flops": last["peak_flops"], "source": last["peak_source"]}
            times, facts = spread(seconds), case.facts
            records.append(
                {
                    **facts,
                    **ours.facts,
                    "seconds": times,
                    "images_per_second": case.batch / times["median"],
                    "mfu": facts["table"]["flops"] / times["median"] / peak["flops"],
                    "peak": peak,
                    "peak_memory_bytes": last["peak_memory_bytes"],
                    "device_memory_bytes": last["device_memory_bytes"],
                    "trace": None if trace is None else str(trace),
                }
            )
            advance(1, case.name)
    return records


def measure_input_path(config: Config, root: str, cache: Path) -> dict[str, Any]:
    """Images per second of decoding and of feeding the folder `root`, and those of the small convnet's step."""
    step = small_convnet_step(config)
    with our_worker(config, step, cache) as ours:
        seconds = _in_turns(config, {OURS: ours})[OURS]
    height, _, channels = step.network.input_shape
    request = {
        "root": str(Path(root).expanduser().absolute()),
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
                workers = {OURS: running.enter_context(our_worker(config, case, cache))}
                request = peer_request(case)
                if INFERENCE_ONLY.intersection(able):
                    request["model"] = str(_exported(case, Path(running.enter_context(TemporaryDirectory()))))
                for peer in able:
                    module = f"{MODULES}.peers.{peer}_peer"
                    other = worker(f"{case.name} in {peer}", module, request, python)
                    workers[peer] = running.enter_context(other)
                seconds = _in_turns(config, workers)
                peaks = {name: one.end()["peak_memory_bytes"] for name, one in workers.items()}
            libraries = {
                name: {**one.facts, "seconds": spread(seconds[name]), "peak_memory_bytes": peaks[name]}
                for name, one in workers.items()
            }
            ratios = {peer: _ratio(libraries, seconds, peer) for peer in able}
            records.append({**case.facts, "libraries": libraries, "ratios": ratios})
            advance(1, case.name)
    return [_with_ratios_to_images(record, records) for record in records]


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
    config: Config, case: Case, cache: Path, trace: Path | None = None, *, measure_peak: bool = False
) -> AbstractContextManager[Worker]:
    """A worker that runs a case of this package; see `ours`."""
    request = {
        "case": base64.b64encode(pickle.dumps(case)).decode(),
        "cache": str(cache),
        "deterministic": config.deterministic,
        "trace": None if trace is None else str(trace),
        "measure_peak": measure_peak,
    }
    return worker(case.name, f"{MODULES}.ours", request)


def _in_turns(config: Config, workers: dict[str, Worker]) -> dict[str, list[float]]:
    return take_turns(workers, config.benchmark.repeats, config.benchmark.seconds_per_repeat)


def _ratio(libraries: dict[str, dict[str, Any]], seconds: dict[str, list[float]], peer: str) -> dict[str, Any]:
    own, other = libraries[OURS], libraries[peer]
    pairs = spread([ours / theirs for ours, theirs in zip(seconds[OURS], seconds[peer], strict=True)])
    return {
        "time": own["seconds"]["median"] / other["seconds"]["median"],
        "time_quartiles": [pairs["first_quartile"], pairs["third_quartile"]],
        "peak_memory": own["peak_memory_bytes"] / other["peak_memory_bytes"],
    }


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
            "peak_memory_beside_images": own["peak_memory_bytes"] / others[peer]["peak_memory_bytes"],
        }
        for peer, ratio in record["ratios"].items()
    }
    return record | {"ratios": ratios}
