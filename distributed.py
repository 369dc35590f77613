"""The processes of a run: start and stop, signals, complaints said once, sums, random streams, checkpoints.

The division of labour is simple: every rank holds the whole rollout (tokens, rewards, values: small next to
the models) and computes the same statistics on it, so quantiles, whitening and counts are global without
communication. Only generation, verification, forward and backward passes are divided over ranks, and their
results put back together.
"""

import argparse
import gc
import hashlib
import io
import logging
import math
import os
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Callable, Iterator, Self

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from tqdm import tqdm


class UserError(Exception):
    """A mistake that the user can mend: one sentence instead of a stack trace, and exit code 2."""

    exit_code = 2


class RunError(UserError):
    """A fault of the machine while a run went on, said in one sentence too; the exit code is 1."""

    exit_code = 1


def refuse(wrong: object, sentence: str) -> None:
    if wrong:
        raise UserError(sentence)


@contextmanager
def reading(sentence: str, *errors: type[Exception]) -> Iterator[None]:
    """What cannot be read becomes a sentence that ends with its reason; errors: further types to expect."""
    try:
        yield
    except (OSError, ValueError, *errors) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{sentence} ({reason})") from error


@dataclass(frozen=True)
class World:
    """This process among all processes of the run. mesh: over which weights are divided, [processes], or
    copied and divided, [copies, processes of one copy]."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def start(device: str, timeout: float = 30.0, ranks_per_copy: int | None = None) -> World:
    """Join the process group that torchrun describes, or make one of a single process.

    device: auto, cpu or cuda; timeout: minutes that a rank may keep the others waiting; ranks_per_copy:
    processes that hold one copy of the weights together, by default a machine's (plan.py may make it all).
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    refuse(device == "cuda" and not torch.cuda.is_available(),
           "--device cuda: torch sees no CUDA GPU here; use --device cpu or install a CUDA build of torch.")
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device == "cuda":
        n_gpus = torch.cuda.device_count()
        refuse(n_gpus < local_size,
               f"{local_size} processes were started for {n_gpus} GPUs; start one for each.")
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        # two processes with all cores' threads each are many times slower than one after the other
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_size))
    # gloo beside NCCL, so that Python objects and CPU tensors can be exchanged on GPU runs too
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    group = {} if "WORLD_SIZE" in os.environ else dict(store=dist.HashStore(), rank=0, world_size=1)
    with reading("the processes that WORLD_SIZE counts cannot meet; start them with torchrun, or unset it to "
                 "start one", RuntimeError):
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout), **group)
    rank, size = dist.get_rank(), dist.get_world_size()
    local_sizes: list[int] = [0] * size
    dist.all_gather_object(local_sizes, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    # machines of different sizes hold one copy together
    ranks_per_copy = ranks_per_copy or (local_sizes[0] if len({*local_sizes}) == 1 else size)
    refuse(size % ranks_per_copy,
           f"--ranks-per-copy {ranks_per_copy} does not divide the {size} processes; give a number that "
           "does.")
    where = torch.device(device, local_rank if device == "cuda" else None)
    return World(rank, size, where, mesh_of(device, size, ranks_per_copy))


def mesh_of(device: str, size: int, ranks_per_copy: int) -> DeviceMesh:
    shape = (size // ranks_per_copy, ranks_per_copy) if ranks_per_copy < size else (size,)
    return init_device_mesh(device, shape, mesh_dim_names=("copies", "ranks of one")[-len(shape) :])


def stop() -> None:
    """Leave the process group. The caller drops its models first, or gloo's threads abort the exit."""
    if dist.is_initialized():
        dist.destroy_process_group()
    gc.collect()


class StopRequest:
    """SIGTERM and Ctrl-C let the running step finish and be saved; again a few seconds later they end it.

    torchrun kills what has not ended after 30 seconds, unless it is started with a longer --shutdown-timeout.
    """

    def __init__(self, world: World):
        self.world, self.signal, self.first = world, 0, math.inf

    def __enter__(self) -> Self:
        self.before = {each: signal.signal(each, self.notice) for each in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception) -> None:
        for each, handler in self.before.items():
            signal.signal(each, handler)

    def notice(self, received: int, frame) -> None:
        # job managers send a signal to every process, and torchrun then sends it once more
        if time.monotonic() > self.first + 5:
            signal.signal(received, signal.SIG_DFL)
            os.kill(os.getpid(), received)
        if not self.signal and self.world.is_main:
            name = signal.Signals(received).name
            print(f"\n{name}: stopping as soon as the running step is finished and saved.", file=sys.stderr)
        self.signal, self.first = self.signal or received, min(self.first, time.monotonic())

    def seen(self) -> int:
        """The signal that any rank has got, else 0; the same on all ranks."""
        return max(gather_list([self.signal], self.world))


# -- the command line ----------------------------------------------------------------------------------------
def report(script: str, error: UserError) -> int:
    """Print a user's mistake once, and return its exit code.

    Every process sees most mistakes, and torchrun kills the others once one has exited: rank 0 speaks at
    once; another rank if it is still alive after a while, for it may be the only one that saw the mistake.
    """
    if os.environ.get("RANK", "0") != "0":
        time.sleep(10)
    print(f"{script}: error: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def exit_code(script: str, work: Callable[[], int | None]) -> int:
    """Of a script whose work this is: what it returns, or that of a mistake, which is said in a sentence."""
    try:
        code = work() or 0
    except UserError as error:
        code = report(script, error)
    except torch.OutOfMemoryError as error:
        code = report(script, RunError(
            f"the GPU's memory is full ({str(error)[:200]}); --resume with a smaller --generate-batch, in "
            "training with a smaller --token-budget or a further --offload."))
    stop()  # once work has returned: its models are gone; after a crash nothing is waited for
    return code


class Output(io.FileIO):
    """stdout or stderr of a run that goes on unheard when nobody reads it or its disk is full."""

    def write(self, text: bytes) -> int:
        try:
            return super().write(text) or len(text)
        except OSError:
            return len(text)


def secure_output() -> None:
    """A reader who leaves (RWKV-Runner#229), or an encoding that lacks σ, ends no run."""
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if type(stream) is io.TextIOWrapper:  # and not a notebook's or a test's
            raw, lines = Output(stream.fileno(), "w", closefd=False), stream.line_buffering
            new = io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "replace", line_buffering=lines)
            setattr(sys, name, new)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, []) else action.help


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are printed once, however many processes there are."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message: str):
        sys.exit(report(self.prog, UserError(message)))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Where and how to compute."""
    add = parser.add_argument_group("processes").add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    add("--dtype", choices=("auto", "fp32", "bf16"), default="auto", help="compute type; auto: bf16 on GPU, else fp32")
    add("--timeout", type=number(float, 0, above=True), default=30.0, help="minutes that a rank may keep the others waiting")
    add("--ranks-per-copy", type=number(int, 1), help="processes that hold one copy of the weights together; default: a machine's if its GPUs can hold one, else all")


def number(kind: type, least: float, most: float = 2**31, above: bool = False) -> Callable[[str], float]:
    """A type for argparse: an int or float from `least` (or only above it) to `most`."""
    wanted = "an integer " if kind is int else "a number "
    wanted += f"above {least}" if above else f"of at least {least}"
    wanted += f" and at most {most}" if most < 2**31 else ""

    def parse(text: str):
        try:
            x = kind(text)
        except ValueError:
            x = math.nan
        if not ((x > least if above else x >= least) and x <= most):  # NaN fails every comparison
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text[:40]}")
        return x

    return parse


# -- files ---------------------------------------------------------------------------------------------------
def replace_text(path: Path, text: str) -> None:
    """Write a file beside the old one and put it in its place: a kill leaves one of the two whole."""
    new = path.with_name(path.name + ".new")
    with writing(path):
        new.write_text(text)
        new.replace(path)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A full disk, or one that may not be written to, becomes a sentence."""
    try:
        yield path
    except (OSError, SafetensorError, CheckpointException) as error:
        raise RunError(f"{path} could not be written ({cause(error)}); what was saved before is whole: "
                       "--resume goes on.") from error


def cause(error: BaseException) -> BaseException:
    """Of a checkpoint's failures, rank -> (error, stack), the first."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def progress(total: int, label: str, unit: str, world: World) -> tqdm:
    """A bar that disappears when done; on rank 0 of a terminal only."""
    return tqdm(total=total, desc=label, unit=unit, leave=False, disable=None if world.is_main else True)


# -- random streams and sums ---------------------------------------------------------------------------------
def stream_seed(seed: int, stream: str, *counters: int) -> int:
    """An independent seed for each named random stream (data, sampling, shards, …) and step of a run.

    No stream has state that outlives its step, so a resumed run continues each of them exactly.
    """
    return int.from_bytes(hashlib.sha256(repr((seed, stream, counters)).encode()).digest()[:7], "little")


def generator(seed: int, stream: str, *counters: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, stream, *counters))


def own_slice(n: int, world: World) -> slice:
    """The contiguous part of n items that this rank works on; sizes differ by at most one."""
    return slice(n * world.rank // world.size, n * (world.rank + 1) // world.size)


def gather_list(own: list, world: World) -> list:
    """Concatenate every rank's list in rank order, on every rank."""
    parts: list[list] = [[] for _ in range(world.size)]
    dist.all_gather_object(parts, own)
    return [item for part in parts for item in part]


@contextmanager
def together(world: World) -> Iterator[None]:
    """A user's mistake that one rank finds in here is raised on all of them, or the others would fail with a
    trace as soon as it is gone. No communication in here."""
    found = None
    try:
        yield
    except UserError as error:
        found = error
    for error in filter(None, gather_list([found], world)):
        raise error


def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """Sum of a CPU tensor over all ranks, in place."""
    dist.all_reduce(x)
    return x


# -- checkpoints ---------------------------------------------------------------------------------------------
Trained = dict[str, tuple[nn.Module, torch.optim.Optimizer]]  # name -> model and its optimizer


def save_checkpoint(folder: Path, models: Trained, step: int, keep: int, world: World) -> None:
    """Write folder/step-N, which gets its name when it is whole; the last `keep` of them stay."""
    new = folder / f"step-{step}.new"
    if world.is_main:
        shutil.rmtree(new, ignore_errors=True)
    dist.barrier()
    with writing(new):
        dcp.save(states(models), checkpoint_id=new)
    if world.is_main:
        new.rename(folder / f"step-{step}")
        replace_text(folder.with_name("saved"), f"{step}\n")  # by which a lost checkpoint is noticed
        for old in saved_steps(folder)[:-keep]:
            shutil.rmtree(folder / f"step-{old}", ignore_errors=True)
    dist.barrier()


def saved_steps(folder: Path) -> list[int]:
    """The steps after which checkpoints stand in the folder, in order; other names there mean nothing."""
    return sorted(int(path.name[5:]) for path in folder.glob("step-[1-9]*") if path.name[5:].isdecimal())


def load_checkpoint(folder: Path, models: Trained, world: World) -> int:
    """Fill models and optimizers from the last checkpoint, of any number of processes. -> its step, or 0

    One that cannot be read is named and set aside, and the one before it used.
    """
    cut = {}
    for step in reversed(saved_steps(folder)):
        path, state = folder / f"step-{step}", states(models)
        logging.disable(logging.WARNING)  # dcp prints the trace of what it then raises, on all ranks
        try:
            dcp.load(state, checkpoint_id=path)
        except (Exception, CheckpointException) as error:
            cut[path] = cause(error)
            continue
        finally:
            logging.disable(logging.NOTSET)
        for pair, saved in zip(models.values(), state.values()):
            set_state_dict(*pair, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])
        for path, why in cut.items() if world.is_main else ():
            aside = path.rename(f"{path}.cut-{time.time():.0f}")
            print(f"{path} cannot be read ({why!r}) and is now {aside}; going on from step {step}.",
                  file=sys.stderr)
        return step
    refuse(cut, f"--resume: no checkpoint in {folder} can be read ({'; '.join(map(repr, cut.values()))}); "
                "start a new run in another --out.")
    if world.is_main:
        print(f"{folder} holds no checkpoint yet: the run begins again at step 1.", file=sys.stderr)
    return 0


def states(models: Trained) -> dict[str, dict]:
    fresh = [optimizer for _, optimizer in models.values() if not optimizer.state]
    made = {name: dict(zip(("model", "optimizer"), get_state_dict(*pair))) for name, pair in models.items()}
    # get_state_dict gives an optimizer without a state one, by an empty step that AdamW must not count
    for optimizer in fresh:
        for state in optimizer.state.values():
            state["step"].zero_()
    return made
