"""The text of `--help`, and of `--help=config`, which lists the fields of a configuration."""

import textwrap

from vision_transfer.cli.registry import MODES, RUN, TASKS, Entry
from vision_transfer.config import FIELDS, STAGE_FIELDS, field_types
from vision_transfer.config.files import config_names
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.runtime.cache_folder import CACHE_VARIABLE
from vision_transfer.runtime.program import program

# The flags of single modes that take a value, and the switches, with their meanings.
MODE_FLAGS = {
    "images": "an image, a folder or a pattern such as 'folder/**/*.jpg'",
    "out": "file or folder to write to",
    "views": "predict, evaluate: average over views of each image: flip, shifts; several with commas",
    "format": "export: stablehlo, keras, onnx (default: all)",
    "prune": "cache: remove weights, datasets, decoded, features, compiled or all; KIND/NAME; stale; older_than:30d; "
    "several with commas",
    "show": "explain: activations, filters, grad_cam, smooth_grad, filter_banks, operations; several with commas",
    "layers": "explain: names of layers, with commas",
    "filters": "explain: numbers of filters, such as 0-63 or 3,8",
    "ascent": "explain: style of drawn filters, textbook or smooth",
    "target": "explain: class to draw heat maps for, by name or number",
    "hosts": "training, predict or benchmark on many hosts: auto, or COORDINATOR:PORT,COUNT,RANK (docs/scale.md)",
    "launcher": "ablation, search, folds: start workers, processes:N or slurm:N (default: one run after the other)",
}
SWITCHES = {
    "dry_run": "ablation: print the plan and stop",
    "rerun": "start a finished or interrupted run again",
    "reuse": "show or resume a run although code, versions or device have changed since",
    "trust": "run the code of your own parts, or of a run's (docs/own_parts.md)",
    "verify": "read all data and caches again, although size and times of the files tell of no change",
    "debug": "show the traceback of an error",
}
# Those that only some modes and tasks read (`Entry.flags`).
FLAGS_OF_FEW = {name: meaning for name, meaning in MODE_FLAGS.items() if name != "hosts"} | {
    "dry_run": SWITCHES["dry_run"],
    "config": "the experiment that a task or mode does",
    "workdir": "the folder of a run",
}
FLAG_NAMES = ("config", "workdir", "mode", *MODE_FLAGS, *SWITCHES, "help")
# Width of the help, and the columns where the meanings of flags, and of modes and tasks, start.
WIDTH, FLAG_COLUMN, NAME_COLUMN = 80, 33, 23

HELP = """\
Fine-tunes convnets on small image data sets; frozen layers are computed once.

  {program} --config=finetune
  {program} --config=finetune --mode=summary

Flags:
  --config=FILE[:KEY=VALUE,...]  the experiment, and a recipe of its file; FILE
                                 is a path, or one of the names below
  --config.FIELD=VALUE           changes one value of it, such as
                                 --config.dataset.root=FOLDER, your own images;
                                 None takes back what the file sets, where a
                                 field may be empty; --help=config lists all
                                 fields
  --workdir=FOLDER               folder of the run;
                                 default: runs/<name>-<digest>; of an ablation
                                 or a transfer curve, the folder of its tables
                                 and figures (its runs are in runs/)
  --mode=MODE                    what to do, see below
{mode_flags}
{switches}

Modes (flags that a mode needs are in brackets):
{modes}

Tasks, which a config chooses by config.task:
{tasks}

Configs: {configs}.

Run the same command again to resume an interrupted run. SIGTERM and Ctrl-C
save a checkpoint first. Caches (weights, decoded images, features, compiled
programs) are in ${cache}, else in the user's cache folder.

Exit status: 0 done, 2 something to fix in the command or the data,
75 a host of --hosts is gone (run it again), 130 and 143 stopped by Ctrl-C
(SIGINT) and SIGTERM.
"""


def help_text(topic: str = "") -> str:
    """The text of `--help`, or of `--help=config` and `--help=config.GROUP`.

    Raises:
        UserError: there are no such fields.
    """
    if topic:
        return _fields_text(topic)
    return HELP.format(
        modes="\n".join(_entry(name, _meaning(name, mode), NAME_COLUMN) for name, mode in MODES.items()),
        tasks="\n".join(_entry(name, task.meaning, NAME_COLUMN) for name, task in TASKS.items()),
        mode_flags="\n".join(_entry(f"--{name}=…", meaning, FLAG_COLUMN) for name, meaning in MODE_FLAGS.items()),
        switches="\n".join(_entry(f"--{name}", meaning, FLAG_COLUMN) for name, meaning in SWITCHES.items()),
        cache=CACHE_VARIABLE,
        program=program(),
        configs=textwrap.fill(", ".join(config_names()), WIDTH - 1, initial_indent=" " * 9).strip(),
    )


def _meaning(name: str, mode: Entry) -> str:
    return mode.meaning + (f" [--{mode.needs}]" if mode.needs and name != RUN else "")


def _entry(name: str, meaning: str, column: int) -> str:
    """A name and its meaning, which starts at a column and continues there."""
    lines = textwrap.wrap(meaning, WIDTH - column) or [""]
    return f"  {name:<{column - 3}} " + ("\n" + " " * column).join(lines)


def _fields_text(topic: str) -> str:
    fields = {f"config.{path}": field for path, field in FIELDS.items()}
    fields |= {f"config.stages.NAME.{path}": field for path, field in STAGE_FIELDS.items()}
    chosen = {path: field for path, field in fields.items() if path == topic or path.startswith(f"{topic}.")}
    if not chosen:
        groups = sorted({path.rpartition(".")[0] for path in fields})
        raise UserError(f"--help={topic}: there are no such fields; {nearest_names(topic, [*groups, *fields])}")
    lines = []
    for path, field in chosen.items():
        default = "" if field.default in (None, "", ()) else f"  (default: {field.default})"
        lines.append(f"--{path}={field_types(field)}{default}")
        lines += textwrap.wrap(field.meaning, WIDTH - 4, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines) + "\n"
