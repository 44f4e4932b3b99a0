"""What an ablation says in plain sentences: a paragraph for each size of the training set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vision_transfer.errors import UserError
from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.ablation.grid import SEED, SIZE
from vision_transfer.tasks.study.conclusions import conclusions
from vision_transfer.tasks.study.mask_runs import mask_runs
from vision_transfer.tasks.study.plan import Label
from vision_transfer.tasks.study.runs import FinishedRun

SENTENCES = "conclusions.md"


def conclusions_by_size(finished: Sequence[FinishedRun]) -> list[list[str]]:
    """The sentences of `study.conclusions` for each size of the training set, from finished runs.

    What is compared are masks, with rate, multipliers and schedule where the sweep has several of them. Where runs are
    missing the paragraph says which, instead.
    """
    by_size: dict[Label, dict[str, list[FinishedRun]]] = {}
    for one in finished:
        rest = [_words(name, value) for name, value in one.run.labels.items() if name not in (SIZE, SEED)]
        by_size.setdefault(one.run.labels[SIZE], {}).setdefault(", ".join(rest), []).append(one)
    return [_paragraph(groups, f"with {size:,} training images") for size, groups in by_size.items()]


def write_sentences(paragraphs: Sequence[Sequence[str]], folder: Path) -> Path:
    """Writes the paragraphs as Markdown lists; returns the file."""
    text = "\n\n".join("\n".join(f"- {sentence}" for sentence in paragraph) for paragraph in paragraphs)
    with replaced_file(folder / SENTENCES) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
    return folder / SENTENCES


def _paragraph(groups: Mapping[str, Sequence[FinishedRun]], setting: str) -> list[str]:
    try:
        return conclusions([mask_runs(name, runs, over=SEED) for name, runs in groups.items()], setting)
    except UserError as error:
        return [f"No conclusion {setting}: {error}."]


def _words(name: str, value: Label) -> str:
    return f"{name} {value:g}" if isinstance(value, float) else str(value)
