"""Configurations of smalldata_tools, read without executing them: plain assignments, and functions of the run number.

What a line of code does beyond that is not guessed: it is left out, and told with its number.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from xsmall.detector.geometry.text import refuse_special
from xsmall.errors import ParameterError

__all__ = ["OldConfig", "read_config"]

_OPERATORS: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_CASTS: Final = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "tuple": tuple}
_BUILT_IN: Final[Mapping[str, Callable[..., Any]]] = {
    "len": len, "min": min, "max": max, "abs": abs, "round": round, "sum": sum, "sorted": sorted,
    "zip": lambda *lists: list(zip(*lists, strict=False)), "enumerate": lambda one: list(enumerate(one)),
}  # fmt: skip
_METHODS: Final = ("get", "copy", "keys", "values", "items")
_MOST: Final = 10_000
"""Items of a list, digits of a number, that are followed."""
_MOST_LINES: Final = 200_000
"""Lines that are followed, loops included."""


@dataclass
class OldConfig:
    """What a configuration says for a run.

    Attributes
    ----------
    values
        What its variables hold, by name.
    unused
        Variables that no line of it uses.
    functions
        What its functions return for the run, by name.
    problems
        Lines that could not be read, with their numbers.
    """

    values: dict[str, Any] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    functions: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class UnreadableCode(Exception):
    """Code that is more than values."""


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _TooLong(Exception):
    """More lines than are followed."""


def read_config(path: Path, run: int) -> OldConfig:
    """Read a configuration as it is for a run; nothing of it is executed.

    Parameters
    ----------
    path
        The Python file.
    run
        Number of the run, which functions of the file are about.

    Raises
    ------
    ParameterError
        No such file, or no Python.
    """
    refuse_special(path)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read", found=error.strerror, fix="check the path") from error
    except (SyntaxError, ValueError) as error:
        raise ParameterError(f"{path}: this is no Python", found=error, expected="a prod_config_*.py") from error
    reader = _Reader()
    try:
        reader.block(tree.body, reader.config.values)
        for name, function in list(reader.functions.items()):
            reader.evaluate(name, function, run)
    except _TooLong:
        reader.config.problems.append(f"loops of more than {_MOST_LINES} lines: the rest was not read")
    config = reader.config
    used = {one.id for one in ast.walk(tree) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}
    config.unused = [name for name in config.values if name not in used]
    config.values, config.functions = _plain(config.values), _plain(config.functions)
    return config


class _Reader:
    """Follows assignments, conditions, loops over lists and returns."""

    def __init__(self) -> None:
        self.config = OldConfig()
        self.functions: dict[str, ast.FunctionDef] = {}
        self._lines = 0

    def evaluate(self, name: str, function: ast.FunctionDef, run: int) -> None:
        """Evaluate a function of the run; one that needs more is left out, and told."""
        given = function.args
        names = [a.arg for a in (*given.posonlyargs, *given.args)]
        needs_more = len(names) - len(given.defaults) > 1 or any(one is None for one in given.kw_defaults)
        if names[:1] != ["run"] or needs_more:
            self.config.problems.append(f"line {function.lineno}: {name}({ast.unparse(given)}) is no function of run")
            return
        more = dict(zip(names[::-1], given.defaults[::-1], strict=False))
        more |= {a.arg: one for a, one in zip(given.kwonlyargs, given.kw_defaults, strict=True) if one is not None}
        values = {key: self.maybe(one, self.config.values) for key, one in more.items()}
        self.config.functions[name] = self.call(function, {**values, "run": run})

    def call(self, function: ast.FunctionDef, given: dict[str, Any]) -> Any:
        known = {**self.config.values, **given}
        try:
            self.block(function.body, known)
        except _Return as back:
            return back.value
        return None

    def block(self, lines: list[ast.stmt], known: dict[str, Any]) -> None:
        for line in lines:
            try:
                self.line(line, known)
            except (_Return, _TooLong):
                raise
            except Exception as error:  # whatever the code would do: it is not ours to run
                told = str(error) if isinstance(error, UnreadableCode) else f"{type(error).__name__}: {error}"
                text = ast.unparse(line).splitlines()[0][:80]
                self.config.problems.append(f"line {line.lineno}: {text} ({told})")

    def line(self, line: ast.stmt, known: dict[str, Any]) -> None:
        self._lines += 1
        if self._lines > _MOST_LINES:
            raise _TooLong
        if isinstance(line, ast.FunctionDef):
            self.functions[line.name] = line
        elif isinstance(line, ast.Assign):
            value = self.value(line.value, known)
            for target in line.targets:
                self.assign(target, value, known)
        elif isinstance(line, ast.AnnAssign) and line.value is not None:
            self.assign(line.target, self.value(line.value, known), known)
        elif isinstance(line, ast.AugAssign):
            before = self.value(_as_load(line.target), known)
            self.assign(line.target, self.binary(line.op, before, self.value(line.value, known)), known)
        elif isinstance(line, ast.If):
            self.block(line.body if self.value(line.test, known) else line.orelse, known)
        elif isinstance(line, ast.For):
            for one in _few(list(self.value(line.iter, known))):
                self.assign(line.target, one, known)
                self.block(line.body, known)
        elif isinstance(line, ast.Return):
            raise _Return(None if line.value is None else self.value(line.value, known))
        elif isinstance(line, ast.Expr):
            self.expression(line.value, known)
        elif not isinstance(line, ast.Import | ast.ImportFrom | ast.Pass):
            raise UnreadableCode("more than values")

    def expression(self, given: ast.expr, known: dict[str, Any]) -> None:
        """A line that is a value alone: a docstring, or a change of a list or table."""
        if isinstance(given, ast.Constant):
            return
        changing = isinstance(given, ast.Call) and isinstance(given.func, ast.Attribute)
        if changing and given.func.attr in ("append", "extend", "update"):  # type: ignore[attr-defined]
            whose = self.value(given.func.value, known)  # type: ignore[attr-defined]
            if isinstance(whose, list | dict):
                words = {str(k.arg): self.value(k.value, known) for k in given.keywords}  # type: ignore[attr-defined]
                values = [self.value(a, known) for a in given.args]  # type: ignore[attr-defined]
                getattr(whose, given.func.attr)(*values, **words)  # type: ignore[attr-defined]
                return
        if isinstance(given, ast.Call) and getattr(given.func, "id", "") == "print":
            return
        raise UnreadableCode("more than values")

    def assign(self, target: ast.expr, value: Any, known: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            known[target.id] = value
        elif isinstance(target, ast.Subscript):
            self.value(target.value, known)[self.value(target.slice, known)] = value
        elif isinstance(target, ast.Tuple | ast.List):
            for part, one in zip(target.elts, value, strict=True):
                self.assign(part, one, known)
        else:
            raise UnreadableCode("more than values")

    def value(self, given: ast.expr, known: dict[str, Any]) -> Any:
        if isinstance(given, ast.Constant):
            return given.value
        if isinstance(given, ast.Name):
            if given.id == "__name__":
                return "prod_config"
            if given.id not in known:
                raise UnreadableCode(f"{given.id} is not known")
            return known[given.id]
        if isinstance(given, ast.List | ast.Tuple | ast.Set):
            values = [self.value(x, known) for x in given.elts]
            return tuple(values) if isinstance(given, ast.Tuple) else values
        if isinstance(given, ast.Dict):
            out: dict[Any, Any] = {}
            for key, one in zip(given.keys, given.values, strict=True):
                out |= dict(self.value(one, known)) if key is None else {self.value(key, known): self.maybe(one, known)}
            return out
        if isinstance(given, ast.BinOp):
            return self.binary(given.op, self.value(given.left, known), self.value(given.right, known))
        if isinstance(given, ast.UnaryOp):
            inner = self.value(given.operand, known)
            return not inner if isinstance(given.op, ast.Not) else -inner if isinstance(given.op, ast.USub) else +inner
        if isinstance(given, ast.BoolOp):
            value: Any = None
            for x in given.values:
                value = self.value(x, known)
                if bool(value) is isinstance(given.op, ast.Or):
                    break
            return value
        if isinstance(given, ast.Compare):
            sides = [self.value(x, known) for x in (given.left, *given.comparators)]
            if any(isinstance(side, Code) for side in sides):
                raise UnreadableCode("a comparison with what needs executing")
            pairs_of = zip(given.ops, sides, sides[1:], strict=False)
            return all(_OPERATORS[type(op)](a, b) for op, a, b in pairs_of)
        if isinstance(given, ast.IfExp):
            return self.value(given.body if self.value(given.test, known) else given.orelse, known)
        if isinstance(given, ast.Subscript):
            return self.value(given.value, known)[self.value(given.slice, known)]
        if isinstance(given, ast.Call):
            return self.called(given, known)
        raise UnreadableCode("more than values")

    def maybe(self, given: ast.expr, known: dict[str, Any]) -> Any:
        """A value of a table; what cannot be read there leaves the rest of the table as it is."""
        try:
            return self.value(given, known)
        except UnreadableCode:
            return Code(ast.unparse(given), given.lineno)

    def called(self, given: ast.Call, known: dict[str, Any]) -> Any:
        name = ast.unparse(given.func)
        arguments: list[Any] = [self.value(x, known) if name != "isinstance" else x for x in given.args]
        if name == "isinstance" and len(given.args) == 2:
            kinds = {"str": str, "int": int, "float": float, "list": list, "dict": dict}
            return isinstance(self.value(given.args[0], known), kinds[ast.unparse(given.args[1])])
        if name in _CASTS and not given.keywords and len(arguments) <= 1:
            return _CASTS[name](*arguments)
        words = {str(k.arg): self.value(k.value, known) for k in given.keywords}
        if name in _BUILT_IN and name not in self.functions:
            return _BUILT_IN[name](*arguments, **words)
        if name == "range":
            return list(_few(range(*arguments)))
        if isinstance(given.func, ast.Attribute) and given.func.attr in _METHODS and not given.keywords:
            whose = self.maybe(given.func.value, known)
            if isinstance(whose, dict) or (isinstance(whose, list) and given.func.attr == "copy"):
                found = getattr(whose, given.func.attr)(*arguments)
                return found if given.func.attr in ("get", "copy") else list(found)
        if name.startswith(("np.", "numpy.")) and arguments:
            return _array(name.partition(".")[2], arguments, words)
        raise UnreadableCode(f"{name}(...) would have to be executed")

    def binary(self, kind: ast.operator, a: Any, b: Any) -> Any:
        if type(kind) not in _OPERATORS:
            raise UnreadableCode("more than values")
        _refuse_huge(kind, a, b)
        return _OPERATORS[type(kind)](a, b)


@dataclass(frozen=True)
class Code:
    """A value that only executing the code would tell."""

    text: str
    line: int

    def __bool__(self) -> bool:
        raise UnreadableCode("a condition that needs executing")


def _as_load(target: ast.expr) -> ast.expr:
    found: ast.expr = ast.parse(ast.unparse(target), mode="eval").body
    return found


def _few(values: Any) -> Any:
    """The values, unless there are too many."""
    if len(values) > _MOST:
        raise UnreadableCode(f"{len(values)} values")
    return values


def _array(name: str, arguments: list[Any], words: Mapping[str, Any]) -> Any:
    """An array of numbers that NumPy makes of plain values."""
    import numpy as np

    if name in ("array", "asarray") and len(arguments) == 1 and not words:
        return np.array(arguments[0])
    if name == "arange" and not words:
        start, stop, step = (0, *arguments, 1) if len(arguments) == 1 else (*arguments, 1)[:3]
        if (stop - start) / step <= _MOST:
            return np.arange(*arguments)
    many = arguments[2] if len(arguments) > 2 else words.get("num", 50)
    if name == "linspace" and words.keys() <= {"num"} and many <= _MOST:
        return np.linspace(*arguments, **words)
    raise UnreadableCode(f"np.{name}(...) would have to be executed")


def _refuse_huge(kind: ast.operator, a: Any, b: Any) -> None:
    """Refuse what would fill the memory."""
    lengths = [len(x) if isinstance(x, list | str | tuple) else 0 for x in (a, b)]
    if isinstance(kind, ast.Mod) and isinstance(a, str):
        raise UnreadableCode("more than values")
    if isinstance(kind, ast.Add) and sum(lengths) > _MOST:
        raise UnreadableCode("a long list")
    if isinstance(kind, ast.Mult) and any(lengths):
        times = b if lengths[0] else a
        if isinstance(times, int) and max(lengths) * times > _MOST:
            raise UnreadableCode("a long list")
    elif isinstance(kind, ast.Mult | ast.Pow) and isinstance(a, int) and isinstance(b, int):
        bits = a.bit_length() * abs(b) if isinstance(kind, ast.Pow) else a.bit_length() + b.bit_length()
        if bits > _MOST:
            raise UnreadableCode("a huge number")


def _plain(value: Any, seen: set[int] | None = None) -> Any:
    """The same with lists and numbers in place of arrays; tables and lists are changed where they are."""
    seen = set() if seen is None else seen
    if isinstance(value, tuple):
        return tuple(_plain(one, seen) for one in value)
    if isinstance(value, dict | list) and id(value) not in seen:
        seen.add(id(value))
        for key, one in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = _plain(one, seen)
    return value.tolist() if type(value).__module__ == "numpy" else value
