"""Figures of the chapter on defenses: tables in, a matplotlib Figure out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from hfclib.charts import CHART, PICTURES_WIDTH, VIBRANT, WIDTH, drawn_in, legend, network_looks, panels
from hfclib.paper.defense.tables import defense_title, number_text, radius_text
from hfclib.paper.defense.trials import HIGHEST_EPS
from hfclib.paper.presets import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour, marker and label of the accuracy under the strong attack, by outcome.
DEFENSE_LOOKS = {
    "robust": (VIBRANT["blue"], "s", "strong attack: robust"),
    "attack falls short": (VIBRANT["magenta"], "^", "strong attack: falls short"),
    "masked": (VIBRANT["orange"], "o", "strong attack: masked"),
    "no gain": ("0.55", "D", "strong attack: no gain"),
}


def _panels(table: pd.DataFrame, **layout: float) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one panel per variant of the table."""
    variants = [variant for variant in TITLES if variant in set(table["variant"])]
    if not variants:
        raise ValueError("expected the trials of at least one network, got an empty table")
    figure, axes = panels([TITLES[variant].replace(", ", ",\n") for variant in variants], **layout)
    return figure, dict(zip(variants, axes, strict=True))


def claimed_figure(table: pd.DataFrame, eps: float) -> Figure:
    """The accuracy with each defense under the paper's attacks and under the strong attack.

    Args:
        table: from `claimed_and_left`, at that eps.
        eps: for the axis.
    Returns:
        A Figure with one panel per network and one row per defense: a grey bar at the accuracy on clean images, an open
        circle at that under the paper's weakest attack, a filled marker at that under the strong attack, and a dashed
        line at that under the strong attack without a defense.
    Raises:
        ValueError: no rows.
    """
    from matplotlib.lines import Line2D

    names = [defense_title(row.defense, row.strength) for row in table.itertuples()]
    table, names = table.assign(title=names), list(dict.fromkeys(names))
    with drawn_in(CHART):
        figure, axes = _panels(
            table,
            height=0.6 + 0.22 * len(names),
            beside=1.6,
            xlabel=f"Accuracy (share of images), eps {number_text(eps)}",
        )
        figure.set_figwidth(PICTURES_WIDTH if len(axes) > 1 else WIDTH)  # names need room
        for variant, ax in axes.items():
            own = table[table["variant"] == variant]
            for row in own.itertuples():
                place = names.index(row.title)
                colour, marker, _ = DEFENSE_LOOKS[row.outcome]
                ax.plot([row.highest, row.strong], [place, place], color=colour, lw=1.5, zorder=2)
                ax.plot(row.clean, place, color="0.6", marker="|", ms=9, mew=1.5, ls="", zorder=1)
                ax.plot(row.highest, place, color="black", marker="o", ms=5.5, mfc="white", ls="", zorder=3)
                ax.plot(row.strong, place, color=colour, marker=marker, ms=4.5, ls="", zorder=4)
            for undefended in own.loc[own["defense"] == "none", "strong"].dropna():
                ax.axvline(undefended, color="0.3", ls="--", lw=1, zorder=0)
            ax.set(xlim=(-0.03, 1), ylim=(len(names) - 0.4, -0.6))
            ax.set_yticks(range(len(names)), names)
        handles = [
            Line2D([], [], color="0.6", marker="|", ms=9, mew=1.5, ls="", label="clean images"),
            Line2D([], [], color="black", marker="o", ms=5.5, mfc="white", ls="", label="paper's weakest attack"),
            Line2D([], [], color="0.3", ls="--", lw=1, label="no defense, strong attack"),
        ]
        for outcome, (colour, marker, label) in DEFENSE_LOOKS.items():
            if outcome in set(table.loc[table["strong"].notna(), "outcome"]):
                handles.append(Line2D([], [], color=colour, marker=marker, ms=4.5, lw=1.5, label=label))
        legend(figure, handles, columns=3 if len(axes) > 1 else 1)
    return figure


def filter_figure(table: pd.DataFrame, eps: float) -> Figure:
    """The accuracy of networks behind a low-pass filter, against its radius.

    Args:
        table: from `filter_by_radius`.
        eps: which of its rows are drawn.
    Returns:
        A Figure with one panel per network: lines on clean images, under non-adaptive and adaptive PGD, and under the
        strong attack where it was run; means over seeds, with bars from the lowest to the highest.
    Raises:
        ValueError: no rows at that eps.
    """
    rows = table[table["eps"] == eps]
    strengths = sorted(set(rows["strength"]))
    # An open square of the strong attack stands around the adaptive attack's triangle.
    lines = {
        "clean": {"label": "clean images", "color": "0.55", "marker": "|"},
        "non_adaptive": {"label": "PGD, non-adaptive", "color": VIBRANT["orange"], "marker": "o", "mfc": "white"},
        "adaptive": {"label": "PGD, adaptive", "color": VIBRANT["blue"], "marker": "^"},
        "strong": {"label": "strong attack", "color": "black", "marker": "s", "mfc": "none", "ms": 9},
    }
    with drawn_in({**CHART, "lines.markersize": 6, "lines.linewidth": 1.2}):
        figure, axes = _panels(
            rows, beside=1.4, xlabel="Radius of the filter (DFT bins)", ylabel=f"Accuracy, eps {number_text(eps)}"
        )
        for variant, ax in axes.items():
            own = rows[rows["variant"] == variant].groupby("strength")[list(lines)]
            mean, low, high = (one.reindex(strengths) for one in (own.mean(), own.min(), own.max()))
            for column, look in lines.items():
                ax.plot(range(len(strengths)), mean[column], clip_on=False, **look)
                ax.vlines(range(len(strengths)), low[column], high[column], color=look["color"], lw=1.2)
            ax.set_ylim(0, 1)
            ax.set_xticks(range(len(strengths)), [radius_text(one) for one in strengths])
        legend(figure, ax.get_legend_handles_labels()[0])
    return figure


def smallest_eps_figure(table: pd.DataFrame) -> Figure:
    """The share of images that a perturbation of at most eps fools, one line per column of `smallest_eps_table`."""
    import seaborn as sns  # here, with scipy.stats: nearly a second that every notebook and command would wait for

    with drawn_in(CHART):
        figure, (ax,) = panels([""], height=3.2, beside=0)
        # Images that nothing fools are beyond the axis.
        shown = table.rename(columns=TITLES).clip(upper=2 * HIGHEST_EPS)
        sns.ecdfplot(shown, palette=[look.colour for look in network_looks(table).values()], ax=ax)
        ax.set(xlabel="eps (pixels in [0, 1])", ylabel="Share of images fooled", xlim=(0, HIGHEST_EPS), ylim=(0, 1))
    return figure
