"""The book's own Sphinx extension, on a book of two pages."""

import re

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

.. image:: chart.svg
   :alt: a curve that rises

.. image:: pictures.svg
   :alt: many pictures

.. image:: pixels.svg
   :alt: pixels
   :class: hfc-pixels
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="{}pt" height="72pt">{}</svg>'


@pytest.fixture
def page(tmp_path):
    """The HTML of the page."""
    (tmp_path / "conf.py").write_text('extensions = ["book._ext.pages"]\n')
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "glossary.rst").write_text(GLOSSARY)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "batchnorm.rst").write_text("Why?\n====\nSince.\n")
    (tmp_path / "index.rst").write_text(PAGE + "\n.. toctree::\n\n   book/glossary\n   notebooks/batchnorm\n")
    (tmp_path / "chart.svg").write_text(SVG.format(144, ""))
    (tmp_path / "pictures.svg").write_text(SVG.format(648, ""))
    (tmp_path / "pixels.svg").write_text(SVG.format(144, '<image href="data:image/png;base64,AA=="/>'))
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


def test_a_narrow_figure_fits_a_phone_and_a_wide_one_keeps_its_size_and_each_leads_to_its_file(page):
    shown = re.findall(r'<a class="[^"]*image-reference" href="_images/(\w+).svg"><img ([^>]*)', page)
    (first, chart), (second, pictures), *_ = shown
    assert (first, second) == ("chart", "pictures")
    assert "hfc-fits" in chart
    assert "width: 192" in chart  # 144 points at 96 pixels an inch
    assert "hfc-fits" not in pictures
    assert "width: 648" in pictures  # at 72


def test_only_charts_may_be_dimmed_in_the_dark(page):
    """A picture of pixels shows what a network is fed."""
    classes = dict(re.findall(r'<img alt="[^"]*" class="([^"]*)" src="_images/([^"]*)"', page))
    assert {file: "hfc-chart" in names for names, file in classes.items()} == {
        "chart.svg": True,
        "pictures.svg": True,
        "pixels.svg": False,
    }


def test_below_a_chapters_title_stands_what_it_takes(page, tmp_path):
    chapter = (tmp_path / "_html" / "notebooks" / "batchnorm.html").read_text()
    assert "hfc-effort" not in page
    line = chapter.index("</h1>"), chapter.index('class="hfc-effort"'), chapter.index("<p>Since.")
    assert list(line) == sorted(line)
    assert 'Read first: <a href="../notebooks/fig4.html">heuristics</a>.' in chapter
    assert '<meta name="description" content="Since.">' in chapter


def test_a_page_says_what_a_search_shows(page):
    assert '<meta name="description" content="Not LFC, but an LFC, once;' in page
    assert '<meta property="og:title" content="The LFC in a title">' in page
