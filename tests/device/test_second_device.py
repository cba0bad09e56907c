"""The library on a second device: PyTorch/XLA's own CPU device, where tensors live apart from the CPU's, as a GPU's do.

`make device` runs these tests. BatchNorm's gradient in evaluation mode is left out: PyTorch/XLA raises an error there,
without any code of hfclib.
"""

import copy
import os

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from hfclib import accuracy, band_accuracy, fit, matched, resnet18, split
from hfclib.attacks import apgd, fgsm, pgd, square
from hfclib.metrics import misaligned
from hfclib.training.checkpoint import restore_checkpoint, save_checkpoint
from hfclib.training.recipe import AttackConfig, Recipe

os.environ.setdefault("PJRT_DEVICE", "CPU")
torch_xla = pytest.importorskip("torch_xla", reason="no PyTorch/XLA here; `make device` has it")

RECIPE = Recipe("tiny").with_(epochs=2, batch_size=10, learning_rate=1e-3, eval_images=10)
ATTACK = AttackConfig("pgd", eps=0.03, alpha=0.02, steps=2)
MOVES = (Tensor.copy_, Tensor.data.__set__, torch._has_compatible_shallow_copy_type)  # the last two: of Module.to


class OneDevice(TorchFunctionMode):
    """Refuse what a GPU refuses: XLA adds, multiplies and masks tensors of two devices, and so would hide a mistake.

    As on a GPU, single numbers and indices may be on the CPU.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        compared = (args[0], *args[2:]) if func in (Tensor.__getitem__, Tensor.__setitem__) else (args, kwargs)
        tensors = [leaf for leaf in tree_leaves(compared) if isinstance(leaf, Tensor) and leaf.ndim]
        if len({tensor.device.type for tensor in tensors}) > 1 and func not in MOVES:
            raise RuntimeError(f"{func} got tensors of two devices")
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def strict():
    # Each operation is compiled alone: whole graphs would be compiled anew for each number of images left to attack.
    torch_xla.experimental.eager_mode(True)
    with OneDevice():
        yield


def on_device(*objects):
    return [copy.deepcopy(each).to(torch_xla.device()) for each in objects]


@pytest.fixture
def both():
    """A network, images and labels, three of four of them as predicted; and copies on the second device."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(392, 5))
    images = torch.rand(20, 3, 16, 16)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    labels[::4] = torch.arange(5)
    return (model, images, labels), on_device(model, images, labels)


def test_tensors_of_two_devices_do_not_mix(both):
    (_, images, _), (_, there, _) = both
    for mixed in (lambda: images + there, lambda: there * images, lambda: there[images > 0.5].sub_(images[0])):
        with pytest.raises(RuntimeError):
            mixed()
    assert (there * torch.tensor(2.0)).device.type == "xla"


def test_split(both):
    (_, images, _), (_, there, _) = both
    for part, expected in zip(split(there, 4), split(images, 4), strict=True):
        assert part.device.type == "xla"
        torch.testing.assert_close(part.cpu(), expected, rtol=0, atol=1e-5)


def test_accuracies(both):
    own, there = both
    assert accuracy(*there) == accuracy(*own)
    table, expected = band_accuracy(*there, [2, 4, 6]), band_accuracy(*own, [2, 4, 6])
    assert table.equals(expected)
    assert expected["accuracy"].nunique() > 2
    chosen, expected = misaligned(*there, 4), misaligned(*own, 4)
    assert chosen.device.type == "xla"
    assert torch.equal(chosen.cpu(), expected)
    assert 0 < expected.sum() < 20


def test_batchnorm(both):
    (_, images, labels), (_, *there) = both
    model = resnet18(2, "batch")
    for bn_stats in ("running", "batch"):
        expected = accuracy(model, images, labels, bn_stats=bn_stats)
        assert accuracy(*on_device(model), *there, bn_stats=bn_stats) == expected


def test_matched(both):
    outputs, shares = [], []
    for model, images, labels in both:
        helped = matched(model, images[:10])
        with torch.no_grad():
            outputs.append(helped(images[10:]).cpu())
        shares.append(accuracy(helped, images, labels))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    assert shares[0] == shares[1]


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (fgsm, {}),
        (pgd, {"norm": "linf"}),
        (pgd, {"norm": "l2", "eps": 0.5, "restarts": 2, "steps": 4, "stop_early": True}),
        (apgd, {"steps": 10}),
        (apgd, {"steps": 10, "targets": 2}),
        (square, {"eps": 0.1, "queries": 20}),
    ],
)
def test_attacks(both, attack, options):
    results, fooled = [], []
    for model, images, labels in both:
        draws = {} if attack is fgsm else {"seed": 0}
        adv_images = attack(model, images, labels, **{"eps": 0.02, **options}, **draws)
        assert adv_images.device == images.device
        results.append(adv_images.cpu())
        with torch.no_grad():
            fooled.append((model(adv_images).argmax(dim=1) != labels).cpu())
    assert torch.equal(*fooled)
    assert 6 < fooled[0].sum() <= 20
    # A sign of a gradient near zero may differ, which moves that pixel by a whole step.
    assert ((results[0] - results[1]).abs() > 1e-4).float().mean() < 0.001


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE.with_(augment=True, mixup_alpha=0.5, schedule="one_cycle", label_smoothing=0.1),
        RECIPE.with_(algorithm="sgd", smoothness_penalty=0.1, attack=ATTACK),
    ],
    ids=["mixup", "attacked"],
)
def test_fit_goes_on_from_a_checkpoint(both, tmp_path, in_float32, recipe):
    weights, accuracies = [], []
    for place, (model, images, labels) in enumerate(both):
        path = tmp_path / str(place) / "checkpoint.safetensors"
        path.parent.mkdir()
        data = (images, labels), (images, labels)

        def stop(*objects, path=path):
            save_checkpoint(path, *objects)
            raise KeyboardInterrupt

        def restore(*objects, path=path):
            return restore_checkpoint(path, *objects)

        fresh = copy.deepcopy(model)
        with pytest.raises(KeyboardInterrupt):
            fit(model, *data, recipe, seed=0, checkpoint=stop, progress=False)
        state = fit(fresh, *data, recipe, seed=0, restore=restore, progress=False)
        weights.append(torch.cat([parameter.detach().cpu().flatten() for parameter in fresh.parameters()]))
        accuracies.append([row["accuracy"] for row in state.rows])
    torch.testing.assert_close(*weights, rtol=0, atol=1e-4)
    assert len(accuracies[0]) > 10
    assert accuracies[0] == pytest.approx(accuracies[1])
