"""The layer whose cached outputs each stage starts from: the deepest one that fits on the disk; recorded, and kept.

In VGG each pooling layer halves the feature map. If the deepest layer's features do not fit, a shallower layer's fit
only if they are already cached (or if the network is narrower near the input); otherwise steps start from the images.
"""

from collections.abc import Mapping
from dataclasses import replace

from rich.filesize import decimal

from vision_transfer.errors import UserError
from vision_transfer.feature_cache.budget import Request, Room, all_bytes, missing_bytes, room
from vision_transfer.feature_cache.cacheable import cacheable_layers
from vision_transfer.runs.folder import read_json
from vision_transfer.runs.prepare import Run
from vision_transfer.runs.stage_inputs import plain_request, training_requests
from vision_transfer.runtime import hosts
from vision_transfer.runtime.files import write_json
from vision_transfer.training.stage import Stage, Variables

# Bytes that are going to be added to the disk, by whose weights, which layer and which rows they are of.
Planned = dict[tuple[str, str, str], int]


def with_cached_layers(run: Run) -> Run:
    """The run with the layers that its stages start from: as recorded in its folder, else chosen now.

    The choice is recorded, since it changes how numbers are rounded.

    Raises:
        UserError: the record names a layer that a stage cannot start after.
    """
    file = run.folder.cached_layers_file
    chosen = read_json(file)
    if chosen is None:
        chosen = _chosen(run, run.initial_variables())
        write_json(file, chosen)
    chosen = hosts.from_first("cached layers", chosen)
    stages: list[Stage] = []
    for stage in run.stages:
        cached = chosen.get(stage.name, stage.cached)
        allowed = [None] if stage.cached is None else [None, *cacheable_layers(run.network, stage.cached)]
        if cached not in allowed:
            raise UserError(
                f"{file}: names {cached!r} for stage {stage.name}; allowed are {', '.join(map(str, allowed))}. Remove "
                "the file to choose again; the stage may then start elsewhere"
            )
        start = None if cached is None else run.network.after(cached)
        stages.append(replace(stage, cached=cached, evaluation_start=start))
    return replace(run, stages=stages)


def _chosen(run: Run, variables: Variables) -> Mapping[str, str | None]:
    """For each stage, the deepest cacheable layer whose features fit into the room with those of earlier stages."""
    deepest = {stage.name: stage.cached for stage in run.stages}
    allowed = room(run.options.cache_dir, run.config.features.budget_gb)
    requests = _requests(run, variables)
    planned: Planned = {}
    for position, stage in enumerate(run.stages):
        if stage.cached is not None:
            planned |= _added(run, position, stage.cached, requests[stage.name], look=False)
    if sum(planned.values()) <= allowed.bytes:  # as if nothing were there yet: no store has to be looked at
        return deepest
    planned = {}
    chosen: dict[str, str | None] = {}
    for position, stage in enumerate(run.stages):
        layers = () if stage.cached is None else cacheable_layers(run.network, stage.cached)
        totals = {layer: planned | _added(run, position, layer, requests[stage.name], look=True) for layer in layers}
        fitting = (layer for layer, total in totals.items() if sum(total.values()) <= allowed.bytes)
        chosen[stage.name] = found = next(fitting, None)
        if found != stage.cached:
            more = sum(totals[str(stage.cached)].values())
            run.screen.say(_why(stage, requests[stage.name], more, allowed, found), style="yellow")
        planned = planned if found is None else totals[found]
    return chosen


def _requests(run: Run, variables: Variables) -> dict[str, list[Request]]:
    """The features that each stage takes from the cache; the test split's are taken only after the last stage."""
    dataset, stages = run.dataset, run.stages
    validation = plain_request(run, variables, dataset.validation, "validation")
    test = plain_request(run, variables, dataset.test, "test")
    requests = {stage.name: [*training_requests(run, stage, variables), validation] for stage in stages}
    requests[stages[-1].name].append(test)
    return requests


def _added(run: Run, position: int, layer: str, requests: list[Request], *, look: bool) -> Planned:
    """Bytes that a stage's features of a layer add; where an earlier stage trains their prefix, none are there yet."""
    index = run.network.index
    trained = any(index(earlier.cut) <= index(layer) for earlier in run.stages[:position])
    weights = run.stages[position].name if trained else "initial"
    by_name = missing_bytes(requests, layer) if look and not trained else all_bytes(requests, layer)
    return {(weights, layer, name): size for name, size in by_name.items()}


def _why(stage: Stage, requests: list[Request], more: int, allowed: Room, chosen: str | None) -> str:
    """The message, with sizes, why a stage does not start from its deepest cacheable layer."""
    layer = str(stage.cached)
    rows, row_bytes = sum(len(request.digests) for request in requests), requests[0].prefix.row_bytes(layer)
    what = "Stage" if stage.trains_from_cache else "Validation of stage"
    instead = "the images" if chosen is None else f"cached {chosen}"
    return (
        f"{what} {stage.name} starts from {instead}: with the features of {layer} ({rows:,} rows of "
        f"{decimal(row_bytes)}) the cache would grow by {decimal(more)}, and may by {decimal(allowed.bytes)} "
        f"({allowed.reason})."
    )
