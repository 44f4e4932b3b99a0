"""Workers as jobs of a Slurm cluster, through submitit; a job that is preempted or runs out of time is requeued.

submitit stores what it submits as pickles in the sweep's folder `jobs/`; this program reads none of them.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vision_transfer.config.task_schema import SlurmConfig
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.program import install_extra
from vision_transfer.tasks.ablation.launchers import MODULE, MOST_DEATHS_IN_A_ROW, keep_working
from vision_transfer.tasks.ablation.sweep import SweepFolder

SECONDS_BETWEEN_CHECKS = 2.0
# Between submitit's signal and the end of a job's time; a worker saves within seconds.
SECONDS_TO_SAVE = 60
# How often a job may run out of time; its work is kept each time.
MOST_REQUEUES = 100
# A worker that was asked to stop ends with this plus the signal's number; one that was killed, with a negative status.
FIRST_STATUS_OF_SIGNALS = 128


class WorkerJob:
    """A worker as submitit calls it: the process that `processes:N` starts, without its parent's id as an argument."""

    def __init__(self, command: Sequence[str]):
        self.command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Works until the sweep is done; returns the worker's exit status."""
        # The worker ends with this process, however that ends.
        self._process = subprocess.Popen([*self.command, str(os.getpid())], stdin=subprocess.DEVNULL)
        return self._process.wait()

    def checkpoint(self) -> Any:
        """Makes the worker save and end; returns what submitit requeues: the same job."""
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
    """Submits workers as jobs and waits until all have ended; a job that died or ran out of time is submitted again.

    All nodes must see the sweep's folder, the runs and the caches. `finished` as in `run_in_processes`.

    Raises:
        UserError: submitit or the cluster is missing, or jobs end with an error or die again and again.
        Stopped: this process was asked to stop; the jobs are cancelled and have saved their work.
    """
    executor = _executor(folder.path / "jobs", slurm)

    def submitted() -> Any:
        return executor.submit(WorkerJob(worker_command(folder.path)))

    def restarted(place: int, status: int, deaths: int) -> Any:
        old = jobs[place]
        if status > 0 or deaths > MOST_DEATHS_IN_A_ROW:
            raise UserError(f"job {old.job_id} ended in state {old.state}; its output is in {old.paths.stderr}")
        new = submitted()
        screen.say(f"Job {old.job_id} ended early; {new.job_id} replaces it.")
        return new

    jobs = [submitted() for _ in range(count)]
    screen.say(f"Jobs {', '.join(job.job_id for job in jobs)}; their output is in {folder.path / 'jobs'}.")
    try:
        keep_working(jobs, _status, restarted, finished, SECONDS_BETWEEN_CHECKS)
    finally:
        for job in jobs:
            if not job.done():
                job.cancel(check=False)


def _executor(folder: Path, slurm: SlurmConfig) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError(f"--launcher=slurm needs submitit: {install_extra('slurm')}") from error
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=slurm.cluster, slurm_max_num_timeout=MOST_REQUEUES)
    except RuntimeError as error:
        raise UserError(
            f"--launcher=slurm: {error}; run this on a machine with sbatch, or set --config.slurm.cluster=local"
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


def _status(job: Any) -> int | None:
    """The worker's exit status; None while the job runs, -1 if it was killed or stopped before its end."""
    if not job.done():
        return None
    if not job.paths.result_pickle.exists() or job.exception() is not None:
        return -1
    status = job.result()
    return status if 0 <= status < FIRST_STATUS_OF_SIGNALS else -1
