"""The claims, read from `claims.yaml`: what each says, the contrast that tests it, and its rule.

A contrast is arithmetic on cells. A cell, such as `batchnorm.H4`, is a network and what was measured of it after
training; what is fed and which statistics BatchNorm uses is the claim's `measured`. Each chapter turns its table into
cells (`Chapter.cells`), and lists in its recipes and `Chapter.measures` which cells there are.
"""

import ast
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from hfclib._names import nearest
from hfclib.paper.intervals import Estimate, MissingRunError, over_images, over_seeds_and_images, sum_of_means
from hfclib.paper.names import CHAPTER_PLACES, Preset
from hfclib.paper.verdicts import ENOUGH, FAILED_HERE, NO_VERDICT, Relation, Size, Verdict, verdict

FILE = Path(__file__).with_name("claims.yaml")
CELL = ["variant", "measure"]
CELL_COLUMNS = [*CELL, "measured", "seed", "value"]
# "draw" names the initial weights, which networks of one seed share or not; "sample" the images, and "image_sd" is the
# standard error of the value by their draw.
OPTIONAL = ["draw", "sample", "image_sd"]
Cell = tuple[str, str]  # variant and measure
Units = Literal["seeds", "seeds and images", "images", "recipes"]


def _mean(*values: np.ndarray) -> np.ndarray:
    return sum(values) / len(values)


_FUNCTIONS: dict[str, Callable] = {
    "abs": np.abs,
    "max": lambda *values: reduce(np.maximum, values),
    "mean": _mean,
    "min": lambda *values: reduce(np.minimum, values),
}
_ALLOWED = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub, ast.Load)


class Contrast:
    """Arithmetic on cells, such as `mean(batchnorm.H4 - vanilla.H4, batchnorm.H8 - vanilla.H8)`.

    Attributes:
        text: numbers, cells, `+ - * /`, and the functions abs, max, mean, min.
        cells: (variant, measure) of each cell, once.
        linear: whether it is a weighted sum of cells and a number.
    Raises:
        ValueError: anything else.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            tree = ast.parse(text, mode="eval")
        except SyntaxError as error:
            raise ValueError(f"expected arithmetic on cells, got {text!r}") from error
        cells: dict[Cell, None] = {}
        self._check(tree.body, cells)
        self.cells = tuple(cells)
        self.linear = _is_linear(tree.body)
        self._code = compile(tree, "<contrast>", "eval")

    def _check(self, node: ast.AST, cells: dict[Cell, None]) -> None:
        match node:
            case ast.Attribute(value=ast.Name(id=variant), attr=measure):
                cells[variant, measure] = None
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                for argument in arguments:
                    self._check(argument, cells)
            case ast.Constant(value=int() | float()):
                pass
            case _ if isinstance(node, _ALLOWED):
                for part in ast.iter_child_nodes(node):
                    self._check(part, cells)
            case _:
                raise ValueError(f"expected arithmetic on cells, got {ast.unparse(node)!r} in {self.text!r}")

    def __call__(self, values: Mapping[Cell, np.ndarray | float]) -> np.ndarray | float:
        """The contrast of the values of its cells, which are arrays of one shape, or numbers."""
        names: dict[str, _Variant] = {}
        for (variant, measure), value in values.items():
            setattr(names.setdefault(variant, _Variant()), measure, value)
        # `_check` allows nothing but arithmetic.
        return eval(self._code, {"__builtins__": {}, **_FUNCTIONS}, names)


def _is_linear(node: ast.AST) -> bool:
    """Whether a checked contrast is a weighted sum of cells and a number."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return name == "mean" and all(map(_is_linear, arguments))
        case ast.BinOp(op=ast.Mult() | ast.Div(), left=left, right=right):
            numbers = [not any(isinstance(part, ast.Attribute) for part in ast.walk(side)) for side in (left, right)]
            return (numbers[1] and _is_linear(left)) or (
                numbers[0] and isinstance(node.op, ast.Mult) and _is_linear(right)
            )
        case _:
            return all(map(_is_linear, ast.iter_child_nodes(node)))


class _Variant:
    """The measures of one variant, as attributes."""


class Claim(BaseModel):
    """A claim of the paper, or of ours.

    Attributes:
        id: unique, such as "fig4-batchnorm-H4".
        chapter: the name of the chapter that tests it.
        section: where the paper makes the claim, or "ours" for a control that the paper lacks.
        text: the claim in our words.
        version: the condition under which it is tested, in words.
        measured: the same as a name of the chapter (`Chapter.cells`).
        contrast: the statistic as a `Contrast`; of several the one with the largest mean.
        function: the name of a statistic of the chapter that is no contrast (`Chapter.functions`).
        relation, bound: the rule (`verdicts`); the bound is what "at most", "at least" and "about" compare with.
        paper: the statistic as published; None where it is not available.
        preset: whose networks it is tested on.
        distance: whether the statistic is a distance to the paper's numbers.
        departure: what in our set-up may be the cause if the claim fails; None where none may be, as for a control on
            our own networks.
        paper_differs: how the published number was measured otherwise than ours, so that sizes can't be compared.
        units: what the interval covers: "seeds" and the bound on images of `evaluate`; "seeds and images" measured
            together; the "images" alone, of one network; or "recipes".
        counted: whether its verdict enters the counts.
        main: whether it is what the chapter's opening answer is about; one of each chapter is.
        topic: what it is about together with others, which share a row of the scoreboard; "" where it stands alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+-[\w-]+$")]
    chapter: str
    section: str
    text: str
    version: str
    measured: str = ""
    contrast: tuple[str, ...] = ()
    function: str | None = None
    relation: Relation
    bound: float = 0.0
    paper: float | None = None
    preset: Preset = "laptop"
    distance: bool = False
    departure: str | None = None
    paper_differs: str | None = None
    units: Units = "seeds"
    counted: bool = True
    main: bool = False
    topic: str = ""
    _line: int = PrivateAttr(0)

    @property
    def place(self) -> str:
        """Where it stands in the file of claims, in words."""
        return f"{FILE.name}, line {self._line}: {self.id}"

    @model_validator(mode="before")
    @classmethod
    def _one_contrast_or_several(cls, values: dict) -> dict:
        if isinstance(values.get("contrast"), str):
            values = values | {"contrast": (values["contrast"],)}
        return values

    @model_validator(mode="after")
    def _check(self) -> "Claim":
        if self.chapter not in CHAPTER_PLACES:
            raise ValueError(
                f"expected chapter, one of {', '.join(CHAPTER_PLACES)}{_near(self.chapter, CHAPTER_PLACES)}"
            )
        if bool(self.contrast) == bool(self.function):
            raise ValueError("expected a contrast or a function")
        for text in self.contrast:
            Contrast(text)
        if self.bound and self.relation in ("exceeds", "does not differ"):
            raise ValueError(f"expected no bound with {self.relation!r}, which it is not compared with")
        if self.bound <= 0 and self.relation == "about":
            raise ValueError(f"expected a bound above 0 with 'about', got {self.bound}")
        return self

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """Its contrasts, each parsed once."""
        return tuple(map(_parsed, self.contrast))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of its contrasts, each once."""
        return tuple(dict.fromkeys(cell for contrast in self.contrasts for cell in contrast.cells))

    def estimate(self, cells: pd.DataFrame) -> Estimate:
        """The contrast over the seeds that have all of its cells; of several contrasts the one with the largest mean.

        Args:
            cells: columns CELL_COLUMNS. With units "seeds and images" each value is one number per image.
        Raises:
            MissingRunError: no seed has them all.
        """
        estimates = [evaluate(contrast, cells, self.measured, units=self.units) for contrast in self.contrasts]
        return max(estimates, key=lambda estimate: estimate.mean)

    def judge(self, estimate: Estimate) -> Verdict:
        """The verdict on an estimate, by the rule in `verdicts`."""
        if estimate.seeds < ENOUGH and self.units != "images":
            return "one network" if estimate.seeds == 1 else "two networks"
        judged = verdict(self.relation, estimate.low, estimate.high, self.bound)
        return FAILED_HERE if judged == "contradicted" and self.departure else judged

    def size(self, estimate: Estimate) -> Size:
        """Whether the published number lies in the interval of an estimate."""
        if self.paper is None or self.distance or self.paper_differs or self.judge(estimate).endswith(NO_VERDICT):
            return "not known"
        return "compatible" if estimate.low <= self.paper <= estimate.high else "excluded"


_parsed = cache(Contrast)


def evaluate(contrast: Contrast | str, cells: pd.DataFrame, measured: str = "", *, units: Units = "seeds") -> Estimate:
    """A contrast over the seeds that have its cells; its interval covers seeds and the draw of the images.

    Networks that start from the same weights are paired by seed. A contrast of others that is a weighted sum has
    Welch's interval over the parts of one draw each; an extreme is taken seed by seed, and paired.

    The variance of the images' draw is the largest that accuracies alone allow where the predictions of two networks on
    an image are not negatively correlated: cells of one sample that enter with one sign are taken as fully correlated,
    those of different signs as independent.

    Args:
        contrast: the contrast, or its text.
        cells: columns CELL_COLUMNS, and OPTIONAL ones. With units "seeds and images" each value is one number per
            image.
        measured: which of the cells; those whose "measured" is "" belong to every condition.
        units: as in `Claim`.
    Raises:
        MissingRunError: no seed has all the cells.
    """
    contrast = _parsed(contrast) if isinstance(contrast, str) else contrast
    variants, measures = map(set, zip(*contrast.cells, strict=True))
    there = cells["measured"].isin([measured, ""]) & cells["variant"].isin(variants) & cells["measure"].isin(measures)
    by_cell = dict(list(cells[there].groupby(CELL)))
    if missing := set(contrast.cells) - set(by_cell):
        raise MissingRunError(f"no run has {', '.join(map('.'.join, sorted(missing)))}")
    own = {cell: by_cell[cell].set_index("seed") for cell in contrast.cells}
    values = {cell: rows["value"] for cell, rows in own.items()}
    if units == "seeds and images":
        rows = _common(values)
        return over_seeds_and_images(contrast({cell: np.array(list(rows[cell]), float) for cell in values}))
    draws = {cell: rows["draw"].iloc[0] if "draw" in rows else "" for cell, rows in own.items()}
    if not contrast.linear:
        draws = dict.fromkeys(draws, "")
    parts, means, used = [], {}, {}
    for draw in dict.fromkeys(draws.values()):
        rows = _common({cell: series for cell, series in values.items() if draws[cell] == draw})
        means |= {cell: rows[cell].mean() for cell in rows}
        used |= {cell: own[cell].loc[rows.index] for cell in rows}
        parts.append(rows)
    zero = dict.fromkeys(values, 0.0)
    constant = contrast(zero) if contrast.linear else 0.0
    if units == "images":
        return over_images(contrast(means), _image_errors(contrast, used, means))
    by_seed = [contrast(zero | {cell: rows[cell].to_numpy(float) for cell in rows}) - constant for rows in parts]
    return sum_of_means(by_seed, constant, _image_errors(contrast, used, means))


def _common(values: Mapping[Cell, pd.Series]) -> pd.DataFrame:
    """One row per seed that has all cells."""
    rows = pd.concat(values, axis=1, join="inner").dropna()
    if rows.empty:
        raise MissingRunError("no seed has all the runs of the claim")
    return rows


def _image_errors(contrast: Contrast, own: Mapping[Cell, pd.DataFrame], means: Mapping[Cell, float]) -> list[float]:
    """The standard errors of a contrast by the draw of the images, one per sample; see `evaluate`."""
    by_sign: dict[tuple[str, bool], float] = {}
    base = contrast(means)
    for cell, rows in own.items():
        if "image_sd" in rows and (error := rows["image_sd"].mean()) > 0:
            # An extreme may follow a cell to one side only, and so has the larger change of both.
            up = contrast({**means, cell: means[cell] + error}) - base
            down = base - contrast({**means, cell: means[cell] - error})
            change = max(up, down, key=abs)
            place = rows["sample"].iloc[0], change > 0
            by_sign[place] = by_sign.get(place, 0.0) + abs(change)
    return list(by_sign.values())


def load_claims(path: Path = FILE) -> tuple[Claim, ...]:
    """The claims of a file, in its order.

    Raises:
        ValueError: names the line of an entry that is no claim, what is wrong with it, and the nearest allowed word.
    """
    import yaml  # here, since training does without it

    text = path.read_text()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        claims: dict[str, Claim] = {}
        for node in loader.get_single_node().value:
            line = node.start_mark.line + 1
            at = f"{path.name}, line {line}"
            try:
                claim = Claim(**loader.construct_mapping(node, deep=True))
            except ValidationError as error:
                raise ValueError(f"{at}: {'; '.join(map(_in_words, error.errors()))}") from None
            claim._line = line
            if claim.id in claims:
                raise ValueError(f"{at}: expected an id of its own, got {claim.id!r} again")
            claims[claim.id] = claim
    finally:
        loader.dispose()
    return tuple(claims.values())


def _in_words(error: dict) -> str:
    field = ".".join(map(str, error["loc"]))
    said = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"unknown field{_near(field, Claim.model_fields)}"
    if error["type"] == "literal_error":
        allowed = [word.strip("'") for word in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        return f"expected {field}, one of {', '.join(allowed)}{_near(str(error['input']), allowed)}"
    return f"{field}: {said}" if field else said


def claims_of(chapter: str) -> tuple[Claim, ...]:
    """The claims of a chapter."""
    return tuple(claim for claim in _all_claims() if claim.chapter == chapter)


def main_of(claims: Collection[Claim]) -> Claim:
    """The claim of a chapter that is marked as its main one.

    Raises:
        ValueError: none is, or several are.
    """
    marked = [claim for claim in claims if claim.main]
    if len(marked) != 1:
        chapters = ", ".join(dict.fromkeys(claim.chapter for claim in claims))
        raise ValueError(
            f"expected one claim of {chapters} with main: true, got {', '.join(claim.id for claim in marked) or 'none'}"
        )
    return marked[0]


_all_claims = cache(load_claims)


def check_cells(
    claims: Iterable[Claim],
    variants: Collection[str],
    measures: str,
    conditions: Collection[str],
    functions: Collection[str],
) -> None:
    """Refuse a claim about what its chapter does not measure.

    Args:
        variants, measures, conditions, functions: what there is; `measures` is a regular expression.
    Raises:
        ValueError: names the claim and its line, and the nearest variant, measure, condition or function.
    """
    claims = list(claims)
    known = {measure for claim in claims for _, measure in claim.cells if re.fullmatch(measures, measure)}
    for claim in claims:
        for variant, measure in claim.cells:
            if variant not in variants:
                raise ValueError(f"{claim.place}: unknown network{_near(variant, variants)}")
            if not re.fullmatch(measures, measure):
                raise ValueError(f"{claim.place}: unknown measure, not {measures}{_near(measure, known)}")
        if claim.measured and claim.measured not in conditions:
            raise ValueError(f"{claim.place}: unknown condition{_near(claim.measured, conditions)}")
        if claim.function and claim.function not in functions:
            raise ValueError(f"{claim.place}: unknown function{_near(claim.function, functions)}")


def _near(name: str, allowed: Iterable[str]) -> str:
    return f", got {name!r}{nearest(name, allowed)}"
