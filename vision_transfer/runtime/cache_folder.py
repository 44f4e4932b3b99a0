"""The folder of all caches: weights, data sets, decoded images, features, compiled programs."""

import os
from pathlib import Path

from vision_transfer.errors import UserError

CACHE_VARIABLE = "VISION_TRANSFER_CACHE"


def cache_folder() -> Path:
    """The root of all caches: `$VISION_TRANSFER_CACHE`, or else the user's cache folder.

    Raises:
        UserError: the folder cannot be created or is not writable.
    """
    import platformdirs

    from vision_transfer.runtime.files import user_path

    chosen = os.environ.get(CACHE_VARIABLE)
    folder = user_path(chosen) if chosen else platformdirs.user_cache_path("vision_transfer")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(folder, os.W_OK) else "is not writable"
    except OSError as error:
        problem = f"cannot be created ({error.strerror})"
    if problem:
        raise UserError(f"cache folder {folder}: {problem}; set {CACHE_VARIABLE} to a writable folder")
    return folder.absolute()
