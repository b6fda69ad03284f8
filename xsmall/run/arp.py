"""Scripts that the automation of LCLS (ARP) calls: one that submits a job for each run, and the job itself."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final

from xsmall.io.stores.place import write_file
from xsmall.run.recipe import open_recipe

__all__ = ["make_arp"]

_SUBMIT: Final = """#!/bin/bash
# Called by the automation (ARP) or by hand: submits a job that produces one run.
# The automation sets EXPERIMENT, RUN_NUM and JID_UPDATE_COUNTERS; by hand: RUN_NUM=12 {name}
set -euo pipefail
: "${{RUN_NUM:?the number of the run}}"
exec sbatch --parsable --partition={partition} --account={account} --nodes=1 --ntasks=1 --cpus-per-task={cores} \\
    --mem={memory} --time={walltime} --job-name="xsmall-$RUN_NUM" --output={log}/run-%j.log \\
    --export=ALL {job} "$@"
"""
_JOB: Final = """#!/bin/bash
# The job: the same command finishes what a job that was killed has left.
set -uo pipefail
export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
{setup}
xsmall produce {recipe} --run "$RUN_NUM" --out {out} --workers {cores} --resume --quiet \\
    ${{JID_UPDATE_COUNTERS:+--post "$JID_UPDATE_COUNTERS"}} "$@"
code=$?
[ "$code" = 3 ] && code=0  # all done; some events are flagged, which the report tells
exit "$code"
"""


def make_arp(
    recipe: str | os.PathLike[str],
    out: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    partition: str = "milano",
    account: str = "lcls",
    cores: int = 16,
    memory: str = "64G",
    walltime: str = "02:00:00",
    setup: str = "",
    overwrite: bool = False,
) -> tuple[Path, Path]:
    """Write the scripts with which LCLS's automation produces each run as it ends.

    Parameters
    ----------
    recipe
        The recipe, which is checked.
    out
        Folder of the outputs.
    folder
        Where the two scripts and the logs go.
    partition, account, cores, memory, walltime
        Of the job, as ``sbatch`` has them.
    setup
        Lines of shell that make ``xsmall`` available, such as ``source /sdf/.../bin/activate``.
    overwrite
        Replace scripts that are there.

    Returns
    -------
    Paths of ``submit_xsmall.sh``, which the automation calls with RUN_NUM set, and of ``job_xsmall.sh``.

    Raises
    ------
    ParameterError
        An invalid recipe; scripts that are there.

    Examples
    --------
    >>> import pathlib, tempfile, xsmall as xs
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "recipe.toml").write_text('source = "exp=mfx100123,run={run}"')
    >>> [path.name for path in xs.make_arp(folder / "recipe.toml", folder / "small", folder / "arp")]
    ['submit_xsmall.sh', 'job_xsmall.sh']
    """
    open_recipe(recipe)
    where = Path(folder).expanduser().absolute()
    where.mkdir(parents=True, exist_ok=True)
    submit, job = where / "submit_xsmall.sh", where / "job_xsmall.sh"
    words = {key: shlex.quote(str(value)) for key, value in {
        "partition": partition, "account": account, "cores": cores, "memory": memory, "walltime": walltime,
        "log": where, "job": job, "recipe": Path(recipe).absolute(), "out": Path(out).absolute(),
    }.items()}  # fmt: skip
    for path, text in ((submit, _SUBMIT.format(name=submit.name, **words)), (job, _JOB.format(setup=setup, **words))):
        _script(path, text, overwrite=overwrite)
    return submit, job


def _script(path: Path, text: str, *, overwrite: bool) -> None:
    def put(draft: Path) -> None:
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o755)

    write_file(path, put, overwrite=overwrite)
