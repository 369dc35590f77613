"""The memory of every phase of a step on each GPU, from configurations and settings alone, in bytes.

It chooses --offload auto, --generate-batch auto and the default --ranks-per-copy. Activations are those of pre-normed
attention and gated MLPs (Qwen, Llama, Mistral); mixtures of experts need more. CPU runs allocate within 10 % of the
plan in every phase; no GPU has confirmed it yet.
"""

from dataclasses import dataclass, replace
from functools import cache

import torch
from transformers import AutoModel, AutoModelForCausalLM

from engine.distributed import World, gather_list, make_mesh, raise_on_all_ranks
from engine.errors import require
from engine.generation import RoomyLayer
from engine.head import HEAD_CHUNK
from engine.models import load_config
from engine.sharding import OFFLOAD, compute_dtype

PARTS = ("weights", "moments", "gradients", "gathered", "activations", "head", "KV")
USABLE = 0.95  # of a GPU's free memory; the rest is for fragmentation, kernels' workspaces, NCCL
MIN_BATCH = 16  # auto offloads rather than hold fewer responses in flight; also auto's batch on a CPU
LONGEST_PROMPT = 1024  # tokens of the longest prompt that --plan assumes


@dataclass(frozen=True)
class Workload:
    """The settings that memory and time depend on."""

    actor: str
    critics: list[str] | None  # [] without critics; None: an evaluation, which neither updates nor offloads
    responses: int  # of a step, on all ranks
    group_size: int
    longest_prompt: int
    max_new_tokens: int
    token_budget: int = 0
    gradient_checkpointing: bool = False
    offload: str = "none"  # or auto
    generate_batch: int | str = "auto"
    replay: int = 1  # rollouts kept on the CPU
    passes: int = 4  # of the actor's update
    critic_passes: int = 4
    critic_share: float = 0.5  # of the responses that each critic is fitted on
    steps: int = 500


@dataclass(frozen=True)
class Size:
    """A model in numbers of parameters, and bytes a token."""

    params: int
    block: int  # parameters of the largest transformer block
    root: int  # parameters outside the blocks
    head: int  # parameters of the actor's output embedding; 0 for a critic
    vocab: int
    layers: int
    item: int  # bytes of a number in the compute type
    stream: int  # bytes a token: a block's input
    kept: int  # bytes a token: what autograd keeps in a block
    passing: int  # bytes a token: the most that a block holds without autograd
    kv: int  # bytes a token: keys and values of all blocks


@cache
def size_of(name: str, flag: str, item: int) -> Size:
    """Measure an actor (flag --model) or a critic with its head (flag --critics); nothing is loaded."""
    config, is_actor = load_config(name, flag), flag == "--model"
    with torch.device("meta"):
        model = (AutoModelForCausalLM if is_actor else AutoModel).from_config(config, trust_remote_code=False)
    count = lambda module: sum(p.numel() for p in module.parameters())
    blocks = [count(x) for x in next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))]
    h, heads = config.hidden_size, config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or 4 * h
    head_dim = getattr(config, "head_dim", None) or h // heads
    query, keys = heads * head_dim, (getattr(config, "num_key_value_heads", None) or heads) * head_dim
    # a norm: input in fp32, normed input, product; attention: queries, keys, values, output, a sum a head;
    # MLP: gate, its activation, the other half, product
    kept = 2 * (4 + 2 * item) * h + 2 * item * (query + keys) + 4 * heads + 4 * item * inner
    if any("q_norm" in key for key, _ in model.named_parameters()):
        kept += (4 + item) * (query + keys)
    params = count(model) + (0 if is_actor else h + 1)
    return Size(
        params, max(blocks), params - sum(blocks), config.vocab_size * h if is_actor else 0, config.vocab_size,
        len(blocks), item, item * h, kept, item * (3 * inner + 4 * h), 2 * item * keys * len(blocks))


def in_flight(x: Size, work: Workload, batch: int) -> dict[str, float]:
    """-> part -> bytes of `batch` responses in flight at full length"""
    return dict(  # one layer of the cache exists twice while it grows
        KV=batch * (work.longest_prompt + work.max_new_tokens + RoomyLayer.ROOM) * x.kv * (1 + 1 / x.layers),
        activations=(1 + batch / work.group_size) * work.longest_prompt * (3 * x.stream + x.passing),
        head=batch * x.vocab * (x.item + 12))  # logits as computed, in fp32, over temperature, as softmax


def phases(actor: Size, critics: list[Size] | None, work: Workload, offload: str, ranks: int,
           processes: int) -> dict[str, dict]:
    """-> phase -> part -> bytes on one GPU, without those of in_flight

    ranks: GPUs that shard one copy of the weights; processes: GPUs in all.
    """
    all_models, on_gpu = (actor, *(critics or ())), offload != "all"
    sharded = lambda models: sum(x.params for x in models) / ranks if on_gpu else 0
    moments = lambda updated: 8 * sharded(updated if offload == "moments" else all_models)
    gathers = processes > 1 or actor.item < 4 or not on_gpu  # one process in fp32 has nothing to gather
    tokens = work.token_budget

    def forward(x: Size) -> dict[str, float]:
        # parameters outside the blocks, the running block, the next one, and the buffer that it arrives in
        gathered = x.item * (x.root + 3 * x.block) if gathers else 0
        arriving = 0 if on_gpu else 4 * x.block / ranks
        logits = 8 * HEAD_CHUNK * x.vocab if x.head else 0
        at_block, at_head = (tokens * x.passing, 0), (tokens * 2 * x.stream, logits)
        activations, head = max(at_block, at_head, key=sum)
        return dict(gathered=gathered + arriving, activations=activations, head=head)

    def update(x: Size) -> dict[str, float]:
        reduced = x.item + 4 if gathers else 0  # bytes of a gradient while ranks sum it
        cast = x.item % 4  # bf16: the head's gradient is summed in fp32, of products in bf16
        if work.gradient_checkpointing:
            stored = x.layers * x.stream
            block = stored + 2 * x.stream + x.kept + x.passing / 3
        else:
            stored = x.layers * x.kept
            block = stored + 2 * x.stream + x.passing / 3
        logits = (8 + cast) * HEAD_CHUNK * x.vocab if x.head else 0
        at_head = (tokens * (stored + 4 * x.stream), (4 + cast) * x.head + logits)
        at_block = (tokens * block + reduced * x.block, x.item * x.head)
        at_root = (reduced * x.root, 0)
        activations, head = max(at_head, at_block, at_root, key=sum)
        return forward(x) | dict(activations=activations, head=head, gradients=4 * sharded([x]))

    gathered = actor.item * actor.params if gathers else 0
    if critics is None:
        parts = {"generate": dict(gathered=gathered)}
    else:
        parts = {"generate": dict(moments=moments([]), gathered=gathered),
                 "score": dict(moments=moments([])) | forward(actor)}
        if critics:
            largest = max(critics, key=lambda x: sum(update(x).values()))
            parts["fit_critics"] = dict(moments=moments(critics)) | update(largest)
            parts["values"] = dict(moments=8 * sharded(all_models)) | forward(largest)
        parts["policy"] = dict(moments=moments([actor])) | update(actor)
    return {name: dict(weights=4 * sharded(all_models)) | part for name, part in parts.items()}


def choose(work: Workload, item: int, processes: int, copy_sizes: list[int], free_bytes: float) -> tuple[dict, str]:
    """Pick the cheapest offload and shard size that fit, then the largest generation batch. -> these settings, the
    plan as text

    item: bytes of a number in the compute type; copy_sizes: shard sizes to try; free_bytes: of a GPU. Raises if
    nothing fits, unless --offload was given.
    """
    actor, usable, n_local = size_of(work.actor, "--model", item), USABLE * free_bytes, -(-work.responses // processes)
    critics = work.critics and [size_of(name, "--critics", item) for name in work.critics]
    auto, needed = work.offload == "auto", []
    tried = [(ranks, offload) for ranks in copy_sizes for offload in (OFFLOAD if auto else [work.offload])]
    # weights on the CPU are slower than weights on another machine
    for ranks, offload in sorted(tried, key=lambda each: each[1] == "all"):
        parts = phases(actor, critics, work, offload, ranks, processes)
        none, one = (sum(in_flight(actor, work, n).values()) for n in (0, 1))
        room = (usable - sum(parts["generate"].values()) - none) / (one - none)
        batch = min(n_local, max(1, int(room))) if work.generate_batch == "auto" else work.generate_batch
        parts["generate"] |= in_flight(actor, work, batch)
        totals = {name: sum(part.values()) for name, part in parts.items()}
        flags = f" --offload {offload}" if work.critics is not None else ""
        flags += f" --ranks-per-copy {ranks}" if len(copy_sizes) > 1 else ""
        needed.append(f"{gib(max(totals.values()))} GiB" + (flags and f" with{flags}"))
        fits, enough = max(totals.values()) <= usable, work.generate_batch != "auto" or batch >= min(MIN_BATCH, n_local)
        if fits and (enough or not auto or offload != "none"):
            break
    text = (f"{gib(usable)} GiB of each GPU are usable, {' or '.join(map(str, copy_sizes))} GPUs shard a copy, "
            f"and the run needs {', '.join(needed)}")
    require(fits or not auto, f"{text}; use more GPUs, lower --token-budget, --max-new-tokens or "
                              "--generate-batch, or give an --offload to try it nevertheless.")
    lines = [f"Plan: {text}. Chosen:{flags} --generate-batch {batch}{'' if fits else ', WHICH DOES NOT FIT'}."]
    for name, part in {"GiB": {}, **parts}.items():
        cells = [gib(part.get(x, 0)) for x in PARTS] + [gib(totals[name])] if part else [*PARTS, "total"]
        lines.append(f"{name:<12}" + "".join(f"{cell:>12}" for cell in cells))
    if work.replay > 1:  # token ids in 8 bytes, the critics' and the policy's numbers of a token in 4 each
        width, numbers = work.longest_prompt + work.max_new_tokens, 3 + len(work.critics)
        stored = work.replay * work.responses * (8 * width + 4 * numbers * work.max_new_tokens)
        lines.append(f"--critic-replay keeps up to {gib(stored)} GiB on the CPU of every process.")
    return dict(offload=offload, generate_batch=batch, ranks_per_copy=ranks), "\n".join(lines)


def gib(n: float) -> str:
    return f"{n / 2**30:.1f}"


def sizes_to_try(machine: int, processes: int, ranks_per_copy: int | None) -> list[int]:
    """Return how many GPUs may share a copy: the given number, else those of a machine, then all."""
    return [ranks_per_copy] if ranks_per_copy else sorted({machine, processes})


def settle(work: Workload, dtype: str, ranks_per_copy: int | None, world: World) -> tuple[dict, World]:
    """Choose --offload, --generate-batch and how ranks shard the models. -> settings, world. Collective.

    On a GPU the plan is printed.
    """
    if world.device.type == "cpu":
        offload = "none" if work.offload == "auto" else work.offload
        batch = MIN_BATCH if work.generate_batch == "auto" else work.generate_batch
        return dict(offload=offload, generate_batch=batch), world
    copy_sizes = sizes_to_try(world.mesh.shape[-1], world.size, ranks_per_copy)
    free_bytes = min(gather_list([torch.cuda.mem_get_info()[0]], world))
    with raise_on_all_ranks(world):
        plan = choose(work, compute_dtype(dtype, world).itemsize, world.size, copy_sizes, free_bytes)
    # rank 0's plan: another rank's data may differ, which is found only later
    chosen, text = gather_list([plan], world)[0]
    ranks = chosen.pop("ranks_per_copy")
    if ranks != copy_sizes[0]:
        world = replace(world, mesh=make_mesh(world.device.type, world.size, ranks))
    if world.is_main:
        print(text, flush=True)
    return chosen, world
