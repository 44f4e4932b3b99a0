"""The same work here and in peers, in processes that take turns."""

import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vision_transfer.config import Config
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.jax_setup import environment_of_others
from vision_transfer.tasks.benchmark.cases import case_to_json
from vision_transfer.tasks.benchmark.measure import OWN_WORKER, facts_of, own_request
from vision_transfer.tasks.benchmark.plan import Named
from vision_transfer.tasks.benchmark.processes import Worker, worker
from vision_transfer.tasks.benchmark.timing import spread, take_turns

OURS = "ours"


def compare(
    config: Config, named: list[Named], peers: tuple[str, ...], python: str, cache: Path, screen: Screen
) -> list[dict[str, Any]]:
    """A record per case: seconds and peak memory of each library, and ratios ours / peer.

    The ratio is that of the medians; its quartiles are those of the ratios within each repeat.
    """
    records = []
    with screen.bar("Comparing", len(named), "cases") as advance:
        for one in named:
            with ExitStack() as running:
                request = own_request(config, one.case, cache, None, measure_peak=False)
                workers: dict[str, Worker] = {OURS: running.enter_context(worker(one.name, OWN_WORKER, request))}
                for peer in peers:
                    module = f"vision_transfer.tasks.benchmark.peers.{peer}_peer"
                    process = worker(
                        f"{one.name} in {peer}",
                        module,
                        case_to_json(one.case),
                        python,
                        env=environment_of_others(os.environ),
                    )
                    workers[peer] = running.enter_context(process)
                seconds = take_turns(workers, config.benchmark.repeats, config.benchmark.seconds_per_repeat)
                last = {name: process.end() for name, process in workers.items()}
            records.append(_record(one, workers, seconds, last))
            advance(1, one.name)
    return [_beside_images(record, records) for record in records]


def _beside_images(record: dict[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    """A record from cached features with ratios to the peers' step from images too: without a cache they do that."""
    same = ("work", "freeze", "batch")
    from_images = [
        other for other in records if other["source"] == "images" and all(other[name] == record[name] for name in same)
    ]
    if record["source"] == "images" or not from_images:
        return record
    own = record["libraries"][OURS]
    ratios = {}
    for peer, ratio in record["ratios"].items():
        theirs = from_images[0]["libraries"][peer]
        ratios[peer] = ratio | {
            "time_beside_images": own["seconds"]["median"] / theirs["seconds"]["median"],
            "peak_memory_beside_images": own["peak_memory_bytes"] / theirs["peak_memory_bytes"],
        }
    return record | {"ratios": ratios}


def _record(
    one: Named, workers: dict[str, Worker], seconds: dict[str, list[float]], last: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    libraries = {
        name: {
            **workers[name].facts,
            "seconds": asdict(spread(seconds[name])),
            "peak_memory_bytes": last[name]["peak_memory_bytes"],
        }
        for name in workers
    }
    ratios = {}
    for peer in workers:
        if peer == OURS:
            continue
        pairs = spread([own / theirs for own, theirs in zip(seconds[OURS], seconds[peer], strict=True)])
        ratios[peer] = {
            "time": spread(seconds[OURS]).median / spread(seconds[peer]).median,
            "time_quartiles": [pairs.first_quartile, pairs.third_quartile],
            "peak_memory": last[OURS]["peak_memory_bytes"] / last[peer]["peak_memory_bytes"],
        }
    return {"name": one.name, **facts_of(one.case), "libraries": libraries, "ratios": ratios}
