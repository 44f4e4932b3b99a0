"""Makes `cats_vs_dogs_small` from Kaggle's flat `train` folder of "Dogs vs. Cats" (`cat.0.jpg`, ..., `dog.12499.jpg`).

    python -m vision_transfer.data.make_subset KAGGLE_TRAIN cats_vs_dogs_small [--edition 1|2]

Training images are numbers 0-999 of each class, validation 1000-1499, test 1500-1999 (the classic experiments' first
edition) or 1500-2499 (their second).
"""

import argparse
import shutil
import sys
from pathlib import Path

from vision_transfer.errors import UserError
from vision_transfer.runtime.files import new_folder

CLASSES = ("cat", "dog")
TRAIN_RANGE = (0, 1000)
VALIDATION_RANGE = (1000, 1500)
TEST_RANGES = {1: (1500, 2000), 2: (1500, 2500)}
_NAMED_IN_ERRORS = 3


def make_subset(source: Path, destination: Path, test_range: tuple[int, int] = TEST_RANGES[1]) -> None:
    """Copies the subset's files to `destination/SPLIT/CLASS/`, all of them or none.

    `test_range` has the first number of the test images, and the number after the last.

    Raises:
        UserError: no such source, files missing from it, an existing destination, or a full disk.
    """
    if not source.is_dir():
        raise UserError(f"there is no folder {source}. Give the unpacked `train` folder of Kaggle's dogs-vs-cats data.")
    if destination.exists():
        raise UserError(f"{destination} already exists. Remove it, or name another destination.")
    if not VALIDATION_RANGE[1] <= test_range[0] < test_range[1]:
        raise UserError(
            f"test range {test_range}: it must begin at {VALIDATION_RANGE[1]} or later and must not be empty."
        )
    ranges = {"train": TRAIN_RANGE, "validation": VALIDATION_RANGE, "test": test_range}
    copies = {
        f"{split}/{name}/{name}.{number}.jpg": source / f"{name}.{number}.jpg"
        for split, (first, end) in ranges.items()
        for name in CLASSES
        for number in range(first, end)
    }
    missing = [file.name for file in copies.values() if not file.is_file()]
    if missing:
        named = ", ".join(missing[:_NAMED_IN_ERRORS])
        raise UserError(
            f"{source} lacks {len(missing):,} of the {len(copies):,} files needed, such as {named}. "
            "Give the unpacked `train` folder of Kaggle's dogs-vs-cats data, with its files directly inside."
        )
    try:
        with new_folder(destination) as temporary:
            for place, file in copies.items():
                (temporary / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, temporary / place)
    except OSError as error:
        raise UserError(f"{destination} could not be written: {error}.") from error


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for errors that the user can fix."""
    parser = argparse.ArgumentParser(prog="python -m vision_transfer.data.make_subset", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, metavar="KAGGLE_TRAIN", help="flat folder with cat.N.jpg and dog.N.jpg")
    parser.add_argument("destination", type=Path, help="folder to create; must not exist")
    parser.add_argument(
        "--edition", type=int, choices=sorted(TEST_RANGES), default=1, help="which edition's test range (default: 1)"
    )
    options = parser.parse_args(arguments)
    first, end = TEST_RANGES[options.edition]
    try:
        make_subset(options.source, options.destination, (first, end))
    except UserError as error:
        print(f"make_subset: {error}", file=sys.stderr)
        return 2
    print(f"{options.destination}: cats and dogs, test images {first}-{end - 1} of each class")
    return 0


if __name__ == "__main__":
    sys.exit(main())
