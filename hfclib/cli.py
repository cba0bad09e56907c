"""The `hfc` command."""

from pathlib import Path
from typing import Annotated

import typer

from hfclib import recipes, runs
from hfclib.checkpoints import CheckpointError
from hfclib.data import DataError, fetch
from hfclib.training import TrainingError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def data() -> None:
    """Fetch and verify the full CIFAR-10, and say where each part came from."""
    try:
        for part, origin in fetch().items():
            typer.echo(f"{part}: {origin}")
    except DataError as error:
        raise typer.Exit(_fail(error)) from error


@app.command()
def train(
    figure: Annotated[str, typer.Argument(help="which figure's recipes: " + ", ".join(recipes.FIGURES))],
    preset: Annotated[str, typer.Option(help=", ".join(recipes.PRESETS))] = "laptop",
    seed: Annotated[list[int] | None, typer.Option(help="give it several times for several seeds")] = None,
    panel: Annotated[list[str] | None, typer.Option(help="only these recipes of the figure")] = None,
    store: Annotated[Path | None, typer.Option(help="folder of runs (default: your own)")] = None,
    retrain: Annotated[bool, typer.Option(help="train again what is already stored")] = False,
) -> None:
    """Train what is missing of a figure's runs; a training that was cut off goes on where it stopped."""
    try:
        wanted = recipes.recipes(figure, preset)
        unknown = set(panel or ()) - set(wanted)
        if unknown:
            raise ValueError(f"expected panel, one of {', '.join(wanted)}, got {', '.join(sorted(unknown))}")
        for one in seed or [0]:
            for name, recipe in wanted.items():
                if panel and name not in panel:
                    continue
                run = None if retrain else runs.find(recipe, one, store)
                state = "stored" if run else "trained"
                run = run or runs.train(recipe, seed=one, store=store)
                typer.echo(f"{recipe.name}, seed {one}: {state}, test accuracy {run.test_accuracy():.3f}, {run.path}")
    except (ValueError, DataError, TrainingError, CheckpointError, runs.RunError) as error:
        raise typer.Exit(_fail(error)) from error


def _fail(error: Exception) -> int:
    typer.echo(f"Error: {error}", err=True)
    return 1
