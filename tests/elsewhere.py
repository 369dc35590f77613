"""Two processes begin a run, each in a working directory of its own as if on a disk of its own, or with data
of its own.

tests/elsewhere.py folder|data DIR, for test_bad_input.py, where DIR/0 and DIR/1 are the directories
"""

import argparse
import os
import sys
from pathlib import Path

from distributed import UserError, start, stop
from folder import open_folder

world = start("cpu")
os.chdir(Path(sys.argv[2]) / (str(world.rank) if sys.argv[1] == "folder" else ""))
args = argparse.Namespace(out=Path("run"), resume=None, generate_batch=16)
try:
    open_folder(args, "train", set(), world).begin(args, {"--data": str(world.rank)}, world)
except UserError as error:
    sys.exit(print(error) or error.exit_code)
finally:
    stop()
