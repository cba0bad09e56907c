"""hfclib.plots_defense: every accuracy in its place, verdicts told apart, and no complaint at the edges."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from hfclib.paper.defense.plots import DEFENSE_LOOKS, claimed_figure, filter_figure
from hfclib.paper.defense.setup import all_defenses
from hfclib.paper.defense.tables import DEFENSE_TITLES, defense_title
from hfclib.paper.show import show_figure

INF = float("inf")


def drawn(figure):
    """Draw for real: warnings of the layout come only then, and are errors."""
    return show_figure(figure).data.startswith(b"\x89PNG")


def claims(variants, rho=(0.5, 1.0), left=True):
    """As from `claimed_and_left`: verdicts in turn, every third strength without an attack."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "variant": variant,
            "defense": method,
            "strength": strength,
            "images": 500,
            "clean": rng.uniform(0.5, 1),
            "claimed": rng.uniform(0.2, 0.5),
            "left": rng.uniform(0, 0.2) if left and number % 3 != 1 else np.nan,
            "verdict": ("robust", "no gain", "masked")[number % 3 if method != "none" else 1],
        }
        for variant in variants
        for number, (method, strength) in enumerate(all_defenses(rho))
    ]
    return pd.DataFrame(rows)


def points(ax, marker):
    """By height, where markers of a kind stand; those that are left out stand nowhere."""
    found = {}
    for line in ax.lines:
        (x, *_), (y, *_) = line.get_xdata(), line.get_ydata()
        if line.get_marker() == marker and not np.isnan(x):
            found.setdefault(int(y), []).append((float(x), line))
    return found


@pytest.mark.parametrize(
    "variants",
    [("vanilla",), ("adversarial", "vanilla"), ("vanilla", "penalised", "adversarial"), tuple(DEFENSE_TITLES)],
)
def test_what_is_claimed_and_what_is_left_stand_in_their_rows(variants):
    found = claims(variants)
    figure = claimed_figure(found, 0.03)
    shown = [variant for variant in DEFENSE_TITLES if variant in variants]
    assert [ax.get_title() for ax in figure.axes] == [DEFENSE_TITLES[variant] for variant in shown]
    assert figure.get_supxlabel() == "Accuracy (share of images), eps .03"
    names = [defense_title(one) for one in all_defenses((0.5, 1.0))]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == names
    for ax, variant in zip(figure.axes, shown, strict=True):
        own = found[found["variant"] == variant].reset_index(drop=True)
        clean, circles = points(ax, "|"), points(ax, "o")
        for place, row in own.iterrows():
            assert [x for x, _ in clean[place]] == [row["clean"]]
            assert row["claimed"] in [x for x, line in circles[place] if line.get_markerfacecolor() == "white"]
            if not np.isnan(row["left"]):
                colour, marker, _ = DEFENSE_LOOKS[row["verdict"]]
                lines = [line for x, line in points(ax, marker)[place] if x == row["left"]]
                assert [mpl.colors.same_color(line.get_color(), colour) for line in lines] == [True]
                joins = [line for line in ax.lines if list(line.get_xdata()) == [row["claimed"], row["left"]]]
                assert len(joins) == 1
        (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert dashed.get_xdata()[0] == own.loc[0, "left"]
        bottom, top = ax.get_ylim()
        assert bottom > len(names) - 1 > 0 > top  # the first defense is at the top
        assert ax.get_xlim()[1] == 1
    assert drawn(figure)


def test_the_legend_names_what_is_shown():
    texts = [text.get_text() for text in claimed_figure(claims(("vanilla",)), 0.1).legends[0].get_texts()]
    assert texts == [
        "clean images",
        "under the kindest attack",
        "no defense, after the strongest",
        "after the strongest: robust",
        "after the strongest: masked",
        "after the strongest: no gain claimed",
    ]
    found = claims(("vanilla",)).query("verdict != 'masked'")
    assert not [text for text in claimed_figure(found, 0.1).legends[0].get_texts() if "masked" in text.get_text()]


def test_verdicts_are_told_apart_by_colour_and_by_marker():
    colours, markers, labels = zip(*DEFENSE_LOOKS.values(), strict=True)
    assert len({mpl.colors.to_hex(colour) for colour in colours}) == len(set(markers)) == len(set(labels)) == 3


def test_where_nothing_was_judged_only_claims_are_shown():
    figure = claimed_figure(claims(("vanilla",), left=False), 0.03)
    (ax,) = figure.axes
    assert not [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(figure.legends[0].get_texts()) == 3
    assert drawn(figure)


@pytest.mark.parametrize("rho", [(0.0,), (0.1, 0.2, 0.5, 1.0, 5.0, 10.0)])
def test_few_and_many_strengths(rho):
    assert drawn(claimed_figure(claims(tuple(DEFENSE_TITLES), rho), 0.5))


# ---- by radius


def filters(variants, eps=(0.03, 0.06), left=(0.02, np.nan, np.nan, np.nan, 0.01)):
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        [
            {
                "variant": variant,
                "eps": one,
                "strength": strength,
                "images": 500,
                "clean": rng.uniform(0.5, 1),
                "unaware": rng.uniform(0.2, 0.5),
                "aware": rng.uniform(0, 0.2),
                "left": last,
            }
            for variant in variants
            for one in eps
            for strength, last in zip((4.0, 8.0, 12.0, 16.0, INF), left, strict=True)
        ]
    )


@pytest.mark.parametrize("variants", [("vanilla",), ("vanilla", "adversarial", "penalised"), tuple(DEFENSE_TITLES)])
@pytest.mark.parametrize("eps", [0.03, 0.06])
def test_each_line_holds_its_column_at_that_eps(variants, eps):
    found = filters(variants)
    figure = filter_figure(found, eps)
    shown = [variant for variant in DEFENSE_TITLES if variant in variants]
    assert [ax.get_title() for ax in figure.axes] == [DEFENSE_TITLES[variant] for variant in shown]
    assert figure.get_supxlabel() == "Radius of the filter (DFT bins)"
    assert figure.get_supylabel() == f"Accuracy, eps {'.03' if eps == 0.03 else '.06'}"
    columns = {
        "clean images": "clean",
        "PGD, attacker unaware": "unaware",
        "PGD, attacker aware": "aware",
        "after the strongest attack": "left",
    }
    for ax, variant in zip(figure.axes, shown, strict=True):
        own = found[(found["variant"] == variant) & (found["eps"] == eps)]
        assert [line.get_label() for line in ax.lines] == list(columns)
        for line in ax.lines:
            np.testing.assert_array_equal(line.get_ydata(), own[columns[line.get_label()]])
        assert ax.get_ylim() == (0, 1)
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["4", "8", "12", "16", "none"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(columns)
    assert drawn(figure)


def test_without_a_judgement_the_lines_still_stand():
    assert drawn(filter_figure(filters(("vanilla",), left=[np.nan] * 5), 0.03))


@pytest.mark.parametrize(
    "figure",
    [
        lambda: claimed_figure(claims(()).reindex(columns=["variant"]), 0.03),
        lambda: filter_figure(filters(("vanilla",)), 0.09),
    ],
)
def test_an_empty_table_is_refused(figure):
    with pytest.raises(ValueError, match="expected the trials of at least one network"):
        figure()
