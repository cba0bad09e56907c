"""Mutation testing: which small changes of a module do its tests not notice? `make mutants MODULES="moments attacks"`.

Cosmic Ray makes the changes: + for -, < for <=, True for False, a number one more or less, and so on. Each is tried in
a process of its own, forked after the large libraries are imported; no file is changed. What survives is printed: where
it changes a number, a test is missing.
"""

import argparse
import ast
import difflib
import importlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from itertools import islice
from pathlib import Path

import pytest
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
TESTS = {  # of each module, or of each module of a folder; those that are quick
    "frequency": ["core/test_frequency.py", "core/test_svd.py"],
    "transforms": ["core/test_transforms.py", "core/test_metrics.py"],
    "conditions": ["core/test_conditions.py", "core/test_metrics.py", "runs/test_evaluation_version.py"],
    "batching": ["core/test_batching.py"],
    "metrics": ["core/test_metrics.py", "core/test_misaligned.py", "core/test_batching.py"],
    "moments": ["core/test_moments.py"],
    "attacks": ["attacks"],
    "training": ["training/test_first_losses.py", "training"],
    "paper/intervals": ["paper/test_intervals.py"],
    "paper/verdicts": ["paper/test_verdicts.py"],
}
# One change for each operator, and for an inequality two, its boundary and its direction: what else may take its place
# is caught where these are, and takes most of the time.
_CHANGES = re.compile(
    r"ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Div|Mod_Mul|Pow_Mul|BitAnd_BitOr|BitOr_BitAnd)"
    r"|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Lt_Gt|LtE_GtE|Gt_Lt|GtE_LtE)"
    r"|ReplaceUnaryOperator_Delete_.*|Replace(TrueWithFalse|FalseWithTrue|AndWithOr|OrWithAnd|(Break|Continue)With.*)"
    r"|AddNot|NumberReplacer|ZeroIterationForLoop"
)
# Before the fork: what conftest.py and the modules import. Nothing here starts a thread.
_IMPORTED_ONCE = """
    hypothesis.strategies scipy.optimize scipy.stats torch._subclasses.fake_tensor torchvision.transforms.v2
    hfclib.runs.predictions hfclib.training
"""
_PLUGINS = ("anyio", "cacheprovider", "nbval", "xdist")  # not needed here
_OPTIONS = ["-x", "-q", "--assert=plain", "--override-ini", "addopts=", *(f"-pno:{name}" for name in _PLUGINS)]
_SECONDS = 120  # a change may make a loop endless


class _Results(ast.NodeTransformer):
    """Drop what changes no result: types of arguments, results and variables, and the words of an error."""

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise(None, None)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        # Not how an argument may be given: Cosmic Ray takes the star of a signature for a product.
        merged = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        defaults = [*node.defaults, *(default for default in node.kw_defaults if default)]
        return self.generic_visit(ast.arguments([], merged, node.vararg, [], [], node.kwarg, defaults))

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _meaning(source: str) -> str:
    return ast.dump(_Results().visit(ast.parse(source)))


def mutants(source: str) -> Iterator[str]:
    """Every source with one small change that may change a result."""
    known = {_meaning(source)}
    for name in operator_names():
        if not _CHANGES.fullmatch(name.removeprefix("core/")):
            continue
        operator, occurrence = get_operator(name)(), 0
        while (changed := mutate_code(source, operator, occurrence)) is not None:
            occurrence += 1
            try:
                meaning = _meaning(changed)
            except SyntaxError:
                continue
            if meaning not in known:
                known.add(meaning)
                yield changed


def passes(path: Path, source: str, tests: list[str]) -> bool:
    """Whether the tests pass with `source` as the module at `path`."""
    process = os.fork()
    if process == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        signal.alarm(_SECONDS)  # kills this process
        get_code = SourceFileLoader.get_code

        def changed_code(loader: SourceFileLoader, name: str) -> object:
            return compile(source, path, "exec") if Path(loader.path) == path else get_code(loader, name)

        SourceFileLoader.get_code = changed_code
        loaded = {name: module for name, module in sys.modules.items() if name.startswith("hfclib")}
        if any(getattr(module, "__file__", None) == str(path) for module in loaded.values()):
            for name in loaded:  # to be imported again, on top of the changed module
                del sys.modules[name]
        code = 1
        try:
            code = pytest.main([*_OPTIONS, *tests])
        finally:
            os._exit(code)
    return os.waitpid(process, 0)[1] == 0


def measure(path: Path, tests: list[str], every: int) -> None:
    """Try the mutants of a module, or each so-manieth; print those that no test notices, and the score."""
    source, name = path.read_text(), path.relative_to(ROOT)
    if not passes(path, source, tests):
        sys.exit(f"{name}: its tests fail as it is")
    caught = count = 0
    for changed in islice(mutants(source), 0, None, every):
        count += 1
        if not passes(path, changed, tests):
            caught += 1
            continue
        lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), n=0, lineterm="")
        print("\n".join([f"{name} survived", *list(lines)[2:]]), flush=True)
    print(f"{name}: {caught} of {count} caught, one change in {every} tried", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutation testing of modules by their own tests.")
    parser.add_argument("modules", nargs="*", default=list(TESTS), help=f"some of {', '.join(TESTS)}")
    parser.add_argument("--every", type=int, default=1, help="try one change in so many: a sample (default: 1, all)")
    asked = parser.parse_args()
    chosen, every = asked.modules, asked.every
    if unknown := set(chosen) - set(TESTS):
        parser.error(f"expected modules of {', '.join(TESTS)}, got {', '.join(sorted(unknown))}")
    for library in _IMPORTED_ONCE.split():
        importlib.import_module(library)
    for module in chosen:
        place = ROOT / "hfclib" / module
        tests = [str(ROOT / "tests" / test) for test in TESTS[module]]
        for path in sorted(place.glob("[!_]*.py")) if place.is_dir() else [place.with_suffix(".py")]:
            own = [str(test) for folder in tests for test in Path(folder).glob(f"test_{path.stem}.py")]
            measure(path, [*own, *tests], every)  # which notice most changes, and pytest stops at the first


if __name__ == "__main__":
    main()
