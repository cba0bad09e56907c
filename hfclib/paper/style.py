"""One function a figure: tables in, a matplotlib Figure out. Nothing here trains or evaluates."""

from collections.abc import Sequence

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

FIG2_TITLES = {"vanilla": "Vanilla, width 16", "batchnorm": "BatchNorm, width 16", "fullwidth": "BatchNorm, width 64"}
STYLE = {"font.size": 10, "axes.titlesize": 11, "svg.hashsalt": "hfclib", "svg.fonttype": "path"}


def panel_grid(
    count: int, across: int, panel: tuple[float, float], margin: tuple[float, float] = (0.0, 0.0)
) -> tuple[Figure, list[Axes], list[Axes]]:
    """A figure of `count` panels on common scales, at most `across` a line.

    Args:
        count, across: 1 or more.
        panel, margin: width and height of each panel and of what is around them all, in inches.
    Returns:
        (the figure, its panels, the places of the last line that no panel takes).
    """
    across = min(across, count)
    down = -(-count // across)
    size = margin[0] + panel[0] * across, margin[1] + panel[1] * down
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for place in range(count, len(axes)):
        axes[place - across].tick_params(labelbottom=True)  # nothing stands below it
    return figure, axes[:count], axes[count:]


MARKERS = "osD^v"


def network_looks(panels: Sequence[str]) -> dict[str, tuple]:
    """(colour, marker) by panel, the same in every figure of these chapters."""
    colours = dict(zip(FIG2_TITLES, sns.color_palette("colorblind", len(FIG2_TITLES)), strict=True))
    markers = dict(zip(FIG2_TITLES, MARKERS, strict=False))
    return {panel: (colours[panel], markers[panel]) for panel in panels}


def show_image(ax, image: Tensor, title: str = "") -> None:
    ax.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    if title:
        ax.set_title(title, fontsize=9)
