"""Lines and progress bars."""

import io
import time

import pytest
from rich.console import Console
from rich.table import Table

from vision_transfer.runtime import console as screen_module
from vision_transfer.runtime.terminal import SafeConsole


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("first", [10, 500], ids=["compiled", "resumed"])
def test_the_time_left_does_not_count_what_came_before_the_first_items(screen, clock, monkeypatch, first):
    """A minute of compilation, or many resumed items at once, do not count for the pace."""
    monkeypatch.setattr(screen_module, "SECONDS_BETWEEN_LOG_LINES", 15.0)
    with screen.bar("Features", 1000) as advance:
        clock[0] += 60
        advance(first)
        for _ in range(10):
            clock[0] += 2
            advance(10)
    lines = screen.console.file.getvalue().splitlines()
    # The first line as soon as the pace is known, the next after 15 s; 0.2 s per item.
    assert lines == [
        f"Features: {count} of 1000 images, about {screen_module.duration((1000 - count) / 5)} left, 5 images/s"
        for count in (first + 10, first + 90)
    ]


def test_steps_show_images_per_second(screen, clock):
    with screen.bar("head epoch 1/2", 100, "steps", images_each=32) as advance:
        advance(10)
        clock[0] += 20
        advance(10, "stage: 5 min 00 s more")
    (line,) = screen.console.file.getvalue().splitlines()
    assert line == "head epoch 1/2: 20 of 100 steps, about 2 min 40 s left, 16 images/s, stage: 5 min 00 s more"


def test_items_other_than_images_show_no_images_per_second(screen, clock):
    with screen.bar("Downloading", 100, "MB") as advance:
        advance(10)
        clock[0] += 20
        advance(10)
    assert screen.console.file.getvalue().splitlines() == ["Downloading: 20 of 100 MB, about 2 min 40 s left"]


def test_on_a_terminal_the_bar_shows_pace_and_note(clock):
    terminal = screen_module.Screen(Console(file=io.StringIO(), width=160, force_terminal=True))
    with terminal.bar("head epoch 1/2", 100, "steps", images_each=32) as advance:
        advance(10)
        clock[0] += 20
        advance(10, "stage: 5 min 00 s more")
    shown = terminal.console.file.getvalue()
    assert "head epoch 1/2" in shown and "16 images/s  stage: 5 min 00 s more" in shown


@pytest.mark.parametrize("force_terminal", [False, True])
def test_brackets_in_names_are_no_markup(force_terminal):
    """In lines, cells, titles and bars; a closing tag without an opening one would even be an error."""
    name = "[red]a[/] :cat:"
    console = SafeConsole(file=io.StringIO(), width=160, force_terminal=force_terminal, no_color=True)
    shown = screen_module.Screen(console)
    table = Table(name, title=name)
    table.add_row(name)
    shown.say(name, style="bold")
    shown.say(table)
    with shown.bar(name, 10) as advance:
        advance(10, name)
    assert console.file.getvalue().count(name) >= (4 + 2 * force_terminal)
