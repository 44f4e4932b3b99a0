"""What a round of a search does with the runs that do not end well."""

import json
import time
from types import SimpleNamespace

import pytest

from vision_transfer.errors import UserError
from vision_transfer.runs.folder import FolderBusy, OtherConditions
from vision_transfer.tasks.search import task
from vision_transfer.tasks.search.candidates import Base, Candidate
from vision_transfer.tasks.search.journal import Entry, Journal
from vision_transfer.tasks.search.rounds import Round
from vision_transfer.tasks.study import runs as study_runs

HEAD = Candidate(Base("vgg16", 128))


@pytest.fixture
def do_round(tmp_path, screen, monkeypatch):
    """Does a round whose only run raises an error; returns the journal as another process reads it."""

    def do(error):
        def launch(*_):
            time.sleep(0.01)
            raise error

        monkeypatch.setattr(task, "launch", launch)
        journal, planned = Journal(tmp_path, "digest", 1e-11), Round("heads", (HEAD,), 5.0)
        journal.begin(planned)
        plan = SimpleNamespace(folder=tmp_path, runs=lambda candidate: [SimpleNamespace(config=candidate)])
        task._do_round(plan, planned, journal, None, ("", 1), screen)

    return do


def test_runs_of_other_code_are_not_compared_with_new_ones(tmp_path, copied_run):
    journal = Journal(tmp_path, "digest", 1e-11)
    journal.begin(Round("heads", (HEAD,), 5.0))
    journal.note(HEAD, Entry((copied_run,), 1.0))
    task._check_unchanged(journal, by_workers=False)
    identity = copied_run / "identity.json"
    identity.write_text(identity.read_text().replace('"code": "', '"code": "other '), encoding="utf-8")
    with pytest.raises(OtherConditions, match="--rerun searches again from the start; --reuse takes"):
        task._check_unchanged(journal, by_workers=False)


def test_the_devices_of_workers_are_not_opened(tmp_path, copied_run, monkeypatch):
    """A process that opens accelerators takes them from its workers; and its own differ from theirs."""

    def opened():
        raise AssertionError("devices were opened")

    journal = Journal(tmp_path, "digest", 1e-11)
    journal.begin(Round("heads", (HEAD,), 5.0))
    task._check_unchanged(journal, by_workers=False)
    journal.note(HEAD, Entry((copied_run,), 1.0))
    identity = copied_run / "identity.json"
    recorded = json.loads(identity.read_text())
    identity.write_text(json.dumps(recorded | {"device": "gpu X × 1"}), encoding="utf-8")
    monkeypatch.setattr(study_runs, "device_text", opened)
    task._check_unchanged(journal, by_workers=True)
    identity.write_text(json.dumps(recorded | {"code": "other"}), encoding="utf-8")
    with pytest.raises(OtherConditions):
        task._check_unchanged(journal, by_workers=True)


def test_a_run_that_fails_is_recorded_and_the_search_goes_on(do_round, tmp_path):
    do_round(UserError("the loss is not finite"))
    journal = Journal(tmp_path, "digest", 1.0)
    assert journal.entries[HEAD].error == "the loss is not finite"
    assert journal.seconds > 0, "its time counts"


@pytest.mark.parametrize("error", [OtherConditions("done by other code"), FolderBusy("in use")])
def test_a_run_that_was_not_tried_is_no_failure(do_round, tmp_path, error):
    with pytest.raises(type(error)):
        do_round(error)
    assert HEAD not in Journal(tmp_path, "digest", 1.0).entries
