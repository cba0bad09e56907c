"""Obtaining the runs of a figure: stored ones are loaded, missing ones trained after saying how long that takes."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from hfclib.devices import best_device, device_name
from hfclib.evaluation import band_conditions
from hfclib.runs.store import Run, find
from hfclib.runs.train import train_run
from hfclib.training.batches import Batches
from hfclib.training.loop import make_optimizer, training_step
from hfclib.training.recipe import RADII, Recipe


class Runs(dict[str, list[Run]]):
    """The runs of a figure: a list per variant, with one run per seed."""

    def all(self) -> list[Run]:
        """Every run, variant by variant."""
        return [run for ones in self.values() for run in ones]

    def of(self, seed: int) -> dict[str, Run]:
        """The run of a seed, by variant."""
        return {variant: run for variant, ones in self.items() for run in ones if run.seed == seed}


def estimate_seconds(recipe: Recipe, device: torch.device, steps: int = 4) -> float:
    """About how long a run of `recipe` takes on `device`, in seconds.

    A few steps with random images are timed. Evaluating an image is taken to cost a third of training on it, since a
    backward pass takes about as long as two forward passes.
    """
    model = recipe.build().to(device, memory_format=torch.channels_last).train()
    count = min(recipe.batch_size, recipe.train_images)
    images, labels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.zeros(count, dtype=torch.int64)
    options = {"augment": recipe.augment, "rescale": recipe.rescale, "device": device}
    batches = Batches(images, labels, batch_size=count, **options)
    optimizer, _ = make_optimizer(model, recipe, steps + 1)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for step in range(steps + 1):
        if step == 1:  # the first step also warms up
            start = time.perf_counter()
        for batch in batches.epoch(generator):
            training_step(model, *batch, recipe, optimizer, rng=rng, generator=generator)[0].item()
    seconds = (time.perf_counter() - start) / steps / count
    conditions = len(list(band_conditions(RADII, recipe.norm == "batch")))
    evaluated = conditions * (recipe.epochs * recipe.eval_images + recipe.final_images)
    trained = recipe.whole_epochs(recipe.epochs) * recipe.train_images
    return seconds * (trained + evaluated / (3 * (1 + recipe.adv_steps)))


def load_or_train(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    *,
    retrain: bool = False,
    store: Path | None = None,
    progress: bool = True,
) -> Iterator[tuple[str, Run, bool]]:
    """Load or train runs one after the other: the first seed of every recipe before the second of any.

    Args:
        recipes: by variant.
        seeds: whole numbers of at least 0.
        retrain: train stored runs too.
        store: folder to look in and to write to; None looks in `folders()` and writes to `<home>/runs`.
        progress: print how long the missing runs will take, and show bars.
    Yields:
        (variant, run, whether it was trained just now).
    Raises:
        RunError, CheckpointError, TrainingError, DataError, OSError: as `find` and `train_run`.
    """
    jobs = [(variant, recipe, seed) for seed in dict.fromkeys(seeds) for variant, recipe in recipes.items()]
    stored = {} if retrain else {(variant, seed): find(recipe, seed, store) for variant, recipe, seed in jobs}
    missing = [recipe for variant, recipe, seed in jobs if stored.get((variant, seed)) is None]
    if missing and progress:
        device = best_device()
        costs = {recipe: estimate_seconds(recipe, device) for recipe in set(missing)}
        minutes = sum(costs[recipe] for recipe in missing) / 60
        count = f"{len(missing)} run{'s' * (len(missing) > 1)}"
        # Not logged: a notebook has no handler, and must show this too.
        tqdm.write(f"{count} to train on {device_name(device)}: about {minutes:.1f} minutes")
    for variant, recipe, seed in jobs:
        run = stored.get((variant, seed))
        yield variant, run or train_run(recipe, seed=seed, store=store, progress=progress), run is None


def stored_runs(recipes: Mapping[str, Recipe], seeds: Sequence[int], optional: Collection[str] = ()) -> Runs:
    """The runs of a figure that are stored.

    Returns:
        One of the `optional` variants has the seeds that are stored, and is left out where none is. Any other has all
        seeds, or is left out.
    Raises:
        RunError: a stored run is damaged.
    """
    found = {variant: [run for seed in seeds if (run := find(recipe, seed))] for variant, recipe in recipes.items()}
    least = {variant: 1 if variant in optional else len(seeds) for variant in recipes}
    return Runs({variant: ones for variant, ones in found.items() if len(ones) >= least[variant]})


def obtain(
    recipes: Mapping[str, Recipe], seeds: Sequence[int], *, retrain: bool = False, optional: Collection[str] = ()
) -> Runs:
    """The runs of a figure, loaded or trained; arguments and errors as in `load_or_train` and `stored_runs`.

    While `retrain` is off, optional variants are never trained: they are there as in `stored_runs`.
    """
    untrained = {} if retrain else {variant: recipe for variant, recipe in recipes.items() if variant in optional}
    there = stored_runs(untrained, seeds, optional)
    wanted = {variant: recipe for variant, recipe in recipes.items() if variant not in untrained}
    found = Runs({variant: there.get(variant, []) for variant in recipes if variant in wanted or variant in there})
    for variant, run, _ in load_or_train(wanted, seeds, retrain=retrain):
        found[variant].append(run)
    return found
