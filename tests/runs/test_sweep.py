"""hfclib.sweep: the order, failures and deaths that cost one run only, Ctrl-C, and real workers."""

import functools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from hfclib._files import data_folder
from hfclib.paper.presets import fig4_recipes
from hfclib.runs.store import RunError, load
from hfclib.runs.sweep import Job, cores, local_engine, parse_seeds, sweep, train_job
from hfclib.training.recipe import Recipe

TINY = Recipe("tiny", width=2, epochs=1, batch_size=32, train_images=40, eval_images=5, final_images=5)
LAPTOP = {variant: fig4_recipes("laptop")[variant] for variant in ("vanilla", "mixup")}
PUBLISHED = data_folder() / "runs"


# ---- seeds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", [3]),
        ("0-3", [0, 1, 2, 3]),
        ("0,2,5", [0, 2, 5]),
        ("4-5, 0,4", [4, 5, 0]),
        ("7-7", [7]),
        (" 1 - 2 ", [1, 2]),
        ("0-999", list(range(1000))),
    ],
)
def test_seeds_as_people_write_them(text, expected):
    assert parse_seeds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "3-1",
        "a",
        "1.5",
        "0;1",
        "1,,2",
        "0-",
        "1-2-3",
        "nan",
        "0-1000",
        "1e3",
        "9" * 30,
        "٣",
        "0-500,600-1200",
    ],
)
def test_other_seeds_are_refused(text):
    with pytest.raises(ValueError, match="seeds"):
        parse_seeds(text)


# ---- the order, and what is stored


@pytest.fixture
def engine():
    """An engine that takes published runs for trained ones, and keeps what it was asked for."""

    def train(jobs, store, workers, say):
        train.asked, train.workers = list(jobs), workers
        for job in jobs:
            yield job, load(PUBLISHED / job.recipe.run_name(job.seed))

    return train


def test_the_first_seed_of_everything_comes_before_the_second_of_anything(engine, tmp_path):
    report = sweep(LAPTOP, [2, 0, 2], engine=engine, store=tmp_path, workers=3, say=lambda line: None)
    assert [str(job) for job in engine.asked] == [
        "laptop-vanilla, seed 2",
        "laptop-mixup, seed 2",
        "laptop-vanilla, seed 0",
        "laptop-mixup, seed 0",
    ]
    assert engine.workers == 3
    assert len(report.runs) == 4
    assert not report.failures
    assert not report.stopped


def test_what_is_stored_is_not_trained_unless_asked(engine):
    said = []
    report = sweep(LAPTOP, [0], engine=lambda *args: pytest.fail("trained"), say=said.append)
    assert [run.recipe.name for run in report.runs] == ["laptop-vanilla", "laptop-mixup"]
    assert said == ["2 stored, 0 to train"]
    assert len(sweep(LAPTOP, [0], engine=engine, retrain=True, say=said.append).runs) == 2
    assert len(engine.asked) == 2


def test_a_line_for_every_run_and_one_for_the_whole(engine, tmp_path):
    said = []
    sweep(LAPTOP, [0], engine=engine, store=tmp_path, say=said.append)
    assert said[0] == "0 stored, 2 to train"
    assert said[1].startswith("laptop-vanilla, seed 0: trained, test accuracy 0.793, ")
    assert said[2].startswith("1 of 2 done, about ")
    assert said[3].startswith("laptop-mixup, seed 0: trained, test accuracy ")
    assert said[4] == "2 of 2 done, about 0.0 minutes left"
    assert len(said) == 5


def test_failures_are_reported_and_stop_nothing(engine, tmp_path):
    (tmp_path / LAPTOP["mixup"].run_name(0)).mkdir()  # stored, and damaged

    def failing(jobs, store, workers, say):
        yield jobs[0], "the loss is nan"
        yield from engine(jobs[1:], store, workers, say)

    said = []
    report = sweep(LAPTOP, [0, 1], engine=failing, store=tmp_path, say=said.append)
    assert [(run.recipe.name, run.seed) for run in report.runs] == [("laptop-vanilla", 1), ("laptop-mixup", 1)]
    assert report.failures[Job(LAPTOP["vanilla"], 0)] == "the loss is nan"
    assert "run.json is missing or damaged" in report.failures[Job(LAPTOP["mixup"], 0)]
    assert said[-1] == "3 of 3 done, 2 failed, about 0.0 minutes left"


def test_ctrl_c_ends_the_engine_and_keeps_what_has_ended(engine, tmp_path):
    ended = []

    def interrupted(jobs, store, workers, say):
        try:
            yield from engine(jobs[:1], store, workers, say)
            raise KeyboardInterrupt
        finally:
            ended.append(True)

    report = sweep(LAPTOP, [0], engine=interrupted, store=tmp_path, say=lambda line: None)
    assert report.stopped
    assert len(report.runs) == 1
    assert ended == [True]


# ---- the local engine


def test_a_recipe_that_fails_is_told_in_words(monkeypatch, tmp_path):
    def failing(*args, **options):
        raise error

    monkeypatch.setattr("hfclib.runs.sweep.train_run", failing)
    error = RunError("it is damaged")
    assert train_job(Job(TINY, 0), tmp_path) == "it is damaged"
    error = ZeroDivisionError("a bug")
    assert "Traceback" in train_job(Job(TINY, 0), tmp_path)  # where a bug is must be said
    monkeypatch.setattr("hfclib.runs.sweep.train_run", lambda *args, **options: None)
    assert train_job(Job(TINY, 0), tmp_path) is None


def environment(job, store):
    """In place of a training: what the worker found."""
    return f"{os.environ['OMP_NUM_THREADS']} {os.getpid()}"


def test_workers_divide_the_cores(monkeypatch, tmp_path):
    monkeypatch.setattr("hfclib.runs.sweep._in_worker", environment)
    monkeypatch.setattr("hfclib.runs.sweep.cores", lambda: 6)
    said = []
    found = dict(local_engine([Job(TINY, seed) for seed in range(4)], tmp_path, 2, said.append))
    assert said == ["2 workers of 3 threads each"]
    threads, processes = zip(*(outcome.split() for outcome in found.values()), strict=True)
    assert set(threads) == {"3"}
    assert 1 <= len(set(processes)) <= 2
    assert str(os.getpid()) not in processes


@pytest.mark.parametrize(("workers", "jobs", "count"), [(None, 1, 1), (None, 9, 4), (3, 9, 3), (8, 2, 2), (8, 9, 8)])
def test_so_many_workers(monkeypatch, tmp_path, workers, jobs, count):
    started = []
    monkeypatch.setattr("hfclib.runs.sweep.cores", lambda: 4)
    monkeypatch.setattr("hfclib.runs.sweep._in_worker", environment)

    class Pool:
        def __init__(self, size, env):
            started.append(env["OMP_NUM_THREADS"])

        def submit(self, function, *args):
            class Done:
                def result(self):
                    return "in words"

            return Done()

        def shutdown(self, kill_workers):
            assert kill_workers

    monkeypatch.setattr("hfclib.runs.sweep.ProcessPoolExecutor", Pool)
    outcomes = list(local_engine([Job(TINY, seed) for seed in range(jobs)], tmp_path, workers, lambda line: None))
    assert len(outcomes) == jobs
    assert started == [str(max(1, 4 // count))] * count


def dying(job, store):
    """In place of a training: seed 0 dies always, seed 1 the first time."""
    mark = store / f"died-{job.seed}"
    if job.seed == 0 or (job.seed == 1 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "in words"


def test_a_worker_that_dies_costs_its_own_run_only(monkeypatch, tmp_path):
    monkeypatch.setattr("hfclib.runs.sweep._in_worker", dying)
    said = []
    found = dict(local_engine([Job(TINY, seed) for seed in range(4)], tmp_path, 2, said.append))
    assert found.pop(Job(TINY, 0)) == "its worker process died 3 times: killed from outside, or out of memory"
    assert set(found.values()) == {"in words"}
    assert said.count("tiny, seed 0: its worker process died; trying again") == 2
    assert said.count("tiny, seed 1: its worker process died; trying again") == 1


def stuck(job, store):
    """In place of a training: one that never ends."""
    (store / f"pid-{os.getpid()}").touch()
    signal.pause()


def test_an_engine_that_is_closed_ends_its_workers(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "hfclib.runs.sweep._in_worker", lambda job, store: "in words" if job.seed == 0 else stuck(job, store)
    )
    outcomes = local_engine([Job(TINY, seed) for seed in range(3)], tmp_path, 2, lambda line: None)
    assert next(outcomes) == (Job(TINY, 0), "in words")
    while not (marks := list(tmp_path.glob("pid-*"))):
        time.sleep(0.05)
    outcomes.close()
    for mark in marks:
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.name.removeprefix("pid-")), 0)


def test_real_workers_store_real_runs_and_report_the_recipe_that_fails(tmp_path, own_home):
    recipes = {"sound": TINY, "hopeless": replace(TINY, name="hopeless", learning_rate=1e20, epochs=2)}
    report = sweep(recipes, [0], store=tmp_path / "store", workers=2, say=lambda line: None)
    (run,) = report.runs
    assert run.path == tmp_path / "store" / TINY.run_name(0)
    assert "try a smaller learning_rate" in report.failures[Job(recipes["hopeless"], 0)]
    again = sweep({"sound": TINY}, [0], store=tmp_path / "store", say=lambda line: None)
    assert again.runs[0].provenance == run.provenance


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_real_sweep_keeps_what_is_finished(tmp_path, own_home):
    words = [
        sys.executable,
        "-m",
        "hfclib.cli",
        "sweep",
        "fig4",
        "--preset",
        "smoke",
        "--seeds",
        "0-1",
        "--workers",
        "1",
        "--store",
        str(tmp_path / "store"),
    ]
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
    whole = [path for path in (tmp_path / "store").iterdir() if path.is_dir() and path.suffix != ".partial"]
    assert whole
    for path in whole:
        load(path)


@pytest.mark.slow
@pytest.mark.skipif(cores() < 2, reason="needs two cores")
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
