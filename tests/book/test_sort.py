"""Tables that a reader can sort, in a real browser."""

from pathlib import Path

import pandas as pd

from hfclib.paper.show import show_table

SCRIPT = (Path(__file__).parents[2] / "book/_static/sort.js").read_text()


def test_a_click_on_a_heading_sorts_the_rows(browser):
    frame = pd.DataFrame({"test": [".80", "\u2013", ".9", "-.1"]}, index=pd.Index(["b", "d", "a", "c"], name="network"))
    page = browser.new_page()
    page.set_content(f"<script>{SCRIPT}</script>{show_table(frame, sortable=True).data}{show_table(frame).data}")

    def rows(table):
        return "".join(page.locator(f"table >> nth={table} >> tbody td:first-child").all_inner_texts())

    assert page.locator("button").all_inner_texts() == ["network", "test"]  # none in the second table
    for heading, order in (("test", "abcd"), ("test", "cbad"), ("network", "abcd"), ("network", "dcba")):
        page.click(f"text={heading} >> nth=0")
        assert rows(0) == order, heading
    assert rows(1) == "bdac"
    assert page.locator("[aria-sort]").all_inner_texts() == ["network"]
    page.close()
