"""``python -m cfnseg``: the same as ``cfnseg``."""

from cfnseg.cli import main

if __name__ == "__main__":
    main()
