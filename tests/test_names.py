"""One name, one thing: no two classes of the package share a name that others can import."""

import ast
from collections import defaultdict
from pathlib import Path

import xsmall as xs

PACKAGE = Path(xs.__file__).parent


def test_no_two_classes_share_a_name() -> None:
    homes = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(PACKAGE)))
    assert {"Geometry", "Part", "Frames"} <= homes.keys()
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}
