"""The file that a search goes on from."""

from dataclasses import replace

import pytest

from vision_transfer.errors import UserError
from vision_transfer.tasks.search.candidates import Base, Candidate, Tuning
from vision_transfer.tasks.search.journal import Entry, Journal
from vision_transfer.tasks.search.rounds import Round

HEAD = Candidate(Base("vgg16", 128, "layers"), "svm")
TUNED = Candidate(Base("vgg16", 128), tuning=Tuning("below:block5_conv1", 1e-4, 3))


def test_a_journal_reads_what_it_wrote(tmp_path):
    journal = Journal(tmp_path, "digest", 1e-11)
    journal.begin(Round("heads", (HEAD,), 5.0))
    journal.note(HEAD, Entry((tmp_path / "run",), 12.5))
    journal.begin(Round("fine-tuning", (TUNED, replace(TUNED, on_first_fold=True)), 60.5))
    journal.note_test(HEAD)
    again = Journal(tmp_path, "digest", 5e-11)
    assert again.product_seconds == 1e-11, "the speed is that of the search's beginning"
    assert (again.rounds, again.entries, again.tested) == (journal.rounds, journal.entries, journal.tested)
    assert again.seconds == 12.5
    again.note(TUNED, Entry((), 0.0, error="the loss is not finite"))
    assert Journal(tmp_path, "digest", 1.0).entries[TUNED].error == "the loss is not finite"


def test_a_damaged_journal_says_what_to_do(tmp_path):
    Journal(tmp_path, "digest", 1e-11).begin(Round("heads", (HEAD,), 5.0))
    file = tmp_path / "search.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"image_size"', '"size"'), encoding="utf-8")
    with pytest.raises(UserError, match="remove it to search again"):
        Journal(tmp_path, "digest", 1e-11)


def test_the_journal_of_another_search_is_refused(tmp_path):
    """With `--workdir`, nothing in the name of the folder tells them apart."""
    Journal(tmp_path, "digest", 1e-11).begin(Round("heads", (HEAD,), 5.0))
    with pytest.raises(UserError, match="is of another search"):
        Journal(tmp_path, "other", 1e-11)


def test_what_failed_is_tried_again_by_the_next_command_and_its_time_stays(tmp_path):
    journal = Journal(tmp_path, "digest", 1e-11)
    journal.begin(Round("heads", (HEAD,), 5.0))
    journal.note(HEAD, Entry((), 3.0, error="no network"))
    assert not journal.failed_before, "not by the same command"
    again = Journal(tmp_path, "digest", 1e-11)
    assert again.failed_before == {HEAD}
    again.note(HEAD, Entry((tmp_path / "run",), 12.5))
    assert not again.failed_before and again.seconds == 15.5 and again.entries[HEAD].error is None
