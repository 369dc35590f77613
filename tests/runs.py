"""Two ways to start a script of this repo, and ways to read the files of a run.

`run` is fast, because it imports nothing anew: it calls the script in this process, where a test may have
changed something, or in forks of a process that has imported everything. `launch` starts new interpreters as
users do, with python or torchrun. Both take the same arguments and return exit code, stdout and stderr.
"""

import contextlib
import ctypes
import importlib
import io
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# half of the embedded default's batch, and a few responses a step for tests in which many runs start
SMALL = "--prompts-per-step 8 --group-size 8 --eval-every 0".split()
FEW = "--prompts-per-step 2 --group-size 4 --n-problems 50 --eval-data".split() + [""]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.runs", "train", "transformers.models.qwen3.modeling_qwen3"])


def run(script: str, *arguments, processes: int = 0, code: int | None = 0,
        timeout: float = 600) -> subprocess.CompletedProcess:
    """Run a script: its `main` in this process, or its file in so many forks with torchrun's environment.

    code: the exit code that it must have; None: any but 0.
    """
    arguments = list(map(str, arguments))
    if processes:
        return checked(run_forks(script, arguments, processes, timeout), code)
    main = importlib.import_module(script.removesuffix(".py").replace("/", ".")).main
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            returned = main(arguments)
        except SystemExit as end:
            returned = end.code
    done = subprocess.CompletedProcess([script, *arguments], returned or 0, out.getvalue(), err.getvalue())
    return checked(done, code)


def launch(script: str, *arguments, processes: int = 0, code: int | None = 0,
           timeout: float = 600) -> subprocess.CompletedProcess:
    """Run a script as users do: with python, or in so many processes with torchrun. code: as in `run`."""
    command = [*launcher(processes), script, *map(str, arguments)]
    return checked(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout), code)


def launcher(processes: int) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *(torchrun if processes else [])]


def checked(done: subprocess.CompletedProcess, code: int | None) -> subprocess.CompletedProcess:
    assert done.returncode != 0 if code is None else done.returncode == code, done.stderr
    return done


def run_forks(script: str, arguments: list[str], processes: int,
              timeout: float) -> subprocess.CompletedProcess:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        meeting = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(listener.getsockname()[1]))
    size = str(processes)
    with tempfile.TemporaryDirectory() as folder:
        ranks = []
        for r in map(str, range(processes)):
            environment = meeting | dict(RANK=r, WORLD_SIZE=size, LOCAL_RANK=r, LOCAL_WORLD_SIZE=size)
            outputs = [f"{folder}/out{r}", f"{folder}/err{r}"]
            ranks.append(FORKS.Process(target=be_rank, args=(script, arguments, environment, outputs)))
            ranks[-1].start()
        for process in ranks:
            process.join(timeout)
            process.kill()  # one that still runs
            process.join()
        out, err = (
            "".join(path.read_text() for path in sorted(Path(folder).glob(f"{stream}*")))
            for stream in ("out", "err"))
    code = next((process.exitcode for process in ranks if process.exitcode), 0)
    return subprocess.CompletedProcess([script, *arguments], code, out, err)


def be_rank(script: str, arguments: list[str], environment: dict[str, str], outputs: list[str]) -> None:
    """In the fork: run the script as __main__ with its output in files, then end as a whole interpreter does.

    Gloo can abort at that end, after all work is done; a fork of multiprocessing would skip it.
    """
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


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def weights(folder: Path) -> dict:
    """Return the weights that a run with two critics saved: "file: name" -> tensor."""
    from safetensors.torch import load_file

    files = ("model/model.safetensors", "critic0/model.safetensors", "critic1/value_head.safetensors")
    return {f"{file}: {name}": x for file in files for name, x in load_file(folder / file).items()}
