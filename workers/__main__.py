import sys

from workers.main import main

main(sys.argv[1:])
