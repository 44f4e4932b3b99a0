"""Mutations of valid files, like those of hostile writers and broken disks.

`VISION_TRANSFER_FUZZ_CASES` sets the total number: 2,400 by default, 20,000 for the long version.
"""

import io
import json
import os

import numpy as np
import pytest
from rich.console import Console

from vision_transfer.runtime.console import Screen

CASES = int(os.environ.get("VISION_TRANSFER_FUZZ_CASES", "2400"))
# JSON values to put where another is expected.
FOREIGN = (None, True, -1, 0, 10**400, 1e308, float("nan"), "", "a" * 5000, "../../x", "\x00", [], {}, [[]], {"a": 1})
MOST_FLIPS = 8
LONGEST_BLOCK = 64


def mutated_file(content: bytes, random: np.random.Generator) -> bytes:
    """A mutation of a file; half of the mutations of JSON stay JSON."""
    if content[:1] in (b"{", b"[") and random.random() < 0.5:
        return mutated_json(content, random)
    return mutated_bytes(content, random)


def mutated_bytes(content: bytes, random: np.random.Generator) -> bytes:
    """Changes one to eight bytes, or cuts, doubles, zeroes or inserts a block, or truncates the file."""
    changed = bytearray(content)
    place = int(random.integers(0, max(1, len(changed))))
    block = int(random.integers(1, LONGEST_BLOCK))
    match int(random.integers(0, 8)):
        case 0 | 1 | 2:
            for _ in range(int(random.integers(1, MOST_FLIPS + 1))):
                if changed:
                    changed[int(random.integers(0, len(changed)))] = int(random.integers(0, 256))
        case 3:
            del changed[place:]
        case 4:
            del changed[place : place + block]
        case 5:
            changed[place:place] = random.bytes(block)
        case 6:
            changed[place : place + block] = bytes(len(changed[place : place + block]))
        case _:
            changed[place:place] = changed[place : place + block]
    return bytes(changed)


def mutated_json(content: bytes, random: np.random.Generator) -> bytes:
    """Replaces a value of the document, or removes or renames a key."""
    document = json.loads(content)
    places = list(_places(document))
    if not places:
        return b"{}"
    node, key = places[int(random.integers(0, len(places)))]
    choice = int(random.integers(0, 3))
    if choice == 0 and isinstance(node, dict):
        del node[key]
    elif choice == 1 and isinstance(node, dict):
        node[f"{key}_"] = node.pop(key)
    else:
        node[key] = FOREIGN[int(random.integers(0, len(FOREIGN)))]
    return json.dumps(document).encode()


def _places(node):
    """Every (container, key) of a JSON document."""
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in list(keys):
        yield node, key
        yield from _places(node[key])


@pytest.fixture
def quiet():
    return Screen(Console(file=io.StringIO(), width=200))


@pytest.fixture(scope="session")
def mutated():
    return mutated_file


@pytest.fixture
def cases():
    """Random generators for a share of all cases, each with its own seed so that a case can be repeated."""

    def share(part):
        for seed in range(max(1, round(CASES * part))):
            yield np.random.default_rng(seed)

    return share
