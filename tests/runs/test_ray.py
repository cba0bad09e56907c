"""hfclib.runs.ray: what comes home from another machine, and a real sweep on a local Ray cluster."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hfclib._files import data_folder
from hfclib.paper.misalignment import fig2_recipes
from hfclib.paper.presets import fig4_recipes
from hfclib.runs.ray import check_address, install_run, ray_engine, train_remotely
from hfclib.runs.store import RunError, load
from hfclib.runs.sweep import Job
from tests.runs.tiny import TINY

JOB = Job(fig4_recipes("laptop")["vanilla"], 0)
NAME = JOB.recipe.run_name(JOB.seed)


@pytest.fixture
def contents():
    """The files of a published run, as they travel."""
    folder = data_folder() / "runs" / NAME
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_that_comes_home_is_stored_whole(contents, tmp_path):
    run = install_run(contents, JOB, tmp_path / "store")
    assert run.path == tmp_path / "store" / NAME
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == contents
    assert [path.name for path in (tmp_path / "store").iterdir()] == [NAME]


def without(contents):
    del contents["final.csv"]


def flipped(contents):
    contents["curves.csv"] = contents["curves.csv"].replace(b"0.", b"1.", 1)


def escaping(contents):
    contents["../escaped"] = b"x"


def another(contents):
    folder = data_folder() / "runs" / fig4_recipes("laptop")["mixup"].run_name(0)
    contents.update({path.name: path.read_bytes() for path in folder.iterdir()})


def test_what_is_not_the_whole_run_does_not_come_home(contents, tmp_path):
    for damage in (without, flipped, escaping, another):
        damaged = dict(contents)
        damage(damaged)
        with pytest.raises(RunError):
            install_run(damaged, JOB, tmp_path / "store")
        assert list((tmp_path / "store").glob("*")) == []
        assert not list(tmp_path.rglob("escaped"))


def test_a_run_is_sent_whole_and_again_without_training_if_it_was_lost(no_bands, own_home, tmp_path, monkeypatch):
    recipe, before = TINY.with_(epochs=1, train_images=32), signal.getsignal(signal.SIGINT)
    contents = train_remotely(Job(recipe, 3), 1)
    with monkeypatch.context() as patched:
        patched.setattr("hfclib.runs.sweep.train_run", None)
        assert train_remotely(Job(recipe, 3), 1) == contents
    run = install_run(contents, Job(recipe, 3), tmp_path / "store")
    assert (run.recipe, run.seed) == (recipe, 3)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == contents
    without_end = Job(recipe.with_(learning_rate=1e20, norm="none"), 0)
    assert "try a smaller learning_rate" in train_remotely(without_end, 1)
    signal.signal(signal.SIGINT, before)  # which a worker ignores


def test_without_ray_the_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'hfclib\[ray\]'"):
        ray_engine()


class FakeRay:
    """As much of Ray as the engine uses, without its processes: a task is its name, and `results` has what it gives."""

    exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, results, gpus=0):
        self.results, self.resources = results, {"CPU": 8.0} | ({"GPU": gpus} if gpus else {})
        self.at_once, self.ended, self.started, self.interrupted, self.stop_in_get = 0, [], None, False, False

    def init(self, **options):
        if isinstance(self.results, Exception):
            raise self.results
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray does
        self.started = options

    def cluster_resources(self):
        return self.resources

    def remote(self, **options):
        self.asked = options
        return lambda function: SimpleNamespace(options=lambda name: SimpleNamespace(remote=lambda job, threads: name))

    def wait(self, tasks, num_returns, timeout=None):
        self.at_once = max(self.at_once, len(tasks))
        if timeout == 0:
            return tasks[:1], tasks[1:]
        if self.interrupted:
            raise KeyboardInterrupt
        return tasks[-1:], tasks[:-1]

    def get(self, task):
        if self.stop_in_get:
            self.stop_in_get = False
            raise KeyboardInterrupt
        if isinstance(self.results[task], Exception):
            raise self.results[task]
        return self.results[task]

    def cancel(self, task, force):
        self.ended.append((task, force))

    def shutdown(self):
        self.ended.append("shutdown")


JOBS = [Job(fig4_recipes("laptop")["vanilla"], seed) for seed in range(3)]


@pytest.fixture
def ray(monkeypatch):
    """A fake Ray whose tasks give published runs."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    folders = [data_folder() / "runs" / job.recipe.run_name(job.seed) for job in JOBS]
    fake = FakeRay({folder.name: {path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders})
    monkeypatch.setitem(sys.modules, "ray", fake)
    yield fake
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("gpus", [0, 4])
def test_a_gpu_is_asked_for_if_there_is_any_and_a_lost_task_is_tried_again(ray, tmp_path, gpus):
    ray.resources |= {"GPU": gpus} if gpus else {}
    asked = []
    outcomes = dict(ray_engine("head:1", check=asked.append)(JOBS, tmp_path, None))
    assert asked == ["head:1"]
    assert [outcomes[job].seed for job in JOBS] == [0, 1, 2]
    assert ray.asked == {"num_gpus": 1 if gpus else 0, "max_retries": 2}
    assert ray.started["address"] == "head:1"
    assert "num_cpus" not in ray.started  # the cluster's own affair
    assert ray.at_once == 3
    assert ray.ended == ["shutdown"]


def test_a_store_at_home_that_is_no_folder_is_reported(ray, tmp_path):
    store = tmp_path / "file"
    store.write_text("mine")
    outcomes = dict(ray_engine()(JOBS, store, 3))
    assert set(outcomes) == set(JOBS)
    assert all("File exists" in outcome and str(store) in outcome for outcome in outcomes.values())


def test_alone_ray_gets_as_many_slots_as_there_are_workers(ray, tmp_path):
    list(ray_engine()(JOBS, tmp_path, 2))
    assert ray.started["num_cpus"] == 2
    assert ray.at_once == 2


def test_a_task_that_fails_costs_its_own_run_only(ray, tmp_path):
    names = [job.recipe.run_name(job.seed) for job in JOBS]
    ray.results[names[0]] = ray.exceptions.RayError("the node is gone")
    ray.results[names[1]] = "the loss is nan"
    outcomes = dict(ray_engine()(JOBS, tmp_path, 3))
    assert outcomes[JOBS[0]] == "the node is gone"
    assert outcomes[JOBS[1]] == "the loss is nan"
    assert outcomes[JOBS[2]].seed == 2


def test_ctrl_c_brings_home_what_has_ended_and_cancels_the_rest(ray, tmp_path):
    ray.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        list(ray_engine()(JOBS, tmp_path, 3))
    names = [job.recipe.run_name(job.seed) for job in JOBS]
    assert [path.name for path in tmp_path.iterdir()] == names[:1]
    assert ray.ended == [(names[1], True), (names[2], True), "shutdown"]


def test_ctrl_c_while_a_run_is_fetched_brings_it_home(ray, tmp_path):
    ray.stop_in_get = True
    with pytest.raises(KeyboardInterrupt):
        list(ray_engine()(JOBS[:1], tmp_path, 1))
    assert [path.name for path in tmp_path.iterdir()] == [JOBS[0].recipe.run_name(0)]


def test_sigterm_stays_a_ctrl_c(ray, tmp_path):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `hfc sweep` does
    list(ray_engine()(JOBS, tmp_path, 3))
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def test_a_cluster_that_is_not_there_is_told(ray, tmp_path):
    ray.results = RuntimeError("nobody answers")
    with pytest.raises(ConnectionError, match="Ray could not be reached: nobody answers"):
        list(ray_engine("head:1", check=lambda address: None)(JOBS, tmp_path, 1))


def test_a_wrong_address_is_named_when_patience_ends():
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # something listens, and is no cluster
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"no Ray cluster answered at {address} within 1 s: expected that of"):
            check_address(address, patience=1)
    with pytest.raises(ConnectionError, match=r"Ray could not be reached at auto: .*[Cc]ould not find any running Ray"):
        check_address("auto")


def workers_at_work(home: Path) -> list[int]:
    """Ids of the Ray workers that train a smoke run right now, in the cluster that was started with this home."""
    numbers = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            at_work = (process / "cmdline").read_bytes().startswith(b"ray::smoke-")
            if at_work and f"HFCLIB_HOME={home}\0".encode() in (process / "environ").read_bytes():
                numbers.append(int(process.name))
        except OSError:  # ended meanwhile, or not ours
            continue
    return numbers


@pytest.mark.slow
def test_a_ray_sweep_of_six_runs_survives_the_death_of_a_worker(tmp_path, own_home):
    pytest.importorskip("ray")
    store, log = tmp_path / "store", tmp_path / "log"
    words = ["sweep", "fig2", "--preset", "smoke", "--seeds", "0-2", "--engine", "ray", "--workers", "2"]
    words += ["--variant", "vanilla", "--variant", "batchnorm"]
    with open(log, "w") as output:
        sweep = subprocess.Popen(
            [sys.executable, "-m", "hfclib.cli", *words, "--store", str(store)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        killed = None
        while sweep.poll() is None and killed is None:
            if "epoch 1 of 2" in log.read_text() and (at_work := workers_at_work(own_home)):
                killed = at_work[0]
                os.kill(killed, signal.SIGKILL)
            time.sleep(0.05)
        assert sweep.wait() == 0, log.read_text()
    assert killed is not None, log.read_text()
    assert "6 of 6 done" in log.read_text()
    wanted = {
        fig2_recipes("smoke")[variant].run_name(seed) for variant in ("vanilla", "batchnorm") for seed in range(3)
    }
    assert {path.name for path in store.iterdir()} == wanted
    for path in store.iterdir():
        load(path).model()
