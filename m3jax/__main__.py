"""`python -m m3jax` is the `m3jax` command."""

import sys

from m3jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
