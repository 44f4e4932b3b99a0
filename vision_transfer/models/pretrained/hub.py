"""Weights files of the Hugging Face hub, where timm and others publish: `hf:OWNER/NAME@REVISION/FILE`."""

import re
from pathlib import Path

from vision_transfer.errors import UserError
from vision_transfer.runtime.program import install_extra

PREFIX = "hf:"
DEFAULT_FILE = "model.safetensors"
_REFERENCE = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>.+))?")


def on_hub(path: str) -> bool:
    """Whether a `model.weights_path` is a reference to the hub."""
    return path.startswith(PREFIX)


def hub_file(reference: str, allow_download: bool) -> tuple[Path, str]:
    """The file of a reference in the hub's own cache, where huggingface_hub puts it, and its source with the commit.

    The library tries a transfer again, resumes it, shows its progress, and uses the user's token and settings.

    Raises:
        UserError: the reference cannot be read, the library is not installed, the hub cannot be reached, or it has no
            such file.
    """
    where = f"config.model.weights_path={reference}"
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        raise UserError(f"{where}: expected hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME/FILE")
    try:
        from huggingface_hub import errors, hf_hub_download  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"{where}: needs huggingface_hub, which is not installed: {install_extra('hub')}") from error
    repository, file = parts["repository"], parts["file"] or DEFAULT_FILE
    try:
        found = hf_hub_download(repository, file, revision=parts["revision"], local_files_only=not allow_download)
    except errors.LocalEntryNotFoundError as error:
        why = "the hub cannot be reached" if allow_download else "the network is not used here"
        raise UserError(
            f"{where}: {why}, and {file} is not in the hub's cache. On a machine with network access, "
            f"`hf download {repository} {file}` gets the file; pass its path instead"
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{where}: {repository} has no file {file}; give another as hf:{repository}/FILE") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{where}: {repository} has no revision {parts['revision']}") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{where}: there is no public {repository} (a private one needs `hf auth login`)") from error
    except Exception as error:  # those of the HTTP library, which differs between versions
        raise UserError(f"{where}: {' '.join(str(error).split())[:300] or type(error).__name__}") from error
    return Path(found), f"{reference}, {file} of commit {Path(found).parents[file.count('/')].name}"
