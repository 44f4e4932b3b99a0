"""The command line: flags, help, errors as messages, and the way to each mode.

Nothing heavy is imported before the flags are read, so that `--help` and a mistyped field answer at once.
"""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from vision_transfer.errors import UserError
from vision_transfer.flag_messages import config_argument, explain, load_config

MODES = {
    "run": "train, go on after an interruption, or show the result (default)",
    "summary": "print the network, layer by layer, with what trains in each stage",
    "fetch": "fetch the pretrained weights (and a public data set) ahead of time",
}
FLAG_NAMES = ("config", "workdir", "mode", "rerun", "reuse", "debug", "help")
CACHE_VARIABLE = "VISION_TRANSFER_CACHE"
USER_ERROR_STATUS = 2
# What a user can mend on a disk: full, over quota, read-only, not permitted.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

HELP = """\
Fine-tunes convnets on small image data sets and pays only for what trains.

  python launch.py --config=configs/finetune.py
  python launch.py --config=configs/finetune.py --config.dataset.root=FOLDER
  python launch.py --config=configs/finetune.py --mode=summary

Flags:
  --config=FILE[:KEY=VALUE,...]  the experiment, and a recipe that it knows
  --config.FIELD=VALUE           changes one value of it, such as
                                 --config.stages.block5.freeze=last:8;
                                 vision_transfer/config.py says what each means
  --workdir=FOLDER               where the run is kept;
                                 default: runs/<name>-<digest>
  --mode=MODE                    what to do, see below
  --rerun                        do a finished or begun run again
  --reuse                        take or continue a run whose code, versions or
                                 device have changed since
  --debug                        show the traceback of an error

Modes:
{modes}

The same command continues an interrupted run. SIGTERM and Ctrl-C save a
checkpoint first. Caches (weights, decoded images, features, compiled programs)
are in ${cache}, else in the user's cache folder.

Exit status: 0 done, 2 something to mend in the command or the data,
130 and 143 stopped by Ctrl-C (SIGINT) and SIGTERM.
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
            raise UserError(f"cannot read {rest[1]!r}: every argument is a flag and starts with -- (--help lists them)")
        if not isinstance(flags.FLAGS.config, ConfigDict):
            load_config(config_argument(arguments[1:]))
        return rest
    except Exception as error:  # a config's file is code and can raise anything
        if "--debug" in arguments:
            traceback.print_exc()
        message = str(error) if isinstance(error, UserError) else explain(error, arguments[1:], FLAG_NAMES)
        sys.stderr.write(f"launch.py: {message}\n")
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
        sys.exit(stopped.status)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        if values.debug:
            traceback.print_exc()
        where = error.filename or "the disk"
        sys.stderr.write(
            f"launch.py: {where}: {error.strerror}. Nothing half-written was kept; when this is mended, the same "
            "command goes on from the last checkpoint\n"
        )
        sys.exit(USER_ERROR_STATUS)


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
    modes = "\n".join(f"  {mode:<9} {meaning}" for mode, meaning in MODES.items())
    return HELP.format(modes=modes, cache=CACHE_VARIABLE)


def _dispatch(values: flags.FlagValues, screen, stop) -> None:
    config = values.config
    from vision_transfer import experiment, runtime
    from vision_transfer.setup import RunOptions

    cache = cache_folder()
    runtime.configure(cache, deterministic=config.deterministic)
    match values.mode:
        case "run":
            workdir = None if values.workdir is None else Path(values.workdir).expanduser()
            if config.task == "benchmark":
                from vision_transfer.benchmark.task import benchmark

                benchmark(config, cache, workdir, screen)
                return
            experiment.train(config, RunOptions(workdir, cache, values.rerun, values.reuse, stop), screen)
        case "summary":
            experiment.summarise(config, cache, screen)
        case "fetch":
            experiment.fetch(config, cache, screen)
