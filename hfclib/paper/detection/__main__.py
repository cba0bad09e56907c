"""`python -m hfclib.paper.detection`: train a detector of the chapter, or measure the paper's own on COCO."""

from pathlib import Path
from typing import Annotated

import typer

from hfclib.data import DataError
from hfclib.paper.detection import coco, store
from hfclib.paper.detection.claims import PUBLISHED
from hfclib.paper.detection.detector import TrainingError

app = typer.Typer(help="Detection: RetinaNet on images and on their low and high frequencies.", add_completion=False)
_ERRORS = (ValueError, DataError, TrainingError, store.RunError, OSError)


@app.command()
def train(
    preset: Annotated[str, typer.Option(help="laptop, some ten minutes on a core; or smoke, seconds")] = "laptop",
    seed: Annotated[int, typer.Option(help="0 or more")] = 0,
) -> None:
    """Train and measure a detector, or go on with one that was cut off."""
    try:
        run = store.train(preset, seed=seed)
    except _ERRORS as error:
        raise SystemExit(f"Error: {error}") from error
    print(run.results.round(3).to_string(index=False))
    print(run.path)


@app.command("coco")
def coco_command(
    folder: Annotated[Path, typer.Argument(help="with annotations/instances_val2017.json and val2017/")],
    radius: Annotated[float, typer.Option(help="DFT bins on the grid of the picture's file")] = 128.0,
    limit: Annotated[int | None, typer.Option(help="take the first images only")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the detections and of the table")] = None,
) -> None:
    """Measure torchvision's RetinaNet R50-FPN on COCO val2017; called again, it goes on where it stopped."""
    try:
        results = coco.evaluate_coco(folder, radius=radius, limit=limit, out=out)
    except _ERRORS as error:
        raise SystemExit(f"Error: {error}") from error
    print(results.round(3).to_string(index=False))
    print("published, r = 128: " + ", ".join(f"{name} {value:.3f}" for name, value in PUBLISHED.items()))


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
