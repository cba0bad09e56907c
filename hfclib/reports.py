"""What a notebook shows under a figure: the picture itself, where it comes from, and what it says in words."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from IPython.display import HTML, Image, Markdown
from matplotlib.figure import Figure

from hfclib import published
from hfclib.defenses import Defense
from hfclib.recipes import Recipe
from hfclib.runs import Run
from hfclib.tables import decimals, with_interval
from hfclib.tables_defense import NETWORKS, number, share, title

_PNG_DPI = 144


def picture(figure: Figure) -> Image:
    """A figure as a PNG to end a cell with; shown at half its pixels, so that it is sharp on dense screens."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PNG_DPI, facecolor="white")
    return Image(buffer.getvalue(), width=round(figure.get_figwidth() * _PNG_DPI / 2))


def table(frame: pd.DataFrame, links: Mapping[str, str] | None = None) -> HTML:
    """A table to end a cell with: whole cells, however long.

    Args:
        frame: its text is escaped, and its index becomes the first columns.
        links: cell text to address; a cell with just this text becomes a link.
    """
    with pd.option_context("display.max_colwidth", None):
        html = frame.reset_index().to_html(index=False, border=0, justify="left")
    for text, address in (links or {}).items():
        html = html.replace(f"<td>{text}</td>", f'<td><a href="{address}">{text}</a></td>')
    return HTML(html)


def _embedded(content: bytes, kind: str, name: str, text: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<a download="{name}" href="data:{kind};base64,{data}">{text}</a>'


def provenance(name: str, runs: Sequence[Run] | None, figure: Figure, table: pd.DataFrame | None = None,
               page: str | None = None) -> HTML:  # fmt: skip
    """One line on where a figure comes from, with the notebook, its table as CSV and the picture as SVG to take away.

    Args:
        name: of the figure, such as "fig4-controlled"; what is before the first hyphen is its notebook.
        runs: behind the figure, empty where they are not stored; None where it shows images only.
        figure: offered as SVG.
        table: the rows drawn, offered as CSV; without it there is no such link.
        page: where in the book the figure is explained, such as "book/your-images.md", if not in that notebook.
    Returns:
        HTML that needs no other file, except for the link to the notebook or page in the built book.
    """
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    page = page or f"notebooks/{name.split('-')[0]}.ipynb"
    links = [f'<a href="../_sources/{page}">{"notebook" if page.endswith(".ipynb") else "page"}</a>']
    if table is not None:
        content = table.to_csv(index=any(table.index.names)).encode()
        links.append(_embedded(content, "text/csv", f"{name}.csv", "table (CSV)"))
    links.append(_embedded(svg.getvalue(), "image/svg+xml", f"{name}.svg", "figure (SVG)"))
    text = "Drawn from the embedded test set; no run is behind it." if runs is None else _behind(runs)
    return HTML(f'<p class="hfc-provenance">{text} {" · ".join(links)}</p>')


def _behind(runs: Sequence[Run]) -> str:
    """How many runs, of which preset and seeds, made by which commit, in what time and where."""
    if not runs:
        return "Its runs are not stored."
    seeds = sorted({run.seed for run in runs})
    which = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    commits = ", ".join(sorted({commit[:7] for run in runs for commit in run.provenance["commits"]}))
    minutes = sum(run.provenance["train_seconds"] + run.provenance["eval_seconds"] for run in runs) / 60
    devices = " and ".join(sorted({run.provenance["device"] for run in runs}))
    preset = ", ".join(sorted({run.recipe.name.split("-")[0] for run in runs}))
    count = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    return (
        f"{count}, preset {preset}, {which}; commit {commits}; "
        f"trained, and measured after each epoch, in {minutes:.0f} minutes on {devices}."
    )


def missing(wanted: Mapping[str, Recipe], found: Mapping[str, object]) -> Markdown | None:
    """Which networks of a figure are not shown because their runs are not stored, and which with fewer seeds.

    Args:
        wanted: the figure's recipes, by panel.
        found: what is shown, by panel; a list of runs counts by its seeds.
    Returns:
        None where all are there.
    """
    names = [recipe.name for panel, recipe in wanted.items() if panel not in found]
    text = f"Not shown, since not trained and published yet: {', '.join(names)}." if names else ""
    seeds = {panel: {run.seed for run in ones} for panel, ones in found.items() if isinstance(ones, list)}
    every = set().union(*seeds.values())
    fewer = [f"{wanted[panel].name} ({', '.join(map(str, sorted(own)))})" for panel, own in seeds.items()
             if own != every]  # fmt: skip
    if fewer:
        reason = "for the same reason" if text else "since others are not trained and published yet"
        text += f"{' ' * bool(text)}Shown with these seeds only, {reason}: {', '.join(fewer)}."
    return Markdown(text) if text else None


def _listed(head: str, lines: Sequence[str]) -> Markdown:
    """A sentence, and below it a list, where there is anything to list."""
    return Markdown("\n".join([head, "", *lines] if lines else [head]))


def batchnorm_story(effect: pd.DataFrame, seeds: int) -> Markdown:
    """What is left of BatchNorm's published advantage once feed and statistics are controlled, in words.

    Args:
        effect: from `tables.batchnorm_effect`.
        seeds: number of seeds behind it.
    """
    cells = effect.set_index(["radius", "bn_stats", "feed"])
    lines = []
    for radius in dict.fromkeys(effect["radius"]):
        shown, left = cells.loc[(radius, "batch", "max")], cells.loc[(radius, "running", "mean")]
        paper = published.fig4_difference("batchnorm", f"H{radius}")
        what = f", {left.share_left:.0%} of it" if np.isfinite(left.share_left) else ""
        if np.isfinite(left.low) and left.low <= 0 <= left.high:  # a share of it would mean nothing
            what = ", an interval that holds 0"
        lines.append(
            f"- r = {radius}: {decimals(shown.difference)} under the authors' condition (paper: {decimals(paper, 2)}); "
            f"{with_interval(left.difference, left.low, left.high)} with running statistics and the mean colour added"
            f"{what}."
        )
    over = f"mean over {seeds} seeds" if seeds > 1 else "one seed"
    head = f"BatchNorm's HFC accuracy minus vanilla's, {over}:"
    return _listed(head, lines)


def scale_story(table: pd.DataFrame) -> Markdown:
    """The paper's rule beside the same divided by its gain and the logits alone multiplied by it, in words.

    Args:
        table: from `trials.table`, of one seed; its smallest eps and largest rho are taken.
    """
    attacked = table[(table["attack"] == "pgd") & (table["eps"] == table.loc[table["attack"] == "pgd", "eps"].min())]
    rho = attacked.loc[attacked["defense"] == "rule", "strength"].max()
    lines = []
    for panel in dict.fromkeys(attacked["panel"]):
        own = attacked[(attacked["panel"] == panel) & ((attacked["defense"] == "none") | (attacked["strength"] == rho))]
        left = {row.defense: share(row.accuracy, row.images) for row in own.itertuples()}
        lines.append(
            f"- {NETWORKS[panel]}: {left['none']} without a defense; {left['rule']} under the rule as printed, "
            f"{left['normalised']} under the rule divided by its gain; {left['scale']} with no kernel changed and the "
            f"logits multiplied by {number(1 + 8 * rho)}."
        )
    head = f"Accuracy under PGD at eps {number(attacked['eps'].iloc[0])}, rho = {number(rho)}:"
    return _listed(head, lines)


def filter_story(found: pd.DataFrame, radius: float = 8.0) -> Markdown:
    """What filtering the input is worth against an attacker who doesn't know of it and one who does, in words.

    Args:
        found: from `tables_defense.by_radius`; its smallest eps is taken.
        radius: of the filter.
    """
    rows = found[found["eps"] == found["eps"].min()].set_index(["panel", "strength"])
    lines = []
    for panel in dict.fromkeys(found["panel"]):
        one, plain = rows.loc[(panel, radius)], rows.loc[(panel, float("inf"))]
        images = int(one["images"])
        left = f", {share(one['left'], images)} after the strongest attack" if pd.notna(one["left"]) else ""
        lines.append(
            f"- {NETWORKS[panel]}: {share(plain['aware'], images)} without the filter; {share(one['unaware'], images)} "
            f"against an attacker who doesn't know of it; against one who does {share(one['aware'], images)}{left}. "
            f"On clean images {share(plain['clean'], images)} without and {share(one['clean'], images)} with it."
        )
    head = f"Accuracy under PGD at eps {number(found['eps'].min())}, r = {number(radius)}:"
    return _listed(head, lines)


def verdict_story(verdicts: pd.DataFrame, images: int) -> Markdown:
    """How many gains were claimed, what became of them, and which withstood, in words.

    Args:
        verdicts: from `judgement.judge`, of one seed.
        images: behind each accuracy.
    """
    count = verdicts["verdict"].value_counts()
    masked, robust = (int(count.get(one, 0)) for one in ("masked", "robust"))
    head = (
        f"Comparisons: {len(verdicts)}. Without a gain: {len(verdicts) - masked - robust}. With a claimed gain: "
        f"{masked + robust}, of which masked {masked}, robust {robust}."
    )
    stands = verdicts[verdicts["verdict"] == "robust"].drop_duplicates(["panel", "defense", "strength", "eps"])
    lines = []
    for row in stands.itertuples():
        what = "as trained" if row.defense == "none" else title(Defense(row.defense, row.strength))
        against = NETWORKS[row.against_panel] if row.defense == "none" else "without it"
        lines.append(
            f"- {NETWORKS[row.panel]}, {what}, eps {number(row.eps)}: {share(row.strongest, images)} after the "
            f"strongest attack ({against}: {share(row.plain_strongest, images)})."
        )
    return _listed(head, lines)
