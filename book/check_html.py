"""Check a built book: nothing comes from outside, pictures have alternative text, links lead on, no page is heavy.

`browse` opens its pages as well.

    python -m book.check_html [_build/html]

Prints one line per fault and exits with 1 if there is any, with 2 if there is no book.
"""

import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself; a link that a reader may click is not in this list.
FETCHED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
NOT_FETCHED = {"author", "canonical", "help", "index", "license", "next", "prev", "search"}  # relations of <link>
CSS_ADDRESS = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")
# An address in a script that is code, or that the script fetches.
SCRIPT_ADDRESS = re.compile(
    r"""["'`]((?:https?:)?//[^"'`\s]+\.(?:m?js|css|json|wasm))["'`]|"""
    r"""(?:import|fetch|importScripts)\s*\(\s*["'`]((?:https?:)?//[^"'`]+)"""
)
# Bytes of a page with its pictures, without what all pages share.
HEAVY, HEAVY_WITH_EXPLORER = 2_000_000, 5_000_000


class Page(HTMLParser):
    """What a page names: `fetched` addresses, `links`, the `ids` to link to, and pictures without a description."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.undescribed: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._inside = tag if tag in ("script", "style") else ""
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag in ("a", "area") and "href" in given:
            self.links.append(given["href"])
        if tag != "link" or not NOT_FETCHED & set(given.get("rel", "").split()):
            for name in FETCHED.get(tag, ()):
                parts = given.get(name, "").split(",") if name == "srcset" else [given.get(name, "")]
                self.fetched += [part.split()[0] for part in parts if part.strip()]
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.links.append(given.get("content", "").partition("url=")[2])
        self.fetched += css_addresses(given.get("style", ""))
        # Without a description Sphinx writes the picture's own path.
        described, picture = given.get("alt", "").strip(), given.get("src", "")
        if tag == "img" and (not described or described == picture or described.endswith((".png", ".svg"))):
            self.undescribed.append(picture[:80])

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.fetched += css_addresses(data)
        elif self._inside == "script":
            self.fetched += [first or second for first, second in SCRIPT_ADDRESS.findall(data)]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def css_addresses(text: str) -> list[str]:
    """The addresses that a style sheet fetches."""
    return [first or second for first, second in CSS_ADDRESS.findall(text)]


def own_bytes(path: Path, page: Page) -> int:
    """The size of a page with the pictures and the explorer's files that it fetches, without what all pages share."""
    paths = {urlsplit(address).path for address in page.fetched if not urlsplit(address).scheme}
    own = [path.parent / unquote(part) for part in paths if "_static/" not in part or "_static/explorer/" in part]
    return sum(file.stat().st_size for file in [path, *own] if file.is_file())


def pages_of(folder: Path) -> list[Path]:
    """The pages of a built book, without those that the theme keeps beside its scripts."""
    paths = (path.resolve() for path in sorted(folder.rglob("*.html")))
    return [path for path in paths if not path.is_relative_to(folder.resolve() / "_static")]


def faults(folder: Path) -> list[str]:
    """All faults of the files of the book in `folder`, a line each, without repetitions."""
    pages = {path: Page(path.read_text("utf-8")) for path in pages_of(folder)}
    messages: dict[str, None] = {}

    def check(source: Path, address: str, fetched: bool) -> None:
        name, parts = source.relative_to(folder.resolve()), urlsplit(address)
        if parts.scheme == "data" or (not fetched and (parts.scheme or parts.netloc)):
            return
        if parts.scheme or parts.netloc:
            messages[f"{name}: fetches {address} from outside"] = None
            return
        target = source
        if parts.path:
            target = (source.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
        if not target.is_relative_to(folder.resolve()) or not target.is_file():
            messages[f"{name}: {address} leads nowhere"] = None
        elif not fetched and parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            messages[f"{name}: there is no #{parts.fragment} in {target.relative_to(folder.resolve())}"] = None

    for path, page in pages.items():
        for address in page.fetched:
            check(path, address, fetched=True)
        for address in page.links:
            check(path, address, fetched=False)
        for picture in page.undescribed:
            messages[f"{path.relative_to(folder.resolve())}: no alternative text for {picture}"] = None
        limit = HEAVY_WITH_EXPLORER if any("/explorer/" in address for address in page.fetched) else HEAVY
        if (size := own_bytes(path, page)) > limit:
            messages[f"{path.relative_to(folder.resolve())}: {size:,} bytes with its pictures, of {limit:,}"] = None
    for path in sorted(folder.rglob("*.css")):
        for address in css_addresses(path.read_text("utf-8", errors="replace")):
            check(path.resolve(), address, fetched=True)
    return list(messages)


def main(arguments: list[str], look: Callable[[Path], list[str]] = faults) -> int:
    """Print what `look` finds wrong with the book in the folder given; the exit status."""
    folder = Path(arguments[0] if arguments else "_build/html")
    if not (folder / "index.html").is_file():
        print(f"{folder} holds no built book: run `make book` first", file=sys.stderr)
        return 2
    messages = look(folder)
    print("\n".join(messages) or f"{folder}: no fault found")
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
