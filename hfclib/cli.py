"""The `hfc` command."""

from pathlib import Path
from typing import Annotated

import typer

from hfclib import figures, runs
from hfclib.checkpoints import CheckpointError
from hfclib.data import DataError, fetch
from hfclib.obtain import each
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
    figure: Annotated[str, typer.Argument(help="which figure's recipes: " + ", ".join(figures.FIGURES))],
    preset: Annotated[str, typer.Option(help=", ".join(figures.PRESETS))] = "laptop",
    seed: Annotated[list[int] | None, typer.Option(help="give it several times for several seeds")] = None,
    panel: Annotated[list[str] | None, typer.Option(help="only these recipes of the figure")] = None,
    store: Annotated[Path | None, typer.Option(help="folder of runs (default: your own)")] = None,
    retrain: Annotated[bool, typer.Option(help="train again what is already stored")] = False,
) -> None:
    """Train what is missing of a figure's runs; a training that was cut off goes on where it stopped."""
    try:
        wanted = figures.recipes(figure, preset)
        unknown = set(panel or ()) - set(wanted)
        if unknown:
            raise ValueError(f"expected panel, one of {', '.join(wanted)}, got {', '.join(sorted(unknown))}")
        if not all(one >= 0 for one in seed or ()):
            raise ValueError(f"expected seed, a whole number of at least 0, got {seed}")
        chosen = {name: recipe for name, recipe in wanted.items() if not panel or name in panel}
        for _, run, new in each(chosen, seed or [0], retrain=retrain, store=store):
            state = "trained" if new else "stored"
            line = f"{run.recipe.name}, seed {run.seed}: {state}, test accuracy {run.test_accuracy():.3f}, {run.path}"
            typer.echo(line)
    except (ValueError, OSError, DataError, TrainingError, CheckpointError, runs.RunError) as error:
        raise typer.Exit(_fail(error)) from error


# typer has no option of two values that may be repeated, so "-p NAME VALUE", papermill's own form, is read by hand.
@app.command(context_settings={"ignore_unknown_options": True})
def run(
    figure: Annotated[str, typer.Argument(help="which figure's notebook: " + ", ".join(figures.FIGURES))],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-p NAME VALUE]...", help="as papermill takes them: -p radius 8, or -p radius [4,8]"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="the executed notebook (default: FIGURE-out.ipynb, here)")] = None,
) -> None:
    """Run a figure's notebook with other parameters (through papermill) and say where the result is."""
    import papermill  # here and not above, so that the other commands need none of the notebook packages
    import yaml

    try:
        notebook = Path(__file__).parents[1] / "notebooks" / f"{figure}.ipynb"
        if figure not in figures.FIGURES or not notebook.exists():
            raise ValueError(f"expected figure, one of {', '.join(figures.FIGURES)}, in a checkout: no {notebook}")
        words = parameters or []
        if len(words) % 3 or any(word not in ("-p", "--parameter") for word in words[::3]):
            raise ValueError(f"expected -p NAME VALUE, once a parameter, got {' '.join(words)}")
        known = papermill.inspect_notebook(str(notebook))
        values = {name: yaml.safe_load(value) for name, value in zip(words[1::3], words[2::3], strict=True)}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"unknown parameter {unknown[0]}; allowed: {', '.join(known)}")
        target = output or Path(f"{figure}-out.ipynb")
        papermill.execute_notebook(str(notebook), str(target), values, cwd=str(notebook.parent), progress_bar=False)
        typer.echo(f"wrote {target}")
    except (ValueError, OSError, yaml.YAMLError, papermill.PapermillExecutionError) as error:
        raise typer.Exit(_fail(error)) from error


def _fail(error: Exception) -> int:
    typer.echo(f"Error: {error}", err=True)
    return 1
