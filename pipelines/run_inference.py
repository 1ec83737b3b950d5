"""The main job as `python -m run_inference`; `cxr-embed run` is the same program."""

import sys

from cxr_embed.cli import main, run

if __name__ == "__main__":
    sys.exit(main.guarded(run.main, sys.argv[1:]))
