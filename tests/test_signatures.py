"""Nothing is accepted and ignored: every argument of what is public is read, and told about."""

import ast
import importlib
import inspect
import pickle
import re
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

import xsmall as xs
from xsmall.errors import ArgumentError


def public_functions() -> dict[str, Callable[..., Any]]:
    """All public functions, and the functions that methods of public classes are, by the name a user types."""
    found = {}
    for name in sorted(xs._PUBLIC):
        value = getattr(xs, name)
        if inspect.isclass(value):
            for key, member in vars(value).items():
                function = getattr(member, "__func__", member)
                if inspect.isfunction(function) and not key.startswith("_"):
                    found[f"{name}.{key}"] = function
        elif inspect.isfunction(value):
            found[name] = value
    return found


FUNCTIONS = public_functions()


def tree_of(function: Callable[..., Any]) -> ast.FunctionDef:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body
    assert isinstance(tree, ast.FunctionDef)
    return tree


def is_a_promise(tree: ast.FunctionDef) -> bool:
    """Whether a method only says what those that derive from it do."""
    return any("abstractmethod" in ast.dump(decorator) for decorator in tree.decorator_list)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_read(name: str) -> None:
    function = FUNCTIONS[name]
    tree = tree_of(function)
    if is_a_promise(tree) or name in FOR_THOSE_THAT_DERIVE:
        return
    read = {n.id for part in tree.body for n in ast.walk(part) if isinstance(n, ast.Name)}
    deleted = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Del)}
    given = set(inspect.signature(function).parameters) - {"self", "cls"}
    assert sorted(given - read) == []
    assert sorted(given & deleted) == []


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if "." not in n])
def test_every_argument_is_told_about(name: str) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    given = inspect.signature(FUNCTIONS[name]).parameters
    told = re.split(r"\n(?:Returns|Raises|Notes|Examples)\n-+", text)[0]
    lines = [line for line in told.splitlines() if line and not line.startswith(" ")]
    named = {word.strip("*` ") for line in lines for word in line.split(",")}
    assert sorted(set(given) - named) == [] or name in AS_ANOTHER


FOR_THOSE_THAT_DERIVE = {
    "Record.coords",
    "Record.seeing",
    "Reducer.entries",
    "Reducer.never",
    "Reducer.whole",
    "RunSource.advice",
    "RunSource.heading",
}
AS_ANOTHER = {"apply"}  # whose text says which function has the same arguments


def test_arguments_that_were_once_ignored_are_refused() -> None:
    sim = xs.simulate(3, shape=(2, 32, 64), seed=1)
    placed = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry)
    for ignored in ({"status_bits": 5}, {"status_convention": "psana1"}, {"gain_stages": [0]}):
        with pytest.raises(xs.XsmallError, match="of which status"):
            xs.mask(placed, **ignored)
    assert importlib.import_module("xsmall.frames.mask").mask is inspect.unwrap(xs.mask)


TO_DERIVE_FROM = {"Explorer", "Frames", "Reason", "Record", "Reducer", "RunSource", "Totals", "XsmallError"}
"""Classes that are not made by typing their arguments."""


@pytest.mark.parametrize("name", sorted(xs._PUBLIC.keys() - TO_DERIVE_FROM - {"tutorial"}))
def test_an_argument_that_is_none_is_told_by_one_error_that_names_the_others(name: str) -> None:
    call = getattr(xs, name)
    with pytest.raises(ArgumentError) as told:
        call(zzz=1)
    assert f"xs.{name} cannot be called like this" in str(told.value)
    assert "do this:" in str(told.value)
    if inspect.isfunction(call):
        assert pickle.loads(pickle.dumps(call)) is call
        assert "-> '" not in str(inspect.signature(call)) or name.startswith("open_")  # in help, without quotes


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: xs.azint(npt=3), "xs.azint(bins=3)"),
        (lambda: xs.bins(0, 1, widht=0.1), "xs.bins(0, 1, width=0.1)"),
        (lambda: xs.Beam(energy=9500), "xs.Beam(photon_energy=9500)"),
        (lambda: xs.Circle((0, 0), 1e-3, spaec="lab"), "xs.Circle((0, 0), 0.001, space='lab')"),
        (lambda: xs.save(1), "xs.save(1, path)"),
        (lambda: xs.azint(3, "q"), "xs.azint(3, quantity=...)"),
    ],
)
def test_the_argument_that_is_meant_is_named(call: Callable[[], Any], meant: str) -> None:
    with pytest.raises(ArgumentError) as told:
        call()
    assert str(told.value).endswith(meant)
