"""The command line as ``python -m xsmall.cli``."""

import sys

from xsmall.cli import main

if __name__ == "__main__":
    sys.exit(main())
