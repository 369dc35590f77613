"""The bytes of every phase of a step on each GPU, before anything is loaded: from the models' configurations
and the run's settings. From them follow --offload auto, --generate-batch auto and the default
--ranks-per-copy.

Activations are those of pre-normed attention and gated MLPs (Qwen, Llama, Mistral); others keep other ones,
mixtures of experts above all. All this is held against what CPU runs allocate, not yet against a GPU.
"""

from argparse import Namespace
from collections import namedtuple
from dataclasses import replace

import torch
from transformers import AutoModel, AutoModelForCausalLM

from distributed import World, gather_list, mesh_of, refuse, together
from generation import RoomyLayer
from head import HEAD_CHUNK
from models import compute_dtype, load_config

OFFLOAD = ("none", "moments", "all")
PARTS = ("weights", "moments", "gradients", "gathered", "activations", "head", "KV")
USABLE = 0.95  # of a GPU's free memory; the rest for what the allocator cannot use, kernels' workspaces, NCCL
FEW = 16  # responses under way that auto wants to have room for before it leaves everything on the GPU
PROMPT = 1024  # tokens of the longest prompt, as --plan, which reads no problems, supposes

# Parameters in all, in a block, in FSDP2's unit around the blocks, in the actor's output embedding (a critic:
# 0). item: bytes of a number in the compute type. Bytes of a token: a block's input, what autograd keeps in a
# block, what a pass without it holds there at most, keys and values of all blocks.
Size = namedtuple("Size", "params block root head vocab layers item stream kept passing kv")

# What is drawn in a step: --generate-batch or auto, responses, those to a prompt, the longest prompt's tokens
Draw = namedtuple("Draw", "batch responses group prompt")


def size_of(name: str, flag: str, item: int) -> Size:
    """flag: --model for an actor, --critics for a critic, with its head."""
    config, actor = load_config(name, flag), flag == "--model"
    with torch.device("meta"):
        model = (AutoModelForCausalLM if actor else AutoModel).from_config(config, trust_remote_code=False)
    count = lambda module: sum(p.numel() for p in module.parameters())
    blocks = [count(x) for x in next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))]
    h, heads = config.hidden_size, config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or 4 * h
    head_dim = getattr(config, "head_dim", None) or h // heads
    query, keys = heads * head_dim, (getattr(config, "num_key_value_heads", None) or heads) * head_dim
    # a norm: input in fp32, that over its length, product; attention: queries, keys, values, output, a sum a
    # head; MLP: gate, its activation, the other half, product
    kept = 2 * (4 + 2 * item) * h + 2 * item * (query + keys) + 4 * heads + 4 * item * inner
    kept += (4 + item) * (query + keys) * any("q_norm" in key for key, _ in model.named_parameters())
    params = count(model) + (0 if actor else h + 1)
    return Size(
        params, max(blocks), params - sum(blocks), config.vocab_size * h if actor else 0, config.vocab_size,
        len(blocks), item, item * h, kept, item * (3 * inner + 4 * h), 2 * item * keys * len(blocks))


def drawing(x: Size, draw: Draw, batch: int, args: Namespace) -> dict[str, float]:
    """part -> bytes of so many responses under way at their full length."""
    return dict(  # a layer of the cache is there twice while it grows
        KV=batch * (draw.prompt + args.max_new_tokens + RoomyLayer.ROOM) * x.kv * (1 + 1 / x.layers),
        activations=(1 + batch / draw.group) * draw.prompt * (3 * x.stream + x.passing),
        head=batch * x.vocab * (x.item + 12),  # logits as computed, in fp32, by temperature, as shares
    )


def phases(actor: Size, critics: list[Size] | None, args, offload: str, ranks: int,
           processes: int) -> dict[str, dict]:
    """phase -> part -> bytes on one of the `ranks` GPUs of a copy, less those of `drawing`; processes: of all
    copies. critics None: an evaluation, which has one phase, and no moments."""
    models, on_gpu = (actor, *(critics or ())), offload != "all"
    held = lambda of: sum(x.params for x in of) / ranks * on_gpu
    moments = lambda *updated: 8 * held(updated if offload == "moments" or critics is None else models)
    # one process in fp32 has nothing to gather (models.prepare)
    gathers, tokens = processes > 1 or actor.item < 4 or not on_gpu, getattr(args, "token_budget", 0)

    def forward(x: Size) -> dict[str, float]:
        # the unit around the blocks, the block at work, the next one, and the buffer that it arrives in
        gathered = x.item * (x.root + 3 * x.block) * gathers + 4 * x.block / ranks * (not on_gpu)
        # a block's turn or the head's
        turns = (tokens * x.passing, 0), (tokens * 2 * x.stream, 8 * HEAD_CHUNK * x.vocab * (x.head > 0))
        return dict(gathered=gathered) | dict(zip(("activations", "head"), max(turns, key=sum)))

    def update(x: Size) -> dict[str, float]:
        again, reduced, cast = args.gradient_checkpointing, (x.item + 4) * gathers, x.item % 4
        stored = x.layers * (x.stream if again else x.kept)
        block = stored + 2 * x.stream + x.kept * again + x.passing / 3
        # the gradient of the output embedding is summed in fp32, of products in bf16
        head = (4 + cast) * x.head + (8 + cast) * HEAD_CHUNK * x.vocab * (x.head > 0)
        # the head's turn, a block's backward, or the reduction of the gradients around the blocks
        at_block = (tokens * block + reduced * x.block, x.item * x.head)
        most = max((tokens * (stored + 4 * x.stream), head), at_block, (reduced * x.root, 0), key=sum)
        return forward(x) | dict(activations=most[0], head=most[1], gradients=4 * held([x]))

    parts = {"generate": dict(moments=moments(), gathered=actor.item * actor.params * gathers)}
    if critics is not None:
        parts["score"] = dict(moments=8 * held(models)) | forward(actor)
    if critics:
        largest = max(critics, key=lambda x: sum(update(x).values()))
        parts["fit_critics"] = dict(moments=moments(*critics)) | update(largest)
        parts["values"] = parts["score"] | forward(largest)
    if critics is not None:
        parts["policy"] = dict(moments=moments(actor)) | update(actor)
    return {name: dict(weights=4 * held(models)) | part for name, part in parts.items()}


def choose(args: Namespace, critic_names: list[str] | None, draw: Draw, item: int, processes: int,
           copy_sizes: list[int], free: float) -> tuple[dict, str]:
    """Settle --offload, --generate-batch and --ranks-per-copy: the least offload and the first of
    `copy_sizes` with which all phases fit in what can be used of `free` bytes, and as many responses under
    way as there is room for at full length, so that none outgrows it. -> these settings, the plan as text

    critic_names None: an evaluation, which cannot offload. Refused is what does not fit, unless --offload was
    given, or there is none.
    """
    actor, usable, most = size_of(args.model, "--model", item), USABLE * free, -(-draw.responses // processes)
    critics = critic_names and [size_of(name, "--critics", item) for name in critic_names]
    given, training, needed = getattr(args, "offload", "none"), critic_names is not None, []
    auto = given == "auto"
    tried = [(ranks, offload) for ranks in copy_sizes for offload in (OFFLOAD if auto else [given])]
    # weights on the CPU are slower still than weights on another machine
    for ranks, offload in sorted(tried, key=lambda each: each[1] == "all"):
        parts = phases(actor, critics, args, offload, ranks, processes)
        none, one = (sum(drawing(actor, draw, n, args).values()) for n in (0, 1))
        room = (usable - sum(parts["generate"].values()) - none) / (one - none)
        batch = min(most, max(1, int(room))) if draw.batch == "auto" else draw.batch
        parts["generate"] |= drawing(actor, draw, batch, args)
        totals = {name: sum(part.values()) for name, part in parts.items()}
        how = f" --offload {offload}" * training + f" --ranks-per-copy {ranks}" * (len(copy_sizes) > 1)
        needed.append(gib(max(totals.values())) + (how and f" with{how}"))
        fits, roomy = max(totals.values()) <= usable, draw.batch != "auto" or batch >= min(FEW, most)
        if fits and (roomy or not auto or offload != "none"):
            break
    text = (f"{gib(usable)} GiB of a GPU can be used, {' or '.join(map(str, copy_sizes))} share the models, "
            f"and needed are {', '.join(needed)}")
    refuse(auto and not fits, f"{text}; use more GPUs, lower --token-budget, --max-new-tokens or "
                              "--generate-batch, or name an --offload to try it nevertheless.")
    lines = [f"Plan: {text}. Taken:{how} --generate-batch {batch}{'' if fits else ', WHICH DOES NOT FIT'}."]
    for name, part in {"GiB": {}, **parts}.items():
        cells = [gib(part.get(x, 0)) for x in PARTS] + [gib(totals[name])] if part else [*PARTS, "total"]
        lines.append(f"{name:<12}" + "".join(f"{cell:>12}" for cell in cells))
    return dict(offload=offload, generate_batch=batch, ranks_per_copy=ranks), "\n".join(lines)


def preview(args: Namespace, critic_names: list[str]) -> str:
    """--plan: the plan for --gpus of --gpu-memory, as text."""
    n_responses, copy_sizes = args.prompts_per_step * args.group_size, [args.ranks_per_copy or args.gpus]
    draw = Draw(args.generate_batch, n_responses, args.group_size, PROMPT)
    item = 4 if args.dtype == "fp32" else 2
    return choose(args, critic_names, draw, item, args.gpus, copy_sizes, args.gpu_memory * 2**30)[1]


def gib(n: float) -> str:
    return f"{n / 2**30:.1f}"


def settle(args: Namespace, critic_names: list[str] | None, draw: Draw,
           world: World) -> tuple[Namespace, World]:
    """-> the settings with what `choose` chooses where they are auto, and the processes, as they share the
    models; on a GPU the plan is printed."""
    if world.device.type == "cpu":
        given = getattr(args, "offload", "none")
        chosen = dict(offload="none" if given == "auto" else given)
        chosen |= dict(generate_batch=FEW if draw.batch == "auto" else draw.batch)
    else:
        copy_sizes = [world.mesh.shape[-1]]
        if args.ranks_per_copy is None and copy_sizes[0] < world.size:
            copy_sizes.append(world.size)
        free = min(gather_list([torch.cuda.mem_get_info()[0]], world))
        item = compute_dtype(args.dtype, world).itemsize
        with together(world):
            planned = choose(args, critic_names, draw, item, world.size, copy_sizes, free)
        # rank 0's: another rank's data may not be the same, which is refused only later
        chosen, text = gather_list([planned], world)[0]
        if (ranks := chosen.pop("ranks_per_copy")) != copy_sizes[0]:
            world = replace(world, mesh=mesh_of(world.device.type, world.size, ranks))
        if world.is_main:
            print(text, flush=True)
    # an evaluation has no --offload
    return Namespace(**vars(args) | {key: x for key, x in chosen.items() if key in args}), world
