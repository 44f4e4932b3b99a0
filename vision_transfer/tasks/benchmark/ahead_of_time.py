"""Cases compiled ahead of time for absent TPUs, and computed for absent GPUs: estimates, not measurements.

`libtpu` compiles on any machine. Every number here is per chip. The roofline is the longest of: the table's FLOPs at
the chip's peak for the network's precision, the compiled program's bytes at the memory's bandwidth, and the
all-reduced bytes over the links. Bytes that stay in on-chip memory count as moved, so the memory bound may exceed the
compiler's own estimate. That estimate is the sum over its fusions of the cycles that it expects, without
collectives; its `optimal_seconds` is left out, since it is negative.
"""

import importlib.util
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import BATCH_AXIS
from vision_transfer.runtime.jax_setup import has_tpus
from vision_transfer.runtime.program import install_extra
from vision_transfer.tasks.benchmark.cases import Case
from vision_transfer.tasks.benchmark.chips import COMPUTED, chip_peaks, known_chip
from vision_transfer.tasks.benchmark.costs import total
from vision_transfer.tasks.benchmark.programs import abstract_program, compilers_facts
from vision_transfer.tasks.benchmark.roofline import roofline

T = TypeVar("T")
LIBRARY = f"jax {jax.__version__}"
# Otherwise libtpu asks a cloud's metadata server which machine this is.
NO_METADATA_QUERY = {"TPU_SKIP_MDS_QUERY": "1"}
# Where there are no TPUs: what the metadata server would say, of any type, since libtpu prints errors otherwise; and
# that several processes may use libtpu at a time, since they only compile.
NO_TPUS = {
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
LOCK_FILE = "/tmp/libtpu_lockfile"
COLLECTIVE = re.compile(
    r"= (?P<shapes>.+?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
ARRAY = re.compile(r"(?P<dtype>[a-z]+)(?P<bits>\d+)\[(?P<extents>[\d,]*)\]")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


def topology_mesh(target: str) -> Mesh:
    """The devices of a target such as `tpu:v5e:2x2`, on one axis.

    Raises:
        UserError: the target is no TPU, libtpu is not installed or in use, or it does not know the topology.
    """
    platform, _, topology = target.partition(":")
    if platform != "tpu" or not topology:
        chips = ", ".join(f"cuda:{name}" for name in COMPUTED)
        raise UserError(
            f"config.benchmark.target: got {target!r}; allowed are tpu:TOPOLOGY, such as tpu:v5e:2x2 or tpu:v4:2x2x1, "
            f"and {chips}"
        )
    for name, value in (NO_METADATA_QUERY if has_tpus() else NO_METADATA_QUERY | NO_TPUS).items():
        os.environ.setdefault(name, value)
    # With libtpu installed, JAX would otherwise look for TPUs on this machine.
    jax.config.update("jax_platforms", "cpu")
    # Without a TPU, a program for one cannot be read back from the cache.
    jax.config.update("jax_enable_compilation_cache", False)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"config.benchmark.target={target}: compiling for TPUs needs libtpu, which is not installed; "
            f"{install_extra('tpu')}"
        )
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(platform=platform, topology_name=topology)
    except Exception as error:  # libtpu raises errors of no public class
        if Path(LOCK_FILE).name in str(error):
            raise UserError(
                f"config.benchmark.target={target}: another process uses libtpu, and holds {LOCK_FILE}; wait until it "
                "has ended, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1 if no process uses a TPU of this machine"
            ) from error
        raise UserError(
            f"config.benchmark.target={target}: libtpu {metadata.version('libtpu')} does not know this topology "
            f"({str(error).splitlines()[0]})"
        ) from error
    return Mesh(np.array(described.devices), (BATCH_AXIS,))


def compile_cases(cases: list[Case], target: str, trace: Path | None, screen: Screen) -> list[dict[str, Any]]:
    """A record per case, all numbers per chip; the optimised HLO of each is written to the folder `trace`, if given.

    Its `status` is "compiled" by the compiler of a TPU. For CUDA there is no compiler without a GPU: there it is
    "computed", the roofline of the layer table's FLOPs and bytes, and the program is only lowered.

    Raises:
        UserError: see `topology_mesh`, or a chip that is not in the table.
    """
    platform, _, name = target.partition(":")
    is_cuda = platform == "cuda" and name in COMPUTED
    mesh = Mesh(np.array(jax.devices("cpu")[:1]), (BATCH_AXIS,)) if is_cuda else topology_mesh(target)
    records = []
    with screen.bar(f"Compiling for {target}", len(cases), "cases") as advance:
        for number, case in enumerate(cases):
            lowered, seconds = _timed(lambda case=case: _lowered(case, mesh, "cuda" if is_cuda else None))
            if is_cuda:
                record, text = _computed(case, COMPUTED[name], lowered), lowered.as_text()
            else:
                compiled, more = _timed(lowered.compile)
                text, seconds = compiled.as_text() or "", seconds + more
                record = _compiled(case, mesh, compiled, text)
            if trace is not None:
                trace.mkdir(parents=True, exist_ok=True)
                (trace / f"{number:02d}.hlo.txt").write_text(text, encoding="utf-8")
            records.append({**case.facts, "seconds": None, "library": LIBRARY, "compile_seconds": seconds, **record})
            advance(1, case.name)
    return records


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _lowered(case: Case, mesh: Mesh, platform: str | None) -> Any:
    program, shapes = abstract_program(case, mesh)
    return program.trace(*shapes).lower(**({} if platform is None else {"lowering_platforms": (platform,)}))


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Number and result bytes of each kind of collective in an optimised HLO text."""
    found: dict[str, dict[str, int]] = {}
    for match in COLLECTIVE.finditer(text):
        entry = found.setdefault(match["kind"], {"count": 0, "bytes": 0})
        entry["count"] += 1
        entry["bytes"] += sum(_array_bytes(match["shapes"]))
    return found


def estimated_cycles(text: str) -> int:
    """Sum of the cycles that the compiler expects for the fusions of an optimised HLO text."""
    return sum(map(int, CYCLES.findall(text)))


def _computed(case: Case, kind: str, lowered: Any) -> dict[str, Any]:
    chip, cost = known_chip(kind), total(case.costs)
    assert chip is not None
    analysis = lowered.cost_analysis()
    return {
        "status": "computed",
        "device": kind,
        "devices": 1,
        # before fusion, so that the table's bytes are nearer to what a compiled program moves
        "compiler": {"flops": analysis["flops"], "bytes": analysis["bytes accessed"]},
        "roofline": roofline(cost.flops, cost.bytes, chip_peaks(chip, case.network.numerics.name, 1)),
    }


def _compiled(case: Case, mesh: Mesh, compiled: Any, text: str) -> dict[str, Any]:
    kind = mesh.devices.flat[0].device_kind
    facts = compilers_facts(compiled)
    exchanged, cycles, chip = collectives(text), estimated_cycles(text), known_chip(kind)
    record = {
        "status": "compiled",
        "device": f"{kind} × {mesh.size}",
        "devices": mesh.size,
        **facts,
        "collectives": exchanged,
        "compiler_seconds": None,
        "roofline": None,
    }
    if chip is None:
        return record
    # A ring sends each byte of an all-reduce twice, except the share that stays on its chip.
    sent = 2 * (mesh.size - 1) / mesh.size * sum(entry["bytes"] for entry in exchanged.values())
    links = sent / chip.interconnect if chip.interconnect else 0.0
    peak = chip_peaks(chip, case.network.numerics.name, 1)
    bounds = roofline(total(case.costs).flops / mesh.size, facts["compiler"]["bytes"], peak, links)
    return record | {
        "roofline": bounds,
        "compiler_seconds": cycles / chip.clock if chip.clock and cycles else None,
        "fits": facts["program_bytes"] <= chip.memory,
    }


def _array_bytes(shapes: str) -> Iterator[int]:
    for match in ARRAY.finditer(re.sub(r"\{[^}]*\}", "", shapes)):
        extents = [int(extent) for extent in match["extents"].split(",") if extent]
        yield math.prod(extents) * int(match["bits"]) // 8
