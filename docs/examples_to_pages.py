"""Run every script in ``examples/`` and make a page of it, with what it prints and draws: called by ``conf.py``.

All in two processes, rather than each in a notebook of its own: most of the time of a small script goes into imports.
"""

import ast
import contextlib
import io
import os
import runpy
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE / "gallery"
EMPTY = 10_000  # bytes of a figure with nothing in it


def scripts() -> list[Path]:
    """List the scripts, in the order of their names."""
    return sorted((HERE.parent / "examples").glob("*.py"))


def title(script: Path) -> str:
    """Take the first line of its docstring."""
    return (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or script.stem).split("\n")[0].rstrip(".")


def run(script: Path, folder: Path = FOLDER) -> str:
    """Run a script in a folder, without a warning; return what it prints. It must leave its figure."""
    os.environ["MPLBACKEND"] = "Agg"
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said), warnings.catch_warnings(action="error"):
        runpy.run_path(str(script), run_name="__main__")
    plt.close("all")
    figure = folder / f"{script.stem}.png"
    if not figure.is_file() or figure.stat().st_size < EMPTY:
        raise FileNotFoundError(f"{script.name} leaves no figure {figure.name}: end it with figure.savefig(...)")
    return said.getvalue().strip()


def page(script: Path, said: str) -> str:
    """Write the page of a script: its code, what it printed, its figure."""
    code = script.read_text(encoding="utf-8").split('"""', 2)[2].strip()
    parts = [f"# {title(script)}", f"```python\n{code}\n```"]
    if said:
        parts.append(f"```text\n{said}\n```")
    parts.append(f"```{{image}} {script.stem}.png\n:alt: {title(script)}\n```")
    parts.append(f"{{download}}`Download this script <../../examples/{script.name}>`")
    return "\n\n".join(parts) + "\n"


def thumbnail(script: Path) -> str:
    """Write the entry of a script in the gallery."""
    return (
        f"```{{figure}} gallery/{script.stem}.png\n:alt: {title(script)}\n"
        f":target: gallery/{script.stem}.html\n\n[{title(script)}](gallery/{script.stem}.md)\n```\n"
    )


def write_pages() -> None:
    """Run the scripts; write the pages and the table of thumbnails into ``docs/gallery``."""
    FOLDER.mkdir(exist_ok=True)
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        told = list(pool.map(run, scripts()))
    for script, said in zip(scripts(), told, strict=True):
        _write(FOLDER / f"{script.stem}.md", page(script, said))
    _write(FOLDER / "thumbnails.md", "````{container} gallery\n" + "\n".join(map(thumbnail, scripts())) + "````\n")


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
