"""The sweep engine for a Ray cluster: one task per run, and every run comes home as the bytes of its files.

The machines need hfclib, and share no file system. A machine keeps the checkpoints of a run under way in
`<home>/away`, so that a task that is tried again there goes on.
"""

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from joblib import cpu_count

from hfclib._files import home, write
from hfclib.runs.store import FILES, Run, RunError, load, put_in_place
from hfclib.runs.sweep import TRIES, Engine, Job, Outcome, train_job

logger = logging.getLogger(__name__)


def ray_engine(address: str | None = None) -> Engine:
    """The engine that trains each job as a task of Ray, with a GPU if the cluster has any.

    A task whose worker dies is tried again.

    Args:
        address: of a cluster, such as "auto" or "ray://head:10001"; None is Ray's own choice: `RAY_ADDRESS`, or else
            a cluster on this machine alone, of as many worker processes as the sweep has workers.
    Raises:
        ValueError: Ray is not installed.
    """
    # No reports to Ray's makers; every line of every run; CUDA_VISIBLE_DEVICES left alone where no GPU is asked for.
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ.setdefault(name, "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError("the engine ray needs Ray: pip install 'hfclib[ray]'") from error

    def engine(jobs: Sequence[Job], store: Path | None, workers: int | None) -> Iterator[Outcome]:
        alone = not (address or os.environ.get("RAY_ADDRESS"))
        count = max(1, min(workers or (cpu_count() if alone else len(jobs)), len(jobs)))
        options = {"num_cpus": count, "include_dashboard": False} if alone else {}
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, logging_level="warning", **options)
        except Exception as error:  # of many kinds
            raise ConnectionError(f"Ray could not be {'started' if alone else 'reached'}: {error}") from error
        with suppress(ValueError, TypeError):  # outside the main thread, or no handler of Python's
            signal.signal(signal.SIGTERM, before)  # Ray's own would exit at once
        gpus = ray.cluster_resources().get("GPU", 0)
        task = ray.remote(num_gpus=1 if gpus else 0, max_retries=TRIES - 1)(train_remotely)
        threads = max(1, cpu_count() // count) if alone else 1
        waiting, running = list(jobs), {}
        try:
            while waiting or running:
                while waiting and len(running) < count:
                    job = waiting.pop(0)
                    name = job.recipe.run_name(job.seed)
                    running[task.options(name=name).remote(job, threads)] = job
                (done,), _ = ray.wait(list(running), num_returns=1)
                job = running.pop(done)
                yield job, _fetch_result(ray, done, job, store)
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


def train_remotely(job: Job, threads: int) -> dict[str, bytes] | str:
    """Train a job where this process runs; the contents of the run's files by name, or what went wrong."""
    run = train_job(job, home() / "away", threads)
    if isinstance(run, str):
        return run
    contents = {name: (run.path / name).read_bytes() for name in ("run.json", *FILES)}
    shutil.rmtree(run.path)
    return contents


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
