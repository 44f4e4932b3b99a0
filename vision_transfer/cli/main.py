"""The command line: reads the flags, turns errors into messages, and calls the function of the mode or task.

Nothing heavy is imported before the flags are read, so that `--help` and a mistyped field answer at once.
"""

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace

from absl import flags, logging
from ml_collections import config_flags

from vision_transfer.cli.flag_errors import config_argument, explain, with_files, without_cleared
from vision_transfer.cli.help import FLAG_NAMES, FLAGS_OF_FEW, MODE_FLAGS, SWITCHES, help_text
from vision_transfer.cli.registry import MODES, RUN, Command, Entry, find_entry
from vision_transfer.config import FIELDS, Config, ConfigDict, own_parts, replaced_fields, value_at
from vision_transfer.config.config_dict import clear
from vision_transfer.config.files import load_config
from vision_transfer.config.references import is_reference
from vision_transfer.errors import UserError, visible
from vision_transfer.runtime.cache_folder import cache_folder
from vision_transfer.runtime.program import program_name
from vision_transfer.runtime.terminal import accept_all_characters, leave_closed_pipe, write_out

USER_ERROR_STATUS = 2
# Python's own for an exception that nothing handles.
BUG_STATUS = 1
# NumPy's words for a disk that took less than it was given, an OSError without a number.
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
MATPLOTLIB_FOLDER = "matplotlib"
HELP_FLAGS = ("--help", "-help", "-h")
_LINE_BREAK = "\n"


def define_flags() -> None:
    """Defines the flags of the program."""
    config_flags.DEFINE_config_file("config", None, "The experiment's file.", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run.")
    flags.DEFINE_enum("mode", RUN, list(MODES), "What to do.")
    for name, meaning in MODE_FLAGS.items():
        flags.DEFINE_string(name, None, meaning)
    for name, meaning in SWITCHES.items():
        flags.DEFINE_bool(name, False, meaning)


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Reads the flags; a mistake in them, or in the config's file, is a message and exit status 2."""
    accept_all_characters()
    kept = list(arguments)
    try:
        for argument in arguments[1:]:
            name, _, topic = argument.partition("=")
            if name in HELP_FLAGS:
                write_out(help_text(topic))
                sys.exit(0)
        kept, cleared = without_cleared(arguments)
        rest = flags.FLAGS(with_files(kept))
        if len(rest) > 1:
            raise UserError(f"cannot read {rest[1]!r}: every argument is a flag and starts with -- (--help lists them)")
        needs_config = MODES[flags.FLAGS.mode].needs == "config" or flags.FLAGS.config is not None
        if needs_config and not isinstance(flags.FLAGS.config, ConfigDict):
            load_config(config_argument(arguments[1:]))
        if cleared and flags.FLAGS.config is not None:
            clear(flags.FLAGS.config, cleared)
        return rest
    except Exception as error:  # a config's file is code and can raise anything
        if "--debug" in arguments:
            traceback.print_exc()
        message = str(error) if isinstance(error, UserError) else explain(error, kept[1:], FLAG_NAMES)
        _write_error(message)
        sys.exit(USER_ERROR_STATUS)


def main(arguments: Sequence[str]) -> None:
    """Does what the flags say; exits with the documented status."""
    del arguments
    logging.set_verbosity(logging.ERROR)
    values = flags.FLAGS
    from vision_transfer.runtime import hosts, jax_setup, stamps
    from vision_transfer.runtime.compilation import report_compilations
    from vision_transfer.runtime.console import Screen
    from vision_transfer.runtime.files import SYSTEM_ERRORS, remove
    from vision_transfer.runtime.preemption import ADVICE, Stopped, StopSignal, leave

    stop = StopSignal()
    screen = Screen(check=stop.check)
    stop.install()
    try:
        cache = cache_folder()
        # Matplotlib makes a folder in the user's home otherwise.
        os.environ.setdefault("MPLCONFIGDIR", str(cache / MATPLOTLIB_FOLDER))
        if values.verify:
            from vision_transfer.data.formats.tfds import INDEX_FOLDER

            stamps.forget(cache)
            remove(cache / INDEX_FOLDER)
        if values.trust:
            own_parts.trust()
        command = Command(values, cache, screen, stop)
        config = command.optional_config
        entry = find_entry(values.mode, config)
        _refuse_unread(values, entry)
        if values.mode == RUN and config is not None:
            _refuse_replaced(values, config)
            _refuse_unused_augmentation(values, config)
        jax_setup.configure(cache, deterministic=config is not None and config.deterministic)
        command = _with_hosts(command, entry)
        screen = command.screen
        with report_compilations(screen):
            entry.do(command)
        hosts.finish()
    except UserError as error:
        _fail(str(error))
    except Stopped as stopped:
        screen.say(f"Stopped. {stopped} {ADVICE}.".replace("  ", " "))
        hosts.end(stopped.status, "")
        leave(stopped.status)
    except BrokenPipeError:
        leave_closed_pipe()
    except OSError as error:
        short = SHORT_WRITE.search(str(error)) is not None
        if error.errno not in SYSTEM_ERRORS and not short:
            raise
        reason = os.strerror(errno.ENOSPC) if short else error.strerror
        _fail(
            f"{error.filename or 'the disk'}: {reason}. No file was left half-written under its own name. Fix this "
            "and run the same command again: it goes on from what is complete"
        )
    except Exception as error:
        hosts.leave_if_lost(error)
        hosts.end(BUG_STATUS, f"{type(error).__name__}: {error}")
        raise


def _refuse_unread(values: flags.FlagValues, entry: Entry) -> None:
    """Raises UserError for a flag that this command would not read, such as `--dry_run` of a training."""
    read = {*entry.flags, entry.needs} | ({"workdir"} if values.mode == RUN else set())
    for name, meaning in FLAGS_OF_FEW.items():
        if values[name].present and name not in read:
            raise UserError(f"--{name}: is not for this command; leave it out ({meaning})")


def _refuse_replaced(values: flags.FlagValues, config: Config) -> None:
    """Raises UserError for a flag of a field that the task does not read, such as the one backbone of a search."""
    for path, read in replaced_fields(config).items():
        name = f"config.{path}"
        if name in values and values[name].present:
            given: object = values[name].value
            fits = isinstance(given, FIELDS[read].element) and given in (FIELDS[read].choices or (given,))
            example = f'"({given!r},)"' if FIELDS[read].kind is tuple else given
            raise UserError(
                f"--{name}: has no effect here; config.task={config.task!r} reads config.{read} instead, which is "
                f"{value_at(config, read)!r}; set that: --config.{read}={example if fits else '…'}"
            )


def _refuse_unused_augmentation(values: flags.FlagValues, config: Config) -> None:
    """Raises UserError for a flag of an operation on images that the preset of augmentation does not do."""
    preset = config.augment.preset
    if preset != "none" and not is_reference(preset):
        return
    used = {"preset"} if preset == "none" else {"preset", "bank", "bank_seed"}
    for name in vars(config.augment):
        flag = f"config.augment.{name}"
        if name not in used and flag in values and values[flag].present:
            raise UserError(
                f"--{flag}: has no effect with config.augment.preset={preset!r}; add "
                "--config.augment.preset=keras_layers (or image_data_generator), or omit it"
            )


def _with_hosts(command: Command, entry: Entry) -> Command:
    """The command, after it joined the other hosts of `--hosts` and was compared with theirs; only the first shows it.

    Raises:
        UserError: the hosts do not find each other, or differ; or the command is none that several hosts can do.
    """
    from vision_transfer.config import digested
    from vision_transfer.runtime import hosts, provenance

    given = command.flags.hosts
    if given is None or entry.on_hosts == "started":
        return command
    if not entry.on_hosts:
        raise UserError(
            f"--hosts={given}: several hosts do config.task=train (without folds), config.task=benchmark and "
            "--mode=predict together, and nothing else; omit --hosts here. Folds and sweeps have --launcher=slurm:N"
        )
    hosts.start(given)
    program = {"numeric code (digest)": provenance.running_code_digest(), **provenance.versions()}
    config = command.optional_config
    values = {} if config is None else {f"config.{path}": value for path, value in digested(config).items()}
    hosts.compare("command", {**program, **values})
    return command if hosts.is_first() else replace(command, screen=command.screen.silent())


def _fail(message: str) -> None:
    """Ends the process with a message, the last words on the screen; called while the error is handled."""
    from vision_transfer.runtime import hosts
    from vision_transfer.runtime.preemption import leave

    if flags.FLAGS.debug:
        traceback.print_exc()
    sys.stdout.flush()
    _write_error(message)
    hosts.end(USER_ERROR_STATUS, message)
    leave(USER_ERROR_STATUS)


def _write_error(message: str) -> None:
    sys.stderr.write(f"{program_name()}: {visible(message, keep=_LINE_BREAK)}\n")
