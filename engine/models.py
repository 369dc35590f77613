"""Actor and MiniCritic as mirror images: what they compute of responses, loading and saving.

Both are pretrained decoders. `score` runs one over responses; `loss` makes the differentiable sum that an update
minimises. The actor's numbers are log-probabilities and entropies, the critic's are values. Responses follow their
prompts without a gap and padding comes last, so causal attention needs no mask.

Legend for shape suffixes: B sequences, S prompt + response tokens (right-padded), N response tokens of the
micro-batch in row-major order, H hidden size, V vocabulary.
"""

import copy
import hashlib
from pathlib import Path
from typing import Callable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import cached_file, logging

from engine import head
from engine.distributed import World, gather_list, raise_on_all_ranks
from engine.errors import require, user_error
from engine.head import LogitsTransform
from engine.sharding import enable_checkpointing, full_state, shard_model

logging.disable_progress_bar()  # a bar for each file of weights would bury the run's own lines

HEAD_FILE = "value_head.safetensors"

Inputs = tuple[torch.Tensor, torch.Tensor]  # tokens_BS; the place of each s_t among its B · S entries, [N]
Loss = tuple[torch.Tensor, dict[str, torch.Tensor]]  # a differentiable sum; sums to log, name -> []


class Actor(nn.Module):
    """A causal language model as a policy: every log-probability is taken at the sampling temperature."""

    def __init__(self, lm: nn.Module, transform: LogitsTransform = LogitsTransform()):
        super().__init__()
        self.lm, self.transform = lm, transform
        # generate() takes every sampling setting that is not passed to it from here (TRL#3029)
        self.saved_generation_config = copy.deepcopy(lm.generation_config)
        lm.generation_config = GenerationConfig()

    def score(self, inputs: Inputs, with_slope: bool = False) -> torch.Tensor:
        """-> log π(o_t | s_t), the entropy of π(· | s_t) in nats and, with_slope, ‖∂ log π(o_t | s_t)/∂logits‖; [2 or
        3, N] fp32, without gradient."""
        return head.score(*self.states(inputs), self.transform, with_slope)

    def loss(self, inputs: Inputs, weights_N, data, token_loss: Callable, with_entropy: bool) -> Loss:
        """-> Σ weight · token_loss(log-probabilities, entropies, data), and the same sums of what it logs."""
        return head.loss(*self.states(inputs), self.transform, token_loss, with_entropy, weights_N, data)

    def states(self, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """-> hidden states of s_t [N, H], output embedding [V, H], ids of o_t [N]"""
        hidden_NH, targets_N = response_states(decoder(self.lm), inputs)
        return hidden_NH, self.lm.get_output_embeddings().weight, targets_N

    def hidden(self, inputs: Inputs) -> torch.Tensor:
        return response_states(decoder(self.lm), inputs)[0]

    def generate(self, **kwargs):
        # finished ranks do not wait for others: call it inside whole_weights
        return self.lm.generate(**kwargs, synced_gpus=False)


class MiniCritic(nn.Module):
    """A pretrained backbone and an fp32 linear head, which is zero unless a checkpoint brings one.

    Critics of equal weights differ only by their shards and their minibatches. Values never see the temperature
    (slime#1928).
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.value_head = nn.Linear(backbone.config.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def loss(self, inputs: Inputs, weights_N, data, token_loss: Callable) -> Loss:
        """-> Σ weight · token_loss(values, data), and the same sums of what it logs."""
        loss_N, logged_N = token_loss(self.values(inputs), data)
        logged = {name: (weights_N * x_N).sum().detach().double() for name, x_N in logged_N.items()}
        return (weights_N * loss_N).sum(), logged

    def values(self, inputs: Inputs) -> torch.Tensor:
        """-> V(s_t) of every response token, [N] fp32: of the state *before* the token (verl#1960)."""
        return self.value_head(response_states(self.backbone, inputs)[0].float()).squeeze(-1)

    score = values  # FSDP adds hooks to score, which must not be called inside loss

    def hidden(self, inputs: Inputs) -> torch.Tensor:
        return response_states(self.backbone, inputs)[0]


def decoder(lm: nn.Module) -> nn.Module:
    return lm.model if lm.base_model is lm else lm.base_model  # Llama 4 sets base_model_prefix wrongly


def response_states(backbone: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """-> hidden states at the position *before* each response token, [N, H]; ids of the tokens, [N].

    The actor's vocabulary may be padded further than the critic's (Qwen2.5 7B and 0.5B): clamp unused ids.
    """
    tokens_BS, place_N = inputs
    ids_BS = tokens_BS.clamp(max=backbone.config.vocab_size - 1)
    hidden_BSH = backbone(input_ids=ids_BS, use_cache=False).last_hidden_state
    return hidden_BSH.flatten(0, 1)[place_N], tokens_BS.flatten()[place_N + 1]


# -- loading -------------------------------------------------------------------------------------------------
def load_actor(name: str, world: World, dtype: torch.dtype, temperature: float = 1.0,
               gradient_checkpointing: bool = False, offload: str = "none") -> Actor:
    """Load a pretrained policy and shard it. dtype is the compute type, offload as in shard_model. Collective."""
    lm = load_pretrained(AutoModelForCausalLM, name, "--model", world)
    with raise_on_all_ranks(world):
        found = (lm.generation_config, *read_head(lm, name)) if world.is_main else None
    lm.generation_config, scale, cap = gather_list([found], world)[0]
    actor = Actor(lm, LogitsTransform(temperature, scale, cap))
    return prepare(actor, decoder(lm), name, world, dtype, gradient_checkpointing, offload)


def load_critic(name: str, world: World, dtype: torch.dtype, gradient_checkpointing: bool = False,
                offload: str = "none") -> MiniCritic:
    """Load a critic from a pretrained language model, or from save_critic's files with the trained head."""
    critic = MiniCritic(load_pretrained(AutoModel, name, "--critics", world))
    head_file = cached_file(name, HEAD_FILE, _raise_exceptions_for_missing_entries=False,
                            _raise_exceptions_for_connection_errors=False)
    if head_file:
        with user_error(f"--critics {name}: {HEAD_FILE} does not fit the model", RuntimeError, SafetensorError):
            critic.value_head.load_state_dict(load_file(head_file))
    return prepare(critic, critic.backbone, name, world, dtype, gradient_checkpointing, offload)


def prepare(model, backbone: nn.Module, name: str, world: World, dtype: torch.dtype, gradient_checkpointing: bool,
            offload: str):
    """Make a model ready for training: eval mode, checkpointing, sharding. name is for error messages.

    Models stay in eval mode, because dropout and router noise (NeMo-RL#2255) would make the trained policy differ
    from the one that sampled.
    """
    blocks = next((m for m in backbone.modules() if isinstance(m, nn.ModuleList)), [])
    require(len(blocks) == backbone.config.num_hidden_layers,
            f"{name}: only decoders whose blocks are one list can be sharded (Qwen, Llama, Mistral, …).")
    model.eval()
    if gradient_checkpointing:
        enable_checkpointing(blocks)
    shard_model(model, blocks, world, dtype, offload)
    return model


def load_config(name: str, flag: str):
    """Return the model's configuration; of a multimodal model, the text part."""
    with user_error(f"{flag} {name}: no model could be read there"):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        text = config.get_text_config()
    for each in (config, text):
        quantization = dict(getattr(each, "quantization_config", None) or {})
        require(not quantization,
                f"{flag} {name}: its weights are quantized ({quantization.get('quant_method')}) and cannot be "
                "trained; name the checkpoint in bf16 or fp32 that they were made from.")
    return text


def load_tokenizer(name: str, flag: str):
    with user_error(f"{flag} {name}: no tokenizer could be read there"):
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def load_pretrained(auto_class, name: str, flag: str, world: World) -> nn.Module:
    """Load a model in fp32 on rank 0's CPU, without dropout and without the repository's code. Collective.

    The other ranks get empty weights, which take no memory, and later their shards from rank 0. So a host holds one
    copy. model.digest, of a thousand entries of each tensor, tells models apart.
    """
    config = load_config(name, flag)
    for key, value in config.to_dict().items():
        if ("dropout" in key or "pdrop" in key) and isinstance(value, float):
            setattr(config, key, 0.0)  # noise in σ and in the ratio ρ (slime#1878)
    digest = hashlib.sha256()
    with raise_on_all_ranks(world):
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
    """Read a model from safetensors; raise if a weight is missing."""
    part = r"^(model\.)?language_model\."  # the text model in a multimodal checkpoint
    renamed = {part + "lm_head": "lm_head", part + r"(model\.)?": "model."}
    kwargs = dict(config=config, dtype=torch.float32, output_loading_info=True, key_mapping=renamed)
    with user_error(f"{flag} {name}: its weights could not be loaded", RuntimeError, SafetensorError):
        model, info = auto_class.from_pretrained(name, use_safetensors=True, trust_remote_code=False, **kwargs)
    vars(model).pop("_weight_conversions", None)  # else save_pretrained would write the multimodal checkpoint's names
    missing = sorted(info["missing_keys"])
    require(not missing, f"{flag} {name}: {len(missing)} weights are missing, for instance {missing[:1]}; they "
                         "would start at random. Name a complete checkpoint.")
    return model


@torch.no_grad()
def read_head(lm: nn.Module, name: str) -> tuple[float, float | None]:
    """Return scale and cap of the logits, see LogitsTransform; raise for other logits, such as those with a bias.

    The scale is fitted, because configurations multiply or divide by it under a dozen names.
    """
    ids = torch.arange(1, 9)[None] % lm.config.vocab_size
    with user_error(f"{name}: it fails on eight tokens", Exception):
        logits = lm(input_ids=ids, use_cache=False).logits.double()
        hidden = decoder(lm)(input_ids=ids, use_cache=False).last_hidden_state
    plain = (hidden @ lm.get_output_embeddings().weight.T).double()
    scale = ((logits * plain).sum() / plain.square().sum()).item()
    cap = getattr(lm.config, "final_logit_softcapping", None) or getattr(lm.config, "logits_soft_cap", None)
    scale = 1.0 if cap or abs(scale - 1) < 1e-5 else scale
    expected = cap * torch.tanh(plain / cap) if cap else scale * plain
    bias = getattr(lm.get_output_embeddings(), "bias", None)
    require(bias is None and torch.allclose(logits, expected, atol=1e-3, rtol=1e-3),
            f"{name}: its logits are not a plain linear map of the hidden states; engine/head.py cannot score it.")
    return scale, cap


# -- saving --------------------------------------------------------------------------------------------------
def save_actor(actor: Actor, tokenizer, folder: Path, world: World) -> None:
    """Write the actor in Hugging Face format. Collective; rank 0 writes."""
    state = full_state(actor.lm)
    if world.is_main:
        actor.lm.save_pretrained(folder, state_dict=state)
        actor.saved_generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def save_critic(critic: MiniCritic, tokenizer, folder: Path, world: World) -> None:
    """Write the backbone in Hugging Face format and the head beside it. Collective; rank 0 writes."""
    state, head_state = full_state(critic.backbone), full_state(critic.value_head)
    if world.is_main:
        critic.backbone.save_pretrained(folder, state_dict=state)
        save_file(head_state, folder / HEAD_FILE)
        tokenizer.save_pretrained(folder)
