"""`python -m tympan` runs the command `tympan`."""

import sys

from tympan.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
