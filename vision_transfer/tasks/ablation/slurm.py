"""Workers as jobs of a Slurm cluster, through submitit; a job that is preempted or runs out of time is requeued.

submitit keeps what it submits as pickles of its own, in the sweep's folder `jobs/`; this program reads none of them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from vision_transfer.config.schema import SlurmConfig
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.ablation.launchers import MODULE
from vision_transfer.tasks.ablation.sweep import SweepFolder

SECONDS_BETWEEN_LOOKS = 2.0
# Between submitit's signal and the end of a job's time: a worker saves within seconds.
SECONDS_TO_SAVE = 60
# A job may run out of its time this often; what it had done is kept each time.
MOST_REQUEUES = 100
MOST_SUBMISSIONS_IN_A_ROW = 20
# A worker that was asked to stop ends with this and the signal's number; one that was killed, with a negative status.
FIRST_STATUS_OF_SIGNALS = 128


class WorkerJob:
    """A worker as submitit calls it: the process of its own that `processes:N` starts, too.

    Attributes:
        command: of the worker, all but the process that it ends with.
    """

    def __init__(self, command: Sequence[str]):
        self.command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Works until the sweep is done; returns the worker's exit status."""
        # The worker ends with this process, however that ends.
        self._process = subprocess.Popen([*self.command, str(os.getpid())], stdin=subprocess.DEVNULL)
        return self._process.wait()

    def checkpoint(self) -> Any:
        """Has the worker save what it is at, and says that the same is to be done again: submitit's requeueing."""
        import submitit

        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
        return submitit.helpers.DelayedSubmission(WorkerJob(self.command))

    def __getstate__(self) -> dict[str, Any]:
        return {"command": self.command, "_process": None}


def worker_command(folder: Path) -> list[str]:
    """The command of a worker on all cores of its job."""
    return [sys.executable, "-m", MODULE, str(folder.absolute()), ""]


def run_in_jobs(
    folder: SweepFolder, count: int, slurm: SlurmConfig, finished: Callable[[], int], screen: Screen
) -> None:
    """Submits workers as jobs and waits for their end; a job that died or ran out of its time is submitted again.

    Args:
        folder: of the sweep, with its plan; all nodes must see it, the runs and the caches.
        count: of jobs.
        slurm: `config.slurm`.
        finished: how many runs are finished; called often, and may say so.
        screen: says which jobs there are.

    Raises:
        UserError: submitit or the cluster is missing, or jobs end with an error or die again and again.
        Stopped: this process was asked to stop; the jobs are cancelled and have saved what they had.
    """
    executor = _executor(folder.path / "jobs", slurm)
    jobs = [_submit(executor, folder) for _ in range(count)]
    screen.say(escape(f"Jobs {', '.join(job.job_id for job in jobs)}; what they say is in {folder.path / 'jobs'}."))
    deaths, before = 0, finished()
    try:
        while not all(_succeeded(job) for job in jobs):
            time.sleep(SECONDS_BETWEEN_LOOKS)
            done = finished()
            for place, job in enumerate(jobs):
                if not job.done() or _succeeded(job):
                    continue
                deaths, before = (deaths + 1 if done == before else 1), done
                if deaths > MOST_SUBMISSIONS_IN_A_ROW or _status(job) is not None:
                    raise UserError(
                        f"job {job.job_id} ended in state {job.state}; what it said is in {job.paths.stderr}"
                    )
                jobs[place] = _submit(executor, folder)
                screen.say(escape(f"Job {job.job_id} ended before its time; {jobs[place].job_id} takes its place."))
    finally:
        _cancel(jobs)
    finished()


def _executor(folder: Path, slurm: SlurmConfig) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError("--launcher=slurm needs submitit: pip install 'vision_transfer[slurm]'") from error
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=slurm.cluster, slurm_max_num_timeout=MOST_REQUEUES)
    except RuntimeError as error:
        raise UserError(
            f"--launcher=slurm: {error}; run this where sbatch is, or set --config.slurm.cluster=local"
        ) from error
    executor.update_parameters(
        name="vision_transfer",
        timeout_min=slurm.minutes,
        cpus_per_task=slurm.cpus,
        gpus_per_node=slurm.gpus,
        mem_gb=slurm.memory_gb,
        slurm_signal_delay_s=SECONDS_TO_SAVE,
        **({} if slurm.partition is None else {"slurm_partition": slurm.partition}),
    )
    return executor


def _submit(executor: Any, folder: SweepFolder) -> Any:
    return executor.submit(WorkerJob(worker_command(folder.path)))


def _status(job: Any) -> int | None:
    """The worker's exit status, where the job came to its end: 0, or that of an error."""
    if not job.done() or not job.paths.result_pickle.exists() or job.exception() is not None:
        return None
    status = job.result()
    return status if 0 <= status < FIRST_STATUS_OF_SIGNALS else None


def _succeeded(job: Any) -> bool:
    return _status(job) == 0


def _cancel(jobs: Sequence[Any]) -> None:
    for job in jobs:
        if not job.done():
            job.cancel(check=False)
