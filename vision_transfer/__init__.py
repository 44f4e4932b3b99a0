"""Transfer learning on small image data sets: freeze what need not change, and pay only for the rest.

>>> import vision_transfer as vt
>>> network, variables = vt.load("efficientnet_lite0")
>>> features = vt.features(network, variables, "photos/")

`notebooks/python.ipynb` shows the names below at work; each is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vision_transfer.errors import UserError
    from vision_transfer.freezing import freeze, merge, partition
    from vision_transfer.models.load import load
    from vision_transfer.models.network import Network, apply
    from vision_transfer.predict.features import features
    from vision_transfer.predict.predictor import Predictor
    from vision_transfer.predict.run import Run, results
    from vision_transfer.tasks.train.from_python import train

__all__ = [
    "Network",
    "Predictor",
    "Run",
    "UserError",
    "apply",
    "features",
    "freeze",
    "load",
    "merge",
    "partition",
    "results",
    "train",
]
_MODULES = {
    "Network": "models.network",
    "Predictor": "predict.predictor",
    "Run": "predict.run",
    "UserError": "errors",
    "apply": "models.network",
    "features": "predict.features",
    "freeze": "freezing",
    "load": "models.load",
    "merge": "freezing",
    "partition": "freezing",
    "results": "predict.run",
    "train": "tasks.train.from_python",
}


def __getattr__(name: str) -> Any:
    """A public name from its module, or `__version__`: read when it is first used, since that can take seconds."""
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version(__name__)
        except metadata.PackageNotFoundError:  # imported from a checkout that is not installed
            return "unknown"
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
