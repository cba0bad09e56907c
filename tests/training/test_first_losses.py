"""The first losses with each option of training, so that a change of the code that changes what a recipe gives fails.

They are compared in float32, which every processor has, and stored in `first_losses.json`. `python -m
tests.training.test_first_losses` stores those of new options, and all of them once `TRAINING_VERSION` is raised.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn

from hfclib.models import xavier_
from hfclib.runs.images import training_set
from hfclib.training.loop import fit_own, initial_model, training_step
from hfclib.training.recipe import TRAINING_VERSION, AttackConfig, DataConfig, ModelConfig, OptimizerConfig, Recipe

STORED = Path(__file__).with_name("first_losses.json")
BASE = {"epochs": 2, "batch_size": 16, "algorithm": "sgd", "learning_rate": 0.03, "train_images": 48, "eval_images": 2}
TOLERANCE = 1e-4  # relative; AVX-512, AVX2 and SSE differ by up to 2e-7, and where BatchNorm trains by up to 2e-5
ATTACK = AttackConfig("pgd", eps=0.03, alpha=0.02, steps=2)
RATES = {"adam": 0.002, "sgd_plain": 0.03, "adagrad": 0.003, "adadelta": 0.5, "rmsprop": 0.001}
TRAINING_OPTIONS = {
    "plain": {},
    **{name: {"algorithm": name, "learning_rate": rate} for name, rate in RATES.items()},
    "adamw": {"algorithm": "adamw", "learning_rate": RATES["adam"], "weight_decay": 2.0},
    "weight_decay": {"weight_decay": 0.05},
    "one_cycle": {"schedule": "one_cycle", "batch_size": 8},
    "short_one_cycle": {"schedule": "one_cycle"},
    "augment": {"augment": True},
    "early_sizes": {"early_sizes": (16,)},
    "label_smoothing": {"label_smoothing": 0.1},
    "rescale_max": {"rescale": "max"},
    "rescale_range": {"rescale": "range"},
    "mixup": {"mixup_alpha": 0.5},
    "single_step": {"attack": replace(ATTACK, method="single_step", steps=1)},
    "pgd": {"attack": ATTACK},
    "pgd_from_the_image": {"attack": replace(ATTACK, random_start=False)},
    "smoothness_penalty": {"smoothness_penalty": 1.0},
    "labels": {"labels": "shuffled"},
    "planted": {"planted": 0.2},
    "lfc": {"train_band": "lfc", "train_radius": 6},
    "hfc": {"train_band": "hfc", "train_radius": 6},
    "sum": {"train_band": "sum", "train_radius": 6, "train_scale": 2.0},
    "mnist": {"dataset": "mnist"},
    "fashion-mnist": {"dataset": "fashion-mnist"},
}
NETWORK = {"width": 4, "epochs": 1, "learning_rate": 0.1}
NORMALISED = NETWORK | {"learning_rate": 1e-4}  # which differ more between processors, after large steps
NETWORK_OPTIONS = {
    "resnet18": NETWORK,
    "width": NETWORK | {"width": 6},
    "batch": NORMALISED | {"norm": "batch"},
    "group": NORMALISED | {"norm": "group"},
    "dropout": NETWORK | {"dropout": 0.5},
    "dropout_at": NETWORK | {"dropout": 0.5, "dropout_at": "map"},
    "stem_kernel": NETWORK | {"stem_kernel": 5},
    "resnet32": NORMALISED | {"network": "resnet32", "norm": "batch"},
    "lenet": NETWORK | {"network": "lenet"},
    "alexnet": NETWORK | {"network": "alexnet"},
    "vgg11": NORMALISED | {"network": "vgg11", "norm": "batch"},
}
OPTIONS = TRAINING_OPTIONS | NETWORK_OPTIONS


def smooth_network(recipe) -> nn.Module:
    """A network without ReLU: where its input is nearly zero, rounding decides whether a gradient passes."""
    channels = 1 if "mnist" in recipe.data.dataset else 3
    layers = [nn.Conv2d(channels, 8, 5, 2, 2), nn.Tanh(), nn.Conv2d(8, 16, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(4)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
    xavier_(model)
    return model


def first_losses(option: str) -> list[float]:
    recipe, losses = Recipe(option).with_(**BASE | OPTIONS[option]), []

    def recorded(*args, **options):
        loss, logits = training_step(*args, **options)
        losses.append(loss.item())
        return loss, logits

    images, labels = training_set(recipe)
    torch.manual_seed(0)
    model = initial_model(recipe, 0) if option in NETWORK_OPTIONS else smooth_network(recipe)
    with ExitStack() as patches:
        for name, replacement in [
            ("hfclib.devices.gains_from_bf16", lambda device: False),
            ("hfclib.training.loop.training_step", recorded),
            ("hfclib.training.loop.curve_rows", lambda *args, **options: []),
            ("hfclib.training.loop.robust_rows", lambda *args, **options: []),
        ]:
            patches.enter_context(patch(name, replacement))
        fit_own(model, (images, labels), (images, labels), recipe, seed=0, progress=False)
    return losses


def store(path: Path = STORED, measure: Callable[[str], list[float]] = first_losses) -> None:
    stored = json.loads(path.read_text())
    kept = stored["losses"] if stored["training_version"] == TRAINING_VERSION else {}
    losses = {option: kept.get(option) or measure(option) for option in OPTIONS}
    lines = ",\n".join(
        f'    "{option}": {json.dumps([round(loss, 6) for loss in losses[option]])}' for option in losses
    )
    path.write_text(f'{{\n  "training_version": {TRAINING_VERSION},\n  "losses": {{\n{lines}\n  }}\n}}\n')


@pytest.fixture(scope="module")
def stored():
    return json.loads(STORED.read_text())


@pytest.mark.parametrize("option", OPTIONS)
def test_the_first_losses_are_the_stored_ones(stored, option):
    if "dropout" in option and not torch.backends.mkl.is_available():
        pytest.skip("without MKL, PyTorch draws other numbers for dropout")
    assert stored["training_version"] == TRAINING_VERSION, "store new losses as this module's first lines say"
    assert first_losses(option) == pytest.approx(stored["losses"][option], rel=TOLERANCE), (
        "training gives another result than the code that trained the published runs. Undo that; or raise "
        "TRAINING_VERSION, train them again, and store new losses: python -m tests.training.test_first_losses"
    )


def test_every_field_that_decides_weights_has_losses():
    covered = set(BASE).union(*OPTIONS.values())
    only_measured = {"name", "train_bands", "eval_images", "final_images"}
    parts = {"model": ModelConfig, "data": DataConfig, "optimizer": OptimizerConfig}
    every = {field.name for config in (Recipe, *parts.values()) for field in fields(config)} - set(parts)
    assert every - covered == only_measured - covered
    attacks = [options["attack"] for options in OPTIONS.values() if "attack" in options]
    same = {field.name for field in fields(AttackConfig) if len({getattr(one, field.name) for one in attacks}) == 1}
    assert same == {"eps", "alpha"}  # which no option changes


def test_the_losses_of_two_options_differ(stored):
    """So that an option which is no longer heeded is noticed."""
    assert set(stored["losses"]) == set(OPTIONS)
    for one, other in combinations(stored["losses"].values(), 2):
        assert one != pytest.approx(other[: len(one)], rel=5 * TOLERANCE)


def test_stored_losses_are_replaced_only_with_a_new_version(tmp_path):
    path = tmp_path / "losses.json"
    for version, expected in [(TRAINING_VERSION, [2.25]), (TRAINING_VERSION - 1, [0.5])]:
        path.write_text(json.dumps({"training_version": version, "losses": {"plain": [2.25]}}))
        store(path, lambda option: [0.5])
        renewed = json.loads(path.read_text())
        assert renewed["training_version"] == TRAINING_VERSION
        assert renewed["losses"] == {option: expected if option == "plain" else [0.5] for option in OPTIONS}


if __name__ == "__main__":
    torch.set_num_threads(1)
    store()
