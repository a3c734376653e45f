"""`python -m mbt_lite`, the same as the command `mbt-lite`."""

import sys

from mbt_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
