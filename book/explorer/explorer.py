"""The landing page's explorer: its stored answers, its data files, and the Sphinx extension that adds them to the book.

`python -m book.explorer.explorer --help` says what it does as a command.
"""

import argparse
import base64
import json
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn

from hfclib.batching import BATCH_SIZE, logits
from hfclib.charts import NETWORK_COLOURS
from hfclib.conditions import PAPER_RADII
from hfclib.data import CLASSES, MEAN, embedded, to_float
from hfclib.frequency import split
from hfclib.paper.batch_statistics import table
from hfclib.paper.batchnorm import all_recipes, cells_by_condition
from hfclib.paper.claims import evaluate
from hfclib.paper.intervals import Estimate, over_seeds
from hfclib.paper.presets import TITLES
from hfclib.runs.collect import published_runs
from hfclib.runs.predictions import weights_of
from hfclib.runs.store import WEIGHTS, Run, find, folders
from hfclib.training.recipe import RADII
from hfclib.transforms import FEEDS, feed_images, rescaled

HERE = Path(__file__).parent
ANSWERS = HERE / "answers.json"
IMAGES = (95, 134, 633, 692, 2568, 4435, 8267, 8501, *range(40))  # of the test set: the paper's eight, and the first 40
NETWORKS = [("vanilla", "running"), ("batchnorm", "running"), ("batchnorm", "batch"), ("adversarial", "running")]
SHOWN = ("vanilla", "batchnorm", "dropout", "mixup", "groupnorm", "adversarial")  # in the live picture


def runs() -> dict[str, Run]:
    """The published runs of seed 0 that answer in the explorer, by variant."""
    place = folders()[0]  # of published runs
    published = {variant: find(all_recipes()[variant], 0, place) for variant in dict(NETWORKS)}
    if missing := [variant for variant, run in published.items() if run is None]:
        raise FileNotFoundError(f"not stored at seed 0: {', '.join(missing)}")
    return published


def conditions(images: Tensor) -> Iterator[Tensor]:
    """What a network is fed of images (N, 3, 32, 32): themselves, then at each radius LFC raw and max, HFC in FEEDS."""
    yield images
    for radius in RADII:
        low, high = split(images, radius)
        yield from (low, rescaled(low, "max"), *(feed_images(high, feed, add_mean=True, colour=MEAN) for feed in FEEDS))


def asked(model: nn.Module, images: Tensor, bn_stats: str) -> Tensor:
    """The class with the largest logit and its softmax output in whole percent, (N, conditions, 2) uint8.

    Conditions are those of `conditions`.
    """
    exact = torch.stack([logits(model, fed, bn_stats=bn_stats).softmax(1) for fed in conditions(images)], dim=1)
    largest = exact.max(dim=2)
    return torch.stack([largest.indices, (100 * largest.values).round()], dim=2).to(torch.uint8)


def stored_content() -> dict:
    """The content of answers.json: what each of NETWORKS says of IMAGES, and the weights that the answers come from."""
    test, published = to_float(embedded("test")[0]), runs()
    batches = sorted({index // BATCH_SIZE for index in IMAGES})
    whole = torch.cat([test[BATCH_SIZE * batch :][:BATCH_SIZE] for batch in batches])
    places = [batches.index(index // BATCH_SIZE) * BATCH_SIZE + index % BATCH_SIZE for index in IMAGES]
    answers = []
    for variant, bn_stats in NETWORKS:
        model = published[variant].model()
        if bn_stats == "batch":
            answers.append(asked(model, whole, bn_stats)[places])
        else:
            answers.append(asked(model, test[list(IMAGES)], bn_stats))
    weights = {variant: weights_of(run.path) for variant, run in published.items()}
    content = base64.b64encode(torch.stack(answers).numpy().tobytes()).decode()
    return {"weights": weights, "torch": torch.__version__, "images": IMAGES, "answers": content}


def measured() -> dict[str, dict]:
    """What the live picture draws: [mean, low, high] over seeds of "accuracy" on the HFC and of BatchNorm's "gap".

    An accuracy's interval is over seeds, cut at 0 and 1; a gap's is that of the claims (`evaluate`). Keys are "variant
    statistics feed radius", and for the gap "vanilla's statistics, BatchNorm's, feed, radius". "seeds" has the number
    of networks by variant.
    """
    recipes = {variant: all_recipes()[variant] for variant in SHOWN}
    rows = table(published_runs(recipes))
    seeds = rows.groupby("variant")["seed"].nunique().to_dict()
    rows = rows.query("part == 'feeds' and band == 'hfc' and feed in @FEEDS and radius in @PAPER_RADII")
    cells = cells_by_condition(rows)
    keys = ["variant", "bn_stats", "feed", "radius"]
    by_seed = {key: ones.set_index("seed")["value"] for key, ones in rows.groupby(keys)}
    gaps = {
        (of_vanilla, statistics, feed, radius): evaluate(
            f"batchnorm.H{radius}_{feed}_{statistics} - vanilla.H{radius}_{feed}_{of_vanilla}", cells
        )
        for (variant, statistics, feed, radius), (second, of_vanilla, *others) in product(by_seed, repeat=2)
        if (variant, second) == ("batchnorm", "vanilla") and others == [feed, radius]
    }
    accuracy = {key: over_seeds(values) for key, values in by_seed.items()}
    return {"seeds": seeds} | {
        name: {" ".join(map(str, key)): _numbers(estimate, *ends) for key, estimate in found.items()}
        for name, found, ends in (("accuracy", accuracy, (0, 1)), ("gap", gaps, (-1, 1)))
    }


def _numbers(estimate: Estimate, least: float, most: float) -> list[float | None]:
    values = estimate.mean, estimate.low, estimate.high
    return [round(min(max(value, least), most), 4) if np.isfinite(value) else None for value in values]


def data() -> dict:
    """All that the page shows, but for the weights of the live network."""
    images, labels = (tensor[list(IMAGES)] for tensor in embedded("test"))
    networks = [{"name": TITLES[variant], "colour": NETWORK_COLOURS[variant]} for variant, _ in NETWORKS]
    return {
        "classes": CLASSES,
        "mean": MEAN,
        "radii": PAPER_RADII,
        "images": IMAGES,
        "labels": labels.tolist(),
        "pixels": base64.b64encode(images.numpy().tobytes()).decode(),
        "answers": json.loads(ANSWERS.read_text())["answers"],
        "networks": networks,
        "variants": {variant: {"name": TITLES[variant], "colour": NETWORK_COLOURS[variant]} for variant in SHOWN},
        **measured(),
    }


def network() -> dict:
    """The code of the worker, and the tensors of its live network, vanilla at seed 0, as they are stored."""
    tensors = safetensors.numpy.load_file(runs()["vanilla"].path / WEIGHTS)
    content = b"".join(tensor.astype("<f2").tobytes() for tensor in tensors.values())
    shapes = [(name, tensor.shape) for name, tensor in tensors.items()]
    code = (HERE / "worker.js").read_text()
    return {"code": code, "shapes": shapes, "float16": base64.b64encode(content).decode()}


def write(folder: Path) -> None:
    """Write the files that the page loads."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("explorer.js", "gap.js", "explorer.css", "../one-picture.svg"):
        shutil.copy(HERE / name, folder)
    for name, content in (("data", data()), ("network", network())):
        text = f"window.hfc{name.capitalize()} = {json.dumps(content, separators=(',', ':'))};\n"
        (folder / f"{name}.js").write_text(text)


def write_page(folder: Path) -> Path:
    """Write the explorer as a page of its own, and return its path."""
    write(folder / "_static" / "explorer")
    page = folder / "book" / "explorer.html"
    page.parent.mkdir(exist_ok=True)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "".join((HERE / name).read_text() for name in ("explorer.html", "gap.html"))
    page.write_text(
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<title>Explorer</title></head>\n<body>{body}</body></html>\n'
    )
    return page


def _add_to_book(app, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        write(Path(app.outdir) / "_static" / "explorer")


def setup(app) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", _add_to_book)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m book.explorer.explorer",
        description="Ask the stored networks again and write answers.json, in minutes; or only write a page.",
    )
    parser.add_argument("folder", nargs="?", type=Path, help="where book/explorer.html, a page of its own, is written")
    if folder := parser.parse_args().folder:
        print(write_page(folder))
    else:
        ANSWERS.write_text(json.dumps(stored_content()) + "\n")
