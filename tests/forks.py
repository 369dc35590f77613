"""Scripts run by forks of a process that has imported everything: a start costs tenths of a second, not five or six.

For tests in which what one or several processes compute counts, and not how users start them (then: conftest.run_script).
"""

import ctypes
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.forks", "train", "transformers.models.qwen3.modeling_qwen3"])


def rank(script: str, arguments: list[str], environment: dict[str, str], outputs: list[str]) -> None:
    """In the fork: the script as __main__, what it prints in files, and the end of a whole interpreter, at which gloo can
    abort after all work is done (multiprocessing itself would skip it)."""
    for stream, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), stream)
    os.environ.update(environment)
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    ctypes.pythonapi.Py_Exit(code)


def run_forked(script: str, *arguments, processes: int = 0, timeout: float = 300) -> subprocess.CompletedProcess:
    """Like run_script; processes > 0: with the environment that torchrun gives to each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environments = [
        dict(RANK=r, WORLD_SIZE=processes, LOCAL_RANK=r, LOCAL_WORLD_SIZE=processes, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for r in range(processes)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        ranks = []
        for r, environment in enumerate(environments or [{}]):
            outputs = [f"{folder}/out{r}", f"{folder}/err{r}"]
            environment = {key: str(value) for key, value in environment.items()}
            ranks.append(FORKS.Process(target=rank, args=(script, list(map(str, arguments)), environment, outputs)))
            ranks[-1].start()
        for process in ranks:
            process.join(timeout)
            process.kill()  # one that still runs
            process.join()
        out, err = ("".join(path.read_text() for path in sorted(Path(folder).glob(f"{name}*"))) for name in ("out", "err"))
    code = next((process.exitcode for process in ranks if process.exitcode), 0)
    return subprocess.CompletedProcess([script, *arguments], code, out, err)
