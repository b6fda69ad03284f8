"""The examples in docstrings run, and what is public has one."""

import ast
import builtins
import doctest
import importlib
import inspect
import io
from pathlib import Path

import matplotlib as mpl
import pytest

import xsmall as xs

PACKAGE = Path(xs.__file__).parent
FINDER = doctest.DocTestFinder(exclude_empty=True)


def modules_with_examples() -> list[str]:
    files = (path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8"))
    names = (".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files)
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an example that leaves a file behind leaves it there
    mpl.use("Agg")
    runner, said = doctest.DocTestRunner(verbose=False), io.StringIO()
    examples = FINDER.find(importlib.import_module(name), name)
    for example in examples:
        runner.run(example, out=said.write)
    assert runner.summarize(verbose=False).failed == 0, said.getvalue()
    assert any(example.examples for example in examples)


NO_EXAMPLE_YET = {"Output", "Reducer", "RunSource", "RunSpec", "derive_low_pedestals"}
"""The list only gets shorter: a name that has its example fails here too."""


@pytest.mark.parametrize("name", sorted(xs._PUBLIC.keys() - {"XsmallError"}))
def test_a_public_name_has_an_example(name: str) -> None:
    shown = ">>> " in (inspect.getdoc(getattr(xs, name)) or "")
    if name in NO_EXAMPLE_YET:
        assert not shown, f"take {name} out of NO_EXAMPLE_YET"
    else:
        assert shown, f"xs.{name} shows no example"


NO_PUBLIC_WAY = {"Frames", "waveforms"}
"""Their examples need something that only those who write reductions or sources meet."""


@pytest.mark.parametrize("name", sorted(xs._PUBLIC.keys() - NO_EXAMPLE_YET - {"XsmallError"}))
def test_an_example_runs_as_it_is_typed(name: str) -> None:
    """It imports what it uses, by the names that users have."""
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(getattr(xs, name)) or "")
    tree = ast.parse("".join(example.source for example in examples))
    made, read = set(dir(builtins)), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            inside = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert name in NO_PUBLIC_WAY or not any(text.startswith("xsmall.") for text in inside)
        elif isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
    assert not read - made
