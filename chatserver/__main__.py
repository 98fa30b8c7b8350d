"""`python -m chatserver` and the console script."""

from chatserver.cli import main

if __name__ == "__main__":
    main()
