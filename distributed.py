"""Everything that knows about more than one process: start and stop, FSDP2 sharding, micro-batches, checkpoints.

The division of labour is simple: every rank holds the whole rollout (tokens, rewards, values: small next to the
models) and computes the same statistics on it, so quantiles, whitening and counts are global without communication.
Only forward and backward passes are split over ranks, by `pack`, and their per-token results summed back together.

Legend for shape suffixes: B responses, T response tokens.
"""

import argparse
import gc
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from tqdm import tqdm


class UserError(Exception):
    """A mistake that the user can mend; its one sentence is printed instead of a stack trace, and the exit code is 2."""


@dataclass(frozen=True)
class World:
    """This process among all processes of the run."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def start(device: str) -> World:
    """Join the process group that torchrun describes, or make one of a single process. device: auto, cpu or cuda."""
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
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    index = local_rank if device == "cuda" else None
    return World(dist.get_rank(), dist.get_world_size(), torch.device(device, index), mesh)


def stop() -> None:
    """Leave the process group. The caller drops its models first: gloo's threads abort an exit that still holds them."""
    if dist.is_initialized():
        dist.destroy_process_group()
    gc.collect()


def report(script: str, error: UserError) -> int:
    """Print a user's mistake once, and return its exit code.

    Every process sees most mistakes, and torchrun kills the others as soon as one has exited: rank 0 speaks at once;
    another rank speaks if it is still alive after a while, for it may be the only one that saw the mistake.
    """
    if os.environ.get("RANK", "0") != "0":
        time.sleep(10)
    print(f"{script}: error: {error}", file=sys.stderr, flush=True)
    return 2


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are printed once, however many processes there are."""

    def error(self, message: str):
        sys.exit(report(self.prog, UserError(message)))


def replace_text(path: Path, text: str) -> None:
    """Write a file beside the old one and put it in its place: a kill leaves one of the two whole."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


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
    """FSDP2 in place: one unit a transformer block, one for each module that stays in fp32, one for the rest.

    The master weights and the gradients' reduction are fp32 (AdamW at 1e-6 rounds updates of bf16 weights away,
    AReaL#1292); compute runs in dtype.
    """
    compute = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    full = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32)
    for module in blocks:
        fully_shard(module, mesh=world.mesh, mp_policy=compute, reshard_after_forward=True)
    for module in fp32:
        fully_shard(module, mesh=world.mesh, mp_policy=full, reshard_after_forward=True)
    fully_shard(model, mesh=world.mesh, mp_policy=compute, reshard_after_forward=True)


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Hold all weights unsharded: one gather a rollout instead of one a token (TRL#1483), and ranks that finish
    generating at different times cannot wait for each other (accelerate#3425). FSDP's hooks would find nothing to do at
    every layer of every token, for a tenth of a small model's time: they are off."""
    units = [m for m in model.modules() if isinstance(m, FSDPModule)]
    was_training = model.training
    model.eval()  # gradient checkpointing in training mode would switch the KV cache off
    model.set_reshard_after_forward(False, recurse=True)
    hooks = [(unit._forward_pre_hooks, unit._forward_hooks) for unit in units]
    for unit in units:
        unit.unshard()
        unit._forward_pre_hooks, unit._forward_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for unit, (before, after) in zip(units, hooks):
            unit._forward_pre_hooks, unit._forward_hooks = before, after
            unit.reshard()
        model.set_reshard_after_forward(True, recurse=True)
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
    optimizer.zero_grad(set_to_none=True)
    for micro_batch in micro_batches:
        (loss_of(micro_batch) * (micro_batch.weight * world.size)).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm).full_tensor().item()
    if math.isfinite(norm):
        optimizer.step()
    return norm


# -- checkpoints --------------------------------------------------------------------------------------------------------


def full_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The whole state dict on rank 0's CPU; the other ranks get {}."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def save_checkpoint(folder: Path, models: dict[str, tuple[nn.Module, torch.optim.Optimizer]], step: int, world: World):
    """Write models and optimizers beside the old checkpoint, then put them in its place."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    if world.is_main:
        shutil.rmtree(new, ignore_errors=True)
    dist.barrier()
    dcp.save(
        {name: dict(zip(("model", "optimizer"), get_state_dict(*pair))) for name, pair in models.items()}, checkpoint_id=new
    )
    if world.is_main:
        (new / "step.json").write_text(json.dumps({"step": step}))
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    dist.barrier()


def finished(folder: Path) -> Path:
    """The checkpoint's folder; a save that was killed between its two renames left the previous one beside the place."""
    return folder if (folder / "step.json").exists() else folder.with_name(folder.name + ".old")


def read_step(folder: Path) -> int:
    """The last step of a checkpoint; OSError if there is none."""
    return json.loads((finished(folder) / "step.json").read_text())["step"]


def load_checkpoint(folder: Path, models: dict[str, tuple[nn.Module, torch.optim.Optimizer]]) -> int:
    """Fill models and optimizers from a checkpoint of any number of processes; returns the last finished step."""
    state = {name: dict(zip(("model", "optimizer"), get_state_dict(*pair))) for name, pair in models.items()}
    dcp.load(state, checkpoint_id=finished(folder))
    for name, pair in models.items():
        set_state_dict(*pair, model_state_dict=state[name]["model"], optim_state_dict=state[name]["optimizer"])
    return read_step(folder)
