"""Which pool each stage starts from, where the disk does not hold the features of the deepest; recorded, and kept.

Behind a pool a map of VGG is half as large as behind the one before it, so where the deepest does not fit, a shallower
one does only if its rows are there already, or if a network narrows towards the input. Otherwise the steps start from
the images.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from rich.filesize import decimal
from rich.markup import escape

from vision_transfer.errors import UserError
from vision_transfer.features.budget import Request, Room, all_bytes, missing_bytes, room
from vision_transfer.features.cacheable import cacheable_layers
from vision_transfer.models.network import Network, Params
from vision_transfer.runs.build import Stage
from vision_transfer.runs.folder import RunFolder, read_json
from vision_transfer.runs.setup import Setup
from vision_transfer.runs.stage_inputs import Feeding, plain_request, training_requests
from vision_transfer.runtime.files import write_json

# Bytes that are going to be added to the disk, by whose weights, which layer and which rows they are of.
Planned = dict[tuple[str, str, str], int]


def settled(feeding: Feeding, folder: RunFolder, variables: Callable[[], dict[str, Params]]) -> Setup:
    """The run's setup with the layers that its stages start from: as recorded in its folder, else chosen now.

    Args:
        feeding: with the setup as it was resolved.
        folder: of the run, where the choice is recorded, since it changes how numbers are rounded.
        variables: gives those that the run starts from; called only where there is something to choose.

    Raises:
        UserError: the record names a layer that no stage can start behind.
    """
    setup = feeding.setup
    chosen = read_json(folder.cached_layers_file)
    if chosen is None:
        chosen = _chosen(feeding, variables())
        write_json(folder.cached_layers_file, chosen)
    for stage in setup.stages:
        allowed = [None] if stage.cached is None else [None, *cacheable_layers(setup.network, stage.cached)]
        if chosen.get(stage.name, stage.cached) not in allowed:
            raise UserError(
                f"{folder.cached_layers_file}: names {chosen[stage.name]!r} for stage {stage.name}; allowed are "
                f"{', '.join(map(str, allowed))}. Remove the file to choose anew; the stage may then start elsewhere"
            )
    stages = [_starting(setup.network, stage, chosen.get(stage.name, stage.cached)) for stage in setup.stages]
    return replace(setup, stages=stages)


def _chosen(feeding: Feeding, variables: dict[str, Params]) -> Mapping[str, str | None]:
    """For each stage the deepest pool whose features fit into the room together with those of the stages before."""
    setup = feeding.setup
    deepest = {stage.name: stage.cached for stage in setup.stages}
    allowed = room(feeding.cache_dir, setup.config.features.budget_gb)
    requests = _requests(feeding, variables)
    planned: Planned = {}
    for position, stage in enumerate(setup.stages):
        if stage.cached is not None:
            planned |= _added(setup, position, stage.cached, requests[stage.name], look=False)
    if sum(planned.values()) <= allowed.bytes:  # as if nothing were there yet: no store has to be looked at
        return deepest
    planned, chosen = {}, {}
    for position, stage in enumerate(setup.stages):
        layers = () if stage.cached is None else cacheable_layers(setup.network, stage.cached)
        totals = {layer: planned | _added(setup, position, layer, requests[stage.name], look=True) for layer in layers}
        fitting = (layer for layer, total in totals.items() if sum(total.values()) <= allowed.bytes)
        chosen[stage.name] = found = next(fitting, None)
        if found != stage.cached:
            more = sum(totals[str(stage.cached)].values())
            feeding.screen.say(_why(stage, requests[stage.name], more, allowed, found), style="yellow")
        planned = planned if found is None else totals[found]
    return chosen


def _requests(feeding: Feeding, variables: dict[str, Params]) -> dict[str, list[Request]]:
    """What each stage asks the cache for; the test split is only asked for behind the last."""
    dataset, stages = feeding.setup.dataset, feeding.setup.stages
    each = [
        *training_requests(feeding, variables),
        plain_request(feeding, variables, dataset.validation, "validation"),
    ]
    last = [*each, plain_request(feeding, variables, dataset.test, "test")]
    return {stage.name: last if stage is stages[-1] else each for stage in stages}


def _added(setup: Setup, position: int, layer: str, requests: list[Request], *, look: bool) -> Planned:
    """Bytes that a stage's features of a layer add; where an earlier stage trains their prefix, none are there yet."""
    index = setup.network.index
    trained = any(index(earlier.cut) <= index(layer) for earlier in setup.stages[:position])
    weights = setup.stages[position].name if trained else "initial"
    by_name = missing_bytes(requests, layer) if look and not trained else all_bytes(requests, layer)
    return {(weights, layer, name): size for name, size in by_name.items()}


def _starting(network: Network, stage: Stage, cached: str | None) -> Stage:
    behind = None if cached is None else network.after(cached)
    return replace(stage, cached=cached, start=behind if stage.trains_from_cache else None, evaluation_start=behind)


def _why(stage: Stage, requests: list[Request], more: int, allowed: Room, chosen: str | None) -> str:
    """The line that says why a stage does not start from its deepest pool, with numbers."""
    layer = str(stage.cached)
    rows, row_bytes = sum(len(request.digests) for request in requests), requests[0].prefix.row_bytes(layer)
    what = "Stage" if stage.trains_from_cache else "Validation of stage"
    instead = "the images" if chosen is None else f"cached {chosen}"
    return escape(
        f"{what} {stage.name} starts from {instead}: with the features of {layer} ({rows:,} rows of "
        f"{decimal(row_bytes)}) the cache would grow by {decimal(more)}, and may by {decimal(allowed.bytes)} "
        f"({allowed.reason})."
    )
