"""hfclib.runs.sweep: the order, failures and deaths that cost one run only, Ctrl-C, and real workers."""

import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from joblib import cpu_count

from hfclib._files import data_folder
from hfclib.models import REGISTERED, register_network
from hfclib.paper.presets import fig4_recipes
from hfclib.runs.store import load
from hfclib.runs.sweep import Job, local_engine, sweep, train_job
from hfclib.training.recipe import Recipe

TINY = Recipe("tiny").with_(width=2, epochs=1, batch_size=32, train_images=40, eval_images=5, final_images=5)
LAPTOP = {variant: fig4_recipes("laptop")[variant] for variant in ("vanilla", "mixup")}
PUBLISHED = data_folder() / "runs"


@pytest.fixture
def said(caplog):
    """The lines that hfclib logs."""
    caplog.set_level("INFO", "hfclib")
    return lambda: [record.getMessage() for record in caplog.records]


# ---- the order, and what is stored


@pytest.fixture
def engine():
    """An engine that takes published runs for trained ones, and keeps what it was asked for."""

    def train(jobs, store, workers):
        train.asked, train.workers = list(jobs), workers
        for job in jobs:
            yield job, load(PUBLISHED / job.recipe.run_name(job.seed))

    return train


def test_the_first_seed_of_everything_comes_before_the_second_of_anything(engine, tmp_path, said):
    report = sweep(LAPTOP, [2, 0, 2], engine=engine, store=tmp_path, workers=3)
    assert [str(job) for job in engine.asked] == [
        "laptop-vanilla, seed 2",
        "laptop-mixup, seed 2",
        "laptop-vanilla, seed 0",
        "laptop-mixup, seed 0",
    ]
    assert engine.workers == 3
    assert (len(report.runs), report.failures, report.stopped) == (4, {}, False)
    lines = said()
    assert lines[0] == "0 stored, 4 to train"
    assert lines[1].startswith("laptop-vanilla, seed 2: trained, test accuracy 0.")
    assert lines[2].startswith("1 of 4 done, about ")
    assert lines[-1] == "4 of 4 done, about 0.0 minutes left"


def test_what_is_stored_is_not_trained_unless_asked(engine, said):
    report = sweep(LAPTOP, [0], engine=lambda *args: pytest.fail("trained"))
    assert [run.recipe.name for run in report.runs] == ["laptop-vanilla", "laptop-mixup"]
    assert said() == ["2 stored, 0 to train"]
    assert len(sweep(LAPTOP, [0], engine=engine, retrain=True).runs) == 2
    assert [job.retrain for job in engine.asked] == [True, True]


def test_failures_are_reported_and_stop_nothing(engine, tmp_path, said):
    (tmp_path / LAPTOP["mixup"].run_name(0)).mkdir()  # stored, and damaged

    def failing(jobs, store, workers):
        yield jobs[0], "the loss is nan"
        yield from engine(jobs[1:], store, workers)

    report = sweep(LAPTOP, [0, 1], engine=failing, store=tmp_path)
    assert [(run.recipe.name, run.seed) for run in report.runs] == [("laptop-vanilla", 1), ("laptop-mixup", 1)]
    assert report.failures[Job(LAPTOP["vanilla"], 0)] == "the loss is nan"
    assert "run.json is missing" in report.failures[Job(LAPTOP["mixup"], 0)]
    assert said()[-1] == "3 of 3 done, 2 failed, about 0.0 minutes left"


def test_ctrl_c_ends_the_engine_and_keeps_what_has_ended(engine, tmp_path):
    ended = []

    def interrupted(jobs, store, workers):
        try:
            yield from engine(jobs[:1], store, workers)
            raise KeyboardInterrupt
        finally:
            ended.append(True)

    report = sweep(LAPTOP, [0], engine=interrupted, store=tmp_path)
    assert report.stopped
    assert len(report.runs) == 1
    assert ended == [True]


# ---- the local engine


def failing(*, width):
    """The network of a recipe whose training ends with a bug."""
    raise ZeroDivisionError(f"a bug at width {width}")


def test_what_goes_wrong_is_told_in_words(no_bands, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    spoilt = Job(TINY.with_(learning_rate=1e20), 0)
    job, told = train_job(spoilt, tmp_path, 1)
    assert job == spoilt
    assert re.fullmatch(r".*try a smaller learning_rate", told)
    stored = train_job(Job(LAPTOP["vanilla"], 0), PUBLISHED, 1)[1]  # in the meantime, and loaded
    assert (stored.seed, stored.path.parent) == (0, PUBLISHED)
    path = train_job(Job(TINY, 0), tmp_path, 1)[1].path
    (path / "final.csv").write_bytes(b"")
    assert f"{path / 'final.csv'} is damaged" in train_job(Job(TINY, 0), tmp_path, 1)[1]
    assert train_job(Job(TINY, 0, retrain=True), tmp_path, 1)[1].path == path
    register_network("failing")(failing)
    told = train_job(Job(TINY.with_(network="failing"), 0), tmp_path, 1)[1]
    del REGISTERED["failing"]
    assert "Traceback" in told  # where a bug is must be said
    assert "ZeroDivisionError: a bug at width" in told
    signal.signal(signal.SIGINT, before)


def environment(job, store, threads, device):
    """In place of a training: what the worker found, once it is alone or all that may run beside it are there."""
    (store / f"at-{job.seed}").touch()
    time.sleep(0.1)
    beside = len(list(store.glob("at-*")))
    (store / f"at-{job.seed}").unlink()
    return job, f"{threads} {beside} {os.getpid()}"


@pytest.mark.parametrize(("workers", "threads", "at_once", "of_each"), [(1, None, 1, 6), (None, 3, 2, 3)])
def test_workers_divide_the_cores(monkeypatch, tmp_path, said, workers, threads, at_once, of_each):
    monkeypatch.setattr("hfclib.runs.sweep.cpu_count", lambda: 6)
    jobs = [Job(TINY, seed) for seed in range(4)]
    outcomes = dict(local_engine(jobs, tmp_path, workers, threads=threads, train=environment))
    assert set(outcomes) == set(jobs)
    assert said() == [f"{at_once} worker(s) of {of_each} thread(s) each"]
    each, beside, processes = zip(*(outcome.split() for outcome in outcomes.values()), strict=True)
    assert set(each) == {str(of_each)}
    assert max(map(int, beside)) <= at_once
    assert str(os.getpid()) not in processes


def wait(until, seconds=60):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def on_device(job, store, threads, device):
    """In place of a training: seed 0 begins before the three others have ended, and ends after them."""
    if job.seed == 0:
        (store / "begun").touch()
    wait(lambda: (store / "begun").exists() and (job.seed > 0 or len(list(store.glob("done-*"))) == 3))
    (store / f"done-{job.seed}").touch()
    return job, str(device)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


def test_a_job_starts_on_the_gpu_that_is_free(two_gpus, tmp_path):
    outcomes = dict(local_engine([Job(TINY, seed) for seed in range(4)], tmp_path, None, train=on_device))
    long = outcomes.pop(Job(TINY, 0))
    assert {long, *outcomes.values()} == {"cuda:0", "cuda:1"}
    assert list(outcomes.values()).count(long) == 0


def beside(job, store, threads, device):
    """In place of a training: notes how many are on each GPU once as many as may be are there."""
    (store / f"{device}-{job.seed}").touch()
    wait(lambda: len(list(store.glob("cuda*"))) == 4)
    return job, str(device)


def test_more_workers_than_gpus_share_them_evenly(two_gpus, tmp_path):
    found = dict(local_engine([Job(TINY, seed) for seed in range(4)], tmp_path, 4, train=beside))
    assert sorted(found.values()) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]


def dying(job, store, threads, device):
    """In place of a training: seed 0 dies always, seed 1 the first time."""
    mark = store / f"died-{job.seed}"
    if job.seed == 0 or (job.seed == 1 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job, "in words"


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_own_run_only(tmp_path, said):
    found = dict(local_engine([Job(TINY, seed) for seed in range(4)], tmp_path, 2, train=dying))
    assert "its worker process died" in found.pop(Job(TINY, 0))
    assert list(found.values()) == ["in words"] * 3
    assert "a worker process died; what has not ended is tried again" in said()


def stuck(job, store, threads, device):
    """In place of a training: one that never ends, but for seed 0."""
    if job.seed == 0:
        return job, "in words"
    (store / f"pid-{os.getpid()}").touch()
    return signal.pause()


def test_an_engine_that_is_closed_ends_its_workers(tmp_path):
    outcomes = local_engine([Job(TINY, seed) for seed in range(3)], tmp_path, 2, train=stuck)
    assert next(outcomes) == (Job(TINY, 0), "in words")
    wait(lambda: list(tmp_path.glob("pid-*")))
    marks = list(tmp_path.glob("pid-*"))
    late = threading.Thread(target=time.sleep, args=(0.5,), name="QueueFeederThread")  # loky's, on a busy machine
    late.start()
    outcomes.close()
    assert not late.is_alive()
    for mark in marks:
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.name.removeprefix("pid-")), 0)


@pytest.mark.slow
def test_real_workers_store_real_runs_and_report_the_recipe_that_fails(tmp_path, own_home):
    recipes = {"sound": TINY, "hopeless": TINY.with_(name="hopeless", learning_rate=1e20, epochs=2)}
    report = sweep(recipes, [0], store=tmp_path / "store", workers=2)
    (run,) = report.runs
    assert run.path == tmp_path / "store" / TINY.run_name(0)
    assert "try a smaller learning_rate" in report.failures[Job(recipes["hopeless"], 0)]
    again = sweep({"sound": TINY}, [0], store=tmp_path / "store")
    assert again.runs[0].provenance == run.provenance


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_real_sweep_keeps_what_is_finished(tmp_path, own_home):
    # The command itself: under `python -m` a Ctrl-C within an `exec` of text ends Python by the signal, without a code.
    hfc, store = Path(sys.executable).with_name("hfc"), tmp_path / "store"
    words = [hfc, "sweep", "fig4", "--preset", "smoke", "--seeds", "0-1", "--workers", "1", "--store", store]
    first = f"1 of {2 * len(fig4_recipes('smoke'))} done"
    # A shell that starts the tests in the background has them, and what they start, ignore a Ctrl-C.
    own = {"preexec_fn": functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **own) as process:
        said = []
        while not said or not said[-1].startswith(first):
            said.append(process.stdout.readline())
            assert said[-1], said  # it ended too early
        process.send_signal(signal.SIGINT)
        rest = process.communicate()[0]
    assert process.returncode == 130
    assert "what has ended is stored" in rest
    assert "Traceback" not in rest
    assert "leaked" not in rest
    whole = [path for path in (tmp_path / "store").iterdir() if path.is_dir() and path.suffix != ".partial"]
    assert whole
    for path in whole:
        load(path)


@pytest.mark.slow
@pytest.mark.skipif(cpu_count() < 2, reason="needs two cores")
def test_two_workers_are_not_slower_than_one_run_after_the_other(tmp_path, own_home):
    best = {1: float("inf"), 2: float("inf")}
    for attempt in range(3):  # whatever else the machine does makes a time longer, never shorter
        for workers in best:
            start = time.monotonic()
            store = tmp_path / f"{workers}-{attempt}"
            report = sweep({"vanilla": fig4_recipes("smoke")["vanilla"]}, range(4), store=store, workers=workers)
            best[workers] = min(best[workers], time.monotonic() - start)
            assert len(report.runs) == 4
        if best[2] <= 1.1 * best[1]:
            return
    assert best[2] <= 1.1 * best[1], best
