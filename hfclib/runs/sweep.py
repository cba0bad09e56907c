"""Sweeps: what is missing of many recipes and seeds, trained in parallel; what is finished is kept, whatever happens.

An engine is a function from jobs to the same jobs with a run each, or with what went wrong, as they end. `local` is
the one for a single machine; `hfclib.cluster` has the one for Ray.
"""

import contextlib
import itertools
import os
import queue
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import torch
from loky.process_executor import ProcessPoolExecutor, ShutdownExecutorError

from hfclib._files import home
from hfclib.runs.store import Run, RunError, find, load
from hfclib.runs.train import train_run
from hfclib.training.recipe import Recipe

TRIES = 3  # of a run whose worker process dies
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A run to train: its recipe and seed."""

    recipe: Recipe
    seed: int

    def __str__(self) -> str:
        return f"{self.recipe.name}, seed {self.seed}"


Outcome = tuple[Job, Run | str]  # the stored run, or what went wrong, in words
Engine = Callable[[Sequence[Job], Path | None, int | None, Say], Iterator[Outcome]]


@dataclass
class SweepReport:
    """What a sweep came to.

    Attributes:
        runs: stored runs, those found first.
        failures: what went wrong, by job.
        stopped: whether it was interrupted.
    """

    runs: list[Run] = field(default_factory=list)
    failures: dict[Job, str] = field(default_factory=dict)
    stopped: bool = False


def parse_seeds(text: str) -> list[int]:
    """Seeds as a person writes them: "3", "0-9", "0,2,5" or "0-2,7"; each once, in that order.

    Raises:
        ValueError: anything else, or more than 1,000 of them.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        bounds = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", part, re.ASCII)
        first, last = (int(bounds[1]), int(bounds[2] or bounds[1])) if bounds else (1, 0)
        if not first <= last < first + 1000:
            raise ValueError(f"expected seeds such as 3, 0-9 or 0,2,5, got {text!r}")
        found |= dict.fromkeys(range(first, last + 1))
    if len(found) > 1000:
        raise ValueError(f"expected at most 1,000 seeds, got {len(found):,}")
    return list(found)


def sweep(
    recipes: Mapping[str, Recipe],
    wanted: Sequence[int],
    *,
    engine: Engine | None = None,
    store: Path | None = None,
    workers: int | None = None,
    retrain: bool = False,
    say: Say = print,
) -> SweepReport:
    """Train what is missing of recipes and seeds: the first seed of every recipe before the second of any.

    Args:
        recipes: by variant.
        wanted: seeds, whole numbers of at least 0.
        engine: None is `local`.
        store: folder to look in and to write to; None looks in `folders()` and writes to `<home>/runs`.
        workers: how many runs at a time; None lets the engine decide.
        retrain: train stored runs too.
        say: is given a line for every run that ends, and one for the whole after it.
    Returns:
        What it came to. A recipe that fails, or a stored run that is damaged, does not stop the others; nor is
        anything lost that has ended when Ctrl-C stops the sweep.
    """
    report, missing = SweepReport(), []
    for seed, recipe in itertools.product(dict.fromkeys(wanted), recipes.values()):
        try:
            found = None if retrain else find(recipe, seed, store)
        except RunError as error:
            report.failures[Job(recipe, seed)] = str(error)
            say(f"{Job(recipe, seed)}: failed")
            continue
        if found:
            report.runs.append(found)
        else:
            missing.append(Job(recipe, seed))
    say(f"{len(report.runs)} stored, {len(missing)} to train")
    if not missing:
        return report
    start = time.monotonic()
    try:
        with contextlib.closing((engine or local_engine)(missing, store, workers, say)) as outcomes:
            for ended, (job, outcome) in enumerate(outcomes, 1):
                if isinstance(outcome, str):
                    report.failures[job] = outcome
                    say(f"{job}: failed")
                else:
                    report.runs.append(outcome)
                    say(f"{job}: trained, test accuracy {outcome.test_accuracy():.3f}, {outcome.path}")
                left = (time.monotonic() - start) / ended * (len(missing) - ended) / 60
                failed = f", {len(report.failures)} failed" if report.failures else ""
                say(f"{ended} of {len(missing)} done{failed}, about {left:.1f} minutes left")
    except KeyboardInterrupt:
        report.stopped = True
    return report


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train_job(job: Job, store: Path | None, tell: Say = print) -> str | None:
    """Train a job in this process; what went wrong, in words, or None."""
    try:
        train_run(job.recipe, seed=job.seed, store=store, progress=False, tell=tell)
    except Exception as error:  # whatever it is, the other runs go on, and the report says it
        known = type(error).__module__.startswith("hfclib") or isinstance(error, OSError)
        return str(error) if known else traceback.format_exc()
    return None


def _flushed(line: str) -> None:
    print(line, flush=True)


def _in_worker(job: Job, store: Path | None) -> str | None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches all; the sweep ends its workers itself
    return train_job(job, store, _flushed)


def local_engine(jobs: Sequence[Job], store: Path | None, workers: int | None, say: Say) -> Iterator[Outcome]:
    """Train jobs in processes on this machine, each with its share of the cores, or a GPU of its own.

    Args:
        jobs: in the order in which they start.
        store: folder of runs, None for your own; a killed worker's run goes on there from its checkpoint.
        workers: how many at a time; None is one a GPU, or else one a core.
        say: is told of a worker that died.
    Yields:
        Each job with its run or what went wrong, as they end.
    """
    gpus = torch.cuda.device_count()
    count = min(workers or gpus or (1 if torch.backends.mps.is_available() else cores()), len(jobs))
    threads = max(1, cores() // count)
    say(f"{count} worker{'s' * (count > 1)} of {threads} thread{'s' * (threads > 1)} each")
    env = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    # A pool for each worker: when a process dies, its pool is of no more use, and only its own run may suffer.
    pools = {slot: _pool(env, slot, gpus) for slot in range(count)}
    free, changing, stopping = queue.SimpleQueue(), threading.Lock(), threading.Event()
    for slot in pools:
        free.put(slot)

    def attempt(job: Job) -> str | None:
        slot = free.get()
        try:
            for left in reversed(range(TRIES)):
                try:
                    return pools[slot].submit(_in_worker, job, store).result()
                except (BrokenProcessPool, ShutdownExecutorError):
                    with changing:
                        if stopping.is_set():
                            return "stopped"
                        pools[slot] = _pool(env, slot, gpus)
                    say(f"{job}: its worker process died; " + ("trying again" if left else "giving up"))
            return f"its worker process died {TRIES} times: killed from outside, or out of memory"
        finally:
            free.put(slot)

    threads_of_driver = ThreadPoolExecutor(count)
    futures = {threads_of_driver.submit(attempt, job): job for job in jobs}
    try:
        for future in as_completed(futures):
            job, problem = futures[future], future.result()
            yield job, problem or _stored(job, store)
    finally:
        with changing:
            stopping.set()
        threads_of_driver.shutdown(wait=False, cancel_futures=True)
        for pool in pools.values():
            pool.shutdown(kill_workers=True)
        threads_of_driver.shutdown()


def _pool(env: dict[str, str], slot: int, gpus: int) -> ProcessPoolExecutor:
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        env = {**env, "CUDA_VISIBLE_DEVICES": visible[slot % gpus]}
    return ProcessPoolExecutor(1, env=env)  # its processes start with this environment, before torch is imported


def _stored(job: Job, store: Path | None) -> Run | str:
    try:
        return load((store or home() / "runs") / job.recipe.run_name(job.seed))
    except RunError as error:
        return str(error)
