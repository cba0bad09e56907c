"""The page of a report: one HTML file, without scripts, with SVG in the reader's colours."""

import base64
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from operator import itemgetter
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from hfclib.charts import drawn_in
from hfclib.frequency import nyquist
from hfclib.reporting import answer, figures
from hfclib.reporting.stored import Report

SHOWN_CLASSES, SHOWN_PICTURES, FAILING = 8, 6, 48  # of a class; of all
CSS = """:root{color-scheme:light dark;--ground:#fff;--ink:#1b1b1b;--line:#ccc;--soft:#f3f4f6}
@media (prefers-color-scheme:dark){:root{--ground:#16181c;--ink:#e6e6e6;--line:#444;--soft:#22262c}}
body{background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:1rem auto;
padding:0 1rem}h1{font-size:1.5rem;line-height:1.25}figure{margin:0}svg{display:block;max-width:100%;height:auto}
#answer{font-size:1.2rem}#number{background:var(--soft);border-radius:.5rem;padding:.6rem 1rem}
#number b{font-size:1.5rem}
table{border-collapse:collapse;font-size:14px;display:block;overflow-x:auto}
td,th{border-bottom:1px solid var(--line);padding:.2rem .6rem;text-align:right}code{overflow-wrap:anywhere}
summary{cursor:pointer;padding:.3rem 0}.pictures{display:flex;flex-wrap:wrap;gap:.5rem;font-size:12px;line-height:1.2}
.pictures figure{width:6rem}.pictures img{width:6rem;image-rendering:pixelated}a{color:inherit}"""
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{css}</style></head><body><main>{back}<h1>{title}</h1>{body}</main></body></html>
"""


@dataclass(frozen=True)
class Shown:
    """What a section is drawn from.

    Attributes:
        content: of the report.
        images: the first ones of its data, (N, C, H, W).
        others: contents of other reports, by the names that legends give them.
        folder: of the report, to which links to pictures are relative; None for a page without links.
    """

    content: dict
    images: Tensor
    others: Mapping[str, dict] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def side(self) -> int:
        """The shorter side of the images, in pixels."""
        return answer.side_of(self.content)

    def theirs(self, part: str, *, same_noise: bool = False) -> dict[str, list[dict]]:
        """The rows of a part of the other reports; with `same_noise` of those with the same size, norm and attack."""
        settings = itemgetter("size", "norm", "eps", "steps")
        mine = settings(self.content["key"]["settings"])
        return {
            name: other["parts"].get(part, [])
            for name, other in self.others.items()
            if not same_noise or settings(other["key"]["settings"]) == mine
        }


@dataclass(frozen=True)
class Section:
    """A section of the page about one part.

    Attributes:
        part: its name.
        title, note: above and below the figure.
        draw: its figure, or HTML, or None if there is nothing to see.
        say: a sentence from the content for the top of it.
        table: whether the part's table is shown, folded.
    """

    part: str
    title: str
    note: str
    draw: Callable[[Shown], Figure | str | None]
    say: Callable[[dict], str | None] = lambda content: None
    table: bool = True


def _bands(shown: Shown) -> Figure:
    table = pd.DataFrame(shown.content["parts"]["accuracy"])
    behind = {name: pd.DataFrame(rows) for name, rows in shown.theirs("accuracy").items()}
    return figures.plot(table, behind, side=shown.side)


def _points(part: str, *, same_noise: bool) -> Callable[[Shown], Figure | None]:
    def draw(shown: Shown) -> Figure | None:
        theirs = shown.theirs(part, same_noise=same_noise)
        return figures.points_figure(part, shown.content["parts"][part], theirs, shown.side)

    return draw


def _energy(shown: Shown) -> Figure | None:
    return figures.energy_figure(shown.content["parts"]["energy"], shown.theirs("energy", same_noise=True), shown.side)


def _misaligned(shown: Shown) -> Figure | None:
    return figures.misaligned_figure(shown.content["parts"]["misaligned"], shown.images, shown.side)


def _classes(shown: Shown) -> str:
    """The classes that hang on the HFC most, each with pictures of it, and the table of all."""
    content, radius = shown.content, answer.nearest_radius(shown.content)
    rows = answer.hanging_classes(content)
    here = [row for row in content["parts"].get("pictures", ()) if row["radius"] == radius]
    parts = []
    for row in rows[:SHOWN_CLASSES]:
        if row["difference"] <= 0:
            break
        by_high, by_low = (f"{row[band]:.0%} by its {band.upper()}" for band in ("hfc", "lfc"))
        said = f"{escape(answer.class_name(content, row['class']))}: {by_high}, {by_low}"
        pictures = _pictures(shown, [seen for seen in here if seen["label"] == row["class"]])
        parts.append(f"<details><summary>{said}, of {row['images']:,} images</summary>{pictures}</details>")
    cut = answer.cut_words(radius, shown.side)
    lead = f"<p>At {cut}:</p>" if parts else f"<p>At {cut}, no class is right more often by its HFC.</p>"
    columns = ["class", "images", "whole", "lfc", "hfc", "difference"]
    table = pd.DataFrame([row | {"class": answer.class_name(content, row["class"])} for row in rows])[columns]
    return lead + "".join(parts) + folded(f"all {len(rows)} classes", table_html(table, shown.side))


def _failing(shown: Shown) -> str | None:
    """The first pictures that the network gets wrong, one click away."""
    rows, radius = shown.content["parts"]["pictures"], answer.nearest_radius(shown.content)
    here = [row for row in rows if row["radius"] == radius]
    if answer.is_unlabelled(shown.content):
        kinds = {"Answered otherwise by their LFC": [row for row in here if row["lfc"] != row["label"]]}
    else:
        kinds = {
            "Wrong as they are": [row for row in here if row["whole"] != row["label"]],
            "Right as they are, wrong by their LFC": [
                row for row in here if row["whole"] == row["label"] != row["lfc"]
            ],
        }
    parts = []
    for said, failing in kinds.items():
        told = f"{said}: {len(failing)} of the first {len(here)} pictures"
        parts.append(folded(told, _pictures(shown, failing, FAILING)))
    return f"<p>At {answer.cut_words(radius, shown.side)}:</p>" + "".join(parts)


def _pictures(shown: Shown, rows: Sequence[dict], most: int = SHOWN_PICTURES) -> str:
    """Thumbnails of the first rows of the part "pictures" that are given, with what the network takes them for."""
    rows = rows[:most]
    if not rows:
        return "<p>None of the first pictures.</p>"
    names = {
        name: [answer.class_name(shown.content, row[name]) for row in rows] for name in ("label", "whole", "lfc", "hfc")
    }
    files = shown.content.get("files") or []
    cells = []
    for place, pixels in enumerate(figures.thumbnails(shown.images[[row["number"] for row in rows]])):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        label, whole, low, high = (escape(names[name][place]) for name in names)
        image = f'<img alt="{label}" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
        number = rows[place]["number"]
        if shown.folder is not None and number < len(files):
            image = f'<a href="{quote(os.path.relpath(files[number], shown.folder))}">{image}</a>'
        cells.append(
            f"<figure>{image}<figcaption>{label}<br>whole: {whole}<br>LFC: {low}<br>HFC: {high}</figcaption></figure>"
        )
    return f'<div class="pictures">{"".join(cells)}</div>'


SECTIONS = [
    Section(
        "accuracy",
        "Accuracy by band",
        """LFC: the frequencies within the radius, as they are. HFC: those beyond, with the mean colour, or as they are
(dotted). Pale: BatchNorm with test-batch statistics, or moments matched to those of the first images. Bars
are 95 % Wilson intervals; the grey line is whole images. Dashed: other networks.""",
        _bands,
    ),
    Section(
        "classes",
        "Classes that hang on the high frequencies",
        """Sorted by how much more often a class is right by its HFC than by its LFC: with few images a class, who comes
first is partly chance.""",
        _classes,
        table=False,
    ),
    Section("pictures", "Pictures that fail", "Each with what the network takes it for.", _failing, table=False),
    Section(
        "heat_map",
        "Fourier heat map",
        """Error rate when noise of fixed L2 norm along one Fourier basis vector is added to the pixels, before any
normalisation. The centre is frequency zero, the border Nyquist. The numbers are in heat_map.csv.""",
        lambda shown: figures.heat_map_figure(shown.content["parts"]["heat_map"]),
        answer.worst_frequency,
        table=False,
    ),
    Section(
        "noise",
        "Accuracy under noise of one band",
        "Gaussian noise of the same norm, in one band of frequencies.",
        _points("noise", same_noise=True),
    ),
    Section(
        "energy",
        "Where an attack puts its energy",
        """Mean share of the energy of a PGD perturbation (L2) at or beyond each radius; the dashed line is what white
noise has there.""",
        _energy,
        answer.energy_words,
    ),
    Section(
        "misaligned",
        "Misaligned images",
        """Right as they are and by their HFC with the mean colour, wrong by their LFC. Columns: the image, its LFC, its
HFC, stretched for the eye. In the table accuracy is the share of such images.""",
        _misaligned,
    ),
    Section(
        "phase",
        "Phase against amplitude",
        """Images with the phases of one image and the amplitudes of one of another class: the share of predictions that
are the class of the phases, that of the amplitudes, or neither.""",
        _points("phase", same_noise=False),
        answer.phase_words,
    ),
]


def html(report: Report, images: Tensor, others: Sequence[Report] = (), *, back: tuple[str, str] | None = None) -> str:
    """The page of a finished report.

    Args:
        images: (N, C, H, W), the first ones of the report's data, from which pictures are drawn. The page of a network
            that is not better than chance has the accuracy by band alone.
        others: finished reports, whose curves are drawn behind; noise and attack where their settings are the same.
        back: address and text of a link to the page that this one belongs to.
    """
    content = report.content
    shown = Shown(content, images, _named(others), report.folder)
    sections = [section for section in SECTIONS if section.part in content["parts"]]
    if answer.is_guessing(content):
        sections = [section for section in sections if section.part == "accuracy"]
    with drawn_in(figures.PAGE_STYLE):
        body = _first_screen(content) + "".join(_section(section, shown) for section in sections)
    body += folded("Settings", f"<table>{_settings(content)}</table>")
    link = f'<p><a href="{escape(back[0])}">{escape(back[1])}</a></p>' if back else ""
    page = TEMPLATE.format(title=escape(title(content)), css=CSS, back=link, body=body)
    return page.replace("<table", '<table tabindex="0"')  # wide ones scroll, by the keyboard too


def title(content: dict) -> str:
    """The network's name, and that of the data if it is known."""
    on = f" on {content['data_name']}" if content.get("data_name") else ""
    return f"What {content['key']['settings']['name']} reads{on}"


def _first_screen(content: dict) -> str:
    """The answer in one sentence, the number with its interval, the curve, and one line on robustness."""
    said = [f'<p id="answer">{escape(answer.reads(content))}</p>']
    if not answer.is_guessing(content):
        number, _, interval = answer.crossing_words(content).partition(" (")
        interval = f" ({interval}" if interval else ""
        said.append(f'<p id="number">Crossing radius: <b>{number}</b> bins{interval}</p>')
    said.append(svg(figures.first_figure(content), "Accuracy by the low and by the high frequencies alone, by radius"))
    robust = answer.robust(content)
    said.append(f'<p id="robust">Is it robust? {escape(robust)}</p>' if robust else "")
    said.append(f"<p>{escape(answer.accuracy_words(content))} {_explained(content)}</p>")
    return "".join(said)


def _explained(content: dict) -> str:
    if answer.is_guessing(content):
        return ""
    return (
        "The crossing radius is where the high frequencies alone become worth as little as the low ones: the further "
        "out it is, the more the network reads from high frequencies. Within its interval the 95 % intervals of both "
        "overlap."
    )


def _section(section: Section, shown: Shown) -> str:
    rows, drawn = shown.content["parts"][section.part], section.draw(shown)
    said = section.say(shown.content)
    lead = f"<p>{escape(said)}</p>" if said else ""
    drawn = svg(drawn, section.title) if isinstance(drawn, Figure) else drawn or "<p>Nothing to show.</p>"
    note = section.note + (_colour_words(shown.content) if section.part == "accuracy" else "")
    table = ""
    if section.table and rows:
        table = folded(f"the numbers, {len(rows)} rows", table_html(pd.DataFrame(rows), shown.side))
    return f"<h2>{section.title}</h2>{lead}{drawn}<p>{note}</p>{table}"


def _named(others: Iterable[Report]) -> dict[str, dict]:
    """The contents of reports by the names of their networks; a name that comes again is numbered."""
    named: dict[str, dict] = {}
    for other in others:
        name = other.content["key"]["settings"]["name"]
        named[f"{name} ({len(named) + 1})" if name in named else name] = other.content
    return named


def _settings(content: dict) -> str:
    key = content["key"]
    lines = {**key["settings"], "weights, SHA-256": key["weights_sha256"], "data, SHA-256": content["data_sha256"]}
    lines["hfclib"] = content["hfclib"]
    return "".join(
        f"<tr><th>{name}</th><td><code>{escape(str(value))}</code></td></tr>" for name, value in lines.items()
    )


def _colour_words(content: dict) -> str:
    """Which mean colour the HFC was fed with, and where it is from."""
    colour = ", ".join(f"{value:.3f}" for value in content["key"]["settings"]["colour"])
    images = answer.whole_row(content)["images"]
    origin = "was given" if content["colour_given"] else f"is that of all {images:,} images"
    return f" The mean colour ({colour}) {origin}."


def folded(summary: str, inner: str) -> str:
    """HTML that a click on its summary shows."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def svg(figure: Figure, title: str) -> str:
    """A figure as SVG within HTML, in the colours of the page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # needless within HTML
    text = text.replace(figures.INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    return f"<figure>{text}</figure>"


def table_html(table: pd.DataFrame, side: int) -> str:
    """A part's table for the page: each radius in DFT bins, and beside it its share of Nyquist."""
    table = table.round(4)
    if "radius" in table:
        table.insert(table.columns.get_loc("radius") + 1, "of Nyquist", (table["radius"] / nyquist(1, side)).round(4))
    for name in table.columns[table.isna().any()]:
        table[name] = table[name].astype(object).where(table[name].notna(), "not measured")
    return table.to_html(index=False, border=0)
