"""Measures cases one after the other, each in a process of its own."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vision_transfer import freezing
from vision_transfer.config import Config
from vision_transfer.models.network import all_parameter_shapes
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.benchmark.cases import Case, case_to_json
from vision_transfer.tasks.benchmark.costs import total
from vision_transfer.tasks.benchmark.plan import Named, small_convnet_step
from vision_transfer.tasks.benchmark.processes import worker
from vision_transfer.tasks.benchmark.timing import Spread, spread, take_turns

OWN_WORKER = "vision_transfer.tasks.benchmark.worker"
INPUT_WORKER = "vision_transfer.tasks.benchmark.input_path"


def measure(config: Config, named: list[Named], cache: Path, folder: Path, screen: Screen) -> list[dict[str, Any]]:
    """A record per case for `benchmark.json`; with `config.benchmark.trace`, traces and HLO in `folder`."""
    records: list[dict[str, Any]] = []
    peak: dict[str, Any] = {}
    with screen.bar("Measuring", len(named), "cases") as advance:
        for number, one in enumerate(named):
            trace = folder / "trace" / f"{number:02d}" if config.benchmark.trace else None
            request = own_request(config, one.case, cache, trace, measure_peak=not peak)
            with worker(one.name, OWN_WORKER, request) as process:
                seconds = take_turns({"ours": process}, config.benchmark.repeats, config.benchmark.seconds_per_repeat)
                last = process.end()
            if not peak:
                peak = {"flops": last["peak_flops"], "source": last["peak_source"]}
            times = spread(seconds["ours"])
            records.append(
                {
                    "name": one.name,
                    **facts_of(one.case),
                    **process.facts,
                    "seconds": asdict(times),
                    **_rates(one.case, times, peak["flops"]),
                    "peak": peak,
                    "peak_memory_bytes": last["peak_memory_bytes"],
                    "device_memory_bytes": last["device_memory_bytes"],
                    "trace": None if trace is None else str(trace),
                }
            )
            advance(1, one.name)
    return records


def measure_input_path(config: Config, cache: Path) -> dict[str, Any]:
    """Images per second of decoding and of feeding, beside those that the small convnet's step takes.

    Args:
        config: with a folder of pictures in `dataset.root`.
        cache: root of all caches.
    """
    step = small_convnet_step(config)
    request = own_request(config, step.case, cache, None, measure_peak=False)
    with worker(step.name, OWN_WORKER, request) as process:
        seconds = take_turns({"ours": process}, config.benchmark.repeats, config.benchmark.seconds_per_repeat)["ours"]
    height, _, channels = step.case.network.input_shape
    request = {
        "root": str(Path(config.dataset.root or "").expanduser().absolute()),
        "size": height,
        "channels": channels,
        "batch": step.case.batch,
        "repeats": config.benchmark.repeats,
        "cache": str(cache),
    }
    with worker("the input path", INPUT_WORKER, request) as process:
        rates = process.facts
    return {"step": {"name": step.name, "images_per_second": step.case.batch / spread(seconds).median}, **rates}


def own_request(config: Config, case: Case, cache: Path, trace: Path | None, *, measure_peak: bool) -> dict[str, Any]:
    """What `own_worker` is asked."""
    return {
        **case_to_json(case),
        "cache": str(cache),
        "deterministic": config.deterministic,
        "trace": None if trace is None else str(trace),
        "measure_peak": measure_peak,
    }


def facts_of(case: Case) -> dict[str, Any]:
    """What the table says of a case: freeze depth, parameters, FLOPs and bytes, in total and per layer."""
    costs = case.costs
    counts = freezing.counts(all_parameter_shapes(case.network), case.mask)
    return {
        "work": case.work,
        "freeze": case.freeze,
        "source": case.source,
        "cached": case.cached,
        "start": case.start,
        "batch": case.batch,
        "parameters": {"trainable": counts.trainable, "frozen": counts.frozen},
        "table": {
            "flops": total(costs).flops,
            "bytes": total(costs).bytes,
            "layers": [
                {
                    "name": row.name,
                    "forward": asdict(row.forward),
                    "input_gradient": asdict(row.input_gradient),
                    "kernel_gradient": asdict(row.kernel_gradient),
                }
                for row in costs
            ],
        },
    }


def _rates(case: Case, times: Spread, peak: float) -> dict[str, float]:
    return {
        "images_per_second": case.batch / times.median,
        "mfu": total(case.costs).flops / times.median / peak,
    }
