"""A run as rows of text: data, weights, stages, configuration, time and memory, and the command to repeat it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vision_transfer.config import field_at, flatten, meaning_of
from vision_transfer.runs.result import classifier_in_words
from vision_transfer.runtime.console import duration
from vision_transfer.tasks.report.run_files import RunFiles, get, number

MEGABYTE = 1e6
# Different from every JSON value.
UNKNOWN = object()
ACTIVITIES = {
    "data": "reading and decoding the data",
    "features": "features of frozen layers",
    "train": "training and validation",
    "evaluate": "the test",
}


# Time or memory: what it was used for, the amount as text, and its share of the largest amount (0 to 1).
Cost = tuple[str, str, float]


def data_rows(run: RunFiles) -> list[tuple[str, str]]:
    """The data set."""
    dataset, config = get(run.result, "dataset") or {}, get(run.config, "dataset") or {}
    sizes, size, colour = dataset.get("sizes"), config.get("image_size"), config.get("channels") != 1
    return _recorded(
        ("Data set", dataset.get("name") or config.get("name") or "not recorded"),
        ("Folder", config.get("root")),
        ("Note", dataset.get("note")),
        ("Images", sizes and ", ".join(f"{sizes[split]:,} {split}" for split in ("train", "validation", "test"))),
        (f"{len(run.classes)} classes", ", ".join(run.classes)),
        ("Input", size and f"{size}×{size} pixels, {'RGB' if colour else 'grey'}, {config.get('resampling')}"),
        ("Fingerprint", dataset.get("fingerprint")),
        ("Left out", "; ".join(f"{one['file']}: {one['reason']}" for one in dataset.get("skipped") or [])),
    )


def network_rows(run: RunFiles) -> list[tuple[str, str]]:
    """The network and the source of its weights."""
    model, weights = get(run.config, "model") or {}, get(run.result, "weights") or {}
    grid = model.get("pooling_grid", 1)
    cells = f" of {grid}×{grid} cells" if grid > 1 else ""
    kind = f"{model.get('backbone')}, {model.get('pooling')}{cells}, {model.get('output')}"
    source = weights.get("source") or model.get("weights_path") or model.get("weights")
    return _recorded(
        ("Network", model and f"{kind}; {model.get('preprocessing')} input"),
        ("Starting weights", source or "not recorded"),
        ("Licence of the weights", weights.get("licence")),
        ("sha256 of the weights", weights.get("sha256")),
    )


def _recorded(*rows: tuple[str, Any]) -> list[tuple[str, str]]:
    """The rows that have a value."""
    return [(name, str(value)) for name, value in rows if value]


def stage_rows(run: RunFiles) -> list[tuple[str, ...]]:
    """Name, freeze spec, trainable and frozen parameters, start, optimizer and epochs of each stage, in order."""
    finished = {stage["name"]: stage for stage in get(run.result, "stages") or []}
    names = [*(get(run.config, "schedule") or []), *finished, *(epoch["stage"] for epoch in run.epochs)]
    rows = []
    for name in dict.fromkeys(map(str, names)):
        stage, plan = finished.get(name, {}), get(run.config, "stages", name) or {}
        done = stage.get("epochs") or sum(epoch["stage"] == name for epoch in run.epochs)
        rows.append(
            (
                name,
                str(stage.get("freeze") or plan.get("freeze") or "–"),
                _count(get(stage, "parameters", "trainable")),
                _count(get(stage, "parameters", "frozen")),
                _start(stage),
                classifier_in_words(run.result) or _optimizer(plan),
                f"{done} of at most {plan['epochs']}" if plan.get("epochs") else str(done),
            )
        )
    return rows


def config_rows(run: RunFiles) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The fields that differ from their defaults, and the others: field, value, default if different, and meaning."""
    changed, kept = [], []
    for path, value in flatten(run.config).items():
        default = default_value(path)
        differs = value != default
        shown = shown_value(default) if differs and default is not UNKNOWN else ""
        (changed if differs else kept).append((path, shown_value(value), shown, meaning_of(path)))
    return changed, kept


def default_value(path: str) -> Any:
    """The default of the field at a dotted path, in JSON's types; `UNKNOWN` where this version has no such field."""
    field = field_at(path)
    if field is None:
        return UNKNOWN
    return list(field.default) if isinstance(field.default, tuple) else field.default


def time_costs(run: RunFiles) -> list[Cost]:
    """Time by activity, if the run is finished, and by stage."""
    seconds = get(run.result, "seconds") or {}
    rows = [(meaning, number(seconds.get(name))) for name, meaning in ACTIVITIES.items()]
    stages = {stage["name"]: stage for stage in get(run.result, "stages") or []}
    for name in dict.fromkeys(epoch["stage"] for epoch in run.epochs):
        spent = sum(epoch["seconds"] or 0 for epoch in run.epochs if epoch["stage"] == name)
        step = number(get(stages.get(name), "step_ms"))
        rows.append((f"of which stage {name}{'' if step is None else f' ({step:.4g} ms a step)'}", spent))
    return _shares([(what, value) for what, value in rows if value is not None], duration)


def memory_costs(run: RunFiles) -> list[Cost]:
    """Peak memory of the process by activity and of a device, and the size of the run's folder."""
    peaks = get(run.result, "memory", "process_peak_bytes") or {}
    rows = [
        (f"peak during {meaning}", peak) for name, meaning in ACTIVITIES.items() if (peak := number(peaks.get(name)))
    ]
    if peak := number(get(run.result, "memory", "device_peak_bytes")):
        rows.append(("peak on a device", peak))
    if size := _folder_bytes(run.folder.path):
        rows.append(("the run's folder on disk", size))
    return _shares(rows, lambda size: f"{size / MEGABYTE:,.0f} MB")


def _shares(rows: Sequence[tuple[str, float]], text: Callable[[float], str]) -> list[Cost]:
    largest = max((value for _, value in rows), default=0) or 1
    return [(what, text(value), value / largest) for what, value in rows]


def origin_rows(run: RunFiles) -> list[tuple[str, str]]:
    """The origin of the numbers: folder, device, versions, digests."""
    either = {**run.identity, **run.result}
    versions = either.get("versions")
    listed = sorted(versions.items()) if isinstance(versions, dict) else []
    return _recorded(
        ("Run folder", run.folder.path.absolute()),
        ("Device", either.get("device") or "not recorded"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in listed)),
        ("Digest of the run", either.get("digest")),
        ("Digest of the numeric code", run.result.get("code_digest") or run.identity.get("code")),
    )


def command(run: RunFiles) -> str | None:
    """The command that started or last resumed the run, or None where it is not recorded."""
    recorded = run.identity.get("command")
    return recorded if isinstance(recorded, str) else None


def total_time(run: RunFiles) -> str | None:
    """Time of the whole run, as text."""
    total = number(get(run.result, "seconds", "total"))
    return None if total is None else duration(total)


def _start(stage: dict[str, Any]) -> str:
    if "cached" not in stage:
        return "–"
    if stage["cached"] is not None:
        return f"cached {stage['cached']}"
    validation = stage.get("validation_cached")
    return f"the images; validation: cached {validation}" if validation else "the images"


def _optimizer(plan: dict[str, Any]) -> str:
    optimizer = plan.get("optimizer") or {}
    if not optimizer:
        return "–"
    schedule = optimizer.get("lr_schedule")
    return f"{optimizer.get('name')}, lr {optimizer.get('lr'):g}{'' if schedule == 'constant' else f', {schedule}'}"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"


def shown_value(value: Any) -> str:
    """A value of a configuration as text."""
    if value is None or value in ([], ()):
        return "not set"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _folder_bytes(folder: Path) -> float:
    """Bytes of all files; a file that is replaced meanwhile is not counted."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue
    return float(total)
