"""The book's own Sphinx extension, on a book of two pages."""

import base64
import re
import zlib

import pytest

application = pytest.importorskip("sphinx.application")

GLOSSARY = """
Words
=====
.. glossary::

   LFC
     What is *low*.

   masked
     A gain that is gone.

   mAP
     A score.

   r
     Where an image is cut.

   95 % interval
     Where a mean may lie.
"""
PAGE = """
The LFC in a title
==================
Not ``LFC``, but an LFC, once; the second LFC is as before. Unmasked, non-masked, and *Masked*. A map is no mAP.
At r = 4 it is .23 ± .04, or .47
[.38, -.56]: a 95 % interval.

.. image:: curve.svg
   :alt: a curve that rises

.. image:: panels.svg
   :alt: two panels

.. image:: pixels.svg
   :alt: pixels
   :class: hfc-pixels
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="{}pt" height="72pt">{}</svg>'
STACKED = SVG.format(72, "<!-- one below the other -->")


@pytest.fixture
def page(tmp_path):
    """The HTML of the page."""
    (tmp_path / "conf.py").write_text('extensions = ["book._ext.pages"]\n')
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "glossary.rst").write_text(GLOSSARY)
    (tmp_path / "index.rst").write_text(PAGE + "\n.. toctree::\n\n   book/glossary\n")
    (tmp_path / "curve.svg").write_text(SVG.format(144, ""))
    (tmp_path / "pixels.svg").write_text(SVG.format(144, '<image href="data:image/png;base64,AA=="/>'))
    packed = base64.b64encode(zlib.compress(STACKED.encode())).decode()
    (tmp_path / "panels.svg").write_text(SVG.format(288, f"<!-- phone: {packed} -->"))
    app = application.Sphinx(tmp_path, tmp_path, tmp_path / "_html", tmp_path / "_doctrees", "html", status=None)
    app.build()
    return (tmp_path / "_html" / "index.html").read_text()


def test_the_first_mention_of_a_word_leads_to_the_glossary(page):
    links = re.findall(r'<a class="hfc-word[^>]*href="([^"]*)" title="([^"]*)">([^<]+)<', page)
    assert links == [
        ("book/glossary.html#term-LFC", "What is low.", "LFC"),
        ("book/glossary.html#term-masked", "A gain that is gone.", "Masked"),
        ("book/glossary.html#term-mAP", "A score.", "mAP"),
        ("book/glossary.html#term-r", "Where an image is cut.", "r"),
        ("book/glossary.html#term-95-interval", "Where a mean may lie.", "95\u00a0% interval"),
    ]
    assert "but an <a" in page


def test_numbers_are_not_parted_at_the_end_of_a_line(page):
    assert "</a>\u00a0=\u00a04 it is .23\u00a0±\u00a0.04, or .47\u00a0[.38,\u00a0-.56]: a" in page


def test_a_figure_is_shown_at_72_pixels_an_inch_and_leads_to_its_file(page):
    assert re.search(r'<a class="[^"]*image-reference" href="_images/curve.svg"><img [^>]*width: 144.0?px', page)


def test_only_charts_may_be_dimmed_in_the_dark(page):
    """A picture of pixels shows what a network is fed."""
    classes = dict(re.findall(r'<img alt="[^"]*" class="([^"]*)" src="_images/([^"]*)"', page))
    assert {file: "hfc-chart" in names for names, file in classes.items()} == {
        "curve.svg": True,
        "panels.svg": True,
        "panels.phone.svg": True,
        "pixels.svg": False,
    }


def test_a_wide_figure_has_a_second_picture_for_phones(page, tmp_path):
    assert (tmp_path / "_html" / "_images" / "panels.phone.svg").read_text() == STACKED
    assert not (tmp_path / "_html" / "_images" / "curve.phone.svg").exists()
    pictures = re.findall(r'<img alt="two panels" class="([^"]*)" src="_images/([^"]*)"', page)
    assert [file for _, file in pictures] == ["panels.svg", "panels.phone.svg"]
    assert ["hfc-wide" in pictures[0][0], "hfc-phone" in pictures[1][0]] == [True, True]
    assert "hfc-wide" not in re.search(r'<img [^>]*src="_images/curve.svg"', page)[0]


def test_a_page_says_what_a_search_shows(page):
    assert '<meta name="description" content="Not LFC, but an LFC, once;' in page
    assert '<meta property="og:title" content="The LFC in a title">' in page
