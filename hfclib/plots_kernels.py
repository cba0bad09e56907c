"""Figures of the chapter on kernels: weights or tables in, a matplotlib Figure out."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from hfclib.plots import STYLE, panel_grid
from hfclib.smoothing import SIZE, roughness
from hfclib.tables import decimals
from hfclib.tables_kernels import FIG3_TITLES, INITIAL, MEASURES, RADIUS

_MARKERS = "osD^vP"
_NOTHING = "No network of this kind is stored."


def colour_limit(weights: Mapping[str, Tensor]) -> float:
    """The 99th percentile of the weights' absolute values over all networks, for `kernels`; 1 where there is none."""
    values = [weight.abs().flatten() for weight in weights.values()]
    return float(torch.cat(values).double().quantile(0.99)) or 1.0 if values else 1.0


def kernels(weights: Mapping[str, Tensor], limit: float) -> Figure:
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


def responses(found: Mapping[str, Tensor], across: int = 4) -> Figure:
    """The mean frequency response of each network's first layer as a picture, all on one scale.

    Args:
        found: by title, (32, 32), from `tables_kernels.responses`.
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
            ax.add_patch(Circle((0, 0), RADIUS, fill=False, ec="white", ls=":", lw=1.2))
            ax.set_title(title, fontsize=9)
            ax.set(xticks=(-16, -8, 0, 8), yticks=(-16, -8, 0, 8))
            ax.xaxis.set_tick_params(labelbottom=True)
        for empty in free:
            empty.remove()
        figure.supxlabel("Horizontal frequency (DFT bins)")
        figure.supylabel("Vertical frequency (DFT bins)")
        figure.colorbar(shown, ax=axes, label="Mean magnitude", shrink=0.8)
    return figure


def layers(table: pd.DataFrame) -> Figure:
    """Roughness and share of energy at high frequencies, layer by layer, with the initialisation as a grey band.

    Args:
        table: from `tables_kernels.layers`.
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
            for (panel, colour), marker in zip(colours.items(), _MARKERS, strict=True):
                own = table[(table["panel"] == panel) & (table["state"] == "trained")]
                if own.empty:
                    continue
                points = own.groupby("layer")[measure].agg(["mean", "std"]).fillna(0)
                ax.errorbar(points.index, points["mean"], points["std"], color=colour, marker=marker, ms=4, lw=1.2,
                            capsize=2, label=FIG3_TITLES[panel])  # fmt: skip
            ax.set(xlabel="Layer", ylabel=text.capitalize(), ylim=(0, None))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.grid(alpha=0.3, lw=0.5)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure
