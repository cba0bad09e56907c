"""Tables of the chapter on kernels: how rough they are, and how much of their energy lies at high frequencies.

A kernel of the first layer has three planes, one a colour. They resemble each other, so that where kernels are counted
a kernel counts once, by the mean over its planes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from hfclib.kernels import SIZE, convolutions, frequency_response, high_frequency_share, roughness, smooth_kernels
from hfclib.paper.chapter import Chapter
from hfclib.paper.intervals import Estimate, MissingRunError, interval, over_kernels
from hfclib.paper.parameters import SeveralSeeds, number
from hfclib.paper.presets import Preset, adversarial_recipes, fig4_recipes
from hfclib.paper.style import STYLE, panel_grid
from hfclib.paper.tables import decimals, with_interval
from hfclib.paper.verdicts import Claim
from hfclib.runs.collect import Runs
from hfclib.runs.store import Run
from hfclib.training.loop import initial_model
from hfclib.training.recipe import Recipe


def fig3_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks whose first kernels are compared: vanilla and batchnorm of Fig. 4, adversarial without and with
    BatchNorm, and vanilla and adversarial with a first layer of 5 x 5: vanilla5, adversarial5.

    Source: paper, section 6 and Fig. 7; 5 x 5 from its appendix. Attack in training, eps 8/255: at "laptop" and "smoke"
    one step of 10/255 from a random start (Wong et al. 2020, who take 1.25 eps); at "narrow" and "paper" PGD in 7 steps
    of 2/255 (Madry et al. 2018; the paper names eps only); at "authors" what the code does: eps .03, 10 steps of .003,
    no random start, images not rescaled, crop and flip.
    """
    variants, attacked = fig4_recipes(preset), adversarial_recipes(preset)
    wider = [
        replace(recipe, name=f"{recipe.name}5", stem_kernel=5)
        for recipe in (variants["vanilla"], attacked["adversarial"])
    ]
    return {
        "vanilla": variants["vanilla"],
        "batchnorm": variants["batchnorm"],
        **attacked,
        "vanilla5": wider[0],
        "adversarial5": wider[1],
    }


FIG3_TITLES = {
    "vanilla": "Vanilla",
    "batchnorm": "BatchNorm",
    "adversarial": "Adversarial",
    "adversarial_batchnorm": "Adversarial, BatchNorm",
    "vanilla5": "Vanilla, 5 x 5",
    "adversarial5": "Adversarial, 5 x 5",
}
INITIAL = "At initialisation"
KERNEL_RADIUS = 12  # DFT bins: the paper's radius in its Fig. 2
MEASURES = {"roughness": "roughness", "share": f"share of energy at r >= {KERNEL_RADIUS}"}


def of_size(runs: Mapping[str, Sequence[Run]], size: int) -> Runs:
    """The variants whose first layer has kernels of size x size."""
    return Runs((variant, ones) for variant, ones in runs.items() if ones[0].recipe.stem_kernel == size)


def _first(model: nn.Module) -> Tensor:
    return convolutions(model)[0].weight.detach()


def kernel_measures(runs: Mapping[str, Sequence[Run]], rho: float = 1.0) -> pd.DataFrame:
    """The first layer's kernels, measured.

    Args:
        runs: by variant.
        rho: of the smoothing, as in `smooth_kernels`.
    Returns:
        A row a (variant, seed, state, kernel), with `roughness` and `high_frequency_share` at r = 12
        as roughness and share, each the mean over the kernel's planes. States: "initial" and "trained"; "added",
        trained less initial weights; "smoothed", trained and then smoothed with rho.
    """
    rows = []
    for variant, ones in runs.items():
        for run in ones:
            start, model = _first(initial_model(run.recipe, run.seed)), run.model()
            states = {
                "initial": start,
                "trained": _first(model),
                "added": _first(model) - start,
                "smoothed": _first(smooth_kernels(model, rho)),
            }
            for state, weight in states.items():
                measured = {
                    "roughness": roughness(weight).mean(dim=1).tolist(),
                    "share": high_frequency_share(weight, KERNEL_RADIUS).mean(dim=1).tolist(),
                }
                rows.append(
                    pd.DataFrame(
                        {"variant": variant, "seed": run.seed, "state": state, "kernel": range(len(weight)), **measured}
                    )
                )
    return pd.concat(rows, ignore_index=True)


def layer_measures(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Every convolution larger than 1 x 1, measured at initialisation and after training.

    Returns:
        One row per (variant, seed, state, layer): state "initial" or "trained", layer from 1 on in the network's order,
        size (the kernels' side), planes (how many), and the means of roughness and share, at r = 12, over all planes.
    """
    rows = []
    for variant, ones in runs.items():
        for run in ones:
            for state, model in (("initial", initial_model(run.recipe, run.seed)), ("trained", run.model())):
                for layer, convolution in enumerate(convolutions(model, "all"), 1):
                    weight = convolution.weight
                    rows.append(
                        {
                            "variant": variant,
                            "seed": run.seed,
                            "state": state,
                            "layer": layer,
                            "size": convolution.kernel_size[0],
                            "planes": weight.shape[0] * weight.shape[1],
                            "roughness": roughness(weight).mean().item(),
                            "share": high_frequency_share(weight, KERNEL_RADIUS).mean().item(),
                        }
                    )
    return pd.DataFrame(rows)


def kernel_estimate(values: pd.Series) -> Estimate:
    """The mean of values by (seed, kernel), with its interval: over seeds, or over the kernels of a single one."""
    by_seed = values.groupby(level="seed").mean()
    if len(by_seed) > 1:
        return Estimate(*interval(by_seed), seeds=len(by_seed))
    return Estimate(*interval(values), seeds=1, over="kernels")


def kernel_contrast(table: pd.DataFrame, signs: Mapping[str, int], measure: str) -> Estimate:
    """A signed sum of variants' means after training, such as {"vanilla": 1, "adversarial": -1}.

    Args:
        table: from `kernels`.
        signs: by variant, 1 or -1.
        measure: "roughness" or "share".
    Returns:
        Over the seeds that all the variants have; where that is a single one, over its kernels (`over_kernels`).
    Raises:
        MissingRunError: the variants have no seed in common.
    """
    trained = table[table["state"] == "trained"]
    values = {variant: trained[trained["variant"] == variant].set_index("seed")[measure] for variant in signs}
    seeds = sorted(set.intersection(*(set(ones.index) for ones in values.values())))
    if not seeds:
        raise MissingRunError(f"no seed has runs of all of {', '.join(signs)}")
    if len(seeds) > 1:
        by_seed = sum(sign * values[variant].groupby(level="seed").mean().loc[seeds] for variant, sign in signs.items())
        return Estimate(*interval(by_seed), seeds=len(seeds))
    samples = [values[variant].loc[seeds].tolist() for variant in signs]
    return Estimate(*over_kernels(samples, list(signs.values())), seeds=1, over="kernels")


def kernel_table(table: pd.DataFrame) -> pd.DataFrame:
    """A reader's table of `kernels`: "mean [low, high]", 95 %, a row a measure and network.

    Returns:
        Index (measure, network); columns for the states, for trained less initial, kernel by kernel, and "interval":
        over what it is, such as "3 seeds" or "kernels, 1 seed".
    """
    states = {
        "initial": "at initialisation",
        "trained": "trained",
        "added": "what training added",
        "smoothed": "trained, then smoothed",
    }
    rows = {}
    for measure, text in MEASURES.items():
        for variant in dict.fromkeys(table["variant"]):
            own = table[table["variant"] == variant].pivot(index=["seed", "kernel"], columns="state", values=measure)
            cells = {title: kernel_estimate(own[state]) for state, title in states.items()}
            cells["trained less initial"] = found = kernel_estimate(own["trained"] - own["initial"])
            # Five columns of intervals fit on a page only if a cell may break before its bracket.
            rows[text, FIG3_TITLES[variant]] = {
                name: with_interval(one.mean, one.low, one.high).replace("\u00a0[", " [") for name, one in cells.items()
            } | {"interval": found.what}
    columns = [
        "at initialisation",
        "trained",
        "trained less initial",
        "what training added",
        "trained, then smoothed",
        "interval",
    ]
    return pd.DataFrame.from_dict(rows, orient="index")[columns].rename_axis(["measure", "network"])


def first_layers(runs: Mapping[str, Sequence[Run]], rho: float = 0.0, shown: int = 16) -> dict[str, Tensor]:
    """Kernels to look at: at initialisation, and of the first run of each variant.

    Args:
        runs: by variant.
        rho: smooth them with it, divided by 1 + 8 rho, so that a constant kernel stays as it is; 0 leaves them alone.
        shown: how many kernels at most.
    Returns:
        By title, (K, 3, k, k), from the smoothest to the roughest before smoothing (mean roughness of the planes); of
        more than `shown` kernels as many at equal steps of that order. The initial weights are the first variant's.
    """
    networks = {}
    for variant, ones in runs.items():
        first = {} if networks else {f"{INITIAL}, seed {ones[0].seed}": initial_model(ones[0].recipe, ones[0].seed)}
        networks |= first | {f"{FIG3_TITLES[variant]}, seed {ones[0].seed}": ones[0].model()}
    found = {}
    for title, model in networks.items():
        order = roughness(_first(model)).mean(dim=1).argsort(stable=True)
        places = np.linspace(0, len(order) - 1, min(shown, len(order))).round().astype(int)
        found[title] = _first(smooth_kernels(model, rho, normalise=True))[order[torch.from_numpy(places)]]
    return found


def mean_responses(runs: Mapping[str, Sequence[Run]]) -> dict[str, Tensor]:
    """Mean frequency response of the first layer's planes, each divided by its norm: at initialisation, and trained.

    Returns:
        By title, (32, 32) with frequency zero at [16, 16], mean over the runs. The square of a plane's response
        is 1 on average over all bins. The initial weights are those of the first variant with kernels of that size.
    """
    found = {}
    for variant, ones in runs.items():
        start = INITIAL + (f", {size} x {size}" if (size := ones[0].recipe.stem_kernel) != 3 else "")
        if start not in found:
            found[start] = _response([initial_model(run.recipe, run.seed) for run in ones])
        found[FIG3_TITLES[variant]] = _response([run.model() for run in ones])
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
    scaled = [
        weight / torch.where(norm > 0, norm, torch.ones_like(norm)) for weight, norm in zip(weights, norms, strict=True)
    ]
    return torch.stack([frequency_response(weight) for weight in scaled]).mean(dim=0)


def _fig3_claims() -> Iterator[Claim]:
    pairs = {
        "3 x 3": ("vanilla", "adversarial"),
        "3 x 3, BatchNorm": ("batchnorm", "adversarial_batchnorm"),
        "5 x 5": ("vanilla5", "adversarial5"),
    }
    words = {
        "roughness": "the first layer's kernels are smoother",
        "share": f"a smaller share of the first layer's kernels' energy is at r = {KERNEL_RADIUS} or more",
    }
    for measure, text in words.items():
        shared = {"figure": "fig3", "relation": "exceeds"}
        for version, (natural, attacked) in pairs.items():
            yield Claim(
                id=f"fig3-{measure}-{attacked}",
                **shared,
                section="section 6, Fig. 7",
                version=version,
                text=f"After adversarial training {text} than after natural training",
                statistic=partial(kernel_contrast, signs={natural: 1, attacked: -1}, measure=measure),
            )
        yield Claim(
            id=f"fig3-{measure}-clearer",
            **shared,
            section="appendix",
            version="5 x 5 less 3 x 3",
            text=f"That {text} after adversarial training is clearer in kernels of 5 x 5 than of 3 x 3",
            statistic=partial(
                kernel_contrast,
                measure=measure,
                signs={"vanilla5": 1, "adversarial5": -1, "vanilla": -1, "adversarial": 1},
            ),
        )


_LAYER_MARKERS = "osD^vP"
_NOTHING = "No network of this kind is stored."


def colour_limit(weights: Mapping[str, Tensor]) -> float:
    """The 99th percentile of the weights' absolute values over all networks, for `kernels`; 1 where there is none."""
    values = [weight.abs().flatten() for weight in weights.values()]
    return float(torch.cat(values).double().quantile(0.99)) or 1.0 if values else 1.0


def kernels_figure(weights: Mapping[str, Tensor], limit: float) -> Figure:
    """A block a network, in it a column a kernel and a row a colour channel; all on one scale.

    Args:
        weights: by title, (K, 3, k, k), in the order to be shown.
        limit: a weight of this size has the last colour, and so has a larger one; more than 0.
    Returns:
        A Figure; under each kernel its roughness, the mean over the channels.
    """
    if not weights:
        return _empty()
    widest = max(len(weight) for weight in weights.values())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 0.45 * widest, 0.5 + 1.75 * len(weights)), layout="constrained")
        axes = figure.subplots(len(weights), 1, squeeze=False)[:, 0]
        for ax, (title, weight) in zip(axes, weights.items(), strict=True):
            shown = _block(ax, weight, limit)
            ax.set_title(title, loc="left", fontsize=10)
        figure.supxlabel("Roughness of each kernel", fontsize=9)
        figure.colorbar(shown, ax=list(axes), label="Weight", shrink=0.5 if len(axes) > 2 else 0.8, extend="both")
    return figure


def _block(ax: Axes, weight: Tensor, limit: float) -> mpl.image.AxesImage:
    """The planes of a network's kernels with white gaps between them."""
    count, channels, size = weight.shape[:3]
    step = size + 1
    mosaic = np.full((channels * step - 1, count * step - 1), np.nan)
    for row in range(channels):
        for column in range(count):
            mosaic[row * step : row * step + size, column * step : column * step + size] = weight[column, row]
    shown = ax.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    middle = (size - 1) / 2
    rough = [decimals(value, 2) for value in roughness(weight).mean(dim=1).tolist()]
    ax.set_xticks([column * step + middle for column in range(count)], rough, fontsize=7.5)
    ax.set_yticks([row * step + middle for row in range(channels)], ["red", "green", "blue"][:channels], fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return shown


def _empty() -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.8, 0.6), layout="constrained")
        figure.suptitle(_NOTHING, fontsize=10)
    return figure


def responses_figure(found: Mapping[str, Tensor], across: int = 4) -> Figure:
    """The mean frequency response of each network's first layer as a picture, all on one scale.

    Args:
        found: by title, (32, 32), from `mean_responses`.
        across: pictures a line.
    Returns:
        A Figure; the circle is r = 12.
    """
    if not found:
        return _empty()
    limit = max(float(response.max()) for response in found.values())
    with mpl.rc_context(STYLE):
        figure, axes, free = panel_grid(len(found), across, (1.9, 2.1), (1.4, 0.6))
        edges = (-SIZE / 2 - 0.5, SIZE / 2 - 0.5)
        for ax, (title, response) in zip(axes, found.items(), strict=True):
            shown = ax.imshow(response.numpy(), cmap="viridis", vmin=0, vmax=limit, extent=(*edges, *reversed(edges)))
            ax.add_patch(Circle((0, 0), KERNEL_RADIUS, fill=False, ec="white", ls=":", lw=1.2))
            ax.set_title(title, fontsize=9)
            ax.set(xticks=(-16, -8, 0, 8), yticks=(-16, -8, 0, 8))
            ax.xaxis.set_tick_params(labelbottom=True)
        for empty in free:
            empty.remove()
        figure.supxlabel("Horizontal frequency (DFT bins)")
        figure.supylabel("Vertical frequency (DFT bins)")
        figure.colorbar(shown, ax=axes, label="Mean magnitude", shrink=0.8)
    return figure


def layers_figure(table: pd.DataFrame) -> Figure:
    """Roughness and share of energy at high frequencies, layer by layer, with the initialisation as a grey band.

    Args:
        table: from `layer_measures`.
    Returns:
        A Figure; a colour and marker a network, points are means over seeds, bars one sample standard deviation. The
        band spans all networks' initialisations.
    """
    colours = dict(zip(FIG3_TITLES, sns.color_palette("colorblind", len(FIG3_TITLES)), strict=True))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.8, 4.2), layout="constrained")
        for ax, (measure, text) in zip(figure.subplots(1, 2, sharex=True), MEASURES.items(), strict=True):
            start = table[table["state"] == "initial"].groupby("layer")[measure].agg(["min", "max"])
            ax.fill_between(start.index, start["min"], start["max"], color="0.55", alpha=0.6, label=INITIAL.lower())
            for (variant, colour), marker in zip(colours.items(), _LAYER_MARKERS, strict=True):
                own = table[(table["variant"] == variant) & (table["state"] == "trained")]
                if own.empty:
                    continue
                points = own.groupby("layer")[measure].agg(["mean", "std"]).fillna(0)
                ax.errorbar(
                    points.index,
                    points["mean"],
                    points["std"],
                    color=colour,
                    marker=marker,
                    ms=4,
                    lw=1.2,
                    capsize=2,
                    label=FIG3_TITLES[variant],
                )
            ax.set(xlabel="Layer", ylabel=text.capitalize(), ylim=(0, None))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.grid(alpha=0.3, lw=0.5)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


class Fig3Parameters(SeveralSeeds):
    """The parameters of `notebooks/fig3.ipynb`."""

    rho: number(0, 10, "a weight of the neighbours") = 1.0


FIG3 = Chapter(
    name="fig3",
    recipes=fig3_recipes,
    parameters=Fig3Parameters,
    optional=("adversarial", "adversarial_batchnorm", "vanilla5", "adversarial5"),
    claims=tuple(_fig3_claims()),
    evidence=kernel_measures,
)
