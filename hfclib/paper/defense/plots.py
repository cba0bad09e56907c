"""Figures of the chapter on defenses: tables in, a matplotlib Figure out."""

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hfclib.paper.defense.setup import Defense
from hfclib.paper.defense.tables import DEFENSE_TITLES, defense_title, number_text
from hfclib.paper.style import STYLE, panel_grid

_COLOURS = sns.color_palette("colorblind")
# Colour and marker of what is left, by verdict; robust and masked differ in both.
DEFENSE_LOOKS = {
    "robust": (_COLOURS[0], "s", "after the strongest: robust"),
    "masked": (_COLOURS[3], "o", "after the strongest: masked"),
    "no gain": ("0.55", "D", "after the strongest: no gain claimed"),
}


def _panels(found: pd.DataFrame) -> list[str]:
    variants = [variant for variant in DEFENSE_TITLES if variant in set(found["variant"])]
    if not variants:
        raise ValueError("expected the trials of at least one network, got an empty table")
    return variants


def claimed_figure(found: pd.DataFrame, eps: float) -> Figure:
    """What each defense claims and what is left of it, a variant a network and a row a defense.

    Args:
        found: from `claimed_and_left`, at that eps.
        eps: for the axis.
    Returns:
        A Figure; a grey bar stands where clean accuracy is, an open circle where it is under that of the paper's
        attacks which leaves most, a filled marker where it is after the strongest attack, and a dashed line where that
        is without a defense.
    Raises:
        ValueError: no rows.
    """
    variants = _panels(found)
    names = list(dict.fromkeys(defense_title(Defense(row.defense, row.strength)) for row in found.itertuples()))
    places = {name: place for place, name in enumerate(names)}
    with mpl.rc_context(STYLE):
        figure, axes, free = panel_grid(len(variants), 2, (4.4, 1.1 + 0.2 * len(names)))
        for empty in free:
            empty.remove()
        for ax, variant in zip(axes, variants, strict=True):
            own = found[found["variant"] == variant]
            for row in own.itertuples():
                place = places[defense_title(Defense(row.defense, row.strength))]
                colour, marker, _ = DEFENSE_LOOKS[row.verdict]
                ax.plot([row.claimed, row.left], [place, place], color=colour, lw=1.5, zorder=2)
                ax.plot(row.clean, place, color="0.6", marker="|", ms=9, mew=1.5, ls="", zorder=1)
                ax.plot(row.claimed, place, color="black", marker="o", ms=5.5, mfc="white", ls="", zorder=3)
                ax.plot(row.left, place, color=colour, marker=marker, ms=4.5, ls="", zorder=4)
            for undefended in own.loc[own["defense"] == "none", "left"].dropna():
                ax.axvline(undefended, color="0.3", ls="--", lw=1, zorder=0)
            ax.set(title=DEFENSE_TITLES[variant], xlim=(-0.03, 1), ylim=(len(names) - 0.4, -0.6))
            ax.set_yticks(range(len(names)), names, fontsize=8.5)
            ax.grid(axis="both", alpha=0.3, lw=0.5)
        figure.supxlabel(f"Accuracy (share of images), eps {number_text(eps)}")
        figure.legend(
            handles=_claimed_handles(set(found.loc[found["left"].notna(), "verdict"])),
            frameon=False,
            fontsize=9,
            ncols=3 if len(variants) > 1 else 1,
            loc="outside upper center",
        )
    return figure


def _claimed_handles(verdicts: set[str]) -> list[Line2D]:
    handles = [
        Line2D([], [], color="0.6", marker="|", ms=9, mew=1.5, ls="", label="clean images"),
        Line2D([], [], color="black", marker="o", ms=5.5, mfc="white", ls="", label="under the kindest attack"),
        Line2D([], [], color="0.3", ls="--", lw=1, label="no defense, after the strongest"),
    ]
    return handles + [
        Line2D([], [], color=colour, marker=marker, ms=4.5, lw=1.5, label=label)
        for verdict, (colour, marker, label) in DEFENSE_LOOKS.items()
        if verdict in verdicts
    ]


def filter_figure(found: pd.DataFrame, eps: float) -> Figure:
    """Accuracy of networks behind a low-pass filter, by its radius, a variant a network.

    Args:
        found: from `filter_by_radius`.
        eps: which of its rows are drawn.
    Returns:
        A Figure; lines on clean images, under PGD by an attacker who doesn't know of the filter and by one who does,
        and after the strongest attack where that was run.
    Raises:
        ValueError: no rows at that eps.
    """
    rows = found[found["eps"] == eps]
    variants = _panels(rows)
    strengths = sorted(set(rows["strength"]))
    ticks = ["none" if one == float("inf") else number_text(one) for one in strengths]
    lines = {
        "clean": ("clean images", "0.55", "|"),
        "unaware": ("PGD, attacker unaware", _COLOURS[1], "o"),
        "aware": ("PGD, attacker aware", _COLOURS[0], "^"),
        "left": ("after the strongest attack", "black", "s"),
    }
    with mpl.rc_context(STYLE):
        figure, axes, free = panel_grid(len(variants), 2, (4.2, 2.7))
        for empty in free:
            empty.remove()
        for ax, variant in zip(axes, variants, strict=True):
            own = rows[rows["variant"] == variant].set_index("strength").reindex(strengths)
            for column, (label, colour, marker) in lines.items():
                face = {"unaware": "white", "left": "none"}.get(column, colour)
                size = 9 if column == "left" else 6  # around a triangle, which it doesn't hide
                ax.plot(
                    range(len(strengths)),
                    own[column],
                    color=colour,
                    marker=marker,
                    ms=size,
                    lw=1.2,
                    label=label,
                    mfc=face,
                    clip_on=False,
                )
            ax.set(title=DEFENSE_TITLES[variant], ylim=(0, 1))
            ax.set_xticks(range(len(strengths)), ticks)
            ax.grid(alpha=0.3, lw=0.5)
        figure.supxlabel("Radius of the filter (DFT bins)")
        figure.supylabel(f"Accuracy, eps {number_text(eps)}")
        figure.legend(
            *ax.get_legend_handles_labels(),
            ncols=4 if len(variants) > 1 else 2,
            frameon=False,
            loc="outside upper center",
            fontsize=9,
        )
    return figure
