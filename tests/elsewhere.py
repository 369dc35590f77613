"""Two processes open a run, each in a working directory of its own as if on a disk of its own, or with data
of its own.

tests/elsewhere.py folder|data DIR, where DIR/0 and DIR/1 are the directories
"""

import os
import sys
from pathlib import Path

from engine.distributed import start, stop
from engine.errors import UserError
from engine.folder import open_folder

world = start("cpu")
os.chdir(Path(sys.argv[2]) / (str(world.rank) if sys.argv[1] == "folder" else ""))
settings = dict(out="run", generate_batch=16)
try:
    folder = open_folder(Path("run"), False, settings, set(), "train", world)
    folder.begin(settings, {"--data": str(world.rank)}, world)
except UserError as error:
    sys.exit(print(error) or error.exit_code)
finally:
    stop()
