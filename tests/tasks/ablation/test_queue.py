"""Workers on one sweep: each run is done once, even if workers die; a failure is recorded and the rest continues."""

import threading
from dataclasses import replace

import pytest

from vision_transfer.config import digested
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import OtherConditions
from vision_transfer.tasks.ablation.all_runs import all_finished, work
from vision_transfer.tasks.ablation.grid import ablation
from vision_transfer.tasks.ablation.sweep import (
    SweepFolder,
    failure,
    finished_run,
    forget,
    read_plan,
    refusal,
    write_plan,
)


@pytest.fixture
def sweep(grid, networks, options):
    study = ablation(grid(), networks, 2000)
    folder = SweepFolder(options.workdir)
    write_plan(study, folder, {})
    return study, folder


def everyone(study):
    return [(run.config.seed, run.config.stages[run.config.schedule[-1]].freeze) for run in study.runs]


def test_each_run_is_done_once_and_never_again(sweep, options, launcher, screen):
    study, folder = sweep
    work(study, folder, options, launcher, screen)
    assert launcher.asked == everyone(study)
    work(study, folder, options, launcher, screen)
    assert launcher.asked == everyone(study)
    assert all(finished_run(run, folder, None) for run in study.runs)


def test_runs_on_other_data_are_done_again(sweep, options, launcher, screen):
    study, folder = sweep

    def on(data):
        return replace(study, runs=tuple(replace(run, data=data) for run in study.runs))

    work(on("fingerprint of the data"), folder, options, launcher, screen)
    work(on("fingerprint of the data"), folder, options, launcher, screen)
    assert launcher.asked == everyone(study)
    write_plan(on("of others"), folder, {})
    others, _ = read_plan(folder)
    assert not any(finished_run(run, folder, None) for run in others.runs)


def test_the_next_worker_does_the_runs_that_a_killed_one_left(sweep, options, launcher, screen):
    study, folder = sweep
    launcher.stop_before = 2
    with pytest.raises(KeyboardInterrupt):
        work(study, folder, options, launcher, screen)
    launcher.stop_before = None
    work(study, folder, options, launcher, screen)
    assert launcher.asked == everyone(study)


def test_workers_share_the_runs(sweep, options, launcher, screen):
    study, folder = sweep
    workers = [
        threading.Thread(target=work, args=(study, folder, options, launcher, screen, lambda seconds: None))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(launcher.asked) == sorted(everyone(study))


def test_a_run_that_another_worker_holds_is_waited_for(sweep, options, launcher, screen):
    study, folder = sweep
    lock, waits = folder.lock(study.runs[0].key), []
    lock.acquire()

    def wait(seconds):
        waits.append(len(launcher.asked))
        lock.release()

    work(study, folder, options, launcher, screen, wait)
    assert waits == [len(study.runs) - 1]
    assert sorted(launcher.asked) == sorted(everyone(study))


def test_a_head_that_another_worker_trains_is_waited_for(sweep, options, launcher, screen):
    study, folder = sweep
    lock, waits = folder.lock(f"first-{study.runs[0].first_stage_key}"), []
    lock.acquire()

    def wait(seconds):
        waits.append(list(launcher.asked))
        lock.release()

    work(study, folder, options, launcher, screen, wait)
    assert {seed for seed, _ in waits[0]} == {1}
    assert len(launcher.asked) == len(study.runs)


def test_a_run_of_another_sweep_is_waited_for(sweep, options, launcher, screen):
    study, folder = sweep
    launcher.busy = 2
    work(study, folder, options, launcher, screen)
    assert sorted(launcher.asked) == sorted(everyone(study))


def test_a_failed_run_is_named_and_tried_again_by_the_next_command(sweep, options, launcher, screen):
    study, folder = sweep
    launcher.fails = "below:block5_conv2"
    work(study, folder, options, launcher, screen)
    assert len(launcher.asked) == len(study.runs) - 2
    assert {failure(run, folder) for run in study.runs} == {None, "the loss is not finite"}
    launcher.fails = None
    forget(study, folder, finished=False)
    work(study, folder, options, launcher, screen)
    assert sorted(launcher.asked) == sorted(everyone(study))


def test_a_worker_on_another_device_leaves_finished_runs_as_they_are(sweep, options, launcher, screen, monkeypatch):
    """Each refusal was recorded as a failure over the record of the finished run: six finished runs became failed."""
    study, folder = sweep
    work(study, folder, options, launcher, screen)

    def refuses(config, options, screen):
        raise OtherConditions("this run was finished under other conditions")

    monkeypatch.setattr("vision_transfer.tasks.study.runs.device_text", lambda: "abacus × 10")
    work(study, folder, options, refuses, screen)
    assert all(finished_run(run, folder, None) for run in study.runs)
    assert {failure(run, folder) for run in study.runs} == {refusal(run, folder) for run in study.runs} == {None}


def test_a_run_of_another_sweep_on_another_device_is_refused_and_not_failed(sweep, options, screen, launcher):
    study, folder = sweep

    def refuses(config, options, screen):
        raise OtherConditions("this run was finished under other conditions")

    work(study, folder, options, refuses, screen)
    assert {failure(run, folder) for run in study.runs} == {None}
    assert {refusal(run, folder) for run in study.runs} == {"this run was finished under other conditions"}
    forget(study, folder, finished=False)
    work(study, folder, options, launcher, screen)
    assert launcher.asked == everyone(study)


def starting(study):
    """The study with each run but the first starting from the first."""
    first, *others = study.runs
    return replace(study, runs=(first, *(replace(run, start=first) for run in others)))


def test_a_run_starts_from_the_folder_of_the_run_that_it_names(sweep, options, launcher, screen):
    """So that a head or a pretraining is trained once; another start is another run, in the same folder too."""
    study, folder = sweep
    started, starts = starting(study), []

    def launch(config, options, screen):
        starts.append(config.init_from)
        return launcher(config, options, screen)

    launcher.stop_before = 2
    with pytest.raises(KeyboardInterrupt):
        work(started, folder, options, launch, screen)
    launcher.stop_before = None
    work(started, folder, options, launch, screen)
    first = finished_run(study.runs[0], folder, None)
    assert first is not None
    assert starts == [None, *[str(first.folder.absolute())] * len(study.runs)]  # one was stopped
    assert launcher.asked == everyone(study)
    assert not any(finished_run(run, folder, None) for run in study.runs[1:])
    work(study, folder, options, launch, screen)
    assert len(launcher.asked) == 2 * len(study.runs) - 1


def test_what_starts_from_a_failed_run_fails_with_its_reason(sweep, options, launcher, screen):
    study, folder = sweep
    launcher.fails = everyone(study)[0][1]
    work(starting(study), folder, options, launcher, screen)
    reasons = {failure(run, folder) for run in starting(study).runs}
    assert launcher.asked == []
    assert reasons == {
        "the loss is not finite",
        f"{study.runs[0].name}, which it starts from, cannot be used: the loss is not finite",
    }
    with pytest.raises(UserError, match=f"{len(study.runs)} of {len(study.runs)} runs failed"):
        all_finished(starting(study), folder)


def test_what_starts_from_a_run_of_another_device_is_refused_and_waits_for_nothing(
    sweep, options, launcher, screen, monkeypatch
):
    study, folder = sweep
    launcher.stop_before = 1
    with pytest.raises(KeyboardInterrupt):
        work(starting(study), folder, options, launcher, screen)

    def refuses(config, options, screen):
        raise OtherConditions("this run was finished under other conditions")

    monkeypatch.setattr("vision_transfer.tasks.study.runs.device_text", lambda: "abacus × 10")
    work(starting(study), folder, options, refuses, screen)
    first, *others = starting(study).runs
    assert refusal(first, folder) is None and finished_run(first, folder, None) is not None
    assert all("was done under other conditions; --rerun" in refusal(run, folder) for run in others)


def test_rerun_forgets_what_is_finished(sweep, options, launcher, screen):
    study, folder = sweep
    work(study, folder, options, launcher, screen)
    forget(study, folder, finished=True)
    work(study, folder, options, launcher, screen)
    assert launcher.asked == everyone(study) * 2


def test_equal_runs_of_two_sweeps_have_the_same_key(grid, networks):
    first = ablation(grid(), networks, 2000)
    second = ablation(grid(masks=("below:block5_conv2", "none")), networks, 2000)
    shared = {run.key for run in first.runs} & {run.key for run in second.runs}
    assert len(shared) == 2


def test_a_plan_counts_the_finished_runs_of_other_sweeps(sweep, grid, networks, options, launcher, screen):
    study, folder = sweep
    work(study, folder, options, launcher, screen)
    second = ablation(grid(masks=("below:block5_conv2", "none")), networks, 2000)
    beside = SweepFolder(folder.path.parent / "second")
    found = [finished_run(run, beside, None, beside=True) for run in second.runs]
    shared = {run.key for run in study.runs}
    assert [one is not None for one in found] == [run.key in shared for run in second.runs]
    assert any(found)
    assert not any(finished_run(run, beside, None) for run in second.runs)


def test_workers_read_the_plan_that_was_written(sweep):
    study, folder = sweep
    found, _ = read_plan(folder)
    assert [(run.name, run.labels) for run in found.runs] == [(run.name, run.labels) for run in study.runs]
    assert [digested(run.config) for run in found.runs] == [digested(run.config) for run in study.runs]
