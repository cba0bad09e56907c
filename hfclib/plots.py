"""One function a figure: tables in, a matplotlib Figure out. Nothing here trains or evaluates."""

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hfclib import published
from hfclib.evaluation import PAPER_RADII
from hfclib.tables import CONDITIONS, TITLES, select

STYLE = {"font.size": 10, "axes.titlesize": 11, "svg.hashsalt": "hfclib", "svg.fonttype": "path"}


def panel_grid(count: int, across: int, panel: tuple[float, float],
               margin: tuple[float, float] = (0.0, 0.0)) -> tuple[Figure, list[Axes], list[Axes]]:  # fmt: skip
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


def fig4(rows: pd.DataFrame) -> Figure:
    """Accuracy after each epoch, a panel a heuristic: whole images in grey and black, bands in colour.

    Args:
        rows: curves from `tables.select`.
    Returns:
        A Figure; lines are means over seeds, shades one sample standard deviation to each side.
    Raises:
        ValueError: no rows.
    """
    if rows.empty:
        raise ValueError("expected curves, got an empty table")
    panels = [panel for panel in TITLES if panel in set(rows["panel"])]
    radii = sorted(set(rows.loc[rows["band"] != "x", "radius"]))
    colours = dict(zip(radii, sns.color_palette("colorblind", len(radii)), strict=True))
    with mpl.rc_context(STYLE):
        across, width = (3, 2.9) if len(panels) > 4 else (2, 3.6)
        figure, axes, free = panel_grid(len(panels), across, (width, 2.7), (1.2, 0.9))
        for panel, ax in zip(panels, axes, strict=True):
            for (band, split, radius), line in rows[rows["panel"] == panel].groupby(["band", "split", "radius"]):
                whole = {"train": "0.6", "test": "black"}
                colour = whole[split] if band == "x" else colours[radius]
                over_seeds = line.groupby("epoch")["accuracy"].agg(["mean", "std"]).fillna(0)
                ax.plot(over_seeds.index, over_seeds["mean"], color=colour, ls="--" if band == "hfc" else "-",
                        lw=2 if band == "x" else 1.5)  # fmt: skip
                ax.fill_between(over_seeds.index, over_seeds["mean"] - over_seeds["std"],
                                over_seeds["mean"] + over_seeds["std"], color=colour, alpha=0.2, lw=0)  # fmt: skip
            ax.axhline(0.1, color="0.3", lw=1, ls=":")
            ax.set(title=TITLES[panel], ylim=(0, 1))
            ax.grid(alpha=0.3, lw=0.5)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles = _fig4_handles(rows, colours)
        for empty in free:
            empty.axis("off")
        if free:  # room for the legend
            free[0].legend(handles=handles, loc="center", frameon=False)
        else:
            figure.legend(handles=handles, loc="outside right upper", frameon=False)
        figure.supxlabel("Epoch")
        figure.supylabel("Accuracy (share of images)")
    return figure


def _fig4_handles(rows: pd.DataFrame, colours: dict) -> list[Line2D]:
    handles = [
        Line2D([], [], color="0.6", lw=2, label="train images"),
        Line2D([], [], color="black", lw=2, label="test images"),
        Line2D([], [], color="0.3", ls="-", label="LFC of test images"),
        Line2D([], [], color="0.3", ls="--", label="HFC of test images"),
    ]
    shown = rows[rows["band"] != "x"]
    usual = shown[shown["radius"].isin(PAPER_RADII)]
    for radius, colour in colours.items():
        odd = shown[(shown["radius"] == radius)]
        # A radius that is recorded under another condition than the figure's says so; alone, it can't be told.
        differs = radius not in PAPER_RADII and (
            usual.empty or set(usual["feed"] + usual["bn_stats"]) != {"rawrunning"}
        )
        condition = f" ({odd['feed'].iloc[0]}, {odd['bn_stats'].iloc[0]})" if differs else ""
        handles.append(Line2D([], [], color=colour, lw=3, label=f"radius {radius}{condition}"))
    handles.append(Line2D([], [], color="0.3", lw=1, ls=":", label="chance (.10)"))
    return handles


def hfc_by_condition(final: pd.DataFrame) -> Figure:
    """HFC accuracy after training against the radius: as published on the left, controlled on the right.

    Args:
        final: a table from `tables.gather(runs, "final")`.
    Returns:
        A Figure; a colour and marker a heuristic, points are means over seeds, bars one sample standard deviation.
    """
    panels = [panel for panel in TITLES if panel in set(final["panel"])]
    colours = sns.color_palette("colorblind", len(panels))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 3.4), layout="constrained")
        for ax, (version, condition) in zip(figure.subplots(1, 2, sharey=True), CONDITIONS.items(), strict=True):
            rows = select(final, PAPER_RADII, *condition).query("band == 'hfc'")
            for panel, colour, marker in zip(panels, colours, "osD^v", strict=False):
                over_seeds = rows[rows["panel"] == panel].groupby("radius")["accuracy"].agg(["mean", "std"]).fillna(0)
                ax.errorbar(over_seeds.index, over_seeds["mean"], over_seeds["std"], color=colour, marker=marker,
                            ms=6, capsize=3, label=TITLES[panel])  # fmt: skip
            ax.axhline(0.1, color="0.3", lw=1, ls=":", label="chance (.10)")
            ax.set(title=version.capitalize(), ylim=(0, 1), xticks=PAPER_RADII)
            ax.grid(alpha=0.3, lw=0.5)
        figure.supxlabel("Radius (DFT bins)")
        figure.supylabel("Accuracy on the HFC")
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return figure


def table1(final: pd.DataFrame) -> Figure:
    """Test accuracy of networks trained on one band, against the radius: on original images and on their own band.

    Args:
        final: a table from `tables.gather(runs, "final")`; of its networks those of `figures.fig1` are drawn.
    Returns:
        A Figure; points are means over seeds, bars one sample standard deviation, hollow diamonds the paper's values.
    """
    rows = final[(final["split"] == "test") & (final["bn_stats"] == "running") & ~final["panel"].str.endswith("max")]
    rows = rows.assign(trained=rows["panel"].str[:3], at=rows["panel"].str[3:].astype(int))
    rescale = "range" if "range" in set(rows["feed"]) else "max"
    own = rows[(rows["band"] == rows["trained"]) & (rows["radius"] == rows["at"]) & (rows["feed"] == rescale)]
    own = own.drop_duplicates(["panel", "seed"])  # a feed of its own is measured among the bands once more
    colours = dict(zip(("lfc", "hfc"), sns.color_palette("colorblind", 2), strict=True))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 4.6), layout="constrained")
        ax = figure.subplots()
        for kind, table, style, marker in (("original images", rows[rows["band"] == "x"], "-", "o"),
                                           ("the same band of test images", own, "--", "s")):  # fmt: skip
            for band, ones in table.groupby("trained", sort=False):
                points = ones.groupby("at")["accuracy"].agg(["mean", "std"]).fillna(0)
                ax.errorbar(points.index, points["mean"], points["std"], color=colours[band], ls=style, marker=marker,
                            ms=6, capsize=3, label=f"trained on the {band.upper()}, tested on {kind}")  # fmt: skip
        paper = {radius: published.table1(f"lfc{radius}", "test").value for radius in PAPER_RADII}
        ax.plot(list(paper), list(paper.values()), color=colours["lfc"], ls="", marker="D", ms=8, mfc="none",
                label="paper: trained on the LFC, tested on original images")  # fmt: skip
        ax.axhline(0.1, color="0.3", lw=1, ls=":", label="chance (.10)")
        ax.set(xlabel="Radius (DFT bins)", ylabel="Test accuracy (share of images)", ylim=(0, 1), xticks=PAPER_RADII)
        ax.grid(alpha=0.3, lw=0.5)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure
