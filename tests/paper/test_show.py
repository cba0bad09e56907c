"""What ends a notebook's cells."""

import base64
import re
import zlib
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hfclib.paper.fig3 import fig3_recipes
from hfclib.paper.fig4 import curves_figure
from hfclib.paper.misalignment import fig2_recipes
from hfclib.paper.show import _stacked, show_figure, show_missing, show_provenance, show_table
from hfclib.paper.style import PHONE_WIDTH
from hfclib.paper.tables import gather, select


def test_the_line_under_a_figure_says_where_it_comes_from(runs):
    rows = select(gather(runs), (4,), "raw", "running")
    ones = [one for variant in runs.values() for one in variant]
    html = show_provenance("fig4-controlled", ones, rows).data
    for part in (
        "6 runs",
        "seeds 0, 1",
        "commit abcdef0",
        "6 minutes",
        "cpu, 2 thread(s)",
        "Of these runs, 6 of 6 are yours, not published.",
        'download="fig4-controlled.csv"',
        "_sources/notebooks/fig4.ipynb",
    ):
        assert part in html


def test_equal_figures_give_equal_pictures(runs):
    rows = select(gather(runs), (4,), "raw", "running")
    first, second = (show_figure(curves_figure(rows)).data for _ in range(2))
    assert first.startswith("<svg")
    assert first == second


def test_a_figure_has_its_panels_one_below_the_other_for_a_phone():
    figure = Figure(figsize=(9, 3))
    for ax in figure.subplots(2, 2, sharex=True, sharey=True).flat:
        ax.plot([0, 1], label="a line")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper")
    packed = re.search(r"<!-- phone: (\S+) -->\s*</svg>\s*$", show_figure(figure).data)[1]
    phone = zlib.decompress(base64.b64decode(packed)).decode()
    width, height = map(float, re.search(r'width="(\S+)pt" height="(\S+)pt"', phone).groups())
    assert width == pytest.approx(PHONE_WIDTH * 72)
    assert height > 4 * 2 * 72
    assert len(re.findall(r'id="axes_\d+"', phone)) == 4
    assert [ax.get_gridspec().ncols for ax in figure.axes] == [2] * 4  # the figure itself stays as it was


def words(figure):
    """Titles, axis labels, the legend's texts with their markers, and ticks' labels: what can be seen of a figure."""
    figure.draw_without_rendering()
    seen = {
        "titles": [ax.get_title() for ax in figure.axes],
        "x": [ax.xaxis.label.get_text() for ax in figure.axes if ax.xaxis.label.get_visible()],
        "y": [ax.yaxis.label.get_text() for ax in figure.axes if ax.yaxis.label.get_visible()],
        "ticks": [[one.get_text() for one in ax.get_xticklabels() if one.get_visible()] for ax in figure.axes],
    }
    (legend,) = figure.legends
    caps_and_none = ("none", "None", "|", "_")
    markers = [line.get_marker() for line in legend.findobj(Line2D) if line.get_marker() not in caps_and_none]
    return seen | {"legend": [text.get_text() for text in legend.get_texts()], "markers": markers}


def test_lines_with_error_bars_keep_their_markers_and_panels_their_words_on_a_phone():
    figure = Figure(figsize=(9, 3), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, title in zip(panels, "ab", strict=True):
        ax.errorbar([0, 1], [0, 1], [0.1, 0.1], marker="s", capsize=3, label="bars")
        ax.plot([0, 1], marker="^", label="a line")
        ax.set(title=title, xlabel=f"x of {title}")
    panels[0].set_ylabel("y")
    handles, labels = panels[0].get_legend_handles_labels()
    handles.append(Line2D([], [], marker="D", label="made by hand"))
    figure.legend(handles, [*labels, "made by hand"], loc="outside lower center")
    seen = words(_stacked(figure))
    assert (seen["titles"], seen["x"], seen["y"]) == (["a", "b"], ["x of a", "x of b"], ["y", "y"])
    assert dict(zip(seen["legend"], seen["markers"], strict=True)) == {"a line": "^", "bars": "s", "made by hand": "D"}
    assert "phone:" in show_figure(figure).data


def test_inner_panels_of_seaborn_have_their_axis_labels_on_a_phone():
    rows = pd.DataFrame([(panel, x, y) for panel in "abc" for x in "mn" for y in (1, 2)], columns=["panel", "x", "y"])
    grid = sns.catplot(rows, kind="point", x="x", y="y", col="panel", col_wrap=2, height=3, legend=False)
    grid.set_titles("{col_name}").set_axis_labels("the x", "the y").figure.set_layout_engine("constrained")
    grid.figure.legend(handles=[Line2D([], [], marker="s", label="points")], loc="outside lower center")
    plt.close(grid.figure)
    assert words(grid.figure)["y"] == ["the y", "the y"]  # of the first and the third panel
    seen = words(_stacked(grid.figure))
    assert seen == {
        "titles": ["a", "b", "c"],
        "x": ["the x"] * 3,
        "y": ["the y"] * 3,
        "ticks": [["m", "n"]] * 3,
        "legend": ["points"],
        "markers": ["s"],
    }
    assert show_figure(grid.figure).data == show_figure(grid.figure).data


def test_what_fits_and_pictures_are_the_same_on_a_phone():
    fits, wide, pictures = Figure(figsize=(PHONE_WIDTH, 3)), Figure(figsize=(PHONE_WIDTH + 1, 3)), Figure()
    for one in (fits, wide):
        one.subplots().plot([0, 1])
    for ax in pictures.subplots(1, 2):
        ax.imshow([[0, 1]])
    words_alone = Figure(figsize=(PHONE_WIDTH + 1, 3))
    words_alone.subplots().set_axis_off()
    figures = (fits, wide, pictures, words_alone)
    assert ["phone:" in show_figure(one).data for one in figures] == [False, True, False, False]


def test_the_line_under_a_figure_of_images_names_no_run():
    html = show_provenance("frog", None, page="book/your-images.md").data
    assert "Drawn from the embedded test set" in html
    assert "commit" not in html
    assert "CSV" not in html
    assert '<a href="../_sources/book/your-images.md">page</a>' in html


def test_the_line_under_a_figure_without_its_runs_says_so():
    html = show_provenance("fig3-five", [], pd.DataFrame()).data
    assert "Its runs are not stored." in html
    assert "embedded" not in html


def test_the_index_of_a_table_goes_into_its_csv(runs):
    table = pd.DataFrame({"vanilla": [7]}, index=pd.Index(["cat"], name="class"))
    html = show_provenance("fig2-classes", runs["vanilla"][:1], table).data
    content = base64.b64decode(re.search(r'text/csv;base64,([^"]+)', html).group(1)).decode()
    assert content == "class,vanilla\ncat,7\n"
    assert "1 run, preset" in html


def test_tables_are_shown_whole_and_escaped():
    frame = pd.DataFrame({"text": ["x" * 90, "a < b"], "figure": ["fig4", "other"]})
    html = show_table(frame).data
    assert "x" * 90 in html
    assert "a &lt; b" in html


def test_networks_that_are_not_shown_are_named():
    wanted = fig2_recipes("smoke")
    said = show_missing(wanted, {"vanilla": 1}).data
    assert "Not shown" in said
    assert "smoke-batchnorm, smoke-fullwidth" in said
    assert "smoke-vanilla" not in said
    assert show_missing(wanted, dict.fromkeys(wanted)) is None


def test_networks_that_are_shown_with_fewer_seeds_are_named():
    wanted = fig3_recipes("smoke")
    runs = {variant: [SimpleNamespace(seed=seed) for seed in (0, 2, 1)] for variant in wanted}
    assert show_missing(wanted, runs) is None
    runs |= {"adversarial": runs["adversarial"][:2], "adversarial5": runs["adversarial5"][:1]}
    del runs["vanilla5"]
    said = re.sub("<[^>]+>", "", show_missing(wanted, runs).data)
    assert said.startswith("Networks of this page that are missing or have few seeds: 3Not shown, since ")
    first, second = said.split(". ")
    assert first.endswith("no run with these seeds is stored: smoke-vanilla5")
    assert second.endswith("these seeds only, for the same reason: smoke-adversarial (0, 2), smoke-adversarial5 (0).")
    alone = show_missing({variant: wanted[variant] for variant in runs}, runs).data
    assert "Shown with these seeds only, since others are not stored: smoke-adv" in alone
    one = {variant: ones[:1] for variant, ones in runs.items()}
    wanted = {variant: wanted[variant] for variant in runs}
    assert show_missing(wanted, one, [0]) is None
    assert "smoke-vanilla (0)" in show_missing(wanted, one, [0, 3]).data  # which none of them has
