"""The tree of a run: a DataTree that says what is there where a name is misspelt."""

import difflib
from typing import Any

import xarray as xr

from xsmall.errors import ParameterError
from xsmall.vocabulary import LEFT_OUT, SOURCE

__all__ = ["RunTree", "UnknownNameError"]


class UnknownNameError(ParameterError, KeyError):
    """A node or variable that a run does not have; a ``KeyError``, as any mapping raises it."""

    __str__ = Exception.__str__


class RunTree(xr.DataTree):  # type: ignore[no-untyped-call]
    """A run as :func:`xsmall.open_run` gives it."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        """Give a node or variable by its path; of an unknown one say which there are."""
        try:
            return super().__getitem__(key)
        except KeyError as error:
            raise _unknown(self, key) from error

    def __getattr__(self, name: str) -> Any:
        """Give a node or variable as an attribute; of an unknown one say which there are."""
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if name.startswith("_"):
                raise
            raise AttributeError(str(_unknown(self, name))) from error


def _unknown(tree: xr.DataTree, key: str) -> UnknownNameError:
    node, rest = tree, key.strip("/").split("/")
    while len(rest) > 1 and rest[0] in node.children:
        node = node.children[rest.pop(0)]
    known = [*map(str, node.children), *map(str, node.data_vars), *map(str, node.coords)]
    near = difflib.get_close_matches(rest[0], known, n=1, cutoff=0.5)
    deeper = [name for name, child in node.children.items() if rest[0] in child.children or rest[0] in child.data_vars]
    if deeper:
        near = [f"{deeper[0]}/{rest[0]}"]
    done = key.strip("/").split("/")[: -len(rest)]
    of = f"{tree.root.attrs.get(SOURCE, 'the run')}{''.join(f'/{part}' for part in done)}"
    left_out = [one for one in str(node.attrs.get(LEFT_OUT, "")).split("; ") if one.startswith(f"{rest[0]}: ")]
    return UnknownNameError(
        f"{of}: left out when the run was opened" if left_out else f"{of}: nothing of this name",
        found=left_out[0] if left_out else repr(rest[0]),
        expected=", ".join(known) or "nothing is in it",
        fix=f"run[{'/'.join([*done, near[0], *rest[1:]])!r}]" if near and not left_out else None,
    )
