"""The policy as a model: loading, log-probability and entropy of given response tokens, generation.

Legend for shape suffixes: B sequences, S prompt + response tokens (right-padded), N response tokens of the whole
micro-batch in row-major order, C of them that pass the head together, H hidden size, V vocabulary.
"""

import copy
import hashlib
from typing import Callable

import torch
from safetensors import SafetensorError
from torch import nn
from torch.distributed.fsdp import register_fsdp_forward_method
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from distributed import UserError, World, gather_list, shard_model

logging.disable_progress_bar()  # one bar for each file of weights would bury the run's own lines

# logits of this many tokens exist at once: 256 × 152k × 4 bytes = 156 MB
HEAD_CHUNK = 256


class LinearHead(torch.autograd.Function):
    """log π(target | state) and entropy from hidden states, without the [N, V] logits (TRL#3678, slime#2253).

    Logits of HEAD_CHUNK tokens at a time are made, reduced and forgotten. The loss is a sum of per-token terms, so its
    gradients are known as soon as a chunk's log-probabilities are: token_loss(logp_C, entropy_C, part) -> [C] is
    differentiated in the same pass, and backward only scales. With z = h Wᵀ / temperature and p = softmax(z):
    ∂log p_y/∂z_i = 1[i=y] − p_i, ∂H/∂z_i = −p_i (log p_i + H).
    """

    @staticmethod
    def forward(ctx, hidden_NH, weight_VH, targets_N, temperature: float, token_loss: Callable | None, with_entropy: bool):
        """-> the loss (0 without token_loss), log-probabilities [N], entropies [N] (NaN if not asked for).

        Only the loss can be differentiated."""
        logp_N = torch.empty(len(hidden_NH), dtype=torch.float32, device=hidden_NH.device)
        entropy_N, loss = torch.full_like(logp_N, torch.nan), logp_N.new_zeros(())
        if token_loss:
            grad_hidden_NH = torch.empty_like(hidden_NH)
            # bf16 would lose the small addends of the later chunks
            grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32)
        for i in range(0, len(hidden_NH), HEAD_CHUNK):
            part = slice(i, i + HEAD_CHUNK)
            logp_CV = torch.log_softmax((hidden_NH[part] @ weight_VH.T).float().div_(temperature), dim=-1)
            logp_N[part] = logp_CV.gather(1, targets_N[part, None]).squeeze(1)
            p_CV = logp_CV.exp() if with_entropy else logp_CV.exp_()
            if with_entropy:
                entropy_N[part] = -torch.einsum("cv,cv->c", p_CV, logp_CV)  # without a third [C, V] array
            if token_loss:
                with torch.enable_grad():
                    inputs = logp_N[part].detach().requires_grad_(), entropy_N[part].detach().requires_grad_()
                    chunk_loss = token_loss(*inputs, part).sum()
                    by_logp_C, by_entropy_C = torch.autograd.grad(chunk_loss / temperature, inputs, allow_unused=True)
                loss += chunk_loss.detach()
                # ∂loss/∂z, in place of p
                if by_entropy_C is None:
                    p_CV.mul_(-by_logp_C[:, None])
                else:
                    p_CV.mul_(logp_CV.add_(entropy_N[part, None]).mul_(-by_entropy_C[:, None]).sub_(by_logp_C[:, None]))
                grad_CV = p_CV.scatter_add_(1, targets_N[part, None], by_logp_C[:, None]).to(hidden_NH.dtype)
                grad_hidden_NH[part] = grad_CV @ weight_VH
                if grad_CV.dtype == torch.float32:
                    grad_weight_VH.addmm_(grad_CV.T, hidden_NH[part])  # without a second [V, H] array
                else:
                    grad_weight_VH += grad_CV.T @ hidden_NH[part]
                del grad_CV
            del logp_CV, p_CV  # before the next chunk's logits are made
        if token_loss:
            ctx.save_for_backward(grad_hidden_NH, grad_weight_VH.to(weight_VH.dtype))
        ctx.mark_non_differentiable(logp_N, entropy_N)
        return loss, logp_N, entropy_N

    @staticmethod
    def backward(ctx, grad_loss, *_):
        grad_hidden_NH, grad_weight_VH = ctx.saved_tensors
        return grad_hidden_NH.mul_(grad_loss), grad_weight_VH.mul_(grad_loss), None, None, None, None


def response_states(hidden_BSH: torch.Tensor, prompt_len_B: torch.Tensor, response_len_B: torch.Tensor):
    """Hidden states of s_t, from which o_t was drawn: those at the position *before* each response token (verl#1960).

    -> hidden_NH in row-major order, and the [B, S] mask that picked them.
    """
    position_S = torch.arange(hidden_BSH.shape[1], device=hidden_BSH.device)
    first_B1 = prompt_len_B[:, None] - 1
    picked_BS = (position_S >= first_B1) & (position_S < first_B1 + response_len_B[:, None])
    return hidden_BSH[picked_BS], picked_BS


class Actor(nn.Module):
    """A causal language model whose forward scores responses."""

    def __init__(self, lm: nn.Module):
        super().__init__()
        self.lm = lm

    def forward(
        self, tokens_BS, prompt_len_B, response_len_B, temperature: float, token_loss: Callable | None = None, with_entropy=True
    ):
        """-> log-probability and entropy (nats) of the policy at the sampling temperature, both [N] fp32, without gradient.

        With token_loss(logp_C, entropy_C, part of N) -> [C], the sum of these losses comes before them and has a gradient.
        Responses follow their prompts without a gap and padding comes last, so causal attention needs no mask.
        """
        hidden_BSH = self.lm.base_model(input_ids=tokens_BS, use_cache=False).last_hidden_state
        hidden_NH, picked_BS = response_states(hidden_BSH, prompt_len_B, response_len_B)
        targets_N = tokens_BS.roll(-1, dims=1)[picked_BS]
        weight_VH = self.lm.get_output_embeddings().weight
        scores = LinearHead.apply(hidden_NH, weight_VH, targets_N, temperature, token_loss, with_entropy)
        return scores if token_loss else scores[1:]

    def generate(self, **kwargs):
        # finished ranks do not wait for others: call it inside distributed.whole_weights
        return self.lm.generate(**kwargs, synced_gpus=False)


def load_config(name: str, flag: str):
    """The model's configuration, or a sentence that says which flag named a model that cannot be read."""
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{flag} {name}: no model could be read there ({first_line(error)})") from error


def load_pretrained(auto_class, name: str, flag: str, world: World) -> nn.Module:
    """A model in fp32 on rank 0's CPU, from safetensors only, never running the repository's code, with dropout off.

    The other ranks get it with empty weights, which take no memory: shard_model sends each its part, so that a host of
    eight holds a 14B model's 56 GB once. Dropout would be noise in the critics' disagreement and in the actor's ratio
    (slime#1878). model.digest tells it from another one: a thousand entries of each tensor are enough.
    """
    config = load_config(name, flag)
    for key, value in config.to_dict().items():
        if ("dropout" in key or "pdrop" in key) and isinstance(value, float):
            setattr(config, key, 0.0)
    digest = hashlib.sha256()
    if world.is_main:
        model = read_weights(auto_class, name, flag, config)
        for tensor_name, x in model.state_dict().items():
            digest.update(tensor_name.encode() + x.flatten()[:: 1 + x.numel() // 1000].numpy().tobytes())
    else:
        with torch.device("meta"):
            model = auto_class.from_config(config, dtype=torch.float32, trust_remote_code=False)
        model.to_empty(device="cpu").tie_weights()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.digest = gather_list([digest.hexdigest()], world)[0]
    return model


def read_weights(auto_class, name: str, flag: str, config) -> nn.Module:
    """The model, complete, or a sentence that says why not."""
    try:
        model, loaded = auto_class.from_pretrained(
            name, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{flag} {name}: its weights could not be loaded ({first_line(error)})") from error
    if missing := sorted(loaded["missing_keys"]):
        raise UserError(f"{flag} {name}: {len(missing)} weights are missing, {missing[0]} among them; it would start random.")
    return model


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def transformer_blocks(backbone: nn.Module, name: str) -> list[nn.Module]:
    blocks = getattr(backbone, "layers", None)
    if not isinstance(blocks, nn.ModuleList):
        raise UserError(f"{name}: a decoder with a list `layers` is needed to shard it (Qwen, Llama, Mistral, … have it).")
    return list(blocks)


@torch.no_grad()
def check_head(lm: nn.Module, name: str) -> None:
    """Refuse models whose logits are not hidden states times the output embedding (biases, soft-capping, scaling)."""
    ids = torch.arange(1, 9)[None] % lm.config.vocab_size
    own = lm(input_ids=ids).logits
    ours = lm.base_model(input_ids=ids).last_hidden_state @ lm.get_output_embeddings().weight.T
    if not torch.allclose(own, ours, atol=1e-3, rtol=1e-3):
        raise UserError(f"{name}: its logits are not a plain linear map of the hidden states; actor.py cannot score it.")


def load_actor(name: str, world: World, dtype: torch.dtype, gradient_checkpointing: bool = False) -> Actor:
    """Pretrained policy, checked and sharded over all ranks. Master weights are fp32, compute runs in dtype."""
    lm = load_pretrained(AutoModelForCausalLM, name, "--model", world)
    if world.is_main:
        check_head(lm, name)
    lm.generation_config = gather_list([lm.generation_config], world)[0]
    return shard_actor(lm, name, world, dtype, gradient_checkpointing)


def shard_actor(lm: nn.Module, name: str, world: World, dtype: torch.dtype, gradient_checkpointing: bool) -> Actor:
    """A policy from a language model; name is for complaints."""
    actor = Actor(lm)
    # generate() fills every sampling setting that it is not given from here (TRL#3029): leave nothing there
    actor.saved_generation_config = copy.deepcopy(lm.generation_config)
    lm.generation_config = GenerationConfig()
    if gradient_checkpointing:
        lm.activation_checkpointing_enable({"use_reentrant": False})
    shard_model(actor, transformer_blocks(lm.base_model, name), [], world, dtype)
    register_fsdp_forward_method(actor, "generate")
    return actor.train()


def load_tokenizer(name: str, flag: str):
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{flag} {name}: no tokenizer could be read there ({first_line(error)})") from error
