"""Two processes open the folder of a run, each in a working directory of its own as if on a disk of its own.

tests/elsewhere.py DIR, for test_bad_input.py, where DIR/0 and DIR/1 are the directories
"""

import argparse
import os
import sys
from pathlib import Path

from distributed import UserError, start, stop
from folder import open_folder

world = start("cpu")
os.chdir(Path(sys.argv[1]) / str(world.rank))
try:
    open_folder(argparse.Namespace(out=Path("run"), resume=None), "train", set(), world)
except UserError as error:
    sys.exit(print(error) or error.exit_code)
finally:
    stop()
