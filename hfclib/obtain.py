"""Obtaining the runs of a figure: stored ones are loaded, missing ones trained after saying how long that takes."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from hfclib import distributed, runs
from hfclib.batches import Batches
from hfclib.devices import best_device, device_name
from hfclib.evaluation import conditions
from hfclib.figures import OPTIONAL
from hfclib.recipes import RADII, Recipe
from hfclib.runs import Run
from hfclib.training import make_optimizer, training_step


class Runs(dict[str, list[Run]]):
    """The runs of a figure: for each panel, one a seed."""

    def all(self) -> list[Run]:
        """Every run, panel by panel."""
        return [run for ones in self.values() for run in ones]

    def of(self, seed: int) -> dict[str, Run]:
        """The run of a seed, by panel."""
        return {panel: run for panel, ones in self.items() for run in ones if run.seed == seed}


def estimate_seconds(recipe: Recipe, device: torch.device, steps: int = 4) -> float:
    """About how long a run of `recipe` takes on `device`, in seconds.

    A few steps with random images are timed. An image is then taken to cost a third of that where it is only asked
    about, after each epoch and at the end, since a pass backward takes about as long as two forward.
    """
    model = recipe.build().to(device, memory_format=torch.channels_last).train()
    count = min(recipe.batch_size, recipe.train_images)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    batches = Batches(images, torch.zeros(count, dtype=torch.int64), batch_size=count, augment=recipe.augment,
                      rescale=recipe.rescale, device=device)  # fmt: skip
    optimizer, _ = make_optimizer(model, recipe, steps + 1)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for step in range(steps + 1):
        if step == 1:  # the first step also warms up
            start = time.perf_counter()
        for batch in batches.epoch(generator):
            training_step(model, *batch, recipe, optimizer, rng=rng, generator=generator)[0].item()
    seconds = (time.perf_counter() - start) / steps / count
    asked = len(list(conditions(RADII, recipe.norm == "batch"))) * (
        recipe.epochs * recipe.eval_images + recipe.final_images
    )
    return seconds * (recipe.whole_epochs(recipe.epochs) * recipe.train_images + asked / (3 * (1 + recipe.adv_steps)))


def each(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    *,
    retrain: bool = False,
    store: Path | None = None,
    progress: bool = True,
) -> Iterator[tuple[str, Run, bool]]:
    """Load or train runs one after the other: the first seed of every recipe before the second of any.

    Args:
        recipes: by panel.
        seeds: whole numbers of at least 0.
        retrain: train stored runs too.
        store: folder to look in and to write to; None looks in `runs.folders()` and writes to `<home>/runs`.
        progress: print how long the missing runs will take, and show bars.
    Yields:
        (panel, run, whether it was trained just now); of the processes that torchrun started, the first one only.
    Raises:
        RunError, CheckpointError, TrainingError, DataError, OSError: as `runs.find` and `runs.train`.
    """
    jobs = [(panel, recipe, seed) for seed in dict.fromkeys(seeds) for panel, recipe in recipes.items()]
    stored = {} if retrain else {(panel, seed): runs.find(recipe, seed, store) for panel, recipe, seed in jobs}
    absent = [stored.get((panel, seed)) is None for panel, _, seed in jobs]
    team = distributed.team()  # the first process knows what is stored, and the others follow it
    absent = json.loads(team.share(json.dumps(absent).encode()))
    missing = [recipe for (_, recipe, _), gone in zip(jobs, absent, strict=True) if gone]
    if missing and progress and team.first:
        device = best_device()
        costs = {recipe: estimate_seconds(recipe, device) for recipe in set(missing)}
        minutes = sum(costs[recipe] for recipe in missing) / 60
        count = f"{len(missing)} run{'s' * (len(missing) > 1)}"
        print(f"{count} to train on {device_name(device)}: about {minutes:.1f} minutes", flush=True)
    for (panel, recipe, seed), gone in zip(jobs, absent, strict=True):
        run = stored.get((panel, seed))
        if gone:
            run = runs.train(recipe, seed=seed, store=store, progress=progress)
        if run is not None:
            yield panel, run, gone


def stored(recipes: Mapping[str, Recipe], seeds: Sequence[int]) -> Runs:
    """The runs of a figure that are stored.

    Returns:
        A panel of `figures.OPTIONAL` has the seeds that are stored, and is left out where none is. Any other has all
        seeds, or is left out.
    Raises:
        RunError: a stored run is damaged.
    """
    found = {panel: [run for seed in seeds if (run := runs.find(recipe, seed))] for panel, recipe in recipes.items()}
    least = {panel: 1 if panel in OPTIONAL else len(seeds) for panel in recipes}
    return Runs({panel: ones for panel, ones in found.items() if len(ones) >= least[panel]})


def obtain(recipes: Mapping[str, Recipe], seeds: Sequence[int], *, retrain: bool = False) -> Runs:
    """The runs of a figure, loaded or trained; arguments and errors as in `each`.

    While `retrain` is off, panels of `figures.OPTIONAL` are never trained: they are there as in `stored`.
    """
    optional = {} if retrain else {panel: recipe for panel, recipe in recipes.items() if panel in OPTIONAL}
    there = stored(optional, seeds)
    wanted = {panel: recipe for panel, recipe in recipes.items() if panel not in optional}
    found = Runs({panel: there.get(panel, []) for panel in recipes if panel in wanted or panel in there})
    for panel, run, _ in each(wanted, seeds, retrain=retrain):
        found[panel].append(run)
    return found
