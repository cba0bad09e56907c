"""Fig. 3 (the paper's Fig. 7): are first-layer kernels smoother after adversarial training?

A kernel of the first layer has three planes, one per colour. They resemble each other, so kernels are counted, not
planes: a kernel's value is the mean over its planes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from hfclib.charts import PICTURES_WIDTH, STYLE, blank, drawn_in, panels
from hfclib.kernels import SIZE, convolutions, frequency_response, high_frequency_share, roughness, smooth_kernels
from hfclib.paper.chapter import Chapter
from hfclib.paper.intervals import interval
from hfclib.paper.measurements import each_run, initial_draw
from hfclib.paper.parameters import SeveralSeeds, number
from hfclib.paper.presets import Preset, adversarial_recipes, fig4_recipes, titled
from hfclib.paper.tables import decimals, text_table, with_interval
from hfclib.runs.collect import Runs
from hfclib.runs.store import Run
from hfclib.training.loop import initial_model
from hfclib.training.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

KERNEL_RADIUS = 12  # DFT bins: the paper's radius in its Fig. 2
MEASURES = {"roughness": "roughness", "share": f"share of energy at r >= {KERNEL_RADIUS}"}
INITIAL = "At initialisation"

# ---- recipes


def fig3_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks whose first kernels are compared.

    Source: paper, section 6 and Fig. 7; kernels of 5 x 5 are ours.
    """
    variants = fig4_recipes(preset) | adversarial_recipes(preset)
    chosen = {name: variants[name] for name in ("vanilla", "batchnorm", "adversarial", "adversarial_batchnorm")}
    wider = {name: chosen[name] for name in ("vanilla", "adversarial")}
    return chosen | {f"{name}5": recipe.with_(name=f"{recipe.name}5", stem_kernel=5) for name, recipe in wider.items()}


def of_size(runs: Mapping[str, Sequence[Run]], size: int) -> Runs:
    """The variants whose first layer has kernels of size x size."""
    return Runs((variant, ones) for variant, ones in runs.items() if ones[0].recipe.model.stem_kernel == size)


# ---- measurements: of the networks whose weights are kept


def _first(model: nn.Module) -> Tensor:
    return convolutions(model)[0].weight.detach()


def kernel_measures(runs: Mapping[str, Sequence[Run]], rho: float = 1.0) -> pd.DataFrame:
    """Measure the first layer's kernels.

    Args:
        runs: by variant.
        rho: as in `smooth_kernels`.
    Returns:
        One row per (variant, seed, state, kernel) of the runs whose weights are kept: draw (`initial_draw`), roughness,
        share (`high_frequency_share` at r = 12). States: "initial"; "trained"; "added", trained minus initial weights;
        "smoothed", trained and then smoothed.
    """
    rows = []
    for variant, run in each_run(Runs(runs).with_weights()):
        start, model = _first(initial_model(run.recipe, run.seed)), run.model()
        states = {
            "initial": start,
            "trained": _first(model),
            "added": _first(model) - start,
            "smoothed": _first(smooth_kernels(model, rho)),
        }
        for state, weight in states.items():
            columns = {"variant": variant, "seed": run.seed, "draw": initial_draw(run.recipe), "state": state}
            columns["kernel"] = range(len(weight))
            columns["roughness"] = roughness(weight).mean(dim=1).tolist()
            columns["share"] = high_frequency_share(weight, KERNEL_RADIUS).mean(dim=1).tolist()
            rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def first_layers(runs: Mapping[str, Sequence[Run]], shown: int = 8) -> dict[str, Tensor]:
    """Kernels to look at: the initial ones of the first variant, and those of the first run of each variant.

    Args:
        runs: by variant.
        shown: how many kernels at most.
    Returns:
        By title, (K, 3, k, k), sorted by their roughness; some at equal steps of that order if there are too many.
    """
    networks, titles = {}, titled(runs)
    for variant, ones in Runs(runs).with_weights().items():
        if not networks:
            networks[f"{INITIAL}, seed {ones[0].seed}"] = initial_model(ones[0].recipe, ones[0].seed)
        networks[f"{titles[variant]}, seed {ones[0].seed}"] = ones[0].model()
    kernels = {}
    for title, model in networks.items():
        order = roughness(_first(model)).mean(dim=1).argsort(stable=True)
        places = np.linspace(0, len(order) - 1, min(shown, len(order))).round().astype(int)
        kernels[title] = _first(model)[order[torch.from_numpy(places)]]
    return kernels


def mean_responses(runs: Mapping[str, Sequence[Run]]) -> dict[str, Tensor]:
    """Mean frequency response of the first layer's planes, each divided by its norm, over planes and runs.

    Returns:
        By title, (32, 32) with frequency zero at [16, 16]: trained, and for each size of kernels the first variant's at
        initialisation. The square of a plane's response is 1 on average over all bins.
    """
    responses, titles = {}, titled(runs)
    for variant, ones in Runs(runs).with_weights().items():
        start = INITIAL + (f", {size} x {size}" if (size := ones[0].recipe.model.stem_kernel) != 3 else "")
        if start not in responses:
            responses[start] = _response([initial_model(run.recipe, run.seed) for run in ones])
        responses[titles[variant]] = _response([run.model() for run in ones])
    return responses


def _response(models: Sequence[nn.Module]) -> Tensor:
    weights = [_first(model) for model in models]
    scaled = [F.normalize(weight.flatten(2), dim=2).view_as(weight) for weight in weights]
    return torch.stack([frequency_response(weight) for weight in scaled]).mean(dim=0)


# ---- tables


def kernel_table(table: pd.DataFrame) -> pd.DataFrame:
    """`kernel_measures` as a table to read: "mean [low, high]" by measure and network.

    Returns:
        Index (measure, network); columns for the states, for trained minus initial, and the number of seeds. Means are
        over kernels, intervals over seeds.
    """
    states = {
        "at initialisation": "initial",
        "trained": "trained",
        "trained less initial": "difference",
        "what training added": "added",
        "trained, then smoothed": "smoothed",
    }
    rows, titles = {}, titled(table["variant"])
    for measure, text in MEASURES.items():
        for variant, own in table.groupby("variant", sort=False):
            means = own.pivot_table(measure, "seed", "state")
            means["difference"] = means["trained"] - means["initial"]
            cells = {title: with_interval(*interval(means[state])) for title, state in states.items()}
            rows[text, titles[variant]] = cells | {"seeds": len(means)}
    # Five columns of intervals fit on a page only if a cell may break before its bracket.
    return text_table(rows, ["measure", "network"]).replace("\u00a0\\[", " [", regex=True)


def response_table(responses: Mapping[str, Tensor]) -> pd.DataFrame:
    """`mean_responses` as rows: title, vertical and horizontal frequency in signed DFT bins, and magnitude."""
    rows = {}
    for title, response in responses.items():
        bins = np.arange(response.shape[-1]) - response.shape[-1] // 2
        rows[title] = pd.DataFrame(response.numpy(), index=bins, columns=bins).unstack()
    table = pd.concat(rows, names=["title", "horizontal", "vertical"]).rename("magnitude").reset_index()
    return table[["title", "vertical", "horizontal", "magnitude"]]


# ---- drawings


def kernels_figure(weights: Mapping[str, Tensor]) -> Figure:
    """One block per network, in it one column per kernel and one row per colour channel, with the roughness below.

    Args:
        weights: by title, (K, 3, k, k), in the order to be shown. The colours end at the 99th percentile of the
            absolute values of them all.
    """
    with drawn_in(STYLE):
        if not weights:
            figure = blank(8.8, 0.6)
            figure.suptitle("No network of this kind is stored.", fontsize=12)
            return figure
        limit = torch.cat([weight.abs().flatten() for weight in weights.values()]).double().quantile(0.99).item()
        widest = max(len(weight) for weight in weights.values())
        figure = blank(1.8 + 0.7 * widest, 0.5 + 2.4 * len(weights))
        axes = figure.subplots(len(weights), 1, squeeze=False)[:, 0]
        for ax, (title, weight) in zip(axes, weights.items(), strict=True):
            shown = _block(ax, weight, limit)
            ax.set_title(title, loc="left")
        figure.supxlabel("Roughness of each kernel", fontsize=12)
        figure.colorbar(shown, ax=list(axes), label="Weight", shrink=0.5 if len(axes) > 2 else 0.8, extend="both")
    return figure


def _block(ax: Axes, weight: Tensor, limit: float) -> AxesImage:
    """The planes of a network's kernels with white gaps between them."""
    count, channels, size = weight.shape[:3]
    step = size + 1
    gaps = F.pad(weight, (0, 1, 0, 1), value=torch.nan)  # a line after each plane
    mosaic = gaps.permute(1, 2, 0, 3).reshape(channels * step, count * step)[:-1, :-1]
    shown = ax.imshow(mosaic.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none")
    rough = [decimals(value, 2) for value in roughness(weight).mean(dim=1).tolist()]
    ax.set_xticks(np.arange(count) * step + (size - 1) / 2, rough)
    ax.set_yticks(np.arange(channels) * step + (size - 1) / 2, ["red", "green", "blue"][:channels])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return shown


def responses_figure(responses: Mapping[str, Tensor]) -> Figure:
    """The responses from `mean_responses` as pictures on one scale, three in a row; the circle is r = 12."""
    from matplotlib.patches import Circle

    limit = max(float(response.max()) for response in responses.values())
    with drawn_in(STYLE):
        figure, axes = panels(list(responses), across=3, height=2.6)
        figure.set_figwidth(PICTURES_WIDTH)
        edges = (-SIZE / 2 - 0.5, SIZE / 2 - 0.5)
        extent = (*edges, *reversed(edges))
        for ax, response in zip(axes, responses.values(), strict=True):
            shown = ax.imshow(response.numpy(), cmap="viridis", vmin=0, vmax=limit, extent=extent, interpolation="none")
            ax.add_patch(Circle((0, 0), KERNEL_RADIUS, fill=False, ec="white", ls=":", lw=1.2))
            ax.set(xticks=(-16, -8, 0, 8), yticks=(-16, -8, 0, 8))
            ax.title.set_fontsize(12)
            ax.xaxis.set_tick_params(labelbottom=True)
        figure.supxlabel("Horizontal frequency (DFT bins)", fontsize=12)
        figure.supylabel("Vertical frequency (DFT bins)", fontsize=12)
        figure.colorbar(shown, ax=axes, label="Mean magnitude", shrink=0.6)
    return figure


# ---- claims


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of the claims: the mean roughness of a network's kernels after training."""
    means = table[table["state"] == "trained"].groupby(["variant", "seed", "draw"], as_index=False)["roughness"].mean()
    return means.assign(measure="roughness", measured="").rename(columns={"roughness": "value"})


# ---- the chapter


class Fig3Parameters(SeveralSeeds):
    """The parameters of `notebooks/fig3.ipynb`."""

    rho: number(0, 10, "a weight of the neighbours") = Field(
        1.0, title="weight of the eight neighbours in the smoothing of kernels"
    )


FIG3 = Chapter(
    name="fig3",
    question="Are the kernels of robust networks smooth?",
    topic="kernels",
    paper="Fig. 7",
    blog="Fig. 3",
    builds_on=("fig4",),
    figures={"fig3-kernels": "weights", "fig3-response": "weights"},
    recipes=fig3_recipes,
    parameters=Fig3Parameters,
    required=("vanilla", "batchnorm"),
    needs_weights=("vanilla", "batchnorm"),
    evidence=kernel_measures,
    cells=_cells,
    measures="roughness",
)
