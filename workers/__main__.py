import sys

from workers.main import main

if __name__ == "__main__":
    main(sys.argv[1:])
