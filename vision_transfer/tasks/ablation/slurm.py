"""Workers as jobs of a Slurm cluster, through submitit; a job that is preempted or runs out of time is requeued.

submitit stores what it submits as pickles in the sweep's folder `jobs/`; this program reads none of them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vision_transfer.config.task_schema import SlurmConfig
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import held
from vision_transfer.runtime.program import install_extra
from vision_transfer.tasks.ablation.launchers import MODULE, MOST_DEATHS_IN_A_ROW, keep_working, worker_environment
from vision_transfer.tasks.ablation.sweep import SweepFolder

SECONDS_BETWEEN_CHECKS = 2.0
# Between submitit's signal and the end of a job's time; a worker saves within seconds.
SECONDS_TO_SAVE = 60
# How often a job may run out of time; its work is kept each time.
MOST_REQUEUES = 100
# A lock that the command holds while it waits for its jobs, and a file that it touches at each check. The file is old
# from this many seconds on: a file system may show it late, and the clocks of nodes differ.
ALIVE, OLD_SECONDS = "alive", 60
# A worker that was asked to stop ends with this plus the signal's number; one that was killed, with a negative status.
FIRST_STATUS_OF_SIGNALS = 128


class WorkerJob:
    """A worker as submitit calls it: the process that `processes:N` starts, without its parent's id as an argument."""

    def __init__(self, command: Sequence[str]):
        self.command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Works until the sweep is done; returns the worker's exit status."""
        import submitit

        job = submitit.JobEnvironment()
        alone = job.num_tasks == job.num_nodes
        beside = job.num_tasks // job.num_nodes
        environment = None if alone else worker_environment(os.environ, job.local_rank, beside)
        # The worker ends with this process, however that ends.
        self._process = subprocess.Popen([*self.command, str(os.getpid())], stdin=subprocess.DEVNULL, env=environment)
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
            last = next(worker for worker in _workers(old) if _worker_status(worker) == status)
            raise UserError(f"job {old.job_id} ended in state {old.state}; its output is in {last.paths.stderr}")
        new = submitted()
        screen.say(f"Job {old.job_id} ended early; {new.job_id} replaces it.")
        return new

    touched = folder.path / ALIVE

    def finished_and_alive() -> int:
        touched.touch()
        return finished()

    with folder.lock(ALIVE):
        touched.touch()
        jobs = [submitted() for _ in range(count)]
        screen.say(f"Jobs {', '.join(job.job_id for job in jobs)}; their output is in {folder.path / 'jobs'}.")
        try:
            keep_working(jobs, _status, restarted, finished_and_alive, SECONDS_BETWEEN_CHECKS)
        finally:
            touched.unlink(missing_ok=True)
            for job in jobs:
                if not job.done():
                    job.cancel(check=False)


def check_locks(folder: SweepFolder) -> None:
    """Checks that this node sees the lock that the command of a sweep holds on another one.

    Raises:
        UserError: it does not, so that two nodes would do the same run at once.
    """
    touched = folder.path / ALIVE
    with held(folder.lock(ALIVE)) as free:
        if free and touched.exists() and time.time() - touched.stat().st_mtime < OLD_SECONDS:
            raise UserError(
                f"{folder.path}: locks of this file system (flock) do not hold between hosts, so that workers would do "
                "the same runs at once. Mount it with locks (Lustre: -o flock; NFS: without nolock and local_lock), "
                "put --workdir and the working directory on another one, or use --launcher=processes:N on one host"
            )


def _executor(folder: Path, slurm: SlurmConfig) -> Any:
    if slurm.cluster == "local" and slurm.nodes > 1:
        raise UserError(f"config.slurm.nodes={slurm.nodes}: slurm.cluster=local has one node, this machine")
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
        nodes=slurm.nodes,
        tasks_per_node=slurm.tasks_per_node,
        cpus_per_task=slurm.cpus,
        gpus_per_node=slurm.gpus,
        mem_gb=slurm.memory_gb,
        slurm_signal_delay_s=SECONDS_TO_SAVE,
        **({} if slurm.partition is None else {"slurm_partition": slurm.partition}),
    )
    return executor


def _workers(job: Any) -> list[Any]:
    return [job.task(number) for number in range(job.num_tasks)]


def _status(job: Any) -> int | None:
    """None while a worker of the job runs; then the status of one with an error, -1 if one died, or 0."""
    if not job.done():
        return None
    statuses = [_worker_status(worker) for worker in _workers(job)]
    return max(statuses) or min(statuses)


def _worker_status(worker: Any) -> int:
    """The exit status of a worker that has ended; -1 if it was killed or stopped before its end."""
    if not worker.paths.result_pickle.exists() or worker.exception() is not None:
        return -1
    status = worker.result()
    return status if 0 <= status < FIRST_STATUS_OF_SIGNALS else -1
