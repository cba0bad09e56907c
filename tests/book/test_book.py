"""The book: its table of contents, its figures, its tables of chapters, and the check of the built pages."""

import json
import re
from pathlib import Path

import pytest
import yaml

import hfclib
from book import chapters, check_html
from hfclib.charts import PICTURES_WIDTH
from hfclib.paper.registry import CHAPTERS
from tests.core.test_imports import chapter_of

ROOT = Path(__file__).parents[2]
NOTEBOOKS = [ROOT / f"notebooks/{name}.ipynb" for name in sorted(CHAPTERS)]
PAGES = sorted((ROOT / "book").rglob("*.md"))
DRAWS = re.compile(r"\b(plt|plots)\.|\breports\.picture\b")  # a drawing cell of a Markdown page: it has no outputs
PICTURES = {"image/png", "image/svg+xml", "image/jpeg"}
FENCE = re.compile(r"^(`{3,}|:{3,})\{([a-z:-]+)\}[ ]*([^\n]*)\n(.*?)^\1[ ]*$", re.DOTALL | re.MULTILINE)
HEADER = re.compile(r"---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)


def toc_files() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(one["file"] for chapter in chapters for one in [chapter, *chapter.get("sections", [])])]


def directives(text: str) -> list[tuple[str, str, dict, str]]:
    """(name, argument, options, body) of each directive of a MyST page."""
    listed = []
    for _, name, argument, body in FENCE.findall(text):
        header, options = HEADER.match(body), {}
        if header:
            options, body = yaml.safe_load(header[1]), body[header.end() :]
        while line := re.match(r":([\w-]+):[ ]*(.*)\n", body):
            options[line[1]], body = line[2], body[line.end() :]
        listed.append((name, argument, options, body))
    return listed


def code_cells(path: Path) -> list[tuple[str, dict, bool]]:
    """(source, metadata, whether it draws) of each code cell of a notebook or page."""
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        return [("".join(cell["source"]), cell["metadata"], draws(cell)) for cell in cells]
    return [
        (body, options, "figure" in str(options.get("tags", "")) or bool(DRAWS.search(body)))
        for name, _, options, body in directives(path.read_text())
        if name == "code-cell"
    ]


def figures(path: Path) -> list[tuple[str | None, str | None, str | None]]:
    """(name, caption, alternative text) of each figure of a notebook or page."""
    prose = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(prose)["cells"]
        prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    figures = []
    for metadata in [metadata for _, metadata, drawn in code_cells(path) if drawn]:
        figure, image = (metadata.get("mystnb", {}).get(key, {}) for key in ("figure", "image"))
        figures.append((figure.get("name"), figure.get("caption"), image.get("alt")))
    for name, _, options, body in directives(prose):
        if name in ("figure", "image", "glue:figure"):
            figures.append((options.get("name"), body.strip(), options.get("alt")))
    return figures


def draws(cell: dict) -> bool:
    """Whether a cell of a notebook is tagged as a figure, or has stored a picture."""
    stored = {kind for output in cell["outputs"] for kind in output.get("data", {})}
    return "figure" in cell["metadata"].get("tags", []) or bool(PICTURES & stored)


def undescribed(path: Path) -> list[str]:
    """What is wrong with the figures of a notebook or page."""
    faults = []
    for number, (name, caption, alt) in enumerate(figures(path), 1):
        if not name:
            faults.append(f"{path.name}, figure {number}: no name, so it has no number to refer to")
        if not (caption or "").strip():
            faults.append(f"{path.name}, figure {number}: no caption")
        if len((alt or "").split()) < 5:
            faults.append(f"{path.name}, figure {number}: no alternative text, or none that describes it")
        elif (alt or "").strip() == (caption or "").strip():
            faults.append(f"{path.name}, figure {number}: the alternative text repeats the caption")
    return faults


def test_toc_and_files_agree():
    listed = toc_files()
    assert len(set(listed)) == len(listed)
    there = {path.relative_to(ROOT).with_suffix("").as_posix() for path in [*NOTEBOOKS, *PAGES]}
    assert set(listed) == there


def test_every_figure_is_named_captioned_and_described():
    assert [fault for path in [*NOTEBOOKS, *PAGES] for fault in undescribed(path)] == []


def test_figures_fit_beside_the_sidebars_and_their_letters_are_twelve_pixels_high():
    for path in NOTEBOOKS:
        outputs = [one for cell in json.loads(path.read_text())["cells"] for one in cell.get("outputs", [])]
        stored = [one["data"] for one in outputs if PICTURES & set(one.get("data", ()))]
        assert stored, path.name
        for picture in stored:
            svg = "".join(picture["image/svg+xml"])
            assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) <= 72 * PICTURES_WIDTH, path.name
            # Matplotlib's glyphs are 100 units high.
            assert min(float(size) for size in re.findall(r"scale\(([\d.]+) -", svg)) >= 0.12, path.name


def without_provenance(path: Path) -> list[str]:
    """The names of figures that no line of provenance follows in the next cell."""
    cells = code_cells(path)
    names = [metadata.get("mystnb", {}).get("figure", {}).get("name") for _, metadata, _ in cells]
    after = [*(source for source, _, _ in cells), ""][1:]
    return [
        name
        for name, (_, _, drawn), following in zip(names, cells, after, strict=True)
        if drawn and f'show_provenance("{name}", ' not in following
    ]


def test_provenance_follows_every_figure():
    assert [name for path in [*NOTEBOOKS, *PAGES] for name in without_provenance(path)] == []


def test_citation_file_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == hfclib.__version__
    assert citation["license"] == "BSD-3-Clause"


HEAD = '<!DOCTYPE html><html lang="en"><title>A page</title>'
GOOD = HEAD + '<body id="top"><a href="other.html#there">x</a><img src="a%20b.png" alt="a line that rises"></body>'


@pytest.fixture
def book(tmp_path):
    (tmp_path / "index.html").write_text(GOOD)
    (tmp_path / "other.html").write_text(
        HEAD + '<p id="there"><a href="https://example.org/a">out</a><a href="#">up</a></p>'
        '<link rel="canonical" href="https://example.org/"><img src="data:image/png;base64,AA==" alt="a dot on white">'
    )
    (tmp_path / "a b.png").write_bytes(b"")
    (tmp_path / "style.css").write_text("p { background: url('a b.png') } q { background: url(data:image/png,x) }")
    return tmp_path


def test_a_sound_book_has_no_faults(book):
    assert check_html.faults(book) == []


def test_a_fault_of_the_built_book_is_found(book):
    for name, content, fault in [
        ("page.html", '<script src="https://example.org/x.js"></script>', "from outside"),
        ("page.html", '<script src="//example.org/x.js"></script>', "from outside"),
        ("page.html", '<link rel="stylesheet" href="https://example.org/x.css">', "from outside"),
        ("page.html", '<link rel="preconnect" href="https://example.org">', "from outside"),
        ("page.html", '<img alt="a line that rises" src="https://example.org/x.png">', "from outside"),
        ("page.html", '<script>const URL = "https://example.org/lib/index.js"</script>', "from outside"),
        ("page.html", "<style>@import 'https://example.org/x.css';</style>", "from outside"),
        ("page.html", '<p style="background: url(https://example.org/x.png)"></p>', "from outside"),
        ("style.css", "@font-face { src: url(https://example.org/x.woff2) }", "from outside"),
        ("style.css", "p { background: url(missing.png) }", "leads nowhere"),
        ("page.html", '<img src="a%20b.png">', "no alternative text"),
        ("page.html", '<img src="a%20b.png" alt=" ">', "no alternative text"),
        ("page.html", '<img src="a%20b.png" alt="a b.png">', "no alternative text"),
        ("page.html", '<a href="missing.html">x</a>', "leads nowhere"),
        ("page.html", '<a href="../outside.html">x</a>', "leads nowhere"),
        ("page.html", '<a href="other.html#nowhere">x</a>', "no #nowhere"),
        ("page.html", '<script src="missing.js"></script>', "leads nowhere"),
        ("page.html", HEAD + "x" * 2_000_000, "bytes with its pictures"),
        ("a b.png", "x" * 2_000_000, "bytes with its pictures"),
        ("page.html", '<meta http-equiv="Refresh" content="0; url=missing.html">', "leads nowhere"),
    ]:
        before = (book / name).read_text() if (book / name).exists() else None
        (book / name).write_text(content)
        found = check_html.faults(book)
        assert len(found) == 1, content
        assert fault in found[0]
        if before is None:
            (book / name).unlink()
        else:
            (book / name).write_text(before)


def test_the_exit_status_of_check_html(book):
    assert check_html.main([str(book)]) == 0
    (book / "page.html").write_text('<a href="missing.html">x</a>')
    assert check_html.main([str(book)]) == 1
    assert check_html.main([str(book / "nothing")]) == 2


def test_every_chapter_says_what_its_figures_are_drawn_from():
    sources = {path: path.read_text().replace('\\"', '"') for path in [*NOTEBOOKS, *PAGES]}
    named = {page: set(re.findall(r'show_provenance\(\s*"([a-z0-9-]+)"', text)) for page, text in sources.items()}
    for path in NOTEBOOKS:
        assert set(CHAPTERS[path.stem].figures) == named.pop(path), path.name
    assert set(chapters.OTHER_FIGURES) == set.union(*named.values())


def test_a_notebooks_title_is_the_question_of_its_chapter():
    for path in NOTEBOOKS:
        title = "".join(json.loads(path.read_text())["cells"][0]["source"]).splitlines()[0]
        assert title == f"# {CHAPTERS[path.stem].question}"


def test_a_chapter_says_what_it_takes_and_builds_on_earlier_ones():
    names = list(CHAPTERS)
    for at, (name, chapter) in enumerate(CHAPTERS.items()):
        line = chapters.effort(name)
        assert re.match(r"About \d minutes to read\. ", line), line
        assert set(chapter.builds_on) <= set(names[:at]), name
        assert [f"../notebooks/{other}.html" for other in chapter.builds_on] == re.findall(r'href="([^"]*)"', line)


def test_words_of_a_chapter_are_those_that_are_not_folded(tmp_path):
    texts = ["# A title", "Seen.\n\n:::{dropdown} Solution\nfolded\n:::", "## Appendix\n\nfolded"]
    cells = [{"cell_type": "markdown", "source": [text]} for text in texts]
    (tmp_path / "one.ipynb").write_text(json.dumps({"cells": cells}))
    assert chapters.words(tmp_path / "one.ipynb") == ["#", "A", "title", "Seen."]


def test_tables_about_the_chapters_have_a_row_for_each():
    questions = chapters.questions().data
    for name, chapter in CHAPTERS.items():
        assert f'<a href="../notebooks/{name}.html">{chapter.question}</a>' in questions
    parameters = chapters.parameters().data
    for name in {name for chapter in CHAPTERS.values() for name in chapter.parameters.model_fields}:
        assert f"<code>{name}</code>" in parameters
    assert "<td>detection</td>" in parameters  # which has presets of its own
    for name in {*chapters.OTHER_FIGURES, *(name for chapter in CHAPTERS.values() for name in chapter.figures)}:
        assert chapters.figures().data.count(f"<code>{name}</code>") == 1


def test_every_module_but_those_of_chapters_is_in_the_reference():
    pages = "".join(path.read_text() for path in (ROOT / "book" / "api").glob("*.md"))
    listed = re.findall(r"automodule:: (hfclib[\w.]*)", pages)
    documented = set(listed)
    assert len(listed) == len(documented)  # Sphinx warns of a second description
    paths = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "hfclib").rglob("*.py")]
    modules = {".".join(path.parts) for path in paths if not path.name.startswith("_")} - {"hfclib.cli"}
    assert documented == {module for module in modules if chapter_of(module) is None}
