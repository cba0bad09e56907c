"""Tables of the chapter on kernels: how rough they are, and how much of their energy lies at high frequencies.

A kernel of the first layer has three planes, one a colour. They resemble each other, so that where kernels are counted
a kernel counts once, by the mean over its planes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from hfclib.obtain import Runs
from hfclib.runs import Run
from hfclib.smoothing import convolutions, frequency_response, high_frequency_share, roughness, smooth_kernels
from hfclib.tables import interval, with_interval
from hfclib.training import initial
from hfclib.verdicts import Estimate, MissingRunError, over_kernels

FIG3_TITLES = {
    "vanilla": "Vanilla", "batchnorm": "BatchNorm", "adversarial": "Adversarial",
    "adversarial_batchnorm": "Adversarial, BatchNorm", "vanilla5": "Vanilla, 5 x 5",
    "adversarial5": "Adversarial, 5 x 5",
}  # fmt: skip
INITIAL = "At initialisation"
RADIUS = 12  # DFT bins: the paper's radius in its Fig. 2
MEASURES = {"roughness": "roughness", "share": f"share of energy at r >= {RADIUS}"}


def of_size(runs: Mapping[str, Sequence[Run]], size: int) -> Runs:
    """The panels whose first layer has kernels of size x size."""
    return Runs((panel, ones) for panel, ones in runs.items() if ones[0].recipe.stem_kernel == size)


def _first(model: nn.Module) -> Tensor:
    return convolutions(model)[0].weight.detach()


def kernels(runs: Mapping[str, Sequence[Run]], rho: float = 1.0) -> pd.DataFrame:
    """The first layer's kernels, measured.

    Args:
        runs: by panel.
        rho: of the smoothing, as in `smoothing.smooth_kernels`.
    Returns:
        A row a (panel, seed, state, kernel), with `smoothing.roughness` and `smoothing.high_frequency_share` at r = 12
        as roughness and share, each the mean over the kernel's planes. States: "initial" and "trained"; "added",
        trained less initial weights; "smoothed", trained and then smoothed with rho.
    """
    rows = []
    for panel, ones in runs.items():
        for run in ones:
            start, model = _first(initial(run.recipe, run.seed)), run.model()
            states = {"initial": start, "trained": _first(model), "added": _first(model) - start,
                      "smoothed": _first(smooth_kernels(model, rho))}  # fmt: skip
            for state, weight in states.items():
                measured = {"roughness": roughness(weight).mean(dim=1).tolist(),
                            "share": high_frequency_share(weight, RADIUS).mean(dim=1).tolist()}  # fmt: skip
                rows.append(pd.DataFrame({"panel": panel, "seed": run.seed, "state": state,
                                          "kernel": range(len(weight)), **measured}))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def layers(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Every convolution larger than 1 x 1, measured at initialisation and after training.

    Returns:
        A row a (panel, seed, state, layer): state "initial" or "trained", layer from 1 on in the order of the network,
        size (the kernels' side), planes (how many), and the means of roughness and share, at r = 12, over all planes.
    """
    rows = []
    for panel, ones in runs.items():
        for run in ones:
            for state, model in (("initial", initial(run.recipe, run.seed)), ("trained", run.model())):
                for layer, convolution in enumerate(convolutions(model, "all"), 1):
                    weight = convolution.weight
                    rows.append({"panel": panel, "seed": run.seed, "state": state, "layer": layer,
                                 "size": convolution.kernel_size[0], "planes": weight.shape[0] * weight.shape[1],
                                 "roughness": roughness(weight).mean().item(),
                                 "share": high_frequency_share(weight, RADIUS).mean().item()})  # fmt: skip
    return pd.DataFrame(rows)


def estimate(values: pd.Series) -> Estimate:
    """The mean of values by (seed, kernel), with its interval: over seeds, or over the kernels of a single one."""
    by_seed = values.groupby(level="seed").mean()
    if len(by_seed) > 1:
        return Estimate(*interval(by_seed), seeds=len(by_seed))
    return Estimate(*interval(values), seeds=1, over="kernels")


def contrast(table: pd.DataFrame, signs: Mapping[str, int], measure: str) -> Estimate:
    """A signed sum of panels' means after training, such as {"vanilla": 1, "adversarial": -1}.

    Args:
        table: from `kernels`.
        signs: by panel, 1 or -1.
        measure: "roughness" or "share".
    Returns:
        Over the seeds that all the panels have; where that is a single one, over its kernels (`verdicts.over_kernels`).
    Raises:
        MissingRunError: the panels have no seed in common.
    """
    trained = table[table["state"] == "trained"]
    values = {panel: trained[trained["panel"] == panel].set_index("seed")[measure] for panel in signs}
    seeds = sorted(set.intersection(*(set(ones.index) for ones in values.values())))
    if not seeds:
        raise MissingRunError(f"no seed has runs of all of {', '.join(signs)}")
    if len(seeds) > 1:
        by_seed = sum(sign * values[panel].groupby(level="seed").mean().loc[seeds] for panel, sign in signs.items())
        return Estimate(*interval(by_seed), seeds=len(seeds))
    samples = [values[panel].loc[seeds].tolist() for panel in signs]
    return Estimate(*over_kernels(samples, list(signs.values())), seeds=1, over="kernels")


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """A reader's table of `kernels`: "mean [low, high]", 95 %, a row a measure and network.

    Returns:
        Index (measure, network); columns for the states, for trained less initial, kernel by kernel, and "interval":
        over what it is, such as "3 seeds" or "kernels, 1 seed".
    """
    states = {"initial": "at initialisation", "trained": "trained", "added": "what training added",
              "smoothed": "trained, then smoothed"}  # fmt: skip
    rows = {}
    for measure, text in MEASURES.items():
        for panel in dict.fromkeys(table["panel"]):
            own = table[table["panel"] == panel].pivot(index=["seed", "kernel"], columns="state", values=measure)
            cells = {title: estimate(own[state]) for state, title in states.items()}
            cells["trained less initial"] = found = estimate(own["trained"] - own["initial"])
            # Five columns of intervals fit on a page only if a cell may break before its bracket.
            rows[text, FIG3_TITLES[panel]] = {name: with_interval(one.mean, one.low, one.high).replace("\u00a0[", " [")
                                              for name, one in cells.items()} | {"interval": found.what}  # fmt: skip
    columns = ["at initialisation", "trained", "trained less initial", "what training added", "trained, then smoothed",
               "interval"]  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")[columns].rename_axis(["measure", "network"])


# ---- what pictures show


def first_layers(runs: Mapping[str, Sequence[Run]], rho: float = 0.0, shown: int = 16) -> dict[str, Tensor]:
    """Kernels to look at: at initialisation, and of the first run of each panel.

    Args:
        runs: by panel.
        rho: smooth them with it, divided by 1 + 8 rho, so that a constant kernel stays as it is; 0 leaves them alone.
        shown: how many kernels at most.
    Returns:
        By title, (K, 3, k, k), from the smoothest to the roughest before smoothing (mean roughness of the planes); of
        more than `shown` kernels as many at equal steps of that order. The initial weights are the first panel's.
    """
    networks = {}
    for panel, ones in runs.items():
        first = {} if networks else {f"{INITIAL}, seed {ones[0].seed}": initial(ones[0].recipe, ones[0].seed)}
        networks |= first | {f"{FIG3_TITLES[panel]}, seed {ones[0].seed}": ones[0].model()}
    found = {}
    for title, model in networks.items():
        order = roughness(_first(model)).mean(dim=1).argsort(stable=True)
        places = np.linspace(0, len(order) - 1, min(shown, len(order))).round().astype(int)
        found[title] = _first(smooth_kernels(model, rho, normalise=True))[order[torch.from_numpy(places)]]
    return found


def responses(runs: Mapping[str, Sequence[Run]]) -> dict[str, Tensor]:
    """Mean frequency response of the first layer's planes, each divided by its norm: at initialisation, and trained.

    Returns:
        By title, (32, 32) with frequency zero at [16, 16], mean over the panel's runs. The square of a plane's response
        is 1 on average over all bins. The initial weights are those of the first panel with kernels of that size.
    """
    found = {}
    for panel, ones in runs.items():
        start = INITIAL + (f", {size} x {size}" if (size := ones[0].recipe.stem_kernel) != 3 else "")
        if start not in found:
            found[start] = _response([initial(run.recipe, run.seed) for run in ones])
        found[FIG3_TITLES[panel]] = _response([run.model() for run in ones])
    return found


def response_table(found: Mapping[str, Tensor]) -> pd.DataFrame:
    """`responses` as rows: title, vertical and horizontal frequency in signed DFT bins, and magnitude."""
    rows = {}
    for title, response in found.items():
        bins = range(-(response.shape[-1] // 2), response.shape[-1] - response.shape[-1] // 2)
        rows[title] = pd.DataFrame(response.numpy(), index=bins, columns=bins).unstack()
    table = pd.concat(rows, names=["title", "horizontal", "vertical"]).rename("magnitude").reset_index()
    return table[["title", "vertical", "horizontal", "magnitude"]]


def _response(models: Sequence[nn.Module]) -> Tensor:
    weights = [_first(model) for model in models]
    norms = [weight.norm(dim=(-2, -1), keepdim=True) for weight in weights]
    scaled = [weight / torch.where(norm > 0, norm, torch.ones_like(norm))
              for weight, norm in zip(weights, norms, strict=True)]  # fmt: skip
    return torch.stack([frequency_response(weight) for weight in scaled]).mean(dim=0)
