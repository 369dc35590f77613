"""One way to update a model, for actor and critics alike, and one to run a model over all responses.

`update_model` makes passes over a rollout. A pass divides the responses into minibatches, one optimizer step
each; a minibatch is packed into micro-batches within a token budget, and these are dealt to the ranks. How
responses are packed and dealt changes memory and time, never the update.

Legend for shape suffixes: B responses, T response tokens, N those of a micro-batch, row by row.
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Iterator, NamedTuple

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from distributed import World, generator, progress, refuse, sum_over_ranks
from rollout import Rollout


def update_model(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable, rollout: Rollout,
                 rows: list[int], data: NamedTuple, args, world: World, *, epochs: int, n_minibatches: int,
                 loss_norm: str, stream: tuple, counts_BT: torch.Tensor) -> list[dict[str, float]]:
    """Minimise the weighted mean of a per-token loss over the responses `rows`. -> what to log of each update

    loss(inputs, weights_N, data_N) -> Σ weight · token loss of a micro-batch, and sums to log: Actor.loss or
    MiniCritic.loss, whose token_loss (policy_loss, value_loss) is bound already. data: [B, T] arrays, cut to
    the micro-batch. counts_BT: relative weights of the tokens, 0 or 1 as a rule; `token_weights` makes them
    sum to 1 in each of the n_minibatches minibatches of a pass. stream: name and counters of the random
    stream that divides a pass. Of args: seed, token_budget, max_grad_norm. Where the gradient's norm, logged
    before clipping, is not finite on any rank, no rank applies the update.
    """
    logged: list[dict[str, float]] = []
    bar = progress(epochs * n_minibatches, stream[0], "update", world)
    for epoch in range(epochs):
        order = generator(args.seed, *stream, epoch)
        for minibatch in minibatches(rows, n_minibatches, order):
            weights_BT = torch.zeros(rollout.mask_BT.shape)
            weights_BT[minibatch] = token_weights(counts_BT[minibatch], loss_norm)
            sums: dict[str, torch.Tensor] = {}
            micro_batches = pack(minibatch, rollout.lengths, args.token_budget, world.size)[world.rank]
            for i, micro_batch in enumerate(micro_batches, start=1):
                if isinstance(model, FSDPModule):  # copies of the weights exchange gradients once an update
                    model.set_requires_all_reduce(i == len(micro_batches))
                picked = [rollout.pick(x_BT, micro_batch.rows, world.device) for x_BT in (weights_BT, *data)]
                inputs = rollout.inputs(micro_batch.rows, world.device)
                total, parts = loss(inputs, picked[0], data._make(picked[1:]))
                # FSDP averages gradients over ranks, so a share of the sum is multiplied by their number
                # (RL2#11, TRL#3021, verl#7321)
                (total * (micro_batch.weight * world.size)).backward()
                for key, x in {"loss": total.detach(), **parts}.items():
                    sums[key] = sums.get(key, 0) + x.double() * micro_batch.weight
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
            grad_norm = (grad_norm.full_tensor() if isinstance(grad_norm, DTensor) else grad_norm).item()
            if math.isfinite(grad_norm):
                optimizer.step()
            optimizer.zero_grad()  # no gradients in memory while other models work
            means = sum_over_ranks(torch.stack(list(sums.values())).cpu()).tolist()
            logged.append(dict(zip(sums, means)) | {"grad_norm": grad_norm})
            bar.update()
    bar.close()
    return logged


def mean_of_updates(logged: list[dict[str, float]]) -> dict[str, float]:
    """-> the means over all optimizer steps, and skipped_updates: how many were not applied"""
    means = {key: sum(update[key] / len(logged) for update in logged) for key in logged[0]}
    return means | {"skipped_updates": sum(not math.isfinite(update["grad_norm"]) for update in logged)}


@torch.no_grad()
def score_responses(model, rollout: Rollout, token_budget: int, world: World,
                    first: int | None = None) -> torch.Tensor:
    """model.score(inputs) [..., N] of all responses, or the first ones, the work divided over the ranks. ->
    [..., B, T] fp32 on the CPU of every rank, zero outside these responses"""
    scores_BT, rows = None, list(range(len(rollout)))[:first]
    for micro_batch in pack(rows, rollout.lengths, token_budget, world.size)[world.rank]:
        part_N = model.score(rollout.inputs(micro_batch.rows, world.device)).float().cpu()
        if scores_BT is None:
            scores_BT = torch.zeros(*part_N.shape[:-1], *rollout.mask_BT.shape)
        if micro_batch.weight:
            row_N, t_N = rollout.mask_BT[micro_batch.rows].nonzero(as_tuple=True)
            scores_BT[..., torch.tensor(micro_batch.rows)[row_N], t_N] = part_N
    return sum_over_ranks(scores_BT)


# -- the parts of a pass -------------------------------------------------------------------------------------
def token_weights(counts_BT: torch.Tensor, loss_norm: str) -> torch.Tensor:
    """What each token's term weighs in a mean such as (6)'s; those of all given responses sum to 1. -> [B, T]

    sequence: E over responses of (1/|o|) Σ_t; token: every token alike. Those that I^A or I^H take out count.
    """
    if loss_norm == "sequence":
        return counts_BT / (counts_BT.sum(1, keepdim=True).clamp(min=1) * len(counts_BT))
    return counts_BT / counts_BT.sum()


def minibatches(rows: list[int], n: int, order: torch.Generator) -> list[list[int]]:
    """n nearly equal random parts of the responses that cover all of them; a single part keeps its order."""
    if n == 1:
        return [rows]
    shuffled = torch.tensor(rows)[torch.randperm(len(rows), generator=order)]
    return [part.tolist() for part in shuffled.tensor_split(n)]


@dataclass(frozen=True)
class MicroBatch:
    """Responses that one rank passes through a model together. weight 0: a filler, for equal numbers."""

    rows: list[int]
    weight: float


def pack(rows: list[int], lengths: list[int], token_budget: int, world_size: int) -> list[list[MicroBatch]]:
    """Divide responses into micro-batches for each rank: [rank][i].

    rows: indices of the responses; lengths: prompt + response tokens of every response of the rollout,
    indexed by row. A micro-batch holds neighbours in length, and count × longest never exceeds token_budget
    (verl#7553). All ranks get the same number, as many as the budget needs, and about the same work.
    """
    rows = sorted(rows, key=lambda r: (-lengths[r], r))
    longest = lengths[rows[0]]
    refuse(longest > token_budget,
           f"--token-budget {token_budget} is smaller than a response with its prompt ({longest} tokens); "
           "raise it.")

    def cut(budget: int) -> list[list[int]]:
        bins: list[list[int]] = []
        for row in rows:
            if bins and (len(bins[-1]) + 1) * lengths[bins[-1][0]] <= budget:
                bins[-1].append(row)
            else:
                bins.append([row])
        return bins

    # the smallest budget that needs no more rounds than the given one: equal rounds, evenly filled
    n_bins = -(-len(cut(token_budget)) // world_size) * world_size
    low, high = longest, token_budget
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(cut(middle)) <= n_bins else (middle + 1, high)
    bins = [MicroBatch(b, 1.0) for b in cut(low)]
    bins += [MicroBatch([rows[-1]], 0.0)] * (n_bins - len(bins))  # the shortest, weighing nothing, fills up
    # one round of neighbours for all ranks at a time, in alternating direction
    rounds = [bins[i : i + world_size] for i in range(0, n_bins, world_size)]
    rounds = [r if i % 2 == 0 else r[::-1] for i, r in enumerate(rounds)]
    return [[r[rank] for r in rounds] for rank in range(world_size)]


# -- the optimizer -------------------------------------------------------------------------------------------
def adamw(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW without weight decay; fused, or its temporaries would be twice as large as the largest weight."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, fused=True)


@contextmanager
def offloaded(optimizers: list[torch.optim.Optimizer], offload: str) -> Iterator[None]:
    """With --offload moments, keep the optimizers' states on the CPU for a while; what they occupied is
    free. (With all they are there anyway.)"""
    states = [state for o in optimizers if offload == "moments" for state in o.state.values()]
    tensors = [x for state in states for x in state.values() if x.dim()]
    storages = [(x.to_local() if isinstance(x, DTensor) else x).untyped_storage() for x in tensors]
    kept = []
    for storage in storages:
        kept.append(torch.UntypedStorage(storage.nbytes()).copy_(storage))
        storage.resize_(0)
    try:
        yield
    finally:
        for storage, content in zip(storages, kept):
            storage.resize_(content.nbytes())
            storage.copy_(content)
