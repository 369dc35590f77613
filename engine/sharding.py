"""FSDP2 and offloading: how a model's weights, gradients and AdamW moments lie on the GPUs and the CPU.

Master weights, gradient reduction and moments are fp32, because AdamW at lr 1e-6 rounds updates of bf16 weights away
(AReaL#1292). Compute runs in fp32 or bf16.
"""

from contextlib import contextmanager
from functools import partial
from typing import Callable, Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from engine.distributed import World

OFFLOAD = ("none", "moments", "all")


def compute_dtype(name: str, world: World) -> torch.dtype:
    """Return the type that --dtype names; auto is bf16 on a GPU and fp32 on a CPU."""
    if name == "auto":
        name = "bf16" if world.device.type == "cuda" else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[name]


def enable_checkpointing(blocks: nn.ModuleList) -> None:
    """Recompute activations in backward. transformers' own switch works in training mode only."""
    def recomputed(forward: Callable, *args, **kwargs):
        # without gradients checkpoint() would only cost time, at each layer of each sampled token
        run = partial(checkpoint, forward, use_reentrant=False) if torch.is_grad_enabled() else forward
        return run(*args, **kwargs)

    for block in blocks:
        block.forward = partial(recomputed, block.forward)


def shard_model(model: nn.Module, blocks: nn.ModuleList, world: World, dtype: torch.dtype, offload: str) -> None:
    """Shard a model in place with FSDP2 over world.mesh, with rank 0's weights on all ranks. Collective.

    A unit is a transformer block, the value head (which stays in fp32), or the rest. With offload "all" the shards
    and AdamW stay on the CPU. One process in fp32 has nothing to shard or cast.
    """
    if world.size == 1 and dtype == torch.float32 and offload != "all":
        model.to(world.device)
        return
    whole = model.state_dict() if world.is_main else {}
    compute = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    full = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32)
    # advantages and loss weights stay in fp32
    root = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    stay = CPUOffloadPolicy(pin_memory=world.device.type == "cuda") if offload == "all" else OffloadPolicy()
    heads = [model.value_head] if hasattr(model, "value_head") else []
    for module, policy in [*((x, compute) for x in blocks), *((x, full) for x in heads), (model, root)]:
        fully_shard(module, mesh=world.mesh, reshard_after_forward=True, mp_policy=policy, offload_policy=stay)
    if world.size > 1:
        from_rank_0 = state_dict.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        state_dict.set_model_state_dict(model, whole, options=from_rank_0)
        for buffer in model.buffers():  # rotary frequencies are in no state dict
            dist.broadcast(buffer, src=0)
    for method in ("score", "loss", "generate", "hidden"):
        if hasattr(model, method):
            register_fsdp_forward_method(model, method)


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Gather all weights inside the with statement: once a rollout instead of once a token (TRL#1483).

    Ranks that finish generation at different times then do not wait for each other (accelerate#3425).
    """
    units = [m for m in model.modules() if isinstance(m, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(True, recurse=False)


@contextmanager
def offloaded(optimizers: list[torch.optim.Optimizer], offload: str) -> Iterator[None]:
    """With --offload moments, move the optimizer state to the CPU inside the with statement. It frees GPU memory."""
    states = [state for o in optimizers if offload == "moments" for state in o.state.values()]
    tensors = [x for state in states for x in state.values() if x.dim()]
    storages = [(x.to_local() if isinstance(x, DTensor) else x).untyped_storage() for x in tensors]
    saved = []
    for storage in storages:
        saved.append(torch.UntypedStorage(storage.nbytes()).copy_(storage))
        storage.resize_(0)
    try:
        yield
    finally:
        for storage, content in zip(storages, saved):
            storage.resize_(content.nbytes())
            storage.copy_(content)


def full_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the whole state dict on rank 0's CPU, tied weights once; {} on the other ranks. Collective."""
    whole = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
    once = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    state = state_dict.get_model_state_dict(module, options=whole)
    return {name: x for name, x in state.items() if name in once}
