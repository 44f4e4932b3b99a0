"""The folder that holds all caches: weights, data sets, decoded images, features, compiled programs."""

import os
from pathlib import Path

from vision_transfer.errors import UserError

CACHE_VARIABLE = "VISION_TRANSFER_CACHE"


def cache_folder() -> Path:
    """Root of all caches: `$VISION_TRANSFER_CACHE`, else the user's cache folder.

    Raises:
        UserError: it cannot be written.
    """
    import platformdirs

    chosen = os.environ.get(CACHE_VARIABLE)
    folder = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("vision_transfer")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache folder {folder}: cannot be made ({error.strerror}); set {CACHE_VARIABLE} to a folder that can"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cache folder {folder}: cannot be written; set {CACHE_VARIABLE} to a folder that can")
    return folder.absolute()
