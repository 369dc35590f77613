"""Everything that knows about more than one process: start and stop, FSDP2 sharding, micro-batches, checkpoints.

The division of labour is simple: every rank holds the whole rollout (tokens, rewards, values: small next to the
models) and computes the same statistics on it, so quantiles, whitening and counts are global without communication.
Only forward and backward passes are split over ranks, by `pack`, and their per-token results summed back together.

Legend for shape suffixes: B responses, T response tokens.
"""

import argparse
import gc
import hashlib
import math
import os
import shutil
import sys
import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Callable, Iterator

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from tqdm import tqdm


class UserError(Exception):
    """A mistake that the user can mend; its one sentence is printed instead of a stack trace, and the exit code is 2."""

    exit_code = 2


class RunError(UserError):
    """A fault of the machine while a run went on, said in one sentence too; the exit code is 1."""

    exit_code = 1


@dataclass(frozen=True)
class World:
    """This process among all processes of the run."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh
    store: dist.Store

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def start(device: str, timeout: float = 30.0) -> World:
    """Join the process group that torchrun describes, or make one of a single process.

    device: auto, cpu or cuda; timeout: minutes that a rank may keep the others waiting.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA GPU here; use --device cpu or install a CUDA build of torch.")
    local_rank, local_size = (int(os.environ.get(k, d)) for k, d in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")))
    if device == "cuda":
        if local_size > torch.cuda.device_count():
            raise UserError(f"{local_size} processes were started for {torch.cuda.device_count()} GPUs; start one for each.")
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        # two processes with all cores' threads each are many times slower than one after the other
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_size))
    # gloo beside NCCL, so that Python objects and CPU tensors can be exchanged on GPU runs too
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    under_torchrun = "WORLD_SIZE" in os.environ
    store, rank, size = next(dist.rendezvous("env://")) if under_torchrun else (dist.HashStore(), 0, 1)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timedelta(minutes=timeout))
    mesh = init_device_mesh(device, (size,))
    return World(rank, size, torch.device(device, local_rank if device == "cuda" else None), mesh, store)


def stop() -> None:
    """Leave the process group. The caller drops its models first: gloo's threads abort an exit that still holds them."""
    if dist.is_initialized():
        dist.destroy_process_group()
    gc.collect()


@contextmanager
def naming_silent_ranks(world: World) -> Iterator[None]:
    """Where a rank waits for others in vain, end with a sentence that names them.

    Every rank that still moves gets here and says so in the store; one that hangs does not. (One that has died is named
    by torchrun, which then ends the others. With NCCL its own watchdog ends a rank that has waited too long.)
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        world.store.set(f"alive {world.rank}", "")
        time.sleep(10)
        silent = [rank for rank in range(world.size) if not world.store.check([f"alive {rank}"])]
        who = f"rank {', '.join(map(str, silent))} does not answer" if silent else "a connection between ranks broke"
        raise RunError(f"{who} ({str(error).splitlines()[0]}); the job ends. --resume goes on from its last save.") from error


def report(script: str, error: UserError) -> int:
    """Print a user's mistake once, and return its exit code.

    Every process sees most mistakes, and torchrun kills the others as soon as one has exited: rank 0 speaks at once;
    another rank speaks if it is still alive after a while, for it may be the only one that saw the mistake.
    """
    if os.environ.get("RANK", "0") != "0":
        time.sleep(10)
    print(f"{script}: error: {error}", file=sys.stderr, flush=True)
    return error.exit_code


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are printed once, however many processes there are."""

    def error(self, message: str):
        sys.exit(report(self.prog, UserError(message)))


def replace_text(path: Path, text: str) -> None:
    """Write a file beside the old one and put it in its place: a kill leaves one of the two whole."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk, or one that may not be written to, becomes a sentence."""
    try:
        yield
    except (OSError, SafetensorError, CheckpointException) as error:
        # rank -> (its error, stack)
        reason = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        raise RunError(f"{path} could not be written ({reason}); what was saved before is whole: --resume goes on.") from error


def progress(total: int, label: str, unit: str, world: World) -> tqdm:
    """A bar that disappears when done; on rank 0 of a terminal only."""
    return tqdm(total=total, desc=label, unit=unit, leave=False, disable=None if world.is_main else True)


def stream_seed(seed: int, stream: str, *counters: int) -> int:
    """An independent seed for each named random stream (data, sampling, shards, …) and step of a run.

    No stream has state that outlives its step, so a resumed run continues each of them exactly.
    """
    return int.from_bytes(hashlib.sha256(repr((seed, stream, counters)).encode()).digest()[:7], "little")


def generator(seed: int, stream: str, *counters: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, stream, *counters))


def own_slice(n: int, world: World) -> slice:
    """The contiguous part of n items that this rank works on; sizes differ by at most one, and a part may be empty."""
    return slice(n * world.rank // world.size, n * (world.rank + 1) // world.size)


def gather_list(own: list, world: World) -> list:
    """Concatenate every rank's list in rank order, on every rank."""
    parts: list[list] = [[] for _ in range(world.size)]
    dist.all_gather_object(parts, own)
    return [item for part in parts for item in part]


def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """Sum of a CPU tensor over all ranks, in place."""
    dist.all_reduce(x)
    return x


# -- sharded models -----------------------------------------------------------------------------------------------------


def shard_model(model: nn.Module, blocks: list[nn.Module], fp32: list[nn.Module], world: World, dtype: torch.dtype) -> None:
    """FSDP2 in place: one unit a transformer block, one for each module that stays in fp32, one for the rest. All ranks
    get rank 0's weights.

    The master weights and the gradients' reduction are fp32 (AdamW at 1e-6 rounds updates of bf16 weights away,
    AReaL#1292); compute runs in dtype. One process that computes in fp32 has nothing to divide and nothing to cast.
    """
    if world.size == 1 and dtype == torch.float32:
        model.to(world.device)
        return
    whole = model.state_dict() if world.is_main else {}
    compute = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    full = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32)
    for module in blocks:
        fully_shard(module, mesh=world.mesh, mp_policy=compute, reshard_after_forward=True)
    for module in fp32:
        fully_shard(module, mesh=world.mesh, mp_policy=full, reshard_after_forward=True)
    fully_shard(model, mesh=world.mesh, mp_policy=compute, reshard_after_forward=True)
    if world.size > 1:
        set_model_state_dict(model, whole, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
        for buffer in model.buffers():  # those that no state dict holds too: rotary frequencies
            dist.broadcast(buffer, src=0)


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Hold all weights unsharded: one gather a rollout instead of one a token (TRL#1483), and ranks that finish
    generating at different times cannot wait for each other (accelerate#3425). FSDP's hooks would find nothing to do at
    every layer of every token, for a tenth of a small model's time: they are off."""
    units = [m for m in model.modules() if isinstance(m, FSDPModule)]
    was_training = model.training
    model.eval()  # gradient checkpointing in training mode would switch the KV cache off
    hooks = [(unit._forward_pre_hooks, unit._forward_hooks) for unit in units]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
        unit._forward_pre_hooks, unit._forward_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for unit, (before, after) in zip(units, hooks):
            unit._forward_pre_hooks, unit._forward_hooks = before, after
            unit.reshard()
            unit.set_reshard_after_forward(True, recurse=False)
        model.train(was_training)


# -- micro-batches ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MicroBatch:
    """Responses that one rank passes through a model together. weight 0: a filler, so that all ranks do equally many."""

    rows: list[int]
    weight: float


def pack(rows: list[int], lengths: list[int], token_budget: int, world_size: int) -> list[list[MicroBatch]]:
    """Divide responses into micro-batches for each rank: [rank][i].

    rows: indices of the responses; lengths: prompt + response tokens of every response of the rollout, indexed by row.
    A micro-batch holds neighbours in length, and count × longest never exceeds token_budget (verl#7553). All ranks get
    the same number, as many as the budget makes necessary, and about the same work. Nothing is dropped.
    """
    if not rows:
        raise ValueError("pack needs at least one response")
    rows = sorted(rows, key=lambda r: (-lengths[r], r))
    if lengths[rows[0]] > token_budget:
        raise UserError(
            f"--token-budget {token_budget} is smaller than a response with its prompt ({lengths[rows[0]]} tokens); raise it."
        )

    def cut(budget: int) -> list[list[int]]:
        bins: list[list[int]] = []
        for row in rows:
            if bins and (len(bins[-1]) + 1) * lengths[bins[-1][0]] <= budget:
                bins[-1].append(row)
            else:
                bins.append([row])
        return bins

    # the smallest budget that needs no more rounds than the given one: equal rounds for all ranks, evenly filled
    n_bins = -(-len(cut(token_budget)) // world_size) * world_size
    low, high = lengths[rows[0]], token_budget
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(cut(middle)) <= n_bins else (middle + 1, high)
    bins = [MicroBatch(b, 1.0) for b in cut(low)]
    # the shortest response, counted zero times, fills up
    bins += [MicroBatch([rows[-1]], 0.0)] * (n_bins - len(bins))
    # one round of neighbours for all ranks at a time, in alternating direction
    rounds = [bins[i : i + world_size] for i in range(0, n_bins, world_size)]
    rounds = [r if i % 2 == 0 else r[::-1] for i, r in enumerate(rounds)]
    return [[r[rank] for r in rounds] for rank in range(world_size)]


def adamw(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW without weight decay; fused, or its temporaries would be twice as large as the largest weight."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, fused=True)


def optimizer_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: list[MicroBatch],
    loss_of: Callable[[MicroBatch], torch.Tensor],
    max_grad_norm: float,
    world: World,
) -> float:
    """One update from the sum of all ranks' micro-batch losses; returns the gradient norm before clipping.

    Where that is not finite, on whichever rank, no rank applies the update.

    loss_of returns this micro-batch's share of the loss, divided already by the count of the *whole* step over all
    ranks. FSDP averages gradients over ranks, so the share is multiplied by their number (RL2#11, TRL#3021, verl#7321).
    """
    for micro_batch in micro_batches:
        (loss_of(micro_batch) * (micro_batch.weight * world.size)).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    norm = (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()
    if math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad()  # no gradients in memory while other models work
    return norm


@contextmanager
def offloaded(optimizers: list[torch.optim.Optimizer], wanted: bool) -> Iterator[None]:
    """Keep the optimizers' states on the CPU for a while, if wanted; what they occupied is free."""
    tensors = [x for o in optimizers if wanted for state in o.state.values() for x in state.values() if x.dim()]
    storages = [(x.to_local() if isinstance(x, DTensor) else x).untyped_storage() for x in tensors]
    kept = []
    for storage in storages:
        kept.append(storage.clone().cpu())
        storage.resize_(0)
    try:
        yield
    finally:
        for storage, content in zip(storages, kept):
            storage.resize_(content.nbytes())
            storage.copy_(content)


# -- checkpoints --------------------------------------------------------------------------------------------------------


def full_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The whole state dict on rank 0's CPU, tied weights once; the other ranks get {}."""
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    names = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    return {name: x for name, x in state.items() if name in names}


def save_checkpoint(
    folder: Path, models: dict[str, tuple[nn.Module, torch.optim.Optimizer]], step: int, keep: int, world: World
) -> None:
    """Write models and optimizers as folder/step-N, which gets its name when it is whole; leave the last `keep` of them."""
    new = folder / f"step-{step}.new"
    if world.is_main:
        shutil.rmtree(new, ignore_errors=True)
    dist.barrier()
    with writing(new):
        dcp.save(
            {name: dict(zip(("model", "optimizer"), get_state_dict(*pair))) for name, pair in models.items()}, checkpoint_id=new
        )
    if world.is_main:
        new.rename(folder / f"step-{step}")
        for old in saved_steps(folder)[:-keep]:
            shutil.rmtree(folder / f"step-{old}", ignore_errors=True)
    dist.barrier()


def saved_steps(folder: Path) -> list[int]:
    """The steps after which whole checkpoints stand in the folder, in order; those that were being written do not count."""
    return sorted(int(path.name[5:]) for path in folder.glob("step-*[0-9]"))


def load_checkpoint(folder: Path, models: dict[str, tuple[nn.Module, torch.optim.Optimizer]]) -> int:
    """Fill models and optimizers from the last checkpoint, of any number of processes; returns its step, 0 without one."""
    if not (steps := saved_steps(folder)):
        return 0
    state = {name: dict(zip(("model", "optimizer"), get_state_dict(*pair))) for name, pair in models.items()}
    dcp.load(state, checkpoint_id=folder / f"step-{steps[-1]}")
    for name, pair in models.items():
        set_state_dict(*pair, model_state_dict=state[name]["model"], optim_state_dict=state[name]["optimizer"])
    return steps[-1]
