"""`python -m studio VERB`: every arrow of the journey from a terminal."""

from __future__ import annotations

import sys

from studio.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
