"""Downloads and prepares a data set of TensorFlow Datasets (`--mode=fetch`), for reading by random access.

Most of TFDS's own builders need TensorFlow for this, once; the command line of TFDS would need half of its ecosystem.
"""

from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.formats.tfds import FILE_FORMAT, check_random_access, find_builder
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.program import install_extra


def prepare_tfds(config: DatasetConfig, screen: Screen) -> Path:
    """Downloads a data set into TFDS's `data_dir` (`dataset.root`) and prepares it, unless it is there; its folder.

    Raises:
        UserError: there is no such data set, a file of it must be downloaded by hand, a module is missing, or the
            download or the disk failed.
    """
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    where, builder = f"--config.dataset.name={config.name}", find_builder(config)
    folder = Path(builder.data_dir)
    if builder.is_prepared():
        check_random_access(config, builder)
        screen.say(escape(f"{config.name} is already in {folder}."))
        return folder
    screen.say(escape(f"Preparing {builder.info.full_name} in {folder}"))
    try:
        # Google's bucket has the data sets prepared, but as tfrecord.
        downloads = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_config=downloads, file_format=FILE_FORMAT)
    except Exception as error:
        causes = list(_causes(error))
        missing = next((cause for cause in causes if isinstance(cause, ImportError)), None)
        if missing is not None:
            raise UserError(f"{where}: {_how_to_get(missing)}") from None
        if isinstance(error, AssertionError) and builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise UserError(f"{where}: must be downloaded by hand. {error}") from None
        if any(isinstance(cause, requests.RequestException | DownloadError) for cause in causes):
            raise UserError(
                f"{where}: could not be downloaded ({_brief(error)}). What is complete is kept; run the same command "
                "again, with a network."
            ) from None
        if any(isinstance(cause, NonMatchingChecksumError) for cause in causes):
            raise UserError(f"{where}: its server has other files than TFDS expects ({_brief(error)})") from None
        if isinstance(error, OSError):
            raise UserError(f"{where}: cannot be prepared in {folder} ({_brief(error)})") from None
        raise
    return folder


def _how_to_get(missing: ImportError) -> str:
    """What to install for a module that a builder of TFDS imports."""
    module = (missing.name or str(missing)).partition(".")[0]
    if module == "tensorflow":
        return (
            f"preparing it needs TensorFlow, once (reading it does not): {install_extra('tfds')}; then run the same "
            "command again"
        )
    return f"preparing it needs the Python module {module}, which is not installed; install it and run this again"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
