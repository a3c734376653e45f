"""`python -m mbt_lite.demo`, the same as `mbt-lite demo`."""

import sys

from mbt_lite.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
