"""Log-probability, entropy and loss of response tokens from hidden states, without the [N, V] logits.

A 152k vocabulary makes the logits the largest tensor of a micro-batch by far (TRL#3678, slime#2253). So we compute
logits for HEAD_CHUNK tokens at a time and discard them. The loss is a sum over tokens: the gradients of a chunk are
known as soon as its log-probabilities are. `loss` takes them in the same pass; backward scales them.

Legend for shape suffixes: N response tokens, C tokens of a chunk, H hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Callable, Iterator, NamedTuple

import torch

HEAD_CHUNK = 256  # logits of this many tokens exist at once: 256 × 152k × 4 bytes = 156 MB


@dataclass(frozen=True)
class LogitsTransform:
    """Map h Wᵀ to the logits z: scale, cap by cap · tanh(z / cap), divide by the temperature."""

    temperature: float = 1.0
    scale: float = 1.0  # Cohere, Granite
    cap: float | None = None  # Gemma 2


def score(hidden_NH, weight_VH, targets_N, transform: LogitsTransform, with_slope: bool = False) -> torch.Tensor:
    """-> log π(target | state), the entropy of π(· | state) in nats and, with_slope, ‖∂ log π(target | state)/∂z‖;
    [2 or 3, N] fp32, without gradient. With p = softmax(z) the norm is √((1 − p_y)² + Σ_{i≠y} p_i²)."""
    scores_KN = hidden_NH.new_empty(2 + with_slope, len(hidden_NH), dtype=torch.float32)
    with torch.no_grad():
        for part in chunks(len(hidden_NH)):
            logp_CV = torch.log_softmax(logits(hidden_NH[part], weight_VH, transform), dim=-1)
            p_CV = logp_CV.exp()
            scores_KN[0, part] = logp_CV.gather(1, targets_N[part, None]).squeeze(1)
            scores_KN[1, part] = entropy(logp_CV, p_CV)
            if with_slope:  # 1 − 2 p_y + Σ p² would be rounding noise where p_y is near 1
                p_CV.scatter_(1, targets_N[part, None], 0.0)
                scores_KN[2, part] = (p_CV.sum(1).square() + torch.einsum("cv,cv->c", p_CV, p_CV)).sqrt()
            del logp_CV, p_CV  # before the next chunk
    return scores_KN


def loss(hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor, transform: LogitsTransform,
         token_loss: Callable, with_entropy: bool, weights_N: torch.Tensor, data: NamedTuple,
         ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """-> Σ weight · loss over the tokens, differentiable in hidden_NH and weight_VH; sums to log.

    token_loss(logp_C, entropy_C, data of these tokens) -> losses [C], and values to log, name -> [C]. entropy_C is
    NaN without with_entropy. data holds [N] arrays.
    """
    total, logged = torch.zeros((), device=hidden_NH.device), {}
    grad_hidden_NH = torch.empty_like(hidden_NH)
    # bf16 would lose the small addends of later chunks
    grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32)
    with torch.no_grad():
        for part in chunks(len(hidden_NH)):
            target_C1 = targets_N[part, None]
            z_CV = logits(hidden_NH[part], weight_VH, transform)
            logp_CV = torch.log_softmax(z_CV, dim=-1)
            cap_derivative_CV = cap_derivative(z_CV, transform)
            del z_CV
            logp_C = logp_CV.gather(1, target_C1).squeeze(1)
            p_CV = logp_CV.exp() if with_entropy else logp_CV.exp_()
            entropy_C = entropy(logp_CV, p_CV) if with_entropy else torch.full_like(logp_C, torch.nan)

            with torch.enable_grad():
                inputs = logp_C.requires_grad_(), entropy_C.requires_grad_()
                loss_C, logged_C = token_loss(*inputs, data._make(x_N[part] for x_N in data))
                chunk_loss = (weights_N[part] * loss_C).sum()
                by_logp_C, by_entropy_C = torch.autograd.grad(
                    chunk_loss / (transform.temperature / transform.scale), inputs, allow_unused=True)
            total += chunk_loss.detach()
            for name, x_C in logged_C.items():
                logged[name] = logged.get(name, 0) + (weights_N[part] * x_C).sum().double()

            # ∂log p_y/∂z_i = 1[i=y] − p_i and ∂H/∂z_i = −p_i (log p_i + H); z before cap and temperature
            if by_entropy_C is None:
                grad_CV = p_CV.mul_(-by_logp_C[:, None])
            else:
                logp_CV.add_(entropy_C[:, None]).mul_(-by_entropy_C[:, None]).sub_(by_logp_C[:, None])
                grad_CV = p_CV.mul_(logp_CV)
            grad_CV.scatter_add_(1, target_C1, by_logp_C[:, None])
            grad_CV = (grad_CV if cap_derivative_CV is None else grad_CV.mul_(cap_derivative_CV)).to(hidden_NH.dtype)
            grad_hidden_NH[part] = grad_CV @ weight_VH
            if grad_CV.dtype == torch.float32:
                grad_weight_VH.addmm_(grad_CV.T, hidden_NH[part])  # without a second [V, H] array
            else:
                grad_weight_VH += grad_CV.T @ hidden_NH[part]
            del logp_CV, p_CV, grad_CV, cap_derivative_CV  # before the next chunk
    grad_weight_VH = grad_weight_VH.to(weight_VH.dtype)
    return KnownGradient.apply(hidden_NH, weight_VH, total, grad_hidden_NH, grad_weight_VH), logged


class KnownGradient(torch.autograd.Function):
    """The loss as a function of hidden states and weight, with gradients that are already computed."""

    @staticmethod
    def forward(ctx, hidden_NH, weight_VH, total, grad_hidden_NH, grad_weight_VH):
        ctx.save_for_backward(grad_hidden_NH, grad_weight_VH)
        return total.clone()

    @staticmethod
    def backward(ctx, grad_total):
        grad_hidden_NH, grad_weight_VH = ctx.saved_tensors
        return grad_hidden_NH.mul_(grad_total), grad_weight_VH.mul_(grad_total), None, None, None


def chunks(n: int) -> Iterator[slice]:
    return (slice(i, i + HEAD_CHUNK) for i in range(0, n, HEAD_CHUNK))


def logits(hidden_CH: torch.Tensor, weight_VH: torch.Tensor, transform: LogitsTransform) -> torch.Tensor:
    """-> z of every token of the vocabulary at the sampling temperature; [C, V] fp32"""
    z_CV = (hidden_CH @ weight_VH.T).float()
    if transform.cap is None:
        return z_CV.div_(transform.temperature / transform.scale)
    return z_CV.mul_(transform.scale / transform.cap).tanh_().mul_(transform.cap / transform.temperature)


def cap_derivative(z_CV: torch.Tensor, transform: LogitsTransform) -> torch.Tensor | None:
    """-> ∂(cap · tanh(x / cap))/∂x = 1 − tanh²; None without a cap"""
    return None if transform.cap is None else 1 - (z_CV * (transform.temperature / transform.cap)).square()


def entropy(logp_CV: torch.Tensor, p_CV: torch.Tensor) -> torch.Tensor:
    """−Σ p log p without a third [C, V] array. -> [C]"""
    return -torch.einsum("cv,cv->c", p_CV, logp_CV)
