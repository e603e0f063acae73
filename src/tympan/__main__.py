"""`python -m tympan`: the same as the command `tympan`."""

import sys

from tympan.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
