"""Long attributes of ours fold in notebooks: xarray shows all attributes of an object or none, by their number."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, Final

import xarray as xr

from xsmall.vocabulary import FLAG_MASKS, FLAG_MEANINGS, PARAMETERS, PROVENANCE, RULE, SELECTION

__all__ = ["fold_in_notebooks", "folded"]

_LONG: Final = 120
_SAYS: Final = {
    PARAMETERS: "how it was made; xs.history(...) tells it in steps",
    PROVENANCE: "how the file was made; xs.provenance(...) has it as a dict",
    RULE: "the geometry, as JSON",
    SELECTION: "the cuts, and how many events passed them; .sd tells them",
}
_NAMES: Final = "|".join((*_SAYS, FLAG_MASKS, FLAG_MEANINGS))
_ATTRIBUTE: Final = re.compile(rf"(<dt><span>({_NAMES}) :</span></dt><dd>)([^<]{{{_LONG},}})(?=</dd>)")


def folded(page: str) -> str:
    """Fold the long attributes of ours in the HTML that xarray makes of an object; the rest is as it was."""

    def fold(found: re.Match[str]) -> str:
        head, name, text = found.groups()
        said = _SAYS.get(name, f"{len(text)} characters")
        return f"{head}<details><summary style='cursor:pointer'>{said}</summary>{text}</details>"

    return _ATTRIBUTE.sub(fold, page)


def fold_in_notebooks(shell: Any = None) -> None:
    """Let a notebook show xarray's objects with these attributes folded; without a notebook nothing is done.

    Parameters
    ----------
    shell
        The shell of IPython; the one that runs by default.
    """
    if shell is None and "IPython" in sys.modules:
        shell = sys.modules["IPython"].get_ipython()
    display = getattr(shell, "display_formatter", None)
    if display is not None:
        for kind in (xr.DataArray, xr.Dataset, xr.DataTree):
            display.formatters["text/html"].for_type(kind, _shown)


def _shown(obj: Any) -> str:
    make: Callable[[], str] = obj._repr_html_
    return folded(make())
