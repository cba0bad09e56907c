"""Sphinx extension of this book: what a chapter takes, figures at their size, words explained where they first stand,
what a search shows, and the order of names in the reference."""

import re
from html import escape
from pathlib import Path
from textwrap import shorten

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.autodoc import ModuleDocumenter

import hfclib
from book.chapters import effort
from hfclib.charts import WIDTH
from hfclib.paper.registry import CHAPTERS

GLOSSARY = "book/glossary"
UNBROKEN = re.compile(
    r"(?<=\br)\s(?==)|(?<=\br\s=)\s(?=\d)|(?<=\d)\s(?=%)|(?<=\d)\s(?=x\s\d)|(?<=\d\sx)\s(?=\d)"
    r"|(?<=\d)\s(?=[±[])|(?<=±)\s|(?<=\d,)\s(?=[-.\d]+\])"
)
PROSE = (nodes.paragraph, nodes.caption, nodes.emphasis, nodes.strong)


def say_what_it_takes(app: Sphinx, doctree: nodes.document) -> None:
    """Below the title of a chapter: minutes to read, and the chapters to read first."""
    folder, _, name = app.env.docname.rpartition("/")
    if folder == "notebooks" and name in CHAPTERS:
        title = next(doctree.findall(nodes.title))
        line = nodes.raw("", f'<p class="hfc-effort">{effort(name)}</p>', format="html")
        title.parent.insert(title.parent.index(title) + 1, line)


def fold_appendix(app: Sphinx, doctree: nodes.document) -> None:
    """Fold the section "Appendix" of a page: what a referee wants, and the main text does without."""
    for section in doctree.findall(nodes.section):
        if section[0].astext() == "Appendix":
            words = "More tables, figures and checks" if app.env.docname.startswith("notebooks/") else "Details"
            section.insert(1, nodes.raw("", f'<details class="hfc-appendix"><summary>{words}</summary>', format="html"))
            section.append(nodes.raw("", "</details>", format="html"))


def figures_at_their_size(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Show charts at 96 pixels an inch, and wider figures at 72.

    Sphinx makes every picture with a scale a link to its file. Charts get a class, since they may be dimmed in the
    dark, which a figure with pixels may not, and one that is narrow another, with which it fits a phone.
    """
    for image in doctree.findall(nodes.image):
        file = Path(app.srcdir, image["uri"])
        if file.suffix == ".svg" and file.exists():
            drawn = file.read_text()
            width = re.search(r'<svg[^>]*\swidth="([\d.]+)pt"', drawn)
            narrow = bool(width) and float(width[1]) <= 72 * WIDTH + 1
            image["scale"] = 100 if narrow else 75  # of CSS's 96
            image["classes"] += ["hfc-chart"] * ("<image" not in drawn) + ["hfc-fits"] * narrow


def explain_words(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link the first mention of each word of the glossary in a page's prose to its entry, whose text comes on hover."""
    if docname in (GLOSSARY, "book/bibliography") or docname.startswith("book/api"):
        return
    meanings = {
        term.astext(): (term["ids"][0], " ".join(item[-1].astext().split()))
        for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item)
        for term in item.findall(nodes.term)
    }
    # A sentence may begin with a word, but a heat map is no mAP.
    terms = {spelling: term for term in meanings for spelling in (term, term[0].upper() + term[1:])}
    longest_first = sorted(map(re.escape, terms), key=len, reverse=True)
    # `hold_together` has put spaces that do not break into some.
    words = re.compile(rf"(?<![\w-])(?:{'|'.join(longest_first)})(?![\w-])".replace(r"\ ", r"[ \u00a0]"))
    page = app.builder.get_relative_uri(docname, GLOSSARY)
    for text in list(doctree.findall(nodes.Text)):
        before = text.parent[text.parent.index(text) - 1]
        linked = isinstance(text.parent.parent, nodes.reference) or before.astext().startswith("<a ")
        if linked or not isinstance(text.parent, PROSE):
            continue
        pieces, end = [], 0
        for match in words.finditer(text):
            if found := meanings.pop(terms[match[0].replace("\u00a0", " ")], None):
                anchor, meaning = found
                link = {"refuri": f"{page}#{anchor}", "reftitle": meaning, "internal": True, "classes": ["hfc-word"]}
                pieces += [nodes.Text(text[end : match.start()]), nodes.reference("", match[0], **link)]
                end = match.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(text[end:])])


def hold_together(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """No line breaks within "r = 4", "95 %", "3 x 3", ".23 ± .04" and ".47 [.38, .56]"; in tables of an output, only
    within "r = 4".

    In headings that name a module, breaks after its dots.
    """
    for raw in list(doctree.findall(nodes.raw)):
        if re.search("<table|hfc-board", raw.astext()):
            held = re.sub(r"\br = (?=\d)", "r\u00a0=\u00a0", raw.astext())
            raw.parent.replace(raw, nodes.raw("", held, **raw.non_default_attributes()))
    for text in list(doctree.findall(nodes.Text)):
        held = UNBROKEN.sub("\u00a0", text)
        if isinstance(text.parent, nodes.title) and text.startswith("hfclib."):
            held = text.replace(".", ".\u200b")
        if held != text and isinstance(text.parent, (*PROSE, nodes.title, nodes.term)):
            text.parent.replace(text, nodes.Text(held))


def describe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """For searches and shared links: the page's title and first paragraph."""
    first = doctree and doctree.next_node(nodes.paragraph)
    if not first:
        return
    text = shorten(re.sub(r" \[[A-Z]\w*\+?\w*\]", "", first.astext()), 200, placeholder=" …")
    tags = {"description": text, "og:description": text, "og:title": context["title"]}
    context["metatags"] += "".join(
        f'<meta {"property" if ":" in name else "name"}="{name}" content="{escape(content)}">\n'
        for name, content in tags.items()
    )


class PublicFirst(ModuleDocumenter):
    """Puts what `hfclib` itself has in front of a module's other members, which stay in the order of the source."""

    def sort_members(self, documenters: list, order: str) -> list:
        public = {getattr(hfclib, name).__name__ for name in hfclib.__all__}
        ordered = super().sort_members(documenters, order)
        return sorted(ordered, key=lambda one: one[0].name.split("::")[-1] not in public)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("doctree-read", say_what_it_takes)
    app.connect("doctree-read", fold_appendix)
    app.connect("doctree-resolved", figures_at_their_size)
    app.connect("doctree-resolved", hold_together)  # before a link parts the words
    app.connect("doctree-resolved", explain_words)
    app.connect("html-page-context", describe)
    app.add_autodocumenter(PublicFirst, override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
