"""Trials: which test images a stored network gets right under a defense and an attack, computed once and kept.

A record (`records`, kind "attacks") holds, for each defense, attack and number of images, one byte an image.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hfclib.attacks.robustness import robust_correct
from hfclib.data.cifar import TEST_IMAGES, embedded, to_float
from hfclib.devices import best_device, device_name
from hfclib.evaluation import BATCH_SIZE, logits
from hfclib.paper.defense.setup import (
    CLEAN,
    LONGER,
    NONE,
    QUERIES,
    RESTARTS,
    Attack,
    Defense,
    all_defenses,
    attack_function,
    attacks_before,
    defended,
    long_attacks,
    table_attacks,
)
from hfclib.runs.predictions import load_record, store_record, weights_of
from hfclib.runs.store import Run

Trial = tuple[Defense, Attack]
# Part of the name under which a trial is stored. Raise it when the code of an attack or a defense, or one of their
# constants, changes what a trial comes to.
ATTACKS_VERSION = 1
_KEEP_EVERY = 60.0  # seconds between the times at which trials are stored while others are under way
TRIAL_COLUMNS = ["variant", "seed", "defense", "strength", "attack", "eps", "steps"]


def trials_of(
    run: Run, wanted: Iterable[Trial], *, images: int, progress: bool = True, compute: bool = True
) -> dict[Trial, Tensor]:
    """Which of the first test images a network gets right in each trial.

    Args:
        run: a stored run.
        wanted: trials.
        images: how many test images, from 1 to all.
        progress: before anything is computed say how long it takes at most, and show a bar.
        compute: with False nothing is computed, and trials that are not stored are left out.
    Returns:
        By trial, (images,) bool. Stored results where there are; the others are computed, with gradients in bfloat16
        where the device has it and answers in float32, and kept in `<home>/attacks`, every minute and when a stop ends
        them early. An attack of the judgement counts as withstood only by images that withstood those before it
        (`attacks_before`), whose trials are computed too.
    Raises:
        RunError: a stored file is damaged.
        TypeError, ValueError: as `defended` and `attack_function`, or another number of images, before
            anything is computed.
    """
    if not 1 <= images <= TEST_IMAGES:
        raise ValueError(f"expected images, from 1 to {TEST_IMAGES}, got {images}")
    asked = list(wanted)
    found = {name: tensor.bool() for name, tensor in load_record("attacks", run).items()}
    names = {trial: _trial_name(trial, images) for trial in _with_those_before(asked)}
    missing = [trial for trial, name in names.items() if name not in found]
    if missing and compute:
        stored = {trial: found[name] for trial, name in names.items() if name in found}
        made: dict[str, Tensor] = {}
        keep = partial(store_record, "attacks", run.path.name, made, weights_of(run.path))
        at = time.monotonic()
        try:
            for trial, right in _compute(run, missing, stored, images=images, progress=progress):
                found[names[trial]] = right
                made[names[trial]] = right.to(torch.uint8)
                if time.monotonic() - at > _KEEP_EVERY:
                    keep()
                    at = time.monotonic()
        finally:  # also what was done before a stop
            if made:
                keep()
    return {trial: found[names[trial]] for trial in asked if names[trial] in found}


def trials_table(
    runs: Mapping[str, Sequence[Run]],
    rho: Sequence[float],
    eps: Sequence[float],
    steps: int,
    *,
    images: int,
    progress: bool = True,
    compute: bool = True,
) -> pd.DataFrame:
    """The trials of the defense table of several networks.

    Args:
        runs: by variant, one a seed.
        rho, eps, steps: as in `defenses`.
        images, progress, compute: as in `of`.
    Returns:
        A row a trial: COLUMNS, images, accuracy in [0, 1], and right, a tuple of one bool an image, by which two trials
        on the same images can be compared in pairs.
    """
    wanted = [(one, attack) for one in all_defenses(rho) for attack in table_attacks(one, eps, steps)]
    return _gathered(runs, lambda variant, run: wanted, images=images, progress=progress, compute=compute)


def strong_trials(
    runs: Mapping[str, Sequence[Run]],
    wanted: pd.DataFrame,
    steps: int,
    *,
    images: int,
    progress: bool = True,
    compute: bool = True,
) -> pd.DataFrame:
    """The trials of the judgement.

    Args:
        runs: by variant, one a seed.
        wanted: what is judged, a row a (variant, seed, defense, strength, eps).
        steps, images, progress, compute: as in `table`.
    Returns:
        Rows as from `table`, four for each row of `wanted`, less those that are not stored if nothing may be computed.
    """

    def of_run(variant: str, run: Run) -> list[Trial]:
        own = wanted[(wanted["variant"] == variant) & (wanted["seed"] == run.seed)]
        return [
            (Defense(one.defense, one.strength), attack)
            for one in own.itertuples()
            for attack in long_attacks(one.eps, steps)
        ]

    return _gathered(runs, of_run, images=images, progress=progress, compute=compute)


def _gathered(
    runs: Mapping[str, Sequence[Run]], wanted: Callable[[str, Run], list[Trial]], **options: object
) -> pd.DataFrame:
    """The trials of several networks as a table; `wanted` names those of a variant's run."""
    rows = [
        dict(zip(TRIAL_COLUMNS, (variant, run.seed, *defense, *attack), strict=True))
        | {"images": len(right), "accuracy": right.float().mean().item(), "right": tuple(right.tolist())}
        for variant, ones in runs.items()
        for run in ones
        for (defense, attack), right in trials_of(run, wanted(variant, run), **options).items()
    ]
    return pd.DataFrame(rows, columns=[*TRIAL_COLUMNS, "images", "accuracy", "right"])


def _trial_name(trial: Trial, images: int) -> str:
    (defense, strength), (attack, eps, steps) = trial
    version = f" v{ATTACKS_VERSION}" if ATTACKS_VERSION > 1 else ""
    return f"{defense} {strength:.6g} {attack} {eps:.6g} {steps} {images}{version}"


def _with_those_before(trials: Iterable[Trial]) -> list[Trial]:
    """The trials, each once and preceded by those that it builds on."""
    ordered: dict[Trial, None] = {}
    for defense, attack in trials:
        ordered |= dict.fromkeys(_with_those_before((defense, earlier) for earlier in attacks_before(defense, attack)))
        ordered[defense, attack] = None
    return list(ordered)


def _compute(
    run: Run, wanted: list[Trial], found: dict[Trial, Tensor], *, images: int, progress: bool
) -> Iterator[tuple[Trial, Tensor]]:
    device, found = best_device(), dict(found)
    pictures, labels = (tensor[:images] for tensor in embedded("test"))
    pictures, labels = to_float(pictures).to(device), labels.to(device)
    undefended = run.model().to(device)
    for defense in dict.fromkeys(defense for defense, _ in wanted):
        defended(undefended, defense)
    for attack in dict.fromkeys(attack for _, attack in wanted if attack != CLEAN):
        attack_function(attack, undefended)
    if progress:
        most = _most_seconds(undefended, pictures[:BATCH_SIZE], wanted, images) / 60
        print(
            f"{len(wanted)} attacks on {run.path.name} to run on {device_name(device)}: at most {most:.1f} minutes",
            flush=True,
        )
    network, at = undefended, NONE
    for defense, attack in tqdm(wanted, desc=f"attacking {run.path.name}", disable=not progress, leave=False):
        if defense != at:
            network, at = defended(undefended, defense), defense
        stands = torch.ones(len(labels), dtype=torch.bool, device=device)
        for earlier in attacks_before(defense, attack):
            stands &= found[defense, earlier].to(device)
        if not (defense == NONE and attack.method == "transfer"):  # which would be "margin" once more
            attacks = () if attack == CLEAN else attack_function(attack, undefended)
            with warnings.catch_warnings():
                # A gradient of zeros is what some defenses do, and what the later attacks are for.
                warnings.filterwarnings("ignore", "the gradient is exactly zero")
                stands[stands.clone()] = robust_correct(network, pictures[stands], labels[stands], attacks, amp=True)
        found[defense, attack] = stands.cpu()
        yield (defense, attack), found[defense, attack]


def _most_seconds(model: nn.Module, images: Tensor, wanted: Iterable[Trial], count: int) -> float:
    """How long attacks take if no image is fooled before their end, measured on one batch."""
    logits(model, images, amp=True)
    start = time.perf_counter()
    logits(model, images, amp=True)
    forward = (time.perf_counter() - start) / len(images) * count
    longer = 3 * RESTARTS * LONGER  # a gradient costs about three passes forward
    passes = {
        "clean": 0,
        "fgsm": 3,
        "pgd": 3,
        "unaware": 3,
        "restarts": longer,
        "margin": longer,
        "transfer": longer,
        "square": QUERIES,
    }
    return forward * sum(passes[attack.method] * attack.steps + 1 for _, attack in wanted)
