"""What the figures of all chapters look like: lettering, colours, grids of panels.

The book shows figures at 72 pixels an inch, so a font of 12 points is 12 pixels high. On a window of 1280 pixels it has
room for `WIDTH` inches, and on a phone of 390 pixels for `PHONE_WIDTH`.
"""

import itertools
from collections.abc import Iterable

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

WIDTH, PHONE_WIDTH = 9.3, 4.7
STYLE = {"font.size": 12, "axes.titlesize": 13, "svg.hashsalt": "hfclib", "svg.fonttype": "path"}
STYLE |= {"grid.alpha": 0.3, "grid.linewidth": 0.5}
CHART = STYLE | {"axes.grid": True}  # of a figure with axes, as against one of pictures

# The colour of each network, in every chapter: Paul Tol's "muted" scheme, which colour-blind readers can tell apart.
# Networks whose first layer is 5 x 5 have the colour of their 3 x 3, and a marker of their own.
VARIANT_COLOURS = {
    "vanilla": "#332288",
    "batchnorm": "#CC6677",
    "fullwidth": "#882255",
    "dropout": "#88CCEE",
    "mixup": "#AA4499",
    "adversarial": "#117733",
    "adversarial_batchnorm": "#999933",
    "penalised": "#DDCC77",
    "groupnorm": "#44AA99",
    "vanilla5": "#332288",
    "adversarial5": "#117733",
}
_MARKERS = dict(zip(VARIANT_COLOURS, "osD^v<>pXP*", strict=True))
# Those of other networks, which are yours, in turn: Tol's "vibrant" scheme.
_OTHER_LOOKS = tuple(zip(("#0077BB", "#EE3377", "#33BBEE", "#CC3311"), "hdH8", strict=True))


def network_looks(variants: Iterable[str]) -> dict[str, tuple[str, str]]:
    """(colour, marker) by network, the same in every figure; of networks that no chapter has, in the order given."""
    others = itertools.cycle(_OTHER_LOOKS)
    return {
        variant: (VARIANT_COLOURS[variant], _MARKERS[variant]) if variant in VARIANT_COLOURS else next(others)
        for variant in variants
    }


def radius_colour(radius: float) -> str:
    """The colour of a radius from 1 to 22 DFT bins: from dark brown to light orange, which no network has."""
    return mpl.colors.to_hex(mpl.colormaps["YlOrBr"](1 - 0.65 * (radius - 1) / 21))


def mean_band(ax: Axes, rows: pd.DataFrame, x: str, **look) -> None:
    """Draw mean accuracies over seeds against column x; the shade is one sample standard deviation to each side."""
    points = rows.groupby(x)["value"].agg(["mean", "std"]).fillna({"std": 0}).astype(float)  # a single seed has none
    ax.plot(points["mean"], **look)
    low, high = points["mean"] - points["std"], points["mean"] + points["std"]
    ax.fill_between(points.index.astype(float), low, high, color=look["color"], alpha=0.2, lw=0)


def mean_line(ax: Axes, rows: pd.DataFrame, look: tuple[str, str], label: str) -> None:
    """Draw mean accuracies over seeds against the radius; bars are one sample standard deviation to each side."""
    points = rows.groupby("radius")["value"].agg(["mean", "std"]).fillna({"std": 0})  # a single seed has none
    colour, marker = look
    ax.errorbar(points.index, points["mean"], points["std"], color=colour, marker=marker, capsize=3, label=label)


def panel_grid(
    count: int, across: int, panel: tuple[float, float], margin: tuple[float, float] = (0.0, 0.0)
) -> tuple[Figure, list[Axes], list[Axes]]:
    """A figure of `count` panels on common scales, at most `across` in a row.

    Args:
        count, across: 1 or more.
        panel, margin: width and height of each panel, and of what surrounds them all, in inches.
    Returns:
        (the figure, its panels, the unused places of the last row).
    """
    across = min(across, count)
    down = -(-count // across)
    size = margin[0] + panel[0] * across, margin[1] + panel[1] * down
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for place in range(count, len(axes)):
        axes[place - across].tick_params(labelbottom=True)  # nothing stands below it
    return figure, axes[:count], axes[count:]


def show_image(ax: Axes, image: Tensor, title: str = "") -> None:
    """Draw an image (3, H, W), clipped to [0, 1], without ticks."""
    ax.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="none")  # an SVG keeps its pixels
    ax.set(xticks=[], yticks=[])
    if title:
        ax.set_title(title, fontsize=12)
