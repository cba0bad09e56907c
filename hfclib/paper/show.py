"""What ends a notebook's cell: a figure, a table, the line on where it comes from, the networks that are missing."""

import base64
import copy
import io
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from html import escape

import matplotlib as mpl
import pandas as pd
from IPython.display import HTML, SVG, Markdown
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from hfclib.paper.measurements import preset_of
from hfclib.paper.style import PHONE_WIDTH, STYLE
from hfclib.runs.collect import Runs
from hfclib.runs.store import Run, is_published
from hfclib.training.recipe import Recipe


def show_figure(figure: Figure) -> SVG:
    """A figure as SVG, on white; equal figures give equal text.

    Where charts are wider than a phone, a comment at the end holds the same figure with one panel below the other, as
    SVG (`phone_figure`): the book shows that one on a phone (`book/_ext/pages.py`).
    """
    with mpl.rc_context(STYLE):
        text = _svg(figure)
        if (stacked := _stacked(figure)) is not None:
            packed = base64.b64encode(zlib.compress(_svg(stacked).encode(), 9)).decode()
            text = text.rstrip().removesuffix("</svg>") + f"<!-- phone: {packed} -->\n</svg>\n"
    return SVG(text)


def phone_figure(svg: str) -> bytes | None:
    """The figure for a phone in the text of one by `show_figure`: an SVG, which is packed deflated and in base64."""
    packed = re.search(r"<!-- phone: (\S+) -->", svg)
    return zlib.decompress(base64.b64decode(packed[1])) if packed else None


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    return file.getvalue()


def _stacked(figure: Figure) -> Figure | None:
    """A copy of a figure with one panel below the other, as wide as a phone; None for pictures and for what fits."""
    grid = figure.axes[0].get_gridspec() if any(ax.axison for ax in figure.axes) else None
    if grid is None or figure.get_figwidth() <= PHONE_WIDTH or any(ax.images for ax in figure.axes):
        return None
    stacked = copy.deepcopy(figure)
    unused, lines, drawn = [ax for ax in stacked.axes if not ax.axison], 0, {}
    for ax in stacked.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            drawn.setdefault(label, handle)
    legends = [*stacked.legends, *filter(None, (ax.get_legend() for ax in unused))]
    stacked.legends.clear()
    for legend in legends:
        labels = [text.get_text() for text in legend.get_texts()]
        # What a legend holds of a line with error bars is the bar alone.
        handles = [drawn.get(label, own) for label, own in zip(labels, legend.legend_handles, strict=True)]
        stacked.legend(handles, labels, loc="outside upper center", frameon=False)
        lines += len(labels)
    for ax in unused:
        ax.remove()
    ratios = grid.get_height_ratios()
    heights = [max(2.4, figure.get_figheight() * ratio / sum(ratios)) for ratio in ratios for _ in range(grid.ncols)]
    heights = heights[: len(stacked.axes)]
    places = GridSpec(len(heights), 1, stacked, height_ratios=heights)
    for at, (ax, place) in enumerate(zip(stacked.axes, places, strict=True)):
        top, left, bottom = at % grid.ncols, at - at % grid.ncols, range(at, len(heights), grid.ncols)[-1]
        ax.title.set_text(ax.get_title() or stacked.axes[top].get_title())
        ax.yaxis.label.set_text(ax.get_ylabel() or stacked.axes[left].get_ylabel())
        ax.xaxis.label.set_text(ax.get_xlabel() or stacked.axes[bottom].get_xlabel())
        ax.xaxis.label.set_visible(True)  # seaborn hides those of inner panels
        ax.yaxis.label.set_visible(True)
        ax.set_subplotspec(place)
        ax.tick_params(labelleft=True, labelbottom=True)
    stacked.set_size_inches(PHONE_WIDTH, sum(heights) + 0.22 * lines)
    stacked.draw_without_rendering()
    stacked.set_layout_engine("none")
    for ax in stacked.axes:  # the layout of a copy differs in the last digits from time to time
        ax.set_position([round(edge, 4) for edge in ax.get_position().bounds])
    return stacked


def show_table(frame: pd.DataFrame, *, caption: str = "", sortable: bool = False) -> HTML:
    """A table with whole cells, however long.

    Args:
        frame: its text is escaped, and its index becomes the first columns.
        caption: above the table; without it that of the frame, `frame.attrs["caption"]`, if it has one.
        sortable: in the book, a click on a heading sorts the rows by that column (`book/_static/sort.js`).
    """
    classes = "hfc-sortable" if sortable else None
    with pd.option_context("display.max_colwidth", None):
        html = frame.reset_index().to_html(index=False, border=0, justify="left", classes=classes)
    if caption := caption or frame.attrs.get("caption", ""):
        html = html.replace("<thead>", f"<caption>{escape(caption)}</caption>\n  <thead>", 1)
    return HTML(html)


def show_provenance(
    name: str, runs: Sequence[Run] | None, table: pd.DataFrame | None = None, page: str | None = None
) -> HTML:
    """Where a figure comes from, folded: its runs, its notebook, and its table as CSV to download.

    Args:
        name: of the figure, such as "fig4-controlled"; its notebook is what stands before the first hyphen.
        runs: behind the figure, empty where they are not stored; None where it shows images only.
        table: the rows drawn, offered as CSV; None offers none.
        page: where in the book the figure is explained, such as "book/your-images.md", if not in its notebook.
    """
    page = page or f"notebooks/{name.split('-')[0]}.ipynb"
    links = [f'<a href="../_sources/{page}">{"notebook" if page.endswith(".ipynb") else "page"}</a>']
    if table is not None:
        content = table.to_csv(index=any(table.index.names)).encode()
        address = f"data:text/csv;base64,{base64.b64encode(content).decode()}"
        links.append(f'<a download="{name}.csv" href="{address}">table (CSV)</a>')
    text = "Drawn from the embedded test set; no run is behind it." if runs is None else _behind(runs)
    head = "<summary>Where this figure comes from</summary>"
    return HTML(f'<details class="hfc-provenance">{head}{text} {" · ".join(links)}</details>')


def _behind(runs: Sequence[Run]) -> str:
    """How many runs, of which preset and seeds, made by which commit, in what time and where."""
    if not runs:
        return "Its runs are not stored."
    seeds = sorted({run.seed for run in runs})
    commits = ", ".join(sorted({commit[:7] for run in runs for commit in run.provenance["commits"]}))
    measuring = sum(run.provenance["eval_seconds"] for run in runs)
    minutes = (sum(run.provenance["train_seconds"] for run in runs) + measuring) / 60
    done = "trained, and measured after each epoch," if measuring else "trained"
    devices = " and ".join(sorted({run.provenance["device"] for run in runs}))
    preset = ", ".join(sorted({preset_of(run.recipe) for run in runs}))
    own = sum(not is_published(run.path) for run in runs)
    yours = f" Of these runs, {own} of {len(runs)} are yours, not published." if own else ""
    return (
        f"{len(runs)} run{'s' * (len(runs) > 1)}, preset {preset}, "
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}; commit {commits}; "
        f"{done} in {minutes:.0f} minutes on {devices}.{yours}"
    )


def show_missing(wanted: Mapping[str, Recipe], found: Mapping[str, object], asked: Collection[int] = ()) -> HTML | None:
    """Which networks are not shown, because their runs are not stored, and which are shown with fewer seeds; folded.

    Args:
        wanted: the chapter's recipes, by variant.
        found: what is shown, by variant; a list of runs counts by its seeds.
        asked: seeds to compare with, for a page that shows only runs whose weights are kept; by default the seeds that
            any network has.
    Returns:
        None where nothing is missing.
    """
    names = [recipe.name for variant, recipe in wanted.items() if variant not in found]
    text = f"Not shown, since no run with these seeds is stored: {', '.join(names)}." if names else ""
    seeds = {variant: {run.seed for run in ones} for variant, ones in found.items() if isinstance(ones, list)}
    every = set(asked).union(*seeds.values())
    fewer = [
        f"{wanted[variant].name} ({', '.join(map(str, sorted(own)))})" for variant, own in seeds.items() if own != every
    ]
    if fewer:
        reason = "for the same reason" if text else f"since others are not stored{' with weights' * bool(asked)}"
        text += f"{' ' * bool(text)}Shown with these seeds only, {reason}: {', '.join(fewer)}."
    if not text:
        return None
    count = len(names) + len(fewer)
    head = f"<summary>Networks of this page that are missing or have few seeds: {count}</summary>"
    return HTML(f'<details class="hfc-provenance">{head}{escape(text)}</details>')


def whose(runs: Runs) -> str:
    """Over whose seeds a table takes means, in words: "all published seeds", or "the seeds of this notebook"."""
    published = all(is_published(run.path) for run in runs.all())
    return "all published seeds" if published else "the seeds of this notebook"


def listed(head: str, lines: Sequence[str]) -> Markdown:
    """A sentence with a list below it, where there is anything to list."""
    return Markdown("\n".join([head, "", *lines] if lines else [head]))
