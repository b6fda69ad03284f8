"""Write ``xsmall/__init__.pyi``, which tells type checkers the public names: ``python tests/public_names.py``."""

from pathlib import Path

import xsmall as xs

STUB = Path(xs.__file__).with_name("__init__.pyi")


def text() -> str:
    """The stub that belongs to the list of public names."""
    lines = sorted(f"from {module} import {name} as {name}" for name, module in xs._PUBLIC.items())
    return "\n".join(
        [
            "# Made by tests/public_names.py from the list in __init__.py.",
            *lines,
            "from xsmall._version import __version__ as __version__",
            "from xsmall.accessor import SdDataArray as SdDataArray",
            "from xsmall.accessor import SdDataset as SdDataset",
            "from xsmall.accessor import SdDataTree as SdDataTree",
            "",
            "_PUBLIC: dict[str, str]",
            "",
        ]
    )


if __name__ == "__main__":
    STUB.write_text(text(), encoding="utf-8")
