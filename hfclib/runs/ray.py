"""Ray clusters: the engine for sweeps, one task per run, each of which comes home as the bytes of its files; and `map`.

The machines need hfclib, and share no file system. A machine keeps what it trains in `<home>/away`: a task that is
tried again there goes on, and a run that could not be stored at home comes from there without training.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from joblib import cpu_count

from hfclib._files import home, write
from hfclib.runs.store import FILES, Run, RunError, load, put_in_place
from hfclib.runs.sweep import TRIES, Engine, Job, Outcome, train_job

PATIENCE = 30  # seconds in which a cluster has to answer: Ray itself tries for ever
_CONNECT = "import sys, ray; ray.init(address=sys.argv[1], logging_level='error', log_to_driver=False)"


def check_address(address: str, patience: float = PATIENCE) -> None:
    """Raise a ConnectionError if no Ray cluster answers at an address; asked by a process that can be given up."""
    command = [sys.executable, "-c", _CONNECT, address]
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=patience, check=True)
    except subprocess.TimeoutExpired as error:
        advice = "expected that of a cluster's head, such as HOST:6379, not shut off by a firewall"
        raise ConnectionError(f"no Ray cluster answered at {address} within {patience:g} s: {advice}") from error
    except subprocess.CalledProcessError as error:
        told = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
        raise ConnectionError(f"Ray could not be reached at {address}: {told}") from error


def ray_engine(address: str | None = None, *, check: Callable[[str], None] = check_address) -> Engine:
    """The engine that trains each job as a task of Ray, with a GPU if the cluster has any.

    A task whose worker dies is tried again.

    Args:
        address: of a cluster, such as "auto" or "ray://head:10001"; None is Ray's own choice: `RAY_ADDRESS`, or else
            a cluster on this machine alone, of as many worker processes as the sweep has workers.
        check: raises an error if no cluster answers at an address.
    Raises:
        ValueError: Ray is not installed.
    """
    ray = _imported()

    def engine(jobs: Sequence[Job], store: Path | None, workers: int | None) -> Generator[Outcome, None, None]:
        reached = address or os.environ.get("RAY_ADDRESS")
        alone = not reached
        if reached:
            check(reached)
        count = max(1, min(workers or (cpu_count() if alone else len(jobs)), len(jobs)))
        _connect(ray, address, count if alone else None)
        gpus = ray.cluster_resources().get("GPU", 0)
        task = ray.remote(num_gpus=1 if gpus else 0, max_retries=TRIES - 1)(train_remotely)
        threads = max(1, cpu_count() // count) if alone else 1
        waiting: list[Job] = list(jobs)
        running: dict[Any, Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < count:
                    job = waiting.pop(0)
                    name = job.recipe.run_name(job.seed)
                    running[task.options(name=name).remote(job, threads)] = job
                (done,), _ = ray.wait(list(running), num_returns=1)
                job = running[done]
                outcome = _fetch_result(ray, done, job, store)
                del running[done]  # only now: a Ctrl-C while it is fetched fetches it again
                yield job, outcome
        except (KeyboardInterrupt, GeneratorExit):
            ready = ray.wait(list(running), num_returns=len(running), timeout=0)[0] if running else []
            for done in ready:  # ended in the meantime
                _fetch_result(ray, done, running.pop(done), store)
            raise
        finally:
            for under_way in running:
                ray.cancel(under_way, force=True)
            ray.shutdown()

    return engine


def _imported() -> ModuleType:
    # No reports to Ray's makers; every line of every run; CUDA_VISIBLE_DEVICES left alone where no GPU is asked for.
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ.setdefault(name, "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError("the engine ray needs Ray: pip install 'hfclib[ray]'") from error
    return ray


def _connect(ray: ModuleType, address: str | None, slots: int | None) -> None:
    """Start Ray on this machine with so many slots, or, without them, reach the cluster."""
    options = {"num_cpus": slots, "include_dashboard": False} if slots else {}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, logging_level="warning", **options)
    except Exception as error:  # of many kinds
        raise ConnectionError(f"Ray could not be {'started' if slots else 'reached'}: {error}") from error
    with suppress(ValueError, TypeError):  # outside the main thread, or no handler of Python's
        signal.signal(signal.SIGTERM, before)  # Ray's own would exit at once


@contextmanager
def ray_map(
    address: str | None = None, workers: int | None = None
) -> Iterator[Callable[[Callable, Iterable], Iterator]]:
    """A context whose value is `map` on Ray: one task per item, on a core; the results come in the order of the items.

    A task whose worker dies is tried again. The function is sent to each machine once.

    Args:
        address: as in `ray_engine`.
        workers: of a cluster on this machine alone; None is one per core.
    Raises:
        ValueError: Ray is not installed.
        ConnectionError: the cluster can't be reached, or a task failed there for good.
    """
    ray = _imported()
    reached = address or os.environ.get("RAY_ADDRESS")
    alone = not reached
    if reached:
        check_address(reached)
    _connect(ray, address, (workers or cpu_count()) if alone else None)
    task = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_applied)
    most = 2 * int(ray.cluster_resources()["CPU"])

    def mapped(function: Callable, items: Iterable) -> Iterator:
        sent = ray.put(function)
        running: deque[Any] = deque()
        try:
            for item in items:
                running.append(task.remote(sent, item))
                if len(running) == most:
                    yield ray.get(running.popleft())
            while running:
                yield ray.get(running.popleft())
        except ray.exceptions.RayError as error:
            raise ConnectionError(f"a task of Ray failed: {error}") from error

    try:
        yield mapped
    finally:
        ray.shutdown()


def _applied(function: Callable, item: object) -> object:
    return function(item)


def train_remotely(job: Job, threads: int) -> dict[str, bytes] | str:
    """Train a job where this process runs; the contents of the run's files by name, or what went wrong."""
    _, run = train_job(job, home() / "away", threads)
    if isinstance(run, str):
        return run
    return {name: (run.path / name).read_bytes() for name in ("run.json", *FILES)}


def _fetch_result(ray, done, job: Job, store: Path | None) -> Run | str:
    try:
        result = ray.get(done)
        return result if isinstance(result, str) else install_run(result, job, store or home() / "runs")
    except (RunError, OSError, ray.exceptions.RayError) as error:
        return str(error)


def install_run(contents: dict[str, bytes], job: Job, store: Path) -> Run:
    """Store a run that came as the contents of run.json and `FILES`, and must be that of `job`.

    Raises:
        RunError, OSError: it is not the whole and sound run of that job; the disk is full. Nothing is stored then.
    """
    name = job.recipe.run_name(job.seed)
    if set(contents) != {"run.json", *FILES}:
        raise RunError(f"expected run.json, {', '.join(FILES)} of {name}, got {', '.join(sorted(contents))}")
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store, prefix="incoming-", suffix=".partial") as folder:
        arrived = Path(folder) / name
        arrived.mkdir()
        for file, content in contents.items():
            write(arrived / file, content)
        load(arrived)
        put_in_place(arrived, store / name)
    return load(store / name)
