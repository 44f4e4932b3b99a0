"""The manifest of a finished run: digests of the files in its folder, which all that reads a run checks first.

It ties the files together: one that was edited, damaged or taken from another run is named. Arrays of checkpoints are
covered by the manifest of each checkpoint, whose digest is in this one.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vision_transfer.config import flatten
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import RunFolder, read_json
from vision_transfer.runtime.files import file_sha256, json_text, write_json
from vision_transfer.runtime.provenance import json_digest
from vision_transfer.training import checkpoints

# Fields that say where files lie: whoever moves the data may change them in the config.json of a run.
PLACES = ("dataset.root", "model.weights_path", "init_from")


def write_result(folder: RunFolder, digest: str, result: dict[str, Any]) -> None:
    """Writes the manifest, with the run's digest and those of its files, and then `result.json`, which finishes it."""
    files = {name: _digest(folder, name) for name in _names(folder) if name != folder.result_file.name}
    files[folder.result_file.name] = hashlib.sha256(json_text(result).encode()).hexdigest()
    content = {"run": digest, "sha256": files}
    write_json(folder.manifest_file, {"digest": json_digest(content), "content": content})
    write_json(folder.result_file, result)


def check_files(folder: RunFolder, among: Sequence[Path] | None = None) -> None:
    """Compares the files of a finished run, or `among` them some, with its manifest.

    Files that are missing are left to those who need them. Without the manifest itself nothing is known of the others,
    which could be those of another run.

    Raises:
        UserError: a file differs from what the run wrote, a checkpoint is not the run's, or the manifest is missing.
    """
    manifest = read_json(folder.manifest_file)
    if manifest is None:
        raise _changed(folder.manifest_file, "is missing")
    recorded = _recorded(folder, manifest)
    for name in _names(folder):
        file = folder.path / name
        if among is not None and file not in among:
            continue
        if name not in recorded:
            raise _changed(file, "is not a file of this run")
        if (digest := _digest(folder, name)) != recorded[name]:
            was = recorded[name][:16]
            raise _changed(file, f"is damaged or was edited (sha256 {digest[:16]}…, the run wrote {was}…)")


def _recorded(folder: RunFolder, manifest: dict[str, Any]) -> dict[str, str]:
    try:
        content = manifest["content"]
        if json_digest(content) == manifest["digest"]:
            return {str(name): str(digest) for name, digest in content["sha256"].items()}
        reason = "is damaged or was edited"
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        reason = f"is damaged ({error!r})"
    raise _changed(folder.manifest_file, reason)


def _changed(file: Path, what: str) -> UserError:
    return UserError(
        f"{file}: {what}. Bring back the run's folder from a copy; or remove its result.json, and the command that "
        "made the run makes it again from the checkpoints"
    )


def _names(folder: RunFolder) -> list[str]:
    """The files of a run that are there and have a digest of their own, relative to its folder."""
    saved = [*folder.path.glob(f"checkpoints/*/*/*/{checkpoints.MANIFEST}")]
    saved += folder.start.glob(f"*/{checkpoints.MANIFEST}")
    saved += folder.parts.glob("*.py")
    found = [*(file for file in folder.listed() if file.exists()), *sorted(saved)]
    return [file.relative_to(folder.path).as_posix() for file in found]


def _digest(folder: RunFolder, name: str) -> str:
    """Digest of a file; that of the config is over its values except the places of files, if it has any."""
    file = folder.path / name
    if file != folder.config_file:
        return file_sha256(file)
    try:
        values = flatten(read_json(file) or {})
    except UserError:
        return file_sha256(file)
    kept = {path: value for path, value in values.items() if path not in PLACES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
