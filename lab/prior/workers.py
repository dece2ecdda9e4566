"""Runs jobs in processes of their own, each of which is used again, until all is done or the time is up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from tqdm import tqdm

from bench.document import notify
from lab.prior.jobs import Job

POLL_S = 1.0
ENDS_WITHIN_S = 20.0
"""How long a worker has to save its state once it was asked to end."""
NICE = 5


@dataclass
class Worker:
    """A process and the job it is at."""

    process: SpawnProcess
    line: Connection
    job: Job | None = None


def run_all(jobs: Sequence[Job], count: int, budget_s: float | None, finished: Callable[[Job], None]) -> list[str]:
    """Does what is not done yet, in the order of `jobs` as far as their needs allow; `finished` is told of each.

    At the end of the budget running jobs are asked to save their state. Returns the names of what failed. A job whose
    need has failed is not tried.
    """
    ends_s = None if budget_s is None else time.monotonic() + budget_s
    done = {job.name for job in jobs if job.done}
    waiting = [job for job in jobs if job.name not in done]
    failed: list[str] = []
    workers = [_start(number) for number in range(min(count, len(waiting)))]
    bar = tqdm(total=len(jobs), initial=len(done), unit="job", disable=None)
    try:
        while waiting or any(worker.job for worker in workers):
            if ends_s is not None and time.monotonic() > ends_s:
                notify("the time is up; the same command goes on from here")
                break
            for worker in workers:
                if worker.job is None:
                    _give(worker, waiting, done)
            if not any(worker.job for worker in workers):
                break  # what is left waits for something that failed
            for line in wait([worker.line for worker in workers if worker.job], timeout=POLL_S):
                worker = next(worker for worker in workers if worker.line is line)
                job, error = _answer(worker)
                if error is None:
                    done.add(job.name)
                    bar.update()
                    finished(job)
                else:
                    failed.append(job.name)
                    notify(f"{job.name} failed: {error}")
    finally:
        _end(workers)
        bar.close()
    return failed


def _give(worker: Worker, waiting: list[Job], done: set[str]) -> None:
    """Hands the first job whose needs are met to an idle worker."""
    job = next((job for job in waiting if done.issuperset(job.needs)), None)
    if job is not None and worker.process.is_alive():
        waiting.remove(job)
        worker.job = job
        worker.line.send(job)


def _answer(worker: Worker) -> tuple[Job, str | None]:
    """The job that a worker has ended, and what went wrong with it."""
    job = worker.job
    assert job is not None
    worker.job = None
    try:
        return job, worker.line.recv()
    except EOFError:
        return job, f"its process ended with {worker.process.exitcode}"


def _start(number: int) -> Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), name=f"prior-{number}", daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.line.close()  # an idle one ends at this
        if worker.job is not None:
            worker.process.terminate()  # training saves its state at this
    ends_s = time.monotonic() + ENDS_WITHIN_S
    for worker in workers:
        worker.process.join(max(0.0, ends_s - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()


def _work(line: Connection) -> None:
    """What a worker does: one thread, one job after another, its output kept off the terminal."""
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends this one
    import torch

    torch.set_num_threads(1)
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    while True:
        try:
            job: Job = line.recv()
        except EOFError:
            return
        try:
            job.do()
            line.send(None)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            line.send(f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})")
