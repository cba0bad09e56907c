"""Trials: which test images a stored network classifies correctly with a defense and under an attack.

Each is computed once and stored in a record of kind "attacks" (`hfclib.runs.predictions`), one byte per image.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hfclib.attacks.gradient import pgd
from hfclib.attacks.robustness import clean_correct, robust_correct, smallest_eps
from hfclib.batching import BATCH_SIZE, logits
from hfclib.data.cifar import TEST_IMAGES, embedded, to_float
from hfclib.devices import best_device, device_name
from hfclib.paper.defense.setup import (
    CLEAN,
    LONGER,
    NONE,
    QUERIES,
    RESTARTS,
    STRONG_CHAIN,
    STRONGEST,
    Attack,
    Defense,
    all_defenses,
    attack_functions,
    attacks_before,
    defended,
    long_attacks,
    table_attacks,
)
from hfclib.paper.measurements import each_run
from hfclib.runs.predictions import load_record, store_record, weights_of
from hfclib.runs.store import Run

Trial = tuple[Defense, Attack]
# Part of the stored name of a trial; 1 is left out. Raise it when a change of an attack changes results: "transfer" had
# one part in version 1, and "square" is run on what it leaves. Without a defense both are as they were.
_VERSIONS = {"transfer": 2, "square": 2}
# Settings of the strong attack with which stored names were given; another value becomes part of the name.
_USUAL = {"restarts": 5, "longer": 2, "queries": 50}
TRIAL_COLUMNS = ["variant", "seed", "defense", "strength", "attack", "eps", "steps"]
HIGHEST_EPS = 0.125  # the largest that `smallest_eps_table` tries


def trials_of(
    run: Run, wanted: Iterable[Trial], *, images: int, progress: bool = True, compute: bool = True
) -> dict[Trial, Tensor]:
    """Which of the first test images a network classifies correctly in each trial.

    Missing trials are computed, with those that they build on (`attacks_before`): gradients in bfloat16 where the
    device gains from it, predictions in float32. Each is stored in `<home>/attacks` when it is done.

    Args:
        run: a stored run.
        wanted: trials.
        images: how many test images, from 1 to all.
        progress: before anything is computed say how long it takes at most, and show a bar.
        compute: with False, missing trials are left out; those of a published run must be published too.
    Returns:
        By trial, (images,) bool.
    Raises:
        RunError: a stored file is damaged.
        TypeError, ValueError: as `defended` and `attack_functions`, or another number of images, before anything is
            computed.
    """
    if not 1 <= images <= TEST_IMAGES:
        raise ValueError(f"expected images, from 1 to {TEST_IMAGES}, got {images}")
    asked = list(wanted)
    known = {name: tensor.bool() for name, tensor in load_record("attacks", run, beside=not compute).items()}
    names = {trial: _trial_name(trial, images) for trial in _with_those_before(asked)}
    missing = [trial for trial, name in names.items() if name not in known]
    if missing and compute:
        stored = {trial: known[name] for trial, name in names.items() if name in known}
        weights = weights_of(run.path)
        for trial, correct in _compute(run, missing, stored, images=images, progress=progress):
            known[names[trial]] = correct
            store_record("attacks", run.path.name, {names[trial]: correct.to(torch.uint8)}, weights)
    return {trial: known[names[trial]] for trial in asked if names[trial] in known}


def trial_rows(
    runs: Mapping[str, Sequence[Run]], wanted: Callable[[str, int], Iterable[Trial]], **options: object
) -> pd.DataFrame:
    """The trials of several networks.

    Args:
        runs: by variant, one per seed.
        wanted: from a variant and seed to its trials.
        options: images, progress and compute, as in `trials_of`.
    Returns:
        One row per trial: TRIAL_COLUMNS, images, accuracy in [0, 1], and correct, a tuple of one bool per image.
    """
    rows = [
        (variant, run.seed, *defense, *attack, len(correct), correct.float().mean().item(), tuple(correct.tolist()))
        for variant, run in each_run(runs)
        for (defense, attack), correct in trials_of(run, wanted(variant, run.seed), **options).items()
    ]
    return pd.DataFrame(rows, columns=[*TRIAL_COLUMNS, "images", "accuracy", "correct"])


def trials_table(
    runs: Mapping[str, Sequence[Run]], rho: Sequence[float], eps: Sequence[float], steps: int, **options: object
) -> pd.DataFrame:
    """`trial_rows` of `all_defenses(rho)` under the attacks of the paper; eps and steps as in `table_attacks`."""
    wanted = [(one, attack) for one in all_defenses(rho) for attack in table_attacks(one, eps, steps)]
    return trial_rows(runs, lambda variant, seed: wanted, **options)


def strong_trials(
    runs: Mapping[str, Sequence[Run]], wanted: pd.DataFrame, steps: int, **options: object
) -> pd.DataFrame:
    """`trial_rows` of the strong attack, `long_attacks` for each row (variant, seed, defense, strength, eps) wanted."""

    def of_network(variant: str, seed: int) -> Iterator[Trial]:
        for one in wanted[(wanted["variant"] == variant) & (wanted["seed"] == seed)].itertuples():
            for attack in long_attacks(one.eps, steps):
                yield Defense(one.defense, one.strength), attack

    return trial_rows(runs, of_network, **options)


def smallest_eps_table(runs: Mapping[str, Run], images: int) -> pd.DataFrame:
    """The smallest eps at which PGD of five steps fools a network, image by image; stored like trials.

    Args:
        runs: by variant.
        images: how many test images.
    Returns:
        One row per image, one column per variant: 0 where the network is wrong without an attack, infinite where
        HIGHEST_EPS does not fool it; exact to .001.
    Source: the authors' code, whose attacks look for the smallest eps that succeeds.
    """

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: Tensor, stop_early: bool = False) -> Tensor:
        # Without indices, images are numbered in each batch anew, as they were for the published tables.
        return pgd(model, images, labels, eps=eps, alpha=eps / 2, steps=5, seed=0, stop_early=stop_early)

    smallest, name = {}, f"smallest {HIGHEST_EPS} 5 {images}"
    for variant, run in runs.items():
        stored = load_record("attacks", run)
        if name not in stored:
            weights = weights_of(run.path)
            (pictures, labels), options = _first_images(images), {"highest": HIGHEST_EPS, "rounds": 7}
            model = run.model().to(labels.device)
            stored = {name: smallest_eps(model, pictures, labels, attack, **options).cpu()}
            store_record("attacks", run.path.name, stored, weights)
        smallest[variant] = stored[name]
    return pd.DataFrame(smallest)


def _first_images(count: int) -> tuple[Tensor, Tensor]:
    pictures, labels = (tensor[:count] for tensor in embedded("test"))
    return to_float(pictures).to(best_device()), labels.to(best_device())


def _trial_name(trial: Trial, images: int) -> str:
    (defense, strength), (attack, eps, steps) = trial
    version = f" v{_VERSIONS[attack]}" if attack in _VERSIONS and defense != "none" else ""
    settings = {"restarts": RESTARTS, "longer": LONGER} if attack in STRONG_CHAIN else {}
    settings |= {"queries": QUERIES} if attack == STRONGEST else {}
    others = "".join(f" {name} {value}" for name, value in settings.items() if value != _USUAL[name])
    return f"{defense} {strength:.6g} {attack} {eps:.6g} {steps} {images}{version}{others}"


def _with_those_before(trials: Iterable[Trial]) -> list[Trial]:
    """The trials, each once and after those that it builds on."""
    ordered: dict[Trial, None] = {}
    for defense, attack in trials:
        ordered |= dict.fromkeys(_with_those_before((defense, earlier) for earlier in attacks_before(defense, attack)))
        ordered[defense, attack] = None
    return list(ordered)


def _compute(
    run: Run, wanted: list[Trial], known: dict[Trial, Tensor], *, images: int, progress: bool
) -> Iterator[tuple[Trial, Tensor]]:
    known, (pictures, labels) = dict(known), _first_images(images)
    undefended = run.model().to(labels.device)
    for defense in dict.fromkeys(defense for defense, _ in wanted):
        defended(undefended, defense)  # a bad one is refused before anything is computed
    for attack in dict.fromkeys(attack for _, attack in wanted if attack != CLEAN):
        attack_functions(attack, undefended)
    if progress:
        minutes = _max_runtime(undefended, pictures[:BATCH_SIZE], wanted, images) / 60
        task = f"{len(wanted)} attacks on {run.path.name} to run on {device_name(labels.device)}"
        print(f"{task}: at most {minutes:.1f} minutes", flush=True)
    network, at = undefended, NONE
    for defense, attack in tqdm(wanted, desc=f"attacking {run.path.name}", disable=not progress, leave=False):
        if defense != at:
            network, at = defended(undefended, defense), defense
        correct = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        for earlier in attacks_before(defense, attack):
            correct &= known[defense, earlier].to(labels.device)
        if (defense, attack.method) != (NONE, "transfer"):  # there it repeats "margin"
            # Images are numbered among those that are correct so far, as they were for the published trials.
            inputs, classes = pictures[correct], labels[correct]
            with warnings.catch_warnings():
                # Some defenses make the gradient zero: the later attacks are there for that.
                warnings.filterwarnings("ignore", "the gradient is exactly zero")
                if attack == CLEAN:
                    left = clean_correct(network, inputs, classes)
                else:
                    left = robust_correct(network, inputs, classes, attack_functions(attack, undefended), amp=True)
            correct[correct.clone()] = left
        known[defense, attack] = correct.cpu()
        yield (defense, attack), known[defense, attack]


def _max_runtime(model: nn.Module, images: Tensor, wanted: Iterable[Trial], count: int) -> float:
    """How long attacks on `count` images take if no image is fooled before their end, measured on one batch."""
    logits(model, images, amp=True)
    start = time.perf_counter()
    logits(model, images, amp=True)
    forward = (time.perf_counter() - start) / len(images) * count
    passes = dict.fromkeys(STRONG_CHAIN, 3 * RESTARTS * LONGER)  # a gradient costs about three forward passes
    passes |= {"clean": 0, "fgsm": 3, "pgd": 3, "unaware": 3, "square": QUERIES}
    passes["transfer"] *= 2  # it has two parts
    passes |= {"apgd-ce": 3, "apgd-t": 27, "fab-t": 27, "square-5000": 50}
    return forward * sum(passes[attack.method] * attack.steps + 1 for _, attack in wanted)
