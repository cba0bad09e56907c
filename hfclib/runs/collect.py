"""Obtaining the runs of a chapter: stored ones are loaded, missing ones trained after saying how long that takes."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from hfclib._files import home, make_writable
from hfclib.data import DATA_SETS
from hfclib.devices import best_device, device_name
from hfclib.runs.store import Run, find, folders, stored_seeds
from hfclib.runs.train import train_run
from hfclib.training.loop import fit_own, initial_model
from hfclib.training.recipe import Recipe


class Runs(dict[str, list[Run]]):
    """The runs of a chapter: a list per variant, with one run per seed."""

    def all(self, variants: Iterable[str] | None = None) -> list[Run]:
        """Every run, variant by variant; of some variants alone, if given."""
        wanted = set(self if variants is None else variants)
        return [run for variant, ones in self.items() if variant in wanted for run in ones]

    def with_weights(self) -> "Runs":
        """The runs whose weights are kept; a variant without any is left out."""
        kept = {variant: [run for run in ones if run.has_weights] for variant, ones in self.items()}
        return Runs({variant: ones for variant, ones in kept.items() if ones})


def estimate_seconds(recipe: Recipe, device: torch.device) -> float:
    """About how long a run of `recipe` takes on `device`, in seconds: a training on a few random images is timed."""
    count, measured = 2 * recipe.data.batch_size, 10
    known = DATA_SETS[recipe.data.dataset]
    shape = count, len(known.mean), known.side, known.side
    drawn = np.random.default_rng(0).integers(0, 256, shape, np.uint8)  # the caller's random numbers stay what they are
    data = torch.from_numpy(drawn), torch.from_numpy(np.zeros(count, np.int64))
    short = recipe.with_(epochs=1, early_sizes=(), eval_images=measured)
    for _ in range(2):  # the first time also warms up
        spent = fit_own(initial_model(recipe, 0).to(device), data, data, short, seed=0, progress=False)
    trained = recipe.whole_epochs(recipe.epochs) * recipe.data.train_images
    evaluated = recipe.epochs * recipe.eval_images + recipe.final_images
    return spent.train_seconds / count * trained + spent.eval_seconds / measured * evaluated


def load_or_train(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    *,
    retrain: bool = False,
    store: Path | None = None,
    needs_weights: Collection[str] | None = None,
    progress: bool = True,
) -> Iterator[tuple[str, Run, bool]]:
    """Load or train runs one after the other: the first seed of every recipe before the second of any.

    Args:
        recipes, seeds: by variant; each 0 or more.
        retrain: train stored runs too.
        store: folder to look in and to write to; None looks in `folders()` and writes to `<home>/runs`.
        needs_weights: variants of which those of the first seed are needed; None is all weights of all. Where a
            published run lacks weights that are needed, one of yours that has them is taken (`find`).
        progress: print how long the missing runs will take, and show bars.
    Yields:
        (variant, run, whether it was trained just now).
    Raises:
        RunError, CheckpointError, TrainingError, DataError, OSError: as `find` and `train_run`.
    """
    jobs = [(variant, recipe, seed) for seed in dict.fromkeys(seeds) for variant, recipe in recipes.items()]

    def look(variant: str, recipe: Recipe, seed: int) -> Run | None:
        return find(
            recipe, seed, store, weights=needs_weights is None or (variant in needs_weights and seed == seeds[0])
        )

    stored = {} if retrain else {job: look(*job) for job in jobs}
    missing = [job[1] for job in jobs if stored.get(job) is None]
    if missing:
        make_writable(store or home() / "runs")
    if missing and progress:
        device = best_device()
        costs = {recipe: estimate_seconds(recipe, device) for recipe in set(missing)}
        minutes = sum(costs[recipe] for recipe in missing) / 60
        count = f"{len(missing)} run{'s' * (len(missing) > 1)}"
        # Not logged: a notebook has no handler, and must show this too.
        tqdm.write(f"{count} to train on {device_name(device)}: about {minutes:.1f} minutes")
    for variant, recipe, seed in jobs:
        run = stored.get((variant, recipe, seed))
        if run is None and not retrain:  # another process may have trained it in the meantime
            run = look(variant, recipe, seed)
        yield variant, run or train_run(recipe, seed=seed, store=store, progress=progress), run is None


def published_runs(recipes: Mapping[str, Recipe]) -> Runs:
    """All published runs of recipes, with whatever seeds, by variant; your own folder is not read.

    Args:
        recipes: by variant; one without a published run is left out.
    Raises:
        RunError: a published run is damaged.
    """
    place = folders()[0]
    stored = {
        variant: [find(recipe, seed, place) for seed in stored_seeds(recipe, [place])]
        for variant, recipe in recipes.items()
    }
    return Runs({variant: [run for run in runs if run] for variant, runs in stored.items() if any(runs)})


def stored_runs(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    optional: Collection[str] = (),
    needs_weights: Collection[str] = (),
) -> Runs:
    """The runs of a chapter that are stored, published or yours.

    Args:
        recipes: by variant.
        seeds: of the runs.
        optional: variants that are wanted with fewer than all `seeds` too.
        needs_weights: as in `load_or_train`.
    Returns:
        A variant without one of the `seeds`, or an optional one without any of them, is left out.
    Raises:
        RunError: a stored run is damaged.
    """
    runs = Runs()
    for variant, recipe in recipes.items():
        looked = [find(recipe, seed, weights=variant in needs_weights and seed == seeds[0]) for seed in seeds]
        ones = [run for run in looked if run]
        if len(ones) >= (1 if variant in optional else max(1, len(seeds))):
            runs[variant] = ones
    return runs


def obtain(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    *,
    retrain: bool = False,
    optional: Collection[str] = (),
    needs_weights: Collection[str] = (),
) -> Runs:
    """The runs of a chapter, loaded or trained; arguments and errors as in `load_or_train` and `stored_runs`.

    While `retrain` is off, optional variants are never trained: they are there as in `stored_runs`.
    """
    wanted = {variant: recipe for variant, recipe in recipes.items() if retrain or variant not in optional}
    others = {variant: recipe for variant, recipe in recipes.items() if variant not in wanted}
    runs = stored_runs(others, seeds, optional, needs_weights)
    for variant, run, _ in load_or_train(wanted, seeds, retrain=retrain, needs_weights=needs_weights):
        runs.setdefault(variant, []).append(run)
    return Runs({variant: runs[variant] for variant in recipes if variant in runs})
