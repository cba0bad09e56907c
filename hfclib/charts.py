"""Charts of accuracies, for chapters: lines against a radius or an epoch, intervals side by side, images.

Their colours, markers, style, empty figures and legends are also those of reports.

Each chart is a panel. `panels` arranges them two in a row in a figure WIDTH inches wide. The book shows it at 96 pixels
an inch, and on a phone of 390 pixels as wide as the page, where letters of 12 points are ten pixels high. Matplotlib is
imported when something is drawn: a chapter's networks are trained without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

WIDTH = 5.6
PICTURES_WIDTH = 9.3  # at most, of a figure of pictures, which is shown at 72 pixels an inch
STYLE: dict[Any, Any] = {"font.size": 12, "axes.titlesize": 13, "svg.hashsalt": "hfclib", "svg.fonttype": "path"}
STYLE |= {"grid.alpha": 0.3, "grid.linewidth": 0.5}
CHART = STYLE | {"axes.grid": True}  # of a figure with axes, as against one of pictures
Sharing = bool | Literal["none", "all", "row", "col"]
CHANCE = 0.1  # the accuracy of guessing among ten classes of equal size

Dashes = Literal["-", "--", ":", "-.", ""]


@dataclass(frozen=True)
class Look:
    """How a line, or a kind of point, is drawn; `dashes` as Matplotlib's line styles, `hollow` of its marker."""

    colour: str
    marker: str = ""
    dashes: Dashes = "-"
    hollow: bool = False

    def handle(self, label: str, **options) -> Line2D:
        """What stands for it in a legend."""
        from matplotlib.lines import Line2D

        face = "white" if self.hollow else self.colour
        options = {"color": self.colour, "marker": self.marker, "mfc": face, "ls": self.dashes, **options}
        return Line2D([], [], label=label, **options)


# Colours that colour-blind readers can tell apart, of schemes by Paul Tol: two of "bright" for bands; "muted" for
# networks, the same in every chapter; "vibrant" for all else. Networks whose first layer is 5 x 5 have the colour of
# their 3 x 3, and a marker of their own.
BAND_COLOURS = {"lfc": "#4477AA", "hfc": "#EE6677"}
NETWORK_COLOURS = {
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
VIBRANT = {
    "blue": "#0077BB",
    "magenta": "#EE3377",
    "cyan": "#33BBEE",
    "red": "#CC3311",
    "orange": "#EE7733",
    "teal": "#009988",
}
MARKERS = "osD^v<>pXP*"
_NETWORK_LOOKS = dict(zip(NETWORK_COLOURS, map(Look, NETWORK_COLOURS.values(), MARKERS), strict=True))
_OTHER_LOOKS = tuple(map(Look, VIBRANT.values(), "hdH8"))  # of other networks, which are yours, in turn
REFERENCE = Look("0.3", dashes=":")


def chance_handle() -> Line2D:
    """What stands for the line of `chance` in a legend."""
    return REFERENCE.handle("chance (.10)", lw=1)


@contextmanager
def drawn_in(style: dict[Any, Any]) -> Iterator[None]:
    """A context in which Matplotlib draws in a style, such as CHART."""
    import matplotlib as mpl

    with mpl.rc_context(style):
        yield


def blank(width: float, height: float) -> Figure:
    """A figure of a size in inches, on which panels keep clear of each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def network_looks(networks: Iterable[str]) -> dict[str, Look]:
    """The look of each network, the same in every figure; of networks that no chapter has, in the order given."""
    others = cycle(_OTHER_LOOKS)
    return {network: _NETWORK_LOOKS.get(network) or next(others) for network in networks}


def radius_colour(radius: float) -> str:
    """The colour of a radius from 1 to 22 DFT bins: from dark purple over red to yellow; the paper's lie far apart."""
    import matplotlib as mpl

    return mpl.colors.to_hex(mpl.colormaps["inferno"](np.interp(radius, [1, 4, 16, 22], [0.05, 0.2, 0.72, 0.85])))


def cell_looks(rows: pd.DataFrame) -> dict[str, Look]:
    """The look of each cell of `measurements` of one condition: images in grey and black, bands in radius colours."""
    looks = {}
    for cell, band, radius in rows[["cell", "band", "radius"]].drop_duplicates("cell").itertuples(index=False):
        whole = "0.6" if cell == "train" else "black"
        looks[cell] = Look(whole if band == "x" else radius_colour(radius), dashes="--" if band == "hfc" else "-")
    return looks


def panels(
    titles: Sequence[str],
    *,
    xlabel: str = "",
    ylabel: str = "",
    across: int = 2,
    height: float = 2.5,
    beside: float = 0.9,
    sharex: Sharing = True,
    sharey: Sharing = True,
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each title, on common scales unless told otherwise.

    Args:
        titles: 1 or more.
        xlabel, ylabel: below the last panel of each column, and beside them all.
        across: panels in a row, at most.
        height, beside: in inches, of a panel, and of what stands above and below them all.
        sharex, sharey: as those of `Figure.subplots`.
    """
    across = min(across, len(titles))
    down = -(-len(titles) // across)
    figure = blank(WIDTH, beside + height * down)
    axes = list(figure.subplots(down, across, sharex=sharex, sharey=sharey, squeeze=False).flat)
    for place in range(len(titles), len(axes)):
        axes[place - across].tick_params(labelbottom=True)  # nothing stands below it
        axes[place].remove()
    for place, (ax, title) in enumerate(zip(axes, titles, strict=False)):
        ax.set_title(title)
        if place + across >= len(titles):
            ax.set_xlabel(xlabel)
    if ylabel:
        figure.supylabel(ylabel, fontsize=12)
    return figure, axes[: len(titles)]


def legend(figure: Figure, handles: Sequence | None = None, *, columns: int = 2, **options) -> None:
    """A legend below the panels, of all that has a label unless handles are given; options as those of Matplotlib's."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, **options)


def lines(
    ax: Axes,
    rows: pd.DataFrame,
    x: str,
    hue: str,
    looks: Mapping[str, Look],
    *,
    y: str = "value",
    spread: str | tuple | None = "sd",
    bars: bool = False,
    **options,
) -> None:
    """Draw means over seeds against a column, with a spread as a shade or as bars.

    Args:
        rows: one per seed and point.
        x, y, hue: columns; there is a line for each value of `hue` that has a look and rows.
        spread: as seaborn's errorbar: the sample standard deviation, ("pi", 100) from lowest to highest, or None.
        bars: bars in place of a shade.
        options: of Line2D.
    """
    import seaborn as sns  # here, with scipy.stats: nearly a second that every notebook and command would wait for

    there = set(rows[hue])
    own = {value: look for value, look in looks.items() if value in there}
    if not own:
        return
    labels = {"xlabel": ax.get_xlabel(), "ylabel": ax.get_ylabel()}
    sns.lineplot(
        rows[rows[hue].isin(list(own))].astype({x: float, y: float}),
        x=x,
        y=y,
        hue=hue,
        hue_order=list(own),
        palette=[look.colour for look in own.values()],
        style=hue,
        style_order=list(own),
        markers=[look.marker for look in own.values()] if all(look.marker for look in own.values()) else False,
        dashes=[_DASHES[look.dashes] for look in own.values()],
        errorbar=spread,
        err_style="bars" if bars else "band",
        err_kws={"capsize": 3} if bars else {"lw": 0},
        markeredgecolor="none",
        legend=False,
        ax=ax,
        **options,
    )
    ax.set(**labels)


_DASHES = {"-": "", "--": (4, 2), ":": (1, 1.5), "-.": (4, 1.5, 1, 1.5)}


def accuracy_by_radius(ax: Axes, rows: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    """Draw accuracies at the radii of some `measurements`, with bars of one sample standard deviation to each side."""
    lines(ax, rows, "radius", "variant", looks, bars=True)
    chance(ax)
    ax.set(ylim=(0, 1), xticks=sorted(rows["radius"].dropna().unique()))


_PUBLISHED_MARKS = {"x": "o", "lfc": "s", "hfc": "D"}
_BAND_WORDS = {"x": "images", "lfc": "LFC", "hfc": "HFC"}


def accuracy_by_epoch(ax: Axes, rows: pd.DataFrame, published: Mapping[str, float] | None = None) -> None:
    """Draw accuracies after each epoch: images in grey and black, bands in radius colours, the HFC dashed.

    Args:
        rows: `measurements` of one condition, with their cell; shades are one sample standard deviation to each side.
        published: values by cell, drawn hollow at the last epoch.
    """
    from matplotlib.ticker import MaxNLocator

    looks, published = cell_looks(rows), published or {}
    lines(ax, rows, "epoch", "cell", looks)
    for cell, band in rows[["cell", "band"]].drop_duplicates().itertuples(index=False):
        if cell in published:
            hollow: dict[str, Any] = {"mfc": "white", "mec": looks[cell].colour, "ms": 6, "clip_on": False, "zorder": 3}
            ax.plot(rows["epoch"].max(), published[cell], _PUBLISHED_MARKS[band], **hollow)
    chance(ax)
    ax.set(ylim=(0, 1))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def epoch_handles(
    rows: pd.DataFrame, published: Sequence[str] = (), others: Mapping[int, str] | None = None
) -> list[Line2D]:
    """The legend's entries of `accuracy_by_epoch`.

    Args:
        rows: of all panels.
        published: the bands of which values are published.
        others: by radius, words to append to it.
    """
    there = set(rows.loc[rows["band"] == "x", "split"])
    splits = {"train": "training images", "test": "test images"}
    splits = {split: words for split, words in splits.items() if split in there}
    handles = [Look("0.6" if split == "train" else "black").handle(words, lw=2) for split, words in splits.items()]
    handles += [Look("0.3").handle("LFC"), Look("0.3", dashes="--").handle("HFC")]
    for radius in sorted(rows["radius"].dropna().unique()):
        handles.append(Look(radius_colour(radius)).handle(f"radius {radius}{(others or {}).get(radius, '')}", lw=3))
    marks = [(_PUBLISHED_MARKS[band], f"paper, end: {_BAND_WORDS[band]}") for band in published]
    return [*handles, chance_handle(), *(Look("0.3", mark, "", hollow=True).handle(label) for mark, label in marks)]


def intervals(
    ax: Axes, rows: pd.DataFrame, y: str, hue: str, looks: Mapping[str, Look], *, dodge: float = 0.15, **columns: str
) -> None:
    """Draw points with intervals side by side, from the first value of column y at the top to the last.

    Args:
        rows: one per point.
        y: a categorical column, all of whose categories have a place.
        hue: a column; points of different values of it stand `dodge` apart.
        columns: those of mean, low and high, if they have other names; ends that are not finite are not drawn.
    """
    mean, low, high = (columns.get(name, name) for name in ("mean", "low", "high"))
    places = {name: place for place, name in enumerate(rows[y].cat.categories)}
    for number, (value, look) in enumerate(looks.items()):
        own = rows[rows[hue] == value].sort_values(y)
        at = own[y].map(places).astype(float) + dodge * (number - (len(looks) - 1) / 2)
        ends = own[[low, high]].astype(float).replace([np.inf, -np.inf], np.nan).to_numpy()
        low_ends, high_ends = ends.T
        ax.hlines(at, low_ends, high_ends, color=look.colour, linestyles=look.dashes)
        face = "white" if look.hollow else look.colour
        ax.plot(own[mean].astype(float), at, look.marker, color=look.colour, mfc=face, ls="")
    ax.set_yticks(range(len(places)), places)
    if places:
        ax.set_ylim(len(places) - 0.5, -0.5)


def chance(ax: Axes) -> None:
    """A dotted line at the accuracy of guessing, on the axis up."""
    ax.axhline(CHANCE, color=REFERENCE.colour, lw=1, ls=REFERENCE.dashes)


def pictures(
    titles: Sequence[str], columns: Sequence[Sequence[Tensor]], names: Sequence[str] = (), *, side: float
) -> Figure:
    """Pictures side by side.

    Args:
        titles, columns: of each column its title and its images (C, H, W), which are clipped to [0, 1].
        names: of the rows.
        side: of each picture with its margin, in inches.
    """
    down = len(columns[0])
    with drawn_in(STYLE):
        figure = blank(side * len(columns) + 0.3 * bool(names), 0.7 + side * down)
        axes = figure.subplots(down, len(columns), squeeze=False)
        for number, line in enumerate(axes):
            for ax, title, images in zip(line, titles, columns, strict=True):
                show_image(ax, images[number], title if number == 0 else "")
            if names:
                line[0].set_ylabel(names[number], fontsize=12)
    return figure


def show_image(ax: Axes, image: Tensor, title: str = "") -> None:
    """Draw an image (3 or 1, H, W), clipped to [0, 1], without ticks."""
    pixels = image.expand(3, -1, -1).clamp(0, 1).permute(1, 2, 0)
    ax.imshow(pixels.numpy(), interpolation="none")  # an SVG keeps its pixels
    ax.set(xticks=[], yticks=[])
    if title:
        ax.set_title(title, fontsize=12)
