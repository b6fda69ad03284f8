"""A plugin that tells mypy what ``.sd`` is: ``plugins = ["xsmall.mypy_plugin"]`` in its settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy.plugin import AttributeContext, Plugin
    from mypy.types import Type

_ACCESSORS: Final = {"DataArray": "SdDataArray", "Dataset": "SdDataset", "DataTree": "SdDataTree"}
_ASKED: Final = re.compile(r"xarray\.[\w.]+\.sd")  # of the class that answers for unknown attributes


def plugin(version: str) -> type[Plugin]:
    """Return the plugin; mypy, of whatever ``version``, calls this."""
    del version  # the two calls that are used are as old as plugins
    from mypy.plugin import Plugin

    class Accessors(Plugin):
        """Gives ``.sd`` of xarray's classes its type."""

        def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
            """Answer for the attribute ``.sd``, leave all others to mypy."""
            return _accessor_type if _ASKED.fullmatch(fullname) else None

    return Accessors


def _accessor_type(context: AttributeContext) -> Type:
    """The accessor of the class whose attribute it is; a program that does not import xsmall has none."""
    from mypy.types import Instance

    name = context.type.type.name if isinstance(context.type, Instance) else ""
    try:
        return context.api.named_generic_type(f"xsmall.{_ACCESSORS[name]}", [])
    except (KeyError, AssertionError):
        return context.default_attr_type
