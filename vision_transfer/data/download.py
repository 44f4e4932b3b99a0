"""Public downloads: checked by size and digest, with progress, and going on where an interrupted one stopped."""

from pathlib import Path
from typing import Any

from filelock import FileLock

from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen

# To reach the server, and then between two pieces of data.
TIMEOUT_SECONDS = (5, 30)
_CHUNK_BYTES = 1 << 20
_BYTES_PER_MEGABYTE = 1_000_000


def download(url: str, target: Path, *, sha256: str, size: int, screen: Screen) -> Path:
    """Downloads a file, unless it is there already and intact.

    What has arrived stays in `target.part`, and the next call goes on from there.

    Args:
        url: where it is.
        target: where it goes; named only once it is whole and its digest is right.
        sha256: digest in hexadecimal.
        size: bytes; no more than these are ever written.
        screen: for the progress bar.

    Raises:
        UserError: no connection, an answer that is no file, or another digest.
    """
    import pooch
    import requests

    part = target.with_name(f"{target.name}.part")

    def fetch(url: str, output_file: str, _: object) -> None:
        _append(url, part, size, target.name, screen)
        part.replace(output_file)

    # Pooch's own type for this also asks for what only its `Pooch` objects use.
    downloader: Any = fetch

    pooch.get_logger().setLevel("WARNING")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            pooch.retrieve(url, f"sha256:{sha256}", fname=target.name, path=target.parent, downloader=downloader)
    except requests.RequestException as error:  # before OSError, which it is one of
        kept = part.stat().st_size if part.is_file() else 0
        raise UserError(
            f"{url} could not be downloaded ({type(error).__name__}: {_reason(error)}). {kept:,} of {size:,} bytes are "
            "here; the same command goes on from there."
        ) from None
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}.") from None
    except ValueError as error:
        raise UserError(
            f"{url}: what was downloaded has another digest than expected and was removed ({error})"
        ) from None
    return target


def _append(url: str, part: Path, size: int, title: str, screen: Screen) -> None:
    """Completes `part`: asks for the bytes that it lacks, or for all if the server cannot give a range."""
    import requests

    begun = part.stat().st_size if part.is_file() else 0
    if begun == size:
        return
    headers = {"Range": f"bytes={begun}-"} if 0 < begun < size else {}
    with requests.get(url, stream=True, headers=headers, timeout=TIMEOUT_SECONDS) as response:
        response.raise_for_status()
        goes_on = bool(headers) and response.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
        written = begun if goes_on else 0
        with (
            part.open("ab" if goes_on else "wb") as file,
            screen.bar(f"Downloading {title}", size // _BYTES_PER_MEGABYTE, unit="MB") as advance,
        ):
            advance(written // _BYTES_PER_MEGABYTE)
            for chunk in response.iter_content(_CHUNK_BYTES):
                if written + len(chunk) > size:
                    part.unlink()
                    raise UserError(
                        f"{url} sends more than the {size:,} bytes expected: another file. Nothing was kept."
                    )
                file.write(chunk)
                advance((written + len(chunk)) // _BYTES_PER_MEGABYTE - written // _BYTES_PER_MEGABYTE)
                written += len(chunk)
    if written < size:
        raise requests.ConnectionError("the transfer ended early")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
