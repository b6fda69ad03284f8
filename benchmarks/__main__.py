"""``python -m benchmarks [--quick] [module ...]``."""

import argparse
import os
import platform
import time

import numba
import numpy as np

from benchmarks import modules, table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Timings as ratios, in one run.")
    parser.add_argument("names", nargs="*", help="modules of this folder; all of them without")
    parser.add_argument("--quick", action="store_true", help="small arrays, once: shows that everything runs")
    parser.add_argument("--cpu", action="store_true", help="time of the processor, of all threads: on a busy machine")
    options = parser.parse_args()
    load = f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
    print(f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}{load}; one thread")
    if options.quick:
        print("quick: once, cold and small; the numbers mean nothing")
    print("ms/event is the least of the repeats; floor is reading the same raw data once")
    if options.cpu:
        print("times are of the processor, over the threads that ours works on, but where a line says otherwise")
    clock = time.process_time if options.cpu else time.perf_counter
    for module in modules(options.names):
        print(f"\n{module.__name__.removeprefix('benchmarks.')}: {(module.__doc__ or '').splitlines()[0]}")
        cases = module.cases(0.05 if options.quick else 1.0)
        for line in table(cases, clock=clock, **({"budget": 0.0, "most": 1} if options.quick else {})):
            print(line, flush=True)


if __name__ == "__main__":
    main()
