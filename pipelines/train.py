"""Trains a head as `python -m train`; `cxr-embed train` is the same program."""

import sys

from cxr_embed.cli import main, train

if __name__ == "__main__":
    sys.exit(main.guarded(train.main, sys.argv[1:]))
