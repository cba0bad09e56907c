"""The first page as a PDF of one sheet: made where Chromium is there, and named nowhere else."""

import shutil

import pytest

from book import browse

application = pytest.importorskip("sphinx.application")
errors = pytest.importorskip("sphinx.errors")
from book._ext import summary  # noqa: E402 - it needs Sphinx


def built(folder, text="Short."):
    (folder / "conf.py").write_text('extensions = ["book._ext.summary"]\nroot_doc = "book/start"\n')
    (folder / "book").mkdir()
    (folder / "book" / "start.rst").write_text(f"A title\n=======\n{text}\n\n.. summary-pdf::\n")
    application.Sphinx(folder, folder, folder / "_html", folder / "_doctrees", "html", status=None).build()
    return folder / "_html" / "book"


def test_the_page_is_printed_and_links_to_the_pdf(browser, tmp_path):
    folder = built(tmp_path)
    assert f'href="{summary.PDF}"' in (folder / "start.html").read_text()
    assert browse.sheets((folder / summary.PDF).read_bytes()) == 1


def test_more_than_a_sheet_is_refused(browser, tmp_path):
    with pytest.raises(errors.ExtensionError, match=r"expected the summary on one sheet, got \d in"):
        built(tmp_path, "\n\n".join(["A paragraph."] * 60))


def test_without_chromium_there_is_neither_a_pdf_nor_a_link(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    folder = built(tmp_path)
    assert "pdf" not in (folder / "start.html").read_text()
    assert not list(folder.glob("*.pdf"))


def test_a_chromium_that_prints_nothing_stops_the_build(tmp_path, monkeypatch):
    (tmp_path / "chromium").symlink_to(shutil.which("false"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.ExtensionError, match="expected Chromium to print"):
        built(tmp_path)
