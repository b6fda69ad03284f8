"""Make a page of every script in ``examples/``, which is executed with the others: called by ``conf.py``."""

import ast
from pathlib import Path

HERE = Path(__file__).parent
HEAD = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n"


def write_pages() -> list[str]:
    """Write the pages and the table of thumbnails into ``docs/gallery``; return the names."""
    folder = HERE / "gallery"
    folder.mkdir(exist_ok=True)
    names, thumbnails = [], []
    for script in sorted((HERE.parent / "examples").glob("*.py")):
        text = script.read_text(encoding="utf-8")
        title = (ast.get_docstring(ast.parse(text)) or script.stem).split("\n")[0].rstrip(".")
        code = text.split('"""', 2)[2].strip()
        page = f"{HEAD}# {title}\n\n```{{code-cell}} ipython3\n{code}\n```\n"
        _write(folder / f"{script.stem}.md", page)
        names.append(script.stem)
        thumbnails.append(
            f"```{{figure}} images/gallery/{script.stem}.png\n:alt: {title}\n"
            f":target: gallery/{script.stem}.html\n\n[{title}](gallery/{script.stem}.md)\n```\n"
        )
    _write(folder / "thumbnails.md", "````{container} gallery\n" + "\n".join(thumbnails) + "````\n")
    return names


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
