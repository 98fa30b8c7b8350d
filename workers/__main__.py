import gc
import sys

# As in chatserver/__main__.py.
gc.disable()

from workers.main import main  # noqa: E402

gc.enable()

if __name__ == "__main__":
    main(sys.argv[1:])
