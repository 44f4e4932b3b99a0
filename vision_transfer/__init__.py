"""Transfer learning on small image data sets: freeze what need not change, and pay only for the rest."""


def __getattr__(name: str) -> str:
    """`__version__`, read when it is asked for, since that takes longer than all else here."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("vision_transfer")
    except metadata.PackageNotFoundError:  # imported from a checkout that is not installed
        return "unknown"
