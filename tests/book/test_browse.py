"""What is found wrong with a page that is opened in a browser."""

import pytest

from book import browse

PICTURE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='600' height='80'%3E%3C/svg%3E"
SOUND = f"""<!DOCTYPE html><html lang="en"><head><title>A page</title><style>
figure {{ margin: 0; overflow-x: auto; }} img {{ background: #fff; }} :root {{ color-scheme: light dark; }}
</style></head><body><main class="bd-article-container"><h1>A page</h1>
<figure tabindex="0"><img src="{PICTURE}" width="600" alt="A white sheet"></figure></main></body></html>"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("", "", None),
        ("<h1>", '<p style="background: #fff; color: #bbb">faint</p><h1>', "contrast"),
        (
            "</style>",
            "@media (prefers-color-scheme: dark) { h1 { background: #000; color: #222; } }</style>",
            "contrast",
        ),
        ("<h1>", '<p style="width: 600px">wide</p><h1>', "beyond a phone's edge"),
        ("</h1>", '<a style="position: absolute; left: 380px; visibility: hidden">Link</a></h1>', "a page 4"),
        ("margin: 0;", "margin: 0; width: 600px;", "beyond a phone's edge"),
        ("img {", "img { max-width: 100%;", "smaller than drawn: A white sheet"),
        ("</style>", "@media (prefers-color-scheme: dark) { img { filter: brightness(.8); } }</style>", "in the dark"),
    ],
)
def test_each_fault_of_a_page_is_found(browser, tmp_path, old, new, fault):
    page = tmp_path / "page.html"
    page.write_text(SOUND.replace(old, new, 1))
    found = browse.faults(browser, [page])
    assert bool(found) == bool(fault)
    assert all(fault in one for one in found)


def summary(words="Two words", width=220, height=100, below=0):
    """A page with the explorer, whose findings stand so far down."""
    return f"""<!DOCTYPE html><html lang="en"><head><title>A page</title><style>
    @media print {{ #what-each-chapter-asks {{ display: none; }} }}
    </style></head><body><main><h1>A page</h1>
    <form id="hfc-explorer" class="hfc-box">
    <figure data-part="image"><canvas width="{width}" height="{height}"></canvas></figure>
    <figure data-part="hfc"><canvas height="{height}"></canvas></figure><span class="hfc-answer">frog</span>
    <input type="range" name="radius" aria-label="Radius"><p role="status">True class: frog</p></form>
    <div class="tag_hfc-findings" style="margin-top: {below}px"><ol><li>{words}</li></ol></div>
    <section id="what-each-chapter-asks"><h2>Chapters</h2><p>{"more " * 400}</p></section></main></body></html>"""


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, None),
        ({"below": 600}, "not on the first screen of 1280 x 800: <li"),
        ({"width": 219}, "pictures of 219 px"),
        ({"height": 400}, "not on the first screen"),
        ({"words": "word " * 350}, "35"),
        ({"words": "<br>" * 150}, "printed on 3 sheets"),
    ],
)
def test_each_fault_of_the_summary_is_found(browser, tmp_path, given, fault):
    page = tmp_path / "page.html"
    page.write_text(summary(**given))
    found = browse.faults(browser, [page])
    assert bool(found) == bool(fault)
    assert not fault or any(fault in line for line in found)
