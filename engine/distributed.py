"""The processes of a run: start and stop, signals, sums and lists over ranks.

Every rank holds the whole rollout (tokens, rewards, values), which is small next to the models. So every rank
computes the same quantiles, whitening and counts without communication. Ranks share only generation, verification,
forward and backward passes, and then gather the results.
"""

import ctypes
import gc
import math
import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Iterator, Self

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from tqdm import tqdm

from engine.errors import UserError, require, user_error

TIMEOUT = timedelta(minutes=30)  # a rank may keep the others waiting this long: responses differ in length


@dataclass(frozen=True)
class World:
    """This process among all processes of the run.

    mesh: weights are sharded over its last dimension and replicated over its first, if it has two.
    """

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def start(device: str | None = None, ranks_per_copy: int | None = None) -> World:
    """Join torchrun's process group, or make a group of one process.

    device: cpu or cuda; default: cuda if torch sees a GPU. ranks_per_copy: ranks that shard one copy of the weights;
    default: those of one machine.
    """
    end_with_parent()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device == "cuda":
        n_gpus = torch.cuda.device_count()
        require(n_gpus >= local_size,
                f"{local_size} processes were started for {n_gpus} GPUs; start one process for each GPU.")
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        # threads that wait for a busy core slow a step down many times
        idle_cores = len(os.sched_getaffinity(0)) - round(os.getloadavg()[0])
        torch.set_num_threads(max(1, idle_cores // local_size))
    # gloo beside NCCL: GPU runs exchange Python objects and CPU tensors too
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    group = {} if "WORLD_SIZE" in os.environ else dict(store=dist.HashStore(), rank=0, world_size=1)
    with user_error("the processes counted by WORLD_SIZE cannot meet; start them with torchrun, or unset "
                    "WORLD_SIZE to start one process", RuntimeError):
        dist.init_process_group(backend, timeout=TIMEOUT, **group)
    rank, size = dist.get_rank(), dist.get_world_size()
    local_sizes: list[int] = [0] * size
    dist.all_gather_object(local_sizes, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    if ranks_per_copy is None:  # machines of unequal size share one copy
        ranks_per_copy = local_sizes[0] if len(set(local_sizes)) == 1 else size
    require(size % ranks_per_copy == 0,
            f"--ranks-per-copy {ranks_per_copy} does not divide the {size} processes; give a divisor.")
    where = torch.device(device, local_rank if device == "cuda" else None)
    return World(rank, size, where, make_mesh(device, size, ranks_per_copy))


def make_mesh(device: str, size: int, ranks_per_copy: int) -> DeviceMesh:
    """Return a mesh [ranks], or [replicas, ranks of one replica] for hybrid sharding."""
    shape = (size // ranks_per_copy, ranks_per_copy) if ranks_per_copy < size else (size,)
    return init_device_mesh(device, shape, mesh_dim_names=("replicate", "shard")[-len(shape) :])


def stop() -> None:
    """Leave the process group. Drop the models first, or gloo's threads abort the exit."""
    if dist.is_initialized():
        dist.destroy_process_group()
    gc.collect()


def own_slice(n: int, world: World) -> slice:
    """Return this rank's contiguous part of n items; sizes differ by at most one."""
    return slice(n * world.rank // world.size, n * (world.rank + 1) // world.size)


def gather_list(local: list, world: World) -> list:
    """Concatenate every rank's list in rank order, on every rank. Collective."""
    parts: list[list] = [[] for _ in range(world.size)]
    dist.all_gather_object(parts, local)
    return [item for part in parts for item in part]


def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """Sum a CPU tensor over all ranks, in place. Collective."""
    dist.all_reduce(x)
    return x


@contextmanager
def raise_on_all_ranks(world: World) -> Iterator[None]:
    """Collective: raise a UserError of any rank on all ranks. Do not communicate inside the block.

    Without it the other ranks fail with a trace as soon as the mistaken one is gone.
    """
    found = None
    try:
        yield
    except UserError as error:
        found = error
    for error in filter(None, gather_list([found], world)):
        raise error


def progress(total: int, label: str, unit: str, world: World) -> tqdm:
    """Return a progress bar that rank 0 shows on a terminal and removes when done."""
    return tqdm(total=total, desc=label, unit=unit, leave=False, disable=None if world.is_main else True)


class Signals:
    """The requests that signals make of a run.

    SIGTERM, Ctrl-C and a hang-up let the running step finish and be saved; a second one after 5 seconds ends the run
    at once. SIGUSR1 saves a checkpoint, and the run goes on. Under nohup a hang-up is ignored, but not under torchrun,
    because torchrun then ends its ranks. torchrun kills a rank 30 seconds after SIGTERM, unless its
    --shutdown-timeout is longer.
    """

    def __init__(self, world: World):
        self.world, self.stop_signal, self.first_time, self.save_asked = world, 0, math.inf, False

    def __enter__(self) -> Self:
        handled = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
        if under_torchrun() or signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            handled.append(signal.SIGHUP)
        self.handlers = {each: signal.signal(each, self.notice) for each in handled}
        return self

    def __exit__(self, *exception) -> None:
        for each, handler in self.handlers.items():
            signal.signal(each, handler)

    def notice(self, received: int, frame) -> None:
        if received == signal.SIGUSR1:
            self.save_asked = True
            return
        # schedulers signal every process and torchrun forwards it again: ignore repeats for 5 s
        if time.monotonic() > self.first_time + 5:
            signal.signal(received, signal.SIG_DFL)
            os.kill(os.getpid(), received)
        is_first, self.stop_signal = not self.stop_signal, self.stop_signal or received
        self.first_time = min(self.first_time, time.monotonic())
        if is_first and self.world.is_main:
            name = signal.Signals(received).name
            try:
                print(f"\n{name}: stopping as soon as the running step is finished and saved.", file=sys.stderr)
            except (OSError, RuntimeError):  # the terminal is gone, or the signal interrupted another print
                pass

    def poll(self) -> tuple[int, bool]:
        """Return the signal that stops the run, else 0, and whether a checkpoint is asked for. Collective."""
        seen = gather_list([(self.stop_signal, self.save_asked)], self.world)
        return max(stop for stop, _ in seen), any(save for _, save in seen)


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def end_with_parent() -> None:
    """Under torchrun, ask Linux for a SIGTERM when torchrun is killed: its ranks would train on as orphans."""
    if under_torchrun() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        command = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
        require(b"python" in command or b"torch" in command, "torchrun is gone; start the run again with --resume.")
