import gc
import sys

from chatserver.infra.lean import load_lean

# As in chatserver/cli/loading.py.
gc.disable()
load_lean()

from workers.main import main  # noqa: E402

gc.enable()

if __name__ == "__main__":
    main(sys.argv[1:])
