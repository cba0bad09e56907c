"""The block `site` of _config.yml: what it turns on, on a book of two pages."""

import re
from pathlib import Path

import pytest
import yaml

application = pytest.importorskip("sphinx.application")
errors = pytest.importorskip("sphinx.errors")
pytest.importorskip("myst_nb")
from book._ext import site_links  # noqa: E402 - it needs Sphinx

ROOT = Path(__file__).parents[2]
CONF = """
extensions = ["myst_nb", "book._ext.site_links", "book._ext.pages"]
html_theme = "sphinx_book_theme"
nb_execution_mode = "off"
site = {site!r}
"""
PAGE = """---
file_format: mystnb
kernelspec:
  name: python3
---
# A page

Its text.

```{toctree}
book/glossary
```
"""
FILLED = {"address": "https://example.org/book", "repository": "https://github.com/one/two", "doi": "10.5281/zenodo.12"}


def page(folder: Path, site: dict) -> str:
    """The HTML of a notebook's page in a book that is published there."""
    (folder / "book").mkdir()
    (folder / "conf.py").write_text(CONF.format(site=site))
    (folder / "book" / "glossary.md").write_text("# Words\n\n```{glossary}\nLFC\n  What is low.\n```\n")
    (folder / "index.md").write_text(PAGE)
    built = folder / "_build"
    application.Sphinx(folder, folder, built / "html", built / "doctrees", "html", status=None).build()
    return (built / "html" / "index.html").read_text()


def addresses(html: str) -> set[str]:
    """Everything outside that the page names in a link or for those who share it."""
    return set(re.findall(r'(?:href|content)="(https?://[^"]*)"', html))


def test_an_empty_block_leads_nowhere(tmp_path):
    html = page(tmp_path, {"address": "", "repository": "", "branch": "main", "doi": ""})
    assert addresses(html) - {"https://sphinx-book-theme.readthedocs.io"} == set()
    assert "og:image" not in html
    assert "mybinder" not in html


def test_a_filled_block_turns_on_everything(tmp_path):
    html = page(tmp_path, FILLED)
    assert addresses(html) >= {
        "https://example.org/book/index.html",  # canonical
        "https://example.org/book/_static/share.png",
        "https://github.com/one/two",
        "https://github.com/one/two/edit/main/index.md",
        "https://mybinder.org/v2/gh/one/two/main?urlpath=lab/tree/index.md",
        "https://doi.org/10.5281/zenodo.12",
    }
    assert '<link rel="canonical" href="https://example.org/book/index.html"' in html
    assert '<meta property="og:title" content="A page">' in html
    assert '<meta name="citation_doi" content="10.5281/zenodo.12">' in html
    assert "/issues/new" in html


@pytest.mark.parametrize(
    ("site", "fault"),
    [
        ({"adress": "https://example.org"}, "no field adress, only address"),
        ({"address": "example.org"}, "expected address to be like"),
        ({"repository": "https://github.com/one"}, "expected repository to be like"),
        ({"doi": "https://doi.org/10.5281/zenodo.12"}, "expected doi to be like"),
    ],
)
def test_what_can_be_no_place_is_refused(site, fault):
    with pytest.raises(errors.ConfigError, match=fault):
        site_links.checked(site)


def test_the_book_gives_its_block_to_the_extension():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["sphinx"]["config"]["site"] == config["site"]
    assert set(config["site"]) == set(site_links.FIELDS)
    site_links.checked(config["site"])
