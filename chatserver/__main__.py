"""`python -m chatserver` and the console script."""

import gc

# What is loaded stays for good: looking for garbage meanwhile takes a sixth of the start.
gc.disable()

from chatserver.cli import main  # noqa: E402

gc.enable()

if __name__ == "__main__":
    main()
