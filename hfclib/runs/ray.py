"""The sweep engine for a Ray cluster: one task a run, and every run comes home as the bytes of its files.

The machines need hfclib, and share no file system. A machine keeps the checkpoints of a run under way in
`<home>/away`, so that a task that is tried again there goes on, and the run itself until it is stored at home.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from hfclib._files import home, write
from hfclib.runs.store import FILES, Run, RunError, find, load, put_in_place
from hfclib.runs.sweep import TRIES, Engine, Job, Outcome, Say, cores, train_job


def ray_engine(address: str | None = None) -> Engine:
    """The engine that trains each job as a task of Ray.

    Args:
        address: of a cluster, such as "auto" or "ray://head:10001"; None is Ray's own choice: `RAY_ADDRESS`, or else
            a cluster on this machine alone, of as many worker processes as the sweep has workers.
    Returns:
        The engine. A task asks for a GPU if the cluster has any; one whose worker dies is tried again.
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

    def engine(jobs: Sequence[Job], store: Path | None, workers: int | None, say: Say) -> Iterator[Outcome]:
        alone = not (address or os.environ.get("RAY_ADDRESS") or ray.is_initialized())
        count = min(workers or cores(), len(jobs)) if alone else workers or len(jobs)
        options = {"num_cpus": count, "include_dashboard": False} if alone else {}
        ours = not ray.is_initialized()
        if ours:
            try:
                with _keep_sigterm():
                    ray.init(address=address, logging_level="warning", **options)
            except Exception as error:  # of many kinds
                raise ConnectionError(f"Ray could not be {'started' if alone else 'reached'}: {error}") from error
        gpus = ray.cluster_resources().get("GPU", 0)

        def placed(job: Job, threads: int) -> tuple[str, dict[str, bytes] | str]:
            return ray.get_runtime_context().get_node_id(), train_remotely(job, threads)

        task = ray.remote(num_gpus=1 if gpus else 0, max_retries=TRIES - 1)(placed)
        threads = max(1, cores() // count) if alone else 1
        say(f"Ray: {ray.cluster_resources().get('CPU', 0):.0f} worker slots, {gpus:.0f} GPUs")
        waiting, running = list(jobs), {}
        try:
            while waiting or running:
                while waiting and len(running) < count:
                    job = waiting.pop(0)
                    name = job.recipe.run_name(job.seed)
                    running[task.options(name=name).remote(job, threads)] = job
                (done,), _ = ray.wait(list(running), num_returns=1)
                outcome = running[done], _fetch_result(ray, done, running[done], store)
                del running[done]
                yield outcome
        except (KeyboardInterrupt, GeneratorExit):
            ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0) if running else ([], [])
            for done in ready:  # ended in the meantime
                _fetch_result(ray, done, running[done], store)
                del running[done]
            raise
        finally:
            for task_under_way in running:
                ray.cancel(task_under_way, force=True)
            if ours:
                ray.shutdown()

    return engine


@contextmanager
def _keep_sigterm() -> Iterator[None]:
    """Keep Ray from replacing what a SIGTERM does here, if the program has its own way: Ray would just exit."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before):
        with suppress(ValueError):  # outside the main thread, where Ray lets it alone as well
            signal.signal(signal.SIGTERM, before)


def train_remotely(job: Job, threads: int) -> dict[str, bytes] | str:
    """Train a job where this process runs; the contents of the run's files by name, or what went wrong."""
    torch.set_num_threads(threads)
    folder = home() / "away"
    try:
        stored = find(job.recipe, job.seed, folder)  # trained before its worker died
    except RunError:
        stored = None
    if stored is None and (problem := train_job(job, folder)):
        return problem
    path = folder / job.recipe.run_name(job.seed)
    return {name: (path / name).read_bytes() for name in ("run.json", *FILES)}


def _forget(job: Job) -> None:
    """Delete the run that `train_away` left on this machine."""
    shutil.rmtree(home() / "away" / job.recipe.run_name(job.seed), ignore_errors=True)


def _fetch_result(ray, done, job: Job, store: Path | None) -> Run | str:
    try:
        node, result = ray.get(done)
        if isinstance(result, str):
            return result
        run = install_run(result, job, store or home() / "runs")
    except (RunError, OSError) as error:
        return f"{error}; the run is kept on the machine that trained it, and the same command brings it home"
    except ray.exceptions.RayError as error:
        return str(error)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    with suppress(ray.exceptions.RayError):  # a copy left behind does no harm
        ray.get(ray.remote(num_cpus=0)(_forget).options(scheduling_strategy=there).remote(job), timeout=60)
    return run


def install_run(contents: dict[str, bytes], job: Job, store: Path) -> Run:
    """Store a run that came as the contents of its files.

    Args:
        contents: of run.json and `FILES`, and of no others.
        job: whose run it must be.
        store: folder of runs.
    Raises:
        RunError: it is not the whole and sound run of that job; nothing is stored then.
        OSError: the disk is full; nothing is stored then.
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
