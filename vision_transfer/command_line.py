"""The command line: flags, help, errors as messages, and the way to each mode.

Nothing heavy is imported before the flags are read, so that `--help` and a mistyped field answer at once.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from vision_transfer.errors import UserError
from vision_transfer.nearest import nearest_names

MODES = {
    "run": "run the config, go on with it if it was interrupted, or show its result if it is finished (default)",
    "summary": "print the network layer by layer, with what trains in each stage; nothing is trained",
    "fetch": "fetch the pretrained weights (and a public data set, where the config names one) ahead of time",
}
CACHE_VARIABLE = "VISION_TRANSFER_CACHE"
USER_ERROR_STATUS = 2
# As shells report a process ended by a signal.
SIGNAL_STATUS_BASE = 128

HELP = """\
Fine-tunes convnets on small image data sets, paying only for what is not frozen.

  python launch.py --config=configs/finetune.py
  python launch.py --config=configs/finetune.py --config.dataset.root=FOLDER
  python launch.py --config=configs/finetune.py --config.stages.block5.freeze=last:8 --mode=summary

Flags:
  --config=FILE[:KEY=VALUE,...]  the experiment; the part behind the colon chooses a recipe of the file
  --config.FIELD=VALUE           changes one value; vision_transfer/config.py lists all with their meanings
  --workdir=FOLDER               where the run is kept; default: runs/<name>-<digest>
  --mode=MODE                    what to do:
{modes}
  --rerun                        do a run again whose code, versions or device have changed since
  --reuse                        take or continue such a run nevertheless
  --debug                        show the traceback of an error

The same command continues an interrupted run. SIGTERM and Ctrl-C save a checkpoint first.
Exit status: 0 done, 2 something to mend in the command or the data, 130 and 143 stopped by SIGINT and SIGTERM.
Caches (weights, decoded images, features, compiled programs): ${cache}, else the user's cache folder.
"""


def define_flags() -> None:
    """Defines the flags of `launch.py`."""
    config_flags.DEFINE_config_file("config", None, "The experiment's file.", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run.")
    flags.DEFINE_enum("mode", "run", list(MODES), "What to do.")
    flags.DEFINE_bool("rerun", False, "Do a run again whose code, versions or device have changed since.")
    flags.DEFINE_bool("reuse", False, "Take or continue such a run nevertheless.")
    flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Reads the flags; a mistake in them, or in the config's file, is a message and exit status 2."""
    if {"--help", "-help", "-h"} & set(arguments[1:]):
        sys.stdout.write(help_text())
        sys.exit(0)
    try:
        rest = flags.FLAGS(arguments)
        if len(rest) > 1:
            raise UserError(f"cannot read {rest[1]!r}: flags start with --; see --help")
        if flags.FLAGS.config is None:
            raise UserError("--config is missing; give a file such as --config=configs/finetune.py, or see --help")
        return rest
    except Exception as error:  # a config's file is code and can raise anything
        if "--debug" in arguments:
            traceback.print_exc()
        sys.stderr.write(f"launch.py: {_flag_message(error, arguments)}\n")
        sys.exit(USER_ERROR_STATUS)


def main(arguments: Sequence[str]) -> None:
    """Does what the flags say; exits with the documented status."""
    del arguments
    logging.set_verbosity(logging.ERROR)
    values = flags.FLAGS
    from vision_transfer.screen import Screen
    from vision_transfer.stopping import Stopped, StopSignal

    screen, stop = Screen(), StopSignal()
    stop.install()
    try:
        _dispatch(values, screen, stop)
    except UserError as error:
        if values.debug:
            traceback.print_exc()
        sys.stderr.write(f"launch.py: {error}\n")
        sys.exit(USER_ERROR_STATUS)
    except Stopped as stopped:
        screen.say(f"Stopped. {stopped} The same command goes on from here.".replace("  ", " "))
        sys.exit(SIGNAL_STATUS_BASE + stopped.signal_number)


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


def help_text() -> str:
    """What `--help` prints."""
    modes = "\n".join(f"                                   {mode:<9} {meaning}" for mode, meaning in MODES.items())
    return HELP.format(modes=modes, cache=CACHE_VARIABLE)


def _dispatch(values: flags.FlagValues, screen, stop) -> None:
    config = values.config
    from vision_transfer import experiment, runtime
    from vision_transfer.setup import RunOptions

    cache = cache_folder()
    runtime.configure(cache)
    match values.mode:
        case "run":
            workdir = None if values.workdir is None else Path(values.workdir).expanduser()
            experiment.train(config, RunOptions(workdir, cache, values.rerun, values.reuse, stop), screen)
        case "summary":
            experiment.summarise(config, cache, screen)
        case "fetch":
            experiment.fetch(config, cache, screen)


def _flag_message(error: Exception, arguments: Sequence[str]) -> str:
    match error:
        case UserError():
            return str(error)
        case flags.UnrecognizedFlagError():
            name = error.flagname
            if name.startswith("config."):
                return f"--{name}: the config has no such field; {_known_fields(name.removeprefix('config.'))}"
            return f"unknown flag --{name}; {nearest_names(name, _flag_names())} (see --help)"
        case FileNotFoundError():
            return f"--config: no such file {error.filename}; give one of configs/"
        case flags.Error() | AttributeError() | KeyError() | TypeError() | ValueError():
            text = error.args[0] if error.args else error
            return f"{text} (vision_transfer/config.py lists the fields and their types)"
    config = next((argument for argument in arguments if argument.startswith("--config=")), "--config")
    return f"{config}: {type(error).__name__}: {error} (--debug shows where)"


def _known_fields(name: str) -> str:
    from vision_transfer.config import FIELDS, STAGE_FIELDS

    if name.startswith("stages."):
        _, stage, *rest = name.split(".")
        return nearest_names(".".join(rest), list(STAGE_FIELDS)) + f" (in stage {stage!r})"
    return nearest_names(name, list(FIELDS))


def _flag_names() -> list[str]:
    return ["config", "workdir", "mode", "rerun", "reuse", "debug", "help"]
