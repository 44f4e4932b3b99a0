"""The command line: flags, help, errors as messages, and the way to each mode.

Nothing heavy is imported before the flags are read, so that `--help` and a mistyped field answer at once.
"""

import errno
import sys
import textwrap
import traceback
from collections.abc import Sequence

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from vision_transfer.cli.flag_errors import config_argument, explain, load_config
from vision_transfer.cli.modes import MODES, Call
from vision_transfer.errors import UserError
from vision_transfer.runtime.cache_folder import CACHE_VARIABLE, cache_folder

# The flags of single modes, with their meaning for --help.
MODE_FLAGS = {
    "images": "pictures: a file, a folder or a pattern such as 'folder/**/*.jpg'",
    "out": "file or folder to write to",
    "format": "what --mode=export writes: stablehlo, keras, onnx (default: all)",
    "prune": "cache: remove weights, datasets, decoded, features, compiled or all; KIND/NAME; stale; older_than:30d; "
    "several with commas",
    "show": "explain: activations, filters, grad_cam, smooth_grad, filter_banks, operations; several with commas",
    "layers": "explain: layers to look at, with commas",
    "filters": "explain: numbers of filters, such as 0-63 or 3,8",
    "ascent": "explain: how filters are drawn, textbook or smooth",
    "launcher": "ablation: where runs are done, processes:N or slurm:N (default: one after the other, here)",
    "target": "explain: class that heat maps speak for, by name or number",
}
FLAG_NAMES = ("config", "workdir", "mode", *MODE_FLAGS, "dry_run", "rerun", "reuse", "debug", "help")
USER_ERROR_STATUS = 2
# Of the help: its width, and where the meanings of flags and of modes start.
WIDTH, FLAG_COLUMN, MODE_COLUMN = 80, 33, 21
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
                                 vision_transfer/config/schema.py says what each means
  --workdir=FOLDER               where the run is kept;
                                 default: runs/<name>-<digest>
  --mode=MODE                    what to do, see below
{mode_flags}
  --dry_run                      ablation: print the plan and stop
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
    for name, meaning in MODE_FLAGS.items():
        flags.DEFINE_string(name, None, meaning)
    flags.DEFINE_bool("dry_run", False, "Print the plan of an ablation and stop.")
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
        needs_config = MODES[flags.FLAGS.mode].needs_config or flags.FLAGS.config is not None
        if needs_config and not isinstance(flags.FLAGS.config, ConfigDict):
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
    from vision_transfer.runtime.console import Screen
    from vision_transfer.runtime.preemption import Stopped, StopSignal

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


def help_text() -> str:
    """What `--help` prints."""
    modes = "\n".join(_entry(name, mode.meaning, MODE_COLUMN) for name, mode in MODES.items())
    mode_flags = "\n".join(_entry(f"--{name}=…", meaning, FLAG_COLUMN) for name, meaning in MODE_FLAGS.items())
    return HELP.format(modes=modes, mode_flags=mode_flags, cache=CACHE_VARIABLE)


def _entry(name: str, meaning: str, column: int) -> str:
    """A name and its meaning, which starts at a column and goes on there in further lines."""
    lines = textwrap.wrap(meaning, WIDTH - column) or [""]
    return f"  {name:<{column - 3}} " + ("\n" + " " * column).join(lines)


def _dispatch(values: flags.FlagValues, screen, stop) -> None:
    from vision_transfer.runtime import jax_setup
    from vision_transfer.runtime.compilation import compilations_said

    cache = cache_folder()
    jax_setup.configure(cache, deterministic=values.config is not None and values.config.deterministic)
    with compilations_said(screen):
        MODES[values.mode].enter(Call(values, cache, screen, stop))
