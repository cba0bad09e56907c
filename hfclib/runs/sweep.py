"""Sweeps: what is missing of many recipes and seeds, trained in parallel; what is finished is kept, whatever happens.

An engine is a function from jobs to the same jobs, each with its run or with what went wrong, as they end:
`local_engine` for processes on this machine, `hfclib.runs.ray.ray_engine` for a cluster.
"""

import contextlib
import itertools
import logging
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from hfclib._files import home, make_writable
from hfclib.models import REGISTERED, Network
from hfclib.runs.store import Run, RunError, find
from hfclib.runs.train import train_run
from hfclib.training.recipe import Recipe

TRIES = 3  # after so many worker deaths in a row, with no run finished in between, runs are tried one at a time
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A run to train.

    Attributes:
        recipe, seed: of the run.
        retrain: whether it is trained where it is stored too.
        network: the recipe's, for a process in which it is not registered.
    """

    recipe: Recipe
    seed: int
    retrain: bool = field(default=False, compare=False)
    network: Network | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.recipe.name}, seed {self.seed}"


Outcome = tuple[Job, Run | str]  # the stored run, or what went wrong, in words
Slots = Sequence[tuple[Path, torch.device]]  # of a GPU, the file that a worker locks while it trains there
Engine = Callable[[Sequence[Job], Path | None, int | None], Generator[Outcome, None, None]]


@dataclass
class SweepReport:
    """What a sweep came to."""

    runs: list[Run] = field(default_factory=list)  # those that were stored before come first
    failures: dict[Job, str] = field(default_factory=dict)  # what went wrong
    stopped: bool = False  # by Ctrl-C


def sweep(
    recipes: Mapping[str, Recipe],
    wanted: Sequence[int],
    *,
    engine: Engine | None = None,
    store: Path | None = None,
    workers: int | None = None,
    retrain: bool = False,
) -> SweepReport:
    """Train what is missing of recipes and seeds: the first seed of every recipe before the second of any.

    A recipe that fails, or a stored run that is damaged, does not stop the others; Ctrl-C keeps what has ended.

    Args:
        recipes, wanted: by variant; seeds, each 0 or more.
        engine: None is `local_engine`.
        store, retrain: as in `load_or_train`.
        workers: how many runs at a time; None lets the engine decide.
    """
    report, missing = SweepReport(), []

    def note(job: Job, outcome: Run | str) -> None:
        if isinstance(outcome, str):
            report.failures[job] = outcome
            logger.info("%s: failed", job)
        else:
            report.runs.append(outcome)

    for seed, recipe in itertools.product(dict.fromkeys(wanted), recipes.values()):
        try:
            outcome = None if retrain else find(recipe, seed, store)
        except RunError as error:
            outcome = str(error)
        if outcome is None:
            missing.append(Job(recipe, seed, retrain, REGISTERED.get(recipe.model.network)))
        else:
            note(Job(recipe, seed), outcome)
    logger.info("%d stored, %d to train", len(report.runs), len(missing))
    if not missing:
        return report
    make_writable(store or home() / "runs")
    start = time.monotonic()
    try:
        with contextlib.closing((engine or local_engine)(missing, store, workers)) as outcomes:
            for ended, (job, outcome) in enumerate(outcomes, 1):
                note(job, outcome)
                if isinstance(outcome, Run):
                    logger.info("%s: trained, test accuracy %.3f, %s", job, outcome.test_accuracy(), outcome.path)
                left = (time.monotonic() - start) / ended * (len(missing) - ended) / 60
                failed = f", {len(report.failures)} failed" if report.failures else ""
                logger.info("%d of %d done%s, about %.1f minutes left", ended, len(missing), failed, left)
    except KeyboardInterrupt:
        report.stopped = True
    return report


def train_job(job: Job, store: Path | None, threads: int, device: torch.device | None = None) -> Outcome:
    """Train a job in this process, a worker; one that another process stored in the meantime is loaded."""
    with contextlib.suppress(ValueError):  # outside the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches all; the sweep ends its workers
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # tqdm's own is a semaphore too, which leaks when the sweep ends this process
    if job.network:
        REGISTERED[job.network.name] = job.network
    try:
        run = None if job.retrain else find(job.recipe, job.seed, store)
        return job, run or train_run(job.recipe, seed=job.seed, device=device, store=store, progress=False)
    except Exception as error:  # whatever it is, the other runs go on, and the report says it
        known = type(error).__module__.startswith("hfclib") or isinstance(error, OSError)
        return job, str(error) if known else traceback.format_exc()


def local_engine(
    jobs: Sequence[Job],
    store: Path | None,
    workers: int | None,
    *,
    threads: int | None = None,
    train: Callable[..., Outcome] = train_job,
) -> Generator[Outcome, None, None]:
    """Train jobs in processes on this machine, each with its share of the cores, and on the GPU that is free then.

    After the death of a worker all that has not ended goes on from its checkpoint; a run whose worker dies again and
    again, in the end alone, is given up.

    Args:
        jobs, store: in the order in which they start; folder of runs, None for your own.
        workers: how many at a time; None is one per GPU, or else one per core. More than GPUs share these evenly.
        threads: of each worker; None shares the cores out.
        train: what a worker does with a job; arguments as `train_job`.
    """
    gpus = torch.cuda.device_count()
    count = workers or gpus or (1 if torch.backends.mps.is_available() else max(1, cpu_count() // (threads or 1)))
    count = min(count, len(jobs))
    threads = threads or max(1, cpu_count() // count)
    logger.info("%d worker(s) of %d thread(s) each", count, threads)
    with tempfile.TemporaryDirectory(prefix="hfclib-") as locks:
        slots = [(Path(locks, str(at)), torch.device("cuda", at % gpus)) for at in range(count if gpus else 0)]
        yield from _in_processes(jobs, count, partial(_on_free_device, train, store, threads, slots))


def _on_free_device(train: Callable[..., Outcome], store: Path | None, threads: int, slots: Slots, job: Job) -> Outcome:
    """Train a job on the device of a slot that no other worker holds; the system frees that of a worker that dies."""
    for path, device in itertools.cycle(slots):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0.1)
        except Timeout:
            continue
        try:
            return train(job, store, threads, device)
        finally:
            lock.release()
    return train(job, store, threads, None)  # without a GPU


def _in_processes(jobs: Sequence[Job], count: int, train: Callable[[Job], Outcome]) -> Iterator[Outcome]:
    """Jobs as they end, `count` at a time; those whose worker dies are tried again."""
    waiting, deaths = list(jobs), 0
    while waiting:
        batch = waiting if deaths < TRIES else waiting[:1]
        # With one worker joblib would train in this process; so few at a time is what `pre_dispatch` sees to.
        options = {"return_as": "generator_unordered", "pre_dispatch": count, "batch_size": 1}
        parallel = Parallel(max(2, count), backend="loky", **options)
        outcomes = parallel(delayed(train)(job) for job in list(batch))
        try:
            for job, outcome in outcomes:
                waiting.remove(job)
                deaths = 0
                yield job, outcome
        except TerminatedWorkerError:
            deaths += 1
            logger.warning("a worker process died; what has not ended is tried again")
            if len(batch) == 1 and deaths >= TRIES:
                yield waiting.pop(0), f"its worker process died {deaths} times: killed from outside, or out of memory"
                deaths = 0
        finally:
            with warnings.catch_warnings(action="ignore"):  # joblib warns that tasks are cancelled, which is meant
                outcomes.close()  # ends the workers, unless all is done
            # Loky leaves the thread that fed the workers to itself. That holds the last reference to their semaphores,
            # and where Python ends while it gives them back, the resource tracker reports a leak.
            for thread in threading.enumerate() if waiting else ():
                if thread.name == "QueueFeederThread":
                    thread.join(timeout=1)
