"""What people's machines do: kills at any moment, a full disk, and two processes that train the same run."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from hfclib.paper.presets import fig4_recipes
from hfclib.runs.store import load
from hfclib.runs.train import train_run
from hfclib.training.checkpoint import epochs_done
from tests.runs.tiny import FILES, TINY

# Trains a recipe again and again, each time in a child process that is ended by SIGKILL as it was told, and that starts
# with everything imported and decoded, also what the first table and the first optimiser import: what is killed is the
# training, not Python on its way to it.
TRAINING = """
import itertools, json, os, signal, sys
from pathlib import Path
import pandas.io.formats.csvs, torch._dynamo
from hfclib import data
from hfclib.runs import train_run
from hfclib.training import Recipe, loop

recipe, moments = Recipe.from_dict(json.loads(sys.argv[1])), json.loads(sys.argv[2])
data.embedded("train"), data.embedded("test")  # decoded before the calls that are counted
Recipe.radii = (4,)  # most of a small training's time goes into measuring bands

def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def half_done(descriptor):
    os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
    die()

def until(number, function, end=die):
    # The function; its call with that number, from 1, is the end.
    numbers = itertools.count(1)
    return lambda *args, **options: (end if next(numbers) == number else function)(*args, **options)

def child(store, moment):
    kind, value = moment
    calls = itertools.count()
    if kind == "half a write":
        os.fsync = until(value, os.fsync, half_done)
    elif kind == "before a replace":
        os.replace = until(value, os.replace)
    elif kind == "step":
        loop.training_step = until(value, loop.training_step)
    elif kind == "call":  # or return of a function, Python's or C's
        sys.setprofile(until(value, lambda *event: None))
    elif kind == "count":
        sys.setprofile(lambda *event: next(calls))
    train_run(recipe, seed=0, store=Path(store), progress=False)
    sys.setprofile(None)
    if kind == "count":
        print(next(calls), flush=True)

for store, moment in moments:
    process = os.fork()
    if process == 0:
        child(store, moment)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def run(recipe, moments):
    """Train in children, one after the other, each in its store and with its moment of death.

    Returns the exit status of each; before it stands the number of calls, where the moment is "count".
    """
    words = [json.dumps(recipe.to_dict()), json.dumps([(str(store), moment) for store, moment in moments])]
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def same(store, other, recipe):
    """Equal weights and curves, byte for byte, in two stores, and nothing else there."""
    paths = [folder / recipe.run_name(0) for folder in (store, other)]
    assert sorted(file.name for file in paths[0].iterdir()) == FILES
    assert {path.name for path in store.iterdir()} == {paths[0].name}
    return all((paths[0] / name).read_bytes() == (paths[1] / name).read_bytes() for name in FILES if name != "run.json")


def killed_and_resumed(tmp_path, recipe, moments):
    """Train undisturbed, then once for each moment, dying then and resuming; how many really died."""
    calls, code = run(recipe, [(tmp_path / "whole", ["count", 0])])
    assert code == 0
    plan = []
    for number, moment in enumerate(moments):
        at = ["call", round(moment[1] * calls)] if moment[0] == "share" else moment
        plan += [(tmp_path / str(number), at), (tmp_path / str(number), ["never", 0])]
    codes = run(recipe, plan)
    assert set(codes[1::2]) == {0}  # resuming always works
    assert set(codes[::2]) <= {0, -signal.SIGKILL}
    for number, moment in enumerate(moments):
        assert same(tmp_path / str(number), tmp_path / "whole", recipe), moment
    return codes[::2].count(-signal.SIGKILL)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_of_a_smoke_training(tmp_path):
    dice = random.Random(5)
    moments = [["step", 6]] + [["share", dice.uniform(0.02, 0.95)] for _ in range(11)]
    moments += [["half a write", count] for count in (1, 2, 3, 6)] + [
        ["before a replace", count] for count in (1, 2, 4, 7)
    ]
    recipe = fig4_recipes("smoke")["dropout"].with_(train_images=256)
    assert killed_and_resumed(tmp_path, recipe, moments) == len(moments)


LIMITED = """
import resource, signal, sys
from pathlib import Path
from hfclib.runs import train as job
from hfclib.training import Recipe, loop

Recipe.radii = (4,)
save, done = job.save_checkpoint, []

def limited(*args):
    if done:  # the first checkpoint found room
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    save(*args)
    done.append(True)

job.save_checkpoint = limited
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    job.train_run(Recipe.from_dict(eval(sys.argv[1])), seed=0, store=Path(sys.argv[2]), progress=False)
except OSError as error:
    sys.exit(f"Error: {error}")
"""


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_last_checkpoint_stays(tmp_path, measured_at):
    measured_at(4)
    store = tmp_path / "full"
    words = [sys.executable, "-c", LIMITED, repr(TINY.to_dict()), str(store)]
    # Bytecode of what is imported late would be cut off, too, and then no process could import it any more.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    checkpoint = store / f"{TINY.run_name(0)}.partial" / "checkpoint.safetensors"
    assert done.returncode == 1
    assert re.search(rf"File too large: {re.escape(str(checkpoint))} could not be written.*Make room", done.stderr)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert epochs_done(checkpoint) == 1
    train_run(TINY, seed=0, store=store, progress=False)  # there is room again
    train_run(TINY, seed=0, store=tmp_path / "whole", progress=False)
    assert same(store, tmp_path / "whole", TINY)


TWICE = """
import logging, sys
from pathlib import Path
from hfclib.runs import train as job
from hfclib.training import Recipe, loop

Recipe.radii = (4,)
fit = job.fit_own

def slow(*args, **options):
    print("training", flush=True)
    sys.stdin.readline()
    return fit(*args, **options)

job.fit_own = slow
logging.basicConfig(stream=sys.stdout, format="%(message)s")
run = job.train_run(Recipe.from_dict(eval(sys.argv[1])), seed=0, store=Path(sys.argv[2]), progress=False)
print("ended with", run.path.name, flush=True)
"""


@pytest.mark.slow
def test_of_two_processes_with_the_same_run_one_trains_and_the_other_waits(tmp_path):
    words = [sys.executable, "-c", TWICE, repr(TINY.to_dict()), str(tmp_path / "store")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as one, subprocess.Popen(words, **pipes) as other:
        lines = {one: one.stdout.readline(), other: other.stdout.readline()}
        first, second = sorted(lines, key=lambda process: lines[process] != "training\n")
        assert lines[first] == "training\n"
        assert re.match("another process is at .*tiny.*: waiting", lines[second])
        time.sleep(0.2)
        assert second.poll() is None
        said = first.communicate("go on\n")[0]
        assert said.splitlines()[-1] == f"ended with {TINY.run_name(0)}"
        assert second.communicate()[0] == f"ended with {TINY.run_name(0)}\n"  # without having trained
    assert os.listdir(tmp_path / "store") == [TINY.run_name(0)]
    path = tmp_path / "store" / TINY.run_name(0)
    assert load(path).recipe == TINY
    assert load_file(path / "weights.safetensors")
