"""Training from Python: the task of the command line, as one function."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_transfer.config import Config, ConfigDict, checked, flatten, to_dict
from vision_transfer.config.files import load_config
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.predict.run import Run
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime import jax_setup
from vision_transfer.runtime.cache_folder import cache_folder
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import user_path
from vision_transfer.tasks.train.task import train as train_config


def train(
    config: str | Path | ConfigDict | Config,
    fields: Mapping[str, Any] | None = None,
    *,
    workdir: str | Path | None = None,
    rerun: bool = False,
    reuse: bool = False,
    screen: Screen | None = None,
) -> Run:
    """Trains the stages of a config and tests once, as the command line does; a finished run is not repeated.

    Examples:
        >>> run = train("recommended", {"dataset.root": "photos", "seed": 1})
        >>> run.result["test"]["accuracy"]
        0.992

    Args:
        config: as `--config` takes it, `finetune:backbone=resnet50`, say; or a configuration.
        fields: values by dotted path, which replace those of the config.
        workdir: folder of the run; by default `runs/<name>-<digest>`.
        rerun: do the run again if code, versions or device have changed since.
        reuse: take or resume such a run as it is.
        screen: for messages and progress; standard output by default.

    Raises:
        UserError: a config, data, weights or folder that cannot be used.
    """
    if isinstance(config, str | Path):
        values = load_config(str(config))
    else:
        # A copy, so that `fields` leaves the caller's configuration as it is.
        values = ConfigDict(to_dict(config)) if isinstance(config, Config) else copy.deepcopy(config)
    known = tuple(flatten(values.to_dict()))
    for path in fields or {}:
        if path not in known:
            raise UserError(f"train: the config has no field {path!r}; {nearest_names(path, known)}")
    for path, value in (fields or {}).items():
        try:
            values.update_from_flattened_dict({path: value})
        except TypeError as error:
            raise UserError(f"train: config.{path}: got {value!r}; {error}") from error
    resolved = checked(values)
    if resolved.task != "train":
        raise UserError(f"train: the task of this config is {resolved.task!r}; give it to the command line")
    cache = cache_folder()
    jax_setup.configure(cache, deterministic=resolved.deterministic)
    options = RunOptions(None if workdir is None else user_path(workdir), cache, rerun=rerun, reuse=reuse)
    return Run(train_config(resolved, options, screen or Screen()).path)
