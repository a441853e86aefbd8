"""`python -m minisparse` is the command `minisparse`."""

import sys

from minisparse.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
