"""Tables and lines about the chapters, from what each says of itself: what it takes, questions, parameters, figures."""

import json
import math
import re
from html import escape
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from hfclib.paper.chapter import SOURCES
from hfclib.paper.registry import CHAPTERS

# Figures of the book's own pages, by what they are drawn from.
OTHER_FIGURES = {"fig-frog": "images"}
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NONE = "\u2013"
WORDS_A_MINUTE = 150  # of a text with numbers and figures


def main_text(notebook: Path) -> list[dict]:
    """The cells of a chapter's notebook in front of the appendix, which the book folds."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    heads = ["".join(cell["source"]).strip().splitlines()[:1] for cell in cells]
    return cells[: heads.index(["## Appendix"]) if ["## Appendix"] in heads else None]


def words(notebook: Path) -> list[str]:
    """The words of `main_text` that are not folded, as dropdowns are too."""
    prose = "\n\n".join("".join(cell["source"]) for cell in main_text(notebook) if cell["cell_type"] == "markdown")
    return re.sub(r"^(:{3,})\{dropdown\}.*?^\1$", "", prose, flags=re.DOTALL | re.MULTILINE).split()


def effort(name: str) -> str:
    """What a chapter takes, as HTML: minutes to read, and the chapters to read first."""
    before = " and ".join(link(other, CHAPTERS[other].topic) for other in CHAPTERS[name].builds_on)
    minutes = math.ceil(len(words(NOTEBOOKS / f"{name}.ipynb")) / WORDS_A_MINUTE)
    return f"About {minutes} minutes to read. {f'Read first: {before}' if before else 'It needs no other chapter'}."


def questions() -> HTML:
    """One row per chapter: its question, which leads to it, and where the paper and the blog are about it."""
    rows = [
        {
            "question": link(chapter.name, chapter.question),
            "paper": escape(chapter.paper),
            "blog": escape(chapter.blog or NONE),
        }
        for chapter in CHAPTERS.values()
    ]
    return HTML(table(rows))


def parameters() -> HTML:
    """One row per parameter and meaning: the notebooks that have it, its default, what it means, what is allowed."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, chapter in CHAPTERS.items():
        for parameter, field in chapter.parameters.model_fields.items():
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            row = parameter, _value(default), field.title or "", field.description or ""
            rows.setdefault(row, []).append(name)
    common = dict(sorted(rows.items(), key=lambda item: -len(item[1])))
    return HTML(
        table(
            [
                {
                    "notebook": "all" if len(names) == len(CHAPTERS) else ", ".join(names),
                    "parameter": f"<code>{parameter}</code>",
                    "default": f"<code>{escape(default)}</code>",
                    "meaning": escape(meaning),
                    "allowed": escape(allowed),
                }
                for (parameter, default, meaning, allowed), names in common.items()
            ]
        )
    )


def figures() -> HTML:
    """One row per source: what a page does when it runs, and the figures that are drawn so."""
    named = OTHER_FIGURES | {name: source for chapter in CHAPTERS.values() for name, source in chapter.figures.items()}
    return HTML(
        table(
            [
                {
                    "what the page does": escape(text),
                    "figures": ", ".join(f"<code>{name}</code>" for name, own in named.items() if own == source),
                }
                for source, text in SOURCES.items()
            ]
        )
    )


def link(name: str, text: str) -> str:
    """A link to a chapter, from a page in `book/`."""
    return f'<a href="../notebooks/{name}.html">{escape(text)}</a>'


def _value(value: object) -> str:
    """A default as a reader types it; numbers with four digits."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def table(rows: list[dict[str, str]]) -> str:
    """Rows of HTML cells by column as a table, in HTML."""
    with pd.option_context("display.max_colwidth", None):
        return pd.DataFrame(rows).to_html(index=False, border=0, classes="hfc-words", escape=False)
