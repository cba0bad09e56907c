"""hfclib.distributed: two processes that torchrun starts make the steps that one process makes."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from hfclib import distributed, runs
from hfclib.distributed import Alone
from hfclib.recipes import Recipe

RECIPE = Recipe(
    "tiny", width=2, epochs=2, batch_size=33, learning_rate=1e-3, augment=True, train_images=100, eval_images=20,
    final_images=20,
)  # fmt: skip
# The last batch has one image: fewer than processes.
RECIPES = {"plain": RECIPE, "mixup": replace(RECIPE, mixup_alpha=0.5), "batchnorm": replace(RECIPE, norm="batch")}

RECORDING = """
import json, sys
from pathlib import Path
from hfclib import distributed, runs, training
from hfclib.recipes import Recipe

training.RADII = runs.RADII = (4,)
training.autocast = lambda device: __import__("contextlib").nullcontext()
step, losses = training.training_step, []

def recording(model, images, labels, *args, **options):
    loss, logits = step(model, images, labels, *args, **options)
    losses.append(options["team"].mean(loss, len(labels)).item())
    return loss, logits

training.training_step = recording
store, found = Path(sys.argv[1]), {}
for name, recipe in json.loads(sys.argv[2]).items():
    run = runs.train(Recipe(**recipe), seed=0, store=store, progress=False)
    assert (run is None) == (distributed.team().rank > 0)
    found[name] = [losses.pop(0) for _ in range(len(losses))]
if distributed.team().first:
    (store / "losses.json").write_text(json.dumps(found))
"""


def losses(folder, *launcher):
    """The loss of every step of RECIPES, by name."""
    folder.mkdir()
    script = folder / "recording.py"
    script.write_text(RECORDING)
    recipes = json.dumps({name: recipe.to_dict() for name, recipe in RECIPES.items()})
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(folder), recipes], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "losses.json").read_text())


@pytest.mark.slow
def test_two_processes_of_torchrun_train_the_same_recipe(tmp_path):
    pytest.importorskip("lightning_fabric")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    together, alone = losses(tmp_path / "two", *launcher), losses(tmp_path / "one")
    assert together.keys() == alone.keys() == RECIPES.keys()
    for name, recipe in RECIPES.items():
        assert len(alone[name]) == 8  # four steps an epoch
        assert together[name] == pytest.approx(alone[name], rel=1e-3), name
        run = runs.load(tmp_path / "two" / recipe.run_name(0))
        assert run.provenance["device"].endswith("2 processes")


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    distributed.team.cache_clear()
    assert isinstance(distributed.team(), Alone)


def test_without_fabric_several_processes_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    distributed.team.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'hfclib\[distributed\]'"):
        distributed.team()


@pytest.fixture
def two_parts(monkeypatch):
    """A team of two without their processes: only what needs no communication."""
    team = object.__new__(distributed.Several)
    team.world = 2
    return team


@pytest.mark.parametrize("count", [1, 2, 3, 8, 33])
def test_parts_make_the_batch_and_weights_its_mean(two_parts, count):
    values, mean = torch.randn(count, dtype=torch.float64), 0.0
    seen = []
    for two_parts.rank in (0, 1):
        part = two_parts.part(values)
        seen += part.tolist()
        mean += part.mean().item() * two_parts._weight(count)
    assert mean == pytest.approx(values.mean().item())
    assert set(seen) == set(values.tolist())
    assert len(seen) == max(count, 2)


def test_whole_batchnorm_on_one_part_is_batchnorm(monkeypatch, images):
    monkeypatch.setattr("torch.distributed.nn.functional.all_reduce", lambda tensor: tensor)
    usual, ours = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    ours.__class__ = distributed.WholeBatchNorm
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    for module, x in zip((usual, ours), inputs, strict=True):
        module.weight.data, module.bias.data = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, -1.0])
        (module(x) * torch.arange(12.0)[:, None, None, None]).tanh().sum().backward()
    torch.testing.assert_close(ours(images), usual(images))
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-4)
    for name, tensor in usual.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)
    torch.testing.assert_close(ours.eval()(images), usual.eval()(images))
