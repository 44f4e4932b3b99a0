"""What was run, as rows of text: data, weights, stages, configuration, time and memory, and how to repeat it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision_transfer.config import FIELDS, STAGE_FIELDS, meaning_of
from vision_transfer.runtime.console import duration
from vision_transfer.tasks.report.record import RunRecord, get, number

MEGABYTE = 1e6
# Equal to nothing that JSON can hold.
UNKNOWN = object()
ACTIVITIES = {
    "data": "reading and decoding the data",
    "features": "features of frozen layers",
    "train": "training and validation",
    "evaluate": "the test",
}


@dataclass(frozen=True)
class StageRow:
    """A stage as it was planned and as it went; a dash where something is not known."""

    name: str
    freeze: str
    start: str
    trainable: str
    frozen: str
    optimizer: str
    epochs: str


@dataclass(frozen=True)
class ConfigRow:
    """A field of the configuration, its value, its default where that is another, and its meaning."""

    field: str
    value: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Cost:
    """Something that took time or memory: what, how much as text, and its share of the largest (0 to 1)."""

    what: str
    amount: str
    share: float


def data_rows(record: RunRecord) -> list[tuple[str, str]]:
    """What the run learnt from."""
    dataset, config = get(record.result, "dataset") or {}, get(record.config, "dataset") or {}
    rows = [("Data set", str(dataset.get("name") or config.get("name") or "not recorded"))]
    if config.get("root"):
        rows.append(("Folder", str(config["root"])))
    if dataset.get("note"):
        rows.append(("Note", str(dataset["note"])))
    sizes = dataset.get("sizes")
    if sizes:
        rows.append(("Images", ", ".join(f"{sizes[split]:,} {split}" for split in ("train", "validation", "test"))))
    if record.classes:
        rows.append((f"{len(record.classes)} classes", ", ".join(record.classes)))
    if config.get("image_size"):
        size, grey = config["image_size"], config.get("channels") == 1
        rows.append(("Seen as", f"{size}×{size} pixels, {'grey' if grey else 'RGB'}, {config.get('resampling')}"))
    if dataset.get("fingerprint"):
        rows.append(("Fingerprint", str(dataset["fingerprint"])))
    if dataset.get("skipped"):
        rows.append(("Left out", "; ".join(f"{one['file']}: {one['reason']}" for one in dataset["skipped"])))
    return rows


def network_rows(record: RunRecord) -> list[tuple[str, str]]:
    """The network and where its weights came from."""
    model, weights = get(record.config, "model") or {}, get(record.result, "weights") or {}
    rows = []
    if model:
        kind = f"{model.get('backbone')}, {model.get('pooling')}, {model.get('output')}"
        rows.append(("Network", f"{kind}; {model.get('preprocessing')} input"))
    source = weights.get("source") or model.get("weights_path") or model.get("weights")
    rows.append(("Starting weights", str(source or "not recorded")))
    if weights.get("licence"):
        rows.append(("Their licence", str(weights["licence"])))
    if weights.get("sha256"):
        rows.append(("Their sha256", str(weights["sha256"])))
    return rows


def stage_rows(record: RunRecord) -> list[StageRow]:
    """The stages in their order, with the parameters that train in each."""
    finished = {stage["name"]: stage for stage in get(record.result, "stages") or []}
    names = [*(get(record.config, "schedule") or []), *finished, *(epoch["stage"] for epoch in record.epochs)]
    rows = []
    for name in dict.fromkeys(map(str, names)):
        stage, plan = finished.get(name, {}), get(record.config, "stages", name) or {}
        done = stage.get("epochs") or sum(epoch["stage"] == name for epoch in record.epochs)
        rows.append(
            StageRow(
                name,
                str(stage.get("freeze") or plan.get("freeze") or "–"),
                _start(stage),
                _count(get(stage, "parameters", "trainable")),
                _count(get(stage, "parameters", "frozen")),
                _optimizer(plan),
                f"{done} of at most {plan['epochs']}" if plan.get("epochs") else str(done),
            )
        )
    return rows


def config_rows(record: RunRecord) -> tuple[list[ConfigRow], list[ConfigRow]]:
    """The fields that differ from their defaults, and the others."""
    changed, kept = [], []
    for path, value in flat_config(record.config).items():
        default = default_value(path)
        differs = value != default
        shown = shown_value(default) if differs and default is not UNKNOWN else ""
        (changed if differs else kept).append(ConfigRow(path, shown_value(value), shown, meaning_of(path)))
    return changed, kept


def default_value(path: str) -> Any:
    """The default of the field at a dotted path, as JSON has it; `UNKNOWN` where this version has no such field."""
    group, _, rest = path.partition(".")
    field = STAGE_FIELDS.get(rest.partition(".")[2]) if group == "stages" else FIELDS.get(path)
    if field is None:
        return UNKNOWN
    return list(field.default) if isinstance(field.default, tuple) else field.default


def time_costs(record: RunRecord) -> list[Cost]:
    """Seconds by what they were spent on: the activities of a finished run, the stages of any."""
    seconds = get(record.result, "seconds") or {}
    rows = [(meaning, number(seconds.get(name))) for name, meaning in ACTIVITIES.items()]
    stages = {stage["name"]: stage for stage in get(record.result, "stages") or []}
    for name in dict.fromkeys(epoch["stage"] for epoch in record.epochs):
        spent = sum(epoch["seconds"] or 0 for epoch in record.epochs if epoch["stage"] == name)
        step = number(get(stages.get(name), "step_ms"))
        rows.append((f"of that, stage {name}{'' if step is None else f' ({step:.4g} ms a step)'}", spent))
    known = [(what, value) for what, value in rows if value is not None]
    largest = max((value for _, value in known), default=0) or 1
    return [Cost(what, duration(value), value / largest) for what, value in known]


def memory_costs(record: RunRecord) -> list[Cost]:
    """Highest memory of the process by activity, and of a device; and what lies on the disk."""
    peaks = get(record.result, "memory", "process_peak_bytes") or {}
    rows = [
        (f"highest in {meaning}", peak) for name, meaning in ACTIVITIES.items() if (peak := number(peaks.get(name)))
    ]
    if peak := number(get(record.result, "memory", "device_peak_bytes")):
        rows.append(("highest on a device", peak))
    if size := _folder_bytes(record.folder.path):
        rows.append(("the run's folder on the disk", size))
    largest = max((value for _, value in rows), default=0) or 1
    return [Cost(what, f"{value / MEGABYTE:,.0f} MB", value / largest) for what, value in rows]


def origin_rows(record: RunRecord) -> list[tuple[str, str]]:
    """What the numbers were made by: device, versions, digests."""
    either = {**record.identity, **record.result}
    rows = [("Run folder", str(record.folder.path.absolute())), ("Device", str(either.get("device") or "not recorded"))]
    versions = either.get("versions")
    if isinstance(versions, dict):
        rows.append(("Versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))))
    rows += [(title, str(either[key])) for key, title in (("digest", "Digest of the run"),) if key in either]
    code = record.result.get("code_digest") or record.identity.get("code")
    return [*rows, ("Digest of the numeric code", str(code))] if code else rows


def command(record: RunRecord) -> str | None:
    """The command that the run was started with, or None where it is not recorded."""
    recorded = record.identity.get("command")
    return recorded if isinstance(recorded, str) else None


def total_time(record: RunRecord) -> str | None:
    """Time of the whole run, as text."""
    total = number(get(record.result, "seconds", "total"))
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


def flat_config(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested JSON objects by dotted path, sorted."""
    flat: dict[str, Any] = {}
    for key in sorted(values):
        value = values[key]
        flat |= flat_config(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def shown_value(value: Any) -> str:
    """A value of a configuration as text."""
    if value is None or value in ([], ()):
        return "empty"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _folder_bytes(folder: Path) -> float:
    """Bytes of all files; a file that is replaced meanwhile does not count."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue
    return float(total)
