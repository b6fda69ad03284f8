"""Build the recipe and run its tests, without a channel: ``python conda/build.py [--out DIR]``.

What the recipe needs is packed from the Python that runs this and from what is installed beside it, each distribution
as a package of its own with its true version, so that the solver, the build and the tests of the recipe are the real
ones. ``python -m pip install ".[conda]"`` first; it takes some minutes. On Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from rattler_build import (
    FileEntry,
    Package,
    PlatformConfig,
    RenderConfig,
    Stage0Recipe,
    ToolConfiguration,
    VariantConfig,
    assemble_package,
    collect_files,
)

HERE = Path(__file__).parent
NAMES_OF_CONDA = {"dask": "dask-core", "matplotlib": "matplotlib-base"}
NOT_OF_PYTHON = ("**/test/**", "**/tests/**", "**/idlelib/**", "**/site-packages/**", "**/__pycache__/**", "**/*.a")
PLATFORM = "linux-64"
COMMAND = """#!/usr/bin/env python
import sys
from {module} import {name}
sys.exit({name}())
"""


def name_of(distribution: str) -> str:
    """Name of a distribution among conda's packages."""
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    return NAMES_OF_CONDA.get(name, name)


def needed_by(distribution: str) -> Iterator[str]:
    """Names of the distributions that one needs here, those of its extras aside."""
    for text in metadata.requires(distribution) or ():
        one = Requirement(text)
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield one.name


def pack_python(channel: Path) -> None:
    """Pack the interpreter and its own library."""
    prefix, short = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    files = collect_files(prefix, include_globs=[f"lib/{short}/**", "lib/libpython*"], exclude_globs=NOT_OF_PYTHON)
    files += [FileEntry.from_paths(prefix / "bin" / short, f"bin/{name}") for name in (short, "python3", "python")]
    pack("python", sys.version.split()[0], files, [], channel)


def pack_distribution(distribution: str, channel: Path) -> None:
    """Pack what pip has installed under a name."""
    found = metadata.distribution(distribution)
    site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    files = [
        FileEntry.from_paths(Path(str(file.locate())), f"{site}/{file}")
        for file in found.files or ()
        if ".." not in file.parts and "__pycache__" not in file.parts
    ]
    commands = channel.parent / "commands" / distribution
    commands.mkdir(parents=True)
    for point in found.entry_points.select(group="console_scripts"):
        script = commands / point.name
        script.write_text(COMMAND.format(module=point.module, name=point.attr))
        script.chmod(0o755)
        files.append(FileEntry.from_paths(script, f"bin/{point.name}"))
    depends = ["python", *(name_of(other) for other in needed_by(distribution))]
    pack(name_of(distribution), found.version, files, depends, channel)


def pack(name: str, version: str, files: list[FileEntry], depends: list[str], channel: Path) -> None:
    """Write a package to the channel."""
    folder = channel / PLATFORM
    folder.mkdir(parents=True, exist_ok=True)
    assemble_package(
        name, version.replace("-", "_"), PLATFORM, "0", folder,
        files=files, depends=sorted(set(depends)), compression_level=1,
    )  # fmt: skip


def index(channel: Path) -> None:
    """Write what a solver reads of a channel."""
    found = {}
    for file in sorted((channel / PLATFORM).glob("*.conda")):
        package = Package.from_file(file)
        found[file.name] = {
            "name": package.name, "version": package.version, "build": package.build_string,
            "build_number": package.build_number, "depends": package.depends, "subdir": PLATFORM,
            "size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }  # fmt: skip
    for folder, packages in ((PLATFORM, found), ("noarch", {})):
        (channel / folder).mkdir(exist_ok=True)
        said = {"info": {"subdir": folder}, "packages": {}, "packages.conda": packages, "repodata_version": 1}
        (channel / folder / "repodata.json").write_text(json.dumps(said))


def fill(channel: Path, recipe: Stage0Recipe) -> None:
    """Pack all that the recipe needs, and what that needs."""
    said = recipe.to_dict()["requirements"]
    back = {theirs: ours for ours, theirs in NAMES_OF_CONDA.items()}
    names = [re.split(r"[ <>=]", str(one))[0] for one in (*said["host"], *said["run"])]
    waiting, done = [back.get(n, n) for n in names if n != "python"], set[str]()
    pack_python(channel)
    while waiting:
        one = waiting.pop()
        if name_of(one) in done:
            continue
        done.add(name_of(one))
        pack_distribution(one, channel)
        waiting += needed_by(one)
    index(channel)
    print(f"packed {len(done) + 1} packages")


def build(recipe: Stage0Recipe, channel: Path, out: Path) -> list[Path]:
    """Build the packages of the recipe, and return where they are."""
    (rendered,) = recipe.render(VariantConfig(), RenderConfig(platform=PlatformConfig(target_platform=PLATFORM)))
    return rendered.run_build(ToolConfiguration(), output_dir=out, channels=[channel.as_uri()]).packages


def test(package: Path, channel: Path) -> None:
    """Run the tests of the recipe, each in an environment of its own that has the package and what it needs."""
    for number, result in enumerate(Package.from_file(package).run_tests(channel=[channel.as_uri()])):
        print(f"test {number}: {'passed' if result.success else 'failed'}")
        if not result.success:
            sys.exit("\n".join(result.output))


def main() -> None:
    """Build, test, and say where the package is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help="keep the package there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        recipe, channel = Stage0Recipe.from_file(HERE / "recipe.yaml"), Path(scratch) / "channel"
        fill(channel, recipe)
        for package in build(recipe, channel, options.out or Path(scratch) / "out"):
            print(f"{package}: {package.stat().st_size / 1e3:.0f} kB")
            test(package, channel)


if __name__ == "__main__":
    main()
