"""Actor and MiniCritic as mirror images: what they compute of responses, loading, saving, FSDP2.

Both are pretrained decoders. `score` runs one over responses, `loss` makes the differentiable sum that an
update minimises; the actor's numbers are log-probabilities and entropies, the critic's are values. Responses
follow their prompts without a gap and padding comes last, so causal attention needs no mask.

Legend for shape suffixes: B sequences, S prompt + response tokens (right-padded), N response tokens of the
whole micro-batch in row-major order, H hidden size.
"""

import copy
import hashlib
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Callable, Iterable, Iterator

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint import state_dict
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

import head
from distributed import UserError, World, gather_list, reading, refuse, together

logging.disable_progress_bar()  # one bar for each file of weights would bury the run's own lines

HEAD_FILE = "value_head.safetensors"

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # tokens_BS, prompt_len_B, response_len_B
Loss = tuple[torch.Tensor, dict[str, torch.Tensor]]  # a differentiable sum; sums to log, name -> []


class Actor(nn.Module):
    """A causal language model as a policy: every log-probability is taken at the sampling temperature.

    scale, cap: of the model's logits, see `read_head`.
    """

    def __init__(self, lm: nn.Module, temperature: float = 1.0, scale: float = 1.0, cap: float | None = None):
        super().__init__()
        self.lm, self.temperature = lm, temperature
        # c·tanh(s h Wᵀ / c) / T is (c/T)·tanh((h Wᵀ / (T/s)) / (c/T))
        self.logits = dict(temperature=temperature / scale, cap=cap and cap / temperature)
        # generate() fills every sampling setting that it is not given from here (TRL#3029)
        self.saved_generation_config = copy.deepcopy(lm.generation_config)
        lm.generation_config = GenerationConfig()

    def score(self, inputs: Inputs) -> torch.Tensor:
        """-> log π(o_t | s_t), the entropy of π(· | s_t) in nats, and the length of ∂ log π(o_t | s_t)/∂z;
        [3, N] fp32, without gradient."""
        return head.score(*self.states(inputs), **self.logits)

    def loss(self, inputs: Inputs, weights_N, data, token_loss: Callable, with_entropy: bool) -> Loss:
        """-> Σ weight · token_loss(log-probabilities, entropies, data), and the same sums of what it logs."""
        how = dict(token_loss=token_loss, with_entropy=with_entropy, weights_N=weights_N, data=data)
        return head.loss(*self.states(inputs), **self.logits, **how)

    def states(self, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the head needs: hidden states of s_t [N, H], output embedding [V, H], ids of o_t [N]."""
        hidden_NH, targets_N = response_states(decoder(self.lm), inputs)
        return hidden_NH, self.lm.get_output_embeddings().weight, targets_N

    def hidden(self, inputs: Inputs) -> torch.Tensor:
        return response_states(decoder(self.lm), inputs)[0]

    def generate(self, **kwargs):
        # finished ranks do not wait for others: call it inside whole_weights
        return self.lm.generate(**kwargs, synced_gpus=False)


def decoder(lm: nn.Module) -> nn.Module:
    return lm.model if lm.base_model is lm else lm.base_model  # Llama 4's is filed under a wrong name


class MiniCritic(nn.Module):
    """A pretrained backbone and a linear layer in fp32, zero unless a checkpoint brings one: equal critics
    differ only by what they are fitted on and in which order. Values never see the temperature (slime#1928).
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.value_head = nn.Linear(backbone.config.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def score(self, inputs: Inputs) -> torch.Tensor:
        """-> V(s_t) of every response token, [N] fp32: of the state *before* the token (verl#1960)."""
        return self.values(inputs)  # under a name of its own, for FSDP must not enter score from within loss

    def loss(self, inputs: Inputs, weights_N, data, token_loss: Callable) -> Loss:
        """-> Σ weight · token_loss(values, data), and the same sums of what it logs."""
        loss_N, logged_N = token_loss(self.values(inputs), data)
        logged = {name: (weights_N * x_N).sum().detach().double() for name, x_N in logged_N.items()}
        return (weights_N * loss_N).sum(), logged

    def hidden(self, inputs: Inputs) -> torch.Tensor:
        return response_states(self.backbone, inputs)[0]

    def values(self, inputs: Inputs) -> torch.Tensor:
        hidden_NH, _ = response_states(self.backbone, inputs)
        return self.value_head(hidden_NH.float()).squeeze(-1)


def response_states(backbone: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """-> hidden states of s_t, from which o_t was drawn (those at the position *before* each response token),
    [N, H]; and the ids of o_t, [N]. An actor's embedding may have more rows than its critics' (Qwen2.5 7B and
    0.5B), which stand for nothing: a critic reads such an id as its own last one."""
    tokens_BS, prompt_len_B, response_len_B = inputs
    ids_BS = tokens_BS.clamp(max=backbone.config.vocab_size - 1)
    hidden_BSH = backbone(input_ids=ids_BS, use_cache=False).last_hidden_state
    position_S = torch.arange(hidden_BSH.shape[1], device=hidden_BSH.device)
    first_B1 = prompt_len_B[:, None] - 1
    picked_BS = (position_S >= first_B1) & (position_S < first_B1 + response_len_B[:, None])
    return hidden_BSH[picked_BS], tokens_BS.roll(-1, dims=1)[picked_BS]


# -- loading -------------------------------------------------------------------------------------------------
def load_actor(name: str, world: World, dtype: torch.dtype, temperature: float = 1.0, **how) -> Actor:
    """Pretrained policy, checked and divided over all ranks. Master weights are fp32, compute is in dtype;
    how: see `prepare`."""
    lm = load_pretrained(AutoModelForCausalLM, name, "--model", world)
    with together(world):
        own = (lm.generation_config, *read_head(lm, name)) if world.is_main else None
    lm.generation_config, *shape = gather_list([own], world)[0]
    actor = prepare(Actor(lm, temperature, *shape), decoder(lm), name, world, dtype, **how)
    return check_states(actor, name, world, dtype)


def load_critic(name: str, world: World, dtype: torch.dtype, **how) -> MiniCritic:
    """A critic from a pretrained language model, or one that `save_critic` wrote, with its trained head."""
    critic = MiniCritic(load_pretrained(AutoModel, name, "--critics", world))
    if (Path(name) / HEAD_FILE).exists():
        with reading(f"--critics {name}: {HEAD_FILE} does not fit the model", RuntimeError, SafetensorError):
            critic.value_head.load_state_dict(load_file(Path(name) / HEAD_FILE))
    critic = prepare(critic, critic.backbone, name, world, dtype, **how)
    return check_states(critic, name, world, dtype)


def load_config(name: str, flag: str):
    """The model's configuration, of a multimodal one the text model's, or a sentence that says why not."""
    with reading(f"{flag} {name}: no model could be read there"):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        text = config.get_text_config()
    for each in (config, text):
        how = dict(getattr(each, "quantization_config", None) or {})
        refuse(how, f"{flag} {name}: its weights are quantized ({how.get('quant_method')}), which cannot be "
                    "trained; name the checkpoint in bf16 or fp32 that they were made from.")
    return text


def check_config(name: str, flag: str, prompts: list, response: int, ids: Iterable[int] = ()) -> int:
    """Refuse a model that cannot read the run's tokens or not in so long a sequence. -> rows of its embedding

    response: most tokens of one; ids: what else than the prompts' tokens it must know."""
    config, longest = load_config(name, flag), max(map(len, prompts)) + response
    context = getattr(config, "max_position_embeddings", None) or longest
    limits = [(context, "its context (max_position_embeddings) ends")]
    sparse = getattr(config, "index_topk", None) or longest  # DeepSeek V3.2 and others in transformers 5.23
    limits += [(sparse, "its attention is scored otherwise than drawn")]
    ropes = getattr(config, "rope_parameters", None) or {}
    # one for each type of layer (Gemma 3) is a dict of dicts
    for rope in [ropes] if "rope_type" in ropes else filter(None, ropes.values()):
        if (kind := rope["rope_type"]) in ("dynamic", "longrope"):
            original = rope.get("original_max_position_embeddings") or context
            limits += [(original, f"its positions ({kind} RoPE) depend on the longest sequence of a batch")]
    for limit, why in limits:
        refuse(longest > limit,
               f"{flag} {name}: beyond {limit} tokens {why}, and the longest prompt and response have "
               f"{longest}; lower --max-new-tokens.")
    highest = max([*map(max, prompts), *ids])
    refuse(highest >= config.vocab_size,
           f"{flag} {name}: its embedding has {config.vocab_size} rows, too few for the tokenizer's token "
           f"{highest}; name a model with a row for each.")
    return config.vocab_size


def load_tokenizer(name: str, flag: str):
    with reading(f"{flag} {name}: no tokenizer could be read there"):
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def load_pretrained(auto_class, name: str, flag: str, world: World) -> nn.Module:
    """A model in fp32 on rank 0's CPU, from safetensors only, without the repository's code, dropout off.

    The other ranks get it with empty weights, which take no memory: `prepare` sends each its part, so that a
    host of eight holds a 14B model's 56 GB once. Dropout would be noise in the critics' disagreement and in
    the actor's ratio (slime#1878). model.digest, of a thousand entries of each tensor, tells models apart.
    """
    config = load_config(name, flag)
    for key, value in config.to_dict().items():
        if ("dropout" in key or "pdrop" in key) and isinstance(value, float):
            setattr(config, key, 0.0)
    digest = hashlib.sha256()
    with together(world):
        model = read_weights(auto_class, name, flag, config) if world.is_main else None
    if world.is_main:
        for tensor_name, x in model.state_dict().items():
            digest.update(tensor_name.encode() + x.flatten()[:: 1 + x.numel() // 1000].numpy().tobytes())
    else:
        with torch.device("meta"):
            model = auto_class.from_config(config, dtype=torch.float32, trust_remote_code=False)
        model.to_empty(device="cpu").tie_weights()
    model.digest = gather_list([digest.hexdigest()], world)[0]
    return model


def read_weights(auto_class, name: str, flag: str, config) -> nn.Module:
    """The model, complete, or a sentence that says why not."""
    part = r"^(model\.)?language_model\."  # the text model in a multimodal checkpoint
    names = {part + "lm_head": "lm_head", part + r"(model\.)?": "model."}
    how = dict(config=config, dtype=torch.float32, output_loading_info=True, key_mapping=names)
    with reading(f"{flag} {name}: its weights could not be loaded", RuntimeError, SafetensorError):
        model, info = auto_class.from_pretrained(name, use_safetensors=True, trust_remote_code=False, **how)
    vars(model).pop("_weight_conversions", None)  # it is saved as the text model that it is
    if missing := sorted(info["missing_keys"]):
        first = f"{len(missing)} weights are missing, {missing[0]} among them"
        raise UserError(f"{flag} {name}: {first}; it would start random.")
    return model


@torch.no_grad()
def read_head(lm: nn.Module, name: str) -> tuple[float, float | None]:
    """-> s and c of logits that are s h Wᵀ (Cohere and Granite scale) or c·tanh(h Wᵀ / c) (Gemma 2 caps).

    h: hidden states, W: output embedding. Models with other logits (a bias …) are refused. s is fitted, for
    libraries multiply by it or divide under a dozen names."""
    ids = torch.arange(1, 9)[None] % lm.config.vocab_size
    with reading(f"{name}: it fails on eight tokens", Exception):
        own = lm(input_ids=ids, use_cache=False).logits.double()
        hidden = decoder(lm)(input_ids=ids, use_cache=False).last_hidden_state
    plain = (hidden @ lm.get_output_embeddings().weight.T).double()
    scale = ((own * plain).sum() / plain.square().sum()).item()
    cap = getattr(lm.config, "final_logit_softcapping", None) or getattr(lm.config, "logits_soft_cap", None)
    scale = 1.0 if cap or abs(scale - 1) < 1e-5 else scale
    ours = cap * torch.tanh(plain / cap) if cap else scale * plain
    bias = getattr(lm.get_output_embeddings(), "bias", None)
    refuse(bias is not None or not torch.allclose(own, ours, atol=1e-3, rtol=1e-3),
           f"{name}: its logits are not a plain linear map of the hidden states; head.py cannot score it.")
    return scale, cap


# How far the same hidden states, computed in two ways, may be off, in shares of their length (mean over a
# response), and half as far as log-probabilities may, in nats. Rounding alone made 1e-6 of both in fp32, and
# 0.007 and 0.04 in bf16 (25 random models, SmolLM2 135M); the faults seen made 0.0007 to 2.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}


@torch.no_grad()
def check_states(model: nn.Module, name: str, world: World, dtype: torch.dtype) -> nn.Module:
    """The model, or a sentence if the states of two short responses, alone, together and together again, are
    not the same: noise, or positions that depend on the batch. All ranks take part."""
    ids_S = torch.arange(1, 17, device=world.device)
    both = (torch.stack([ids_S, ids_S.flip(0)]), *torch.tensor([[1, 1], [15, 7]], device=world.device))
    with reading(f"{name}: it fails on two short responses", Exception):
        each = [x[:1] for x in both], (both[0][1:, :8], *(x[1:] for x in both[1:]))
        alone = [model.hidden(inputs) for inputs in each]
        first, again = (model.hidden(both).split([15, 7]) for _ in range(2))
    for how, pairs in {"twice": zip(first, again), "alone and beside another": zip(alone, first)}.items():
        off = [((a - b).float().norm(dim=1) / a.float().norm(dim=1)).mean().item() for a, b in pairs]
        off = torch.tensor(gather_list(off, world)).max().item()  # NaN, if one is
        refuse(not off < TOLERANCE[dtype],
               f"{name}: the hidden states of a response, scored {how}, differ by {off:.1%}; what is learned "
               "from them would be wrong.")
    return model


def compute_dtype(name: str, world: World) -> torch.dtype:
    """--dtype: auto is bf16 on a GPU and fp32 on a CPU."""
    if name == "auto":
        name = "bf16" if world.device.type == "cuda" else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[name]


# -- FSDP2 ---------------------------------------------------------------------------------------------------
def prepare(model, backbone: nn.Module, name: str, world: World, dtype: torch.dtype,
            gradient_checkpointing: bool = False, offload: str = "none"):
    """Actor or critic, ready to be trained: divided over all ranks by FSDP2 (over those of a copy where
    world.mesh has copies), one unit a transformer block, one for the value head, which stays in fp32, one for
    the rest. All ranks get rank 0's weights; name is for complaints.

    No module is ever in training mode: routers add noise in it, PhiMoE even draws its experts (NeMo-RL#2255;
    its config's "jitter" counts in both modes). The policy that samples would not be the one that is trained.

    The master weights and the gradients' reduction are fp32 (AdamW at 1e-6 rounds updates of bf16 weights
    away, AReaL#1292); compute runs in dtype. One process in fp32 has nothing to divide or to cast. offload
    all: what is divided, and so AdamW, stays on the CPU, and a unit's weights come when it is at work.
    """
    blocks = next((m for m in backbone.modules() if isinstance(m, nn.ModuleList)), [])
    refuse(len(blocks) != backbone.config.num_hidden_layers,
           f"{name}: a decoder whose blocks are one list is needed to divide it (as Qwen, Llama, Mistral).")
    model.eval()
    for block in blocks if gradient_checkpointing else ():  # transformers' own needs training mode
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if world.size == 1 and dtype == torch.float32 and offload != "all":
        return model.to(world.device)
    whole = model.state_dict() if world.is_main else {}
    compute = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    full = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32)
    # what a loss is made of (advantages, weights) stays in fp32
    root = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    stay = CPUOffloadPolicy(pin_memory=world.device.type == "cuda") if offload == "all" else OffloadPolicy()
    heads = [model.value_head] if isinstance(model, MiniCritic) else []
    for module, cast in [*((x, compute) for x in blocks), *((x, full) for x in heads), (model, root)]:
        fully_shard(module, mesh=world.mesh, reshard_after_forward=True, mp_policy=cast, offload_policy=stay)
    if world.size > 1:
        from_rank_0 = state_dict.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        state_dict.set_model_state_dict(model, whole, options=from_rank_0)
        for buffer in model.buffers():  # those that no state dict holds too: rotary frequencies
            dist.broadcast(buffer, src=0)
    for method in ("score", "loss", "generate", "hidden"):
        if hasattr(model, method):
            register_fsdp_forward_method(model, method)
    return model


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Hold all weights undivided: one gather a rollout instead of one a token (TRL#1483), and ranks that
    finish generating at different times cannot wait for each other (accelerate#3425)."""
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


# -- saving --------------------------------------------------------------------------------------------------
def save_actor(actor: Actor, tokenizer, folder: Path, world: World) -> None:
    """Hugging Face format; all ranks take part, rank 0 writes."""
    state = full_state(actor.lm)
    if world.is_main:
        actor.lm.save_pretrained(folder, state_dict=state)
        actor.saved_generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def save_critic(critic: MiniCritic, tokenizer, folder: Path, world: World) -> None:
    """The backbone in Hugging Face format, the head beside it; all ranks take part, rank 0 writes."""
    state, head_state = full_state(critic.backbone), full_state(critic.value_head)
    if world.is_main:
        critic.backbone.save_pretrained(folder, state_dict=state)
        save_file(head_state, folder / HEAD_FILE)
        tokenizer.save_pretrained(folder)


def full_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Its whole state dict on rank 0's CPU, tied weights once; the other ranks get {}."""
    whole = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
    once = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    state = state_dict.get_model_state_dict(module, options=whole)
    return {name: x for name, x in state.items() if name in once}
