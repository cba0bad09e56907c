"""`python -m hfclib.paper.detection FOLDER`: measure the paper's own detector on COCO val2017."""

from pathlib import Path
from typing import Annotated

import typer

from hfclib.data import DataError
from hfclib.paper.detection.claims import PAPER_DETECTION
from hfclib.paper.detection.coco import evaluate_coco


def coco_command(
    folder: Annotated[Path, typer.Argument(help="with annotations/instances_val2017.json and val2017/")],
    radius: Annotated[float, typer.Option(help="DFT bins on the grid of the picture's file")] = 128.0,
    limit: Annotated[int | None, typer.Option(help="take the first images only", min=1)] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the detections and of the table")] = None,
) -> None:
    """Measure torchvision's RetinaNet R50-FPN on COCO val2017; called again, it goes on where it stopped."""
    try:
        results = evaluate_coco(folder, radius=radius, limit=limit, out=out)
    except (ValueError, OSError, DataError) as error:
        raise SystemExit(f"Error: {error}") from error
    print(results.round(3).to_string(index=False))
    print("published, r = 128: " + ", ".join(f"{name} {value:.3f}" for name, value in PAPER_DETECTION.items()))


if __name__ == "__main__":
    typer.run(coco_command)
