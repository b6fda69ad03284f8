"""Many cases of hostile bytes, once: ``python tests/io/sources/xtc2/fuzz.py 100000``.

What the tests do with some hundred examples. Each case opens and reads a file, or a run of several, of which bits were
flipped, bytes replaced, or pieces cut, repeated and swapped. It has to end within ten
seconds of the processor (and ten minutes of the clock, which other programs make long), with values or with an error of
xsmall, and without taking more memory than a fixed sum beside the file.
"""

import importlib.util
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[4]))

from tests.io.sources.xtc2 import test_fuzz, test_fuzz_runs

SECONDS, WAITING = 10, 600
MEGABYTES = 64
"""Memory that may grow over all cases: what a process keeps of some runs, whatever files say."""


def writer():
    """The writer of synthetic XTC2 bytes."""
    place = Path(__file__).parents[2] / "xtc2_writer.py"
    spec = importlib.util.spec_from_file_location("xtc2_writer", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def harmed(data: bytes, rng: np.random.Generator) -> bytes:
    """Change some bits, bytes, words or pieces."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(1, len(out))))
        kind = rng.integers(0, 6)
        if not out:
            break
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            out[at] = int(rng.choice([0, 1, 2, 8, 11, 12, 24, 0x7F, 0x80, 0xFF]))
        elif kind == 2:
            word = int(rng.integers(0, 64)) if rng.random() < 0.5 else int(rng.integers(0, 1 << 32))
            out[at : at + 4] = word.to_bytes(4, "little")
        elif kind == 3:
            out = out[:at]
        else:
            a, b = sorted(rng.integers(0, len(out) + 1, 2).tolist())
            out = out[:a] + out[a:b] * int(rng.integers(0, 3)) + out[b:]
    return bytes(out)


def too_long(*_: object) -> None:
    raise SystemExit(f"a case takes more than {SECONDS} s of the processor, or {WAITING} s")


def main(cases: int, seed: int = 0) -> None:
    """Run them and say how many there were."""
    warnings.simplefilter("ignore")
    made = writer()
    one, run = test_fuzz.whole_file(made), test_fuzz_runs.whole_run(made)
    names = sorted(run)
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGPROF, too_long)
    began, before = time.monotonic(), 0
    for case in range(cases):
        rng = np.random.default_rng([seed, case])
        signal.alarm(WAITING)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            if case % 2:
                name = names[int(rng.integers(0, len(names)))]
                test_fuzz_runs.read_everything(run | {name: harmed(run[name], rng)})
            else:
                test_fuzz.read_everything(harmed(one, rng))
        except BaseException:
            print(f"case {case} of seed {seed}", flush=True)  # noqa: T201
            raise
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        if case == min(1000, cases // 2):
            before = now
        elif before and now > before + MEGABYTES:
            raise SystemExit(f"case {case} of seed {seed}: {now} MB, {before} MB before")
    took = time.monotonic() - began
    print(f"{cases} cases, {took:.0f} s, at most {now} MB, {now - before} MB more than after the first")  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
