"""The execution of a study: each run once, in order, with the folder of the run that it starts from."""

import shutil
from dataclasses import replace

import pytest
from filelock import FileLock

from vision_transfer.errors import UserError
from vision_transfer.runs.folder import Identity
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.tasks.study.runs import execute, finished_runs


@pytest.fixture
def options(tmp_path):
    return RunOptions(tmp_path / "study", tmp_path / "cache")


def run(study, launcher, options, screen):
    return execute(study, options.workdir, options, launcher, screen)


def test_each_run_is_done_once_and_starts_where_the_plan_says(study, launcher, options, screen):
    finished = run(study, launcher, options, screen)
    base = str(launcher.root / "base")
    assert launcher.asked == [("base", None), ("a", base), ("b", base)]
    assert [one.run.name for one in finished] == ["base", "a", "b"]
    assert [one.result["test"]["accuracy"] for one in finished] == [0.5, 0.5, 0.6]
    again = run(study, launcher, options, screen)
    assert len(launcher.asked) == 3
    assert [one.result for one in again] == [one.result for one in finished]


def test_a_killed_study_resumes_with_the_run_that_was_not_finished(study, launcher, options, screen):
    launcher.stop_before = "b"
    with pytest.raises(KeyboardInterrupt):
        run(study, launcher, options, screen)
    launcher.stop_before = None
    run(study, launcher, options, screen)
    assert [name for name, _ in launcher.asked] == ["base", "a", "b"]


def test_a_run_whose_folder_went_missing_is_done_again(study, launcher, options, screen):
    run(study, launcher, options, screen)
    shutil.rmtree(launcher.root / "b")
    assert set(finished_runs(study, options.workdir, options)) == {"base", "a"}
    run(study, launcher, options, screen)
    assert [name for name, _ in launcher.asked] == ["base", "a", "b", "b"]


def test_a_changed_config_is_another_run_and_its_neighbours_are_not(study, launcher, options, screen):
    run(study, launcher, options, screen)
    config = study.runs[1].config
    changed = replace(config, stages={"head": replace(config.stages["head"], epochs=3)})
    study = replace(study, runs=(study.runs[0], replace(study.runs[1], config=changed), *study.runs[2:]))
    run(study, launcher, options, screen)
    assert [name for name, _ in launcher.asked] == ["base", "a", "b", "a"]


def test_runs_on_other_data_do_not_count_as_finished(study, launcher, options, screen):
    finished = run(study, launcher, options, screen)

    def on(data):
        return replace(study, runs=tuple(replace(one, data=data) for one in study.runs))

    assert len(finished_runs(on(finished[0].result["dataset"]["fingerprint"]), options.workdir, options)) == 3
    assert finished_runs(on("of others"), options.workdir, options) == {}


def test_rerun_does_all_again(study, launcher, options, screen):
    run(study, launcher, options, screen)
    run(study, launcher, replace(options, rerun=True), screen)
    assert [name for name, _ in launcher.asked] == ["base", "a", "b"] * 2


def test_runs_of_other_code_are_left_to_the_launcher_but_for_reuse(study, launcher, options, screen):
    launcher.recorded = Identity("digest", "other code", {}, "device")
    run(study, launcher, options, screen)
    assert finished_runs(study, options.workdir, options) == {}
    assert len(finished_runs(study, options.workdir, replace(options, reuse=True))) == 3


def test_two_processes_do_not_share_a_study(study, launcher, options, screen):
    options.workdir.mkdir()
    with FileLock(options.workdir / ".lock"), pytest.raises(UserError, match="in use by another process"):
        run(study, launcher, options, screen)


def test_the_study_s_folder_records_the_folder_of_each_run(study, launcher, options, screen, read_record):
    run(study, launcher, options, screen)
    record = read_record(options.workdir)
    assert {name: entry["folder"] for name, entry in record.items()} == {
        name: str(launcher.root / name) for name in ("base", "a", "b")
    }
