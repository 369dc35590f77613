"""Log-probability, entropy and loss of response tokens from hidden states, without the [N, V] logits.

A 152k vocabulary makes the logits of a micro-batch its largest tensor by far (TRL#3678, slime#2253). Here
those of HEAD_CHUNK tokens at a time are made, reduced and forgotten. `score` returns the numbers, `loss` a
sum that can be differentiated. The loss is a sum over tokens, so a chunk's gradients are known as soon as its
log-probabilities are: `loss` takes them in the same pass, and backward only scales them.

Legend for shape suffixes: N response tokens, C of them in a chunk, H hidden size, V vocabulary.
"""

from typing import Callable, Iterator, NamedTuple

import torch

HEAD_CHUNK = 256  # logits of this many tokens exist at once: 256 × 152k × 4 bytes = 156 MB


def score(hidden_NH, weight_VH, targets_N, temperature: float, cap: float | None = None) -> torch.Tensor:
    """-> log π(target | state), the entropy of π(· | state) in nats, and the length of ∂ log π(target |
    state)/∂z, √((1 − p_y)² + Σ_{i≠y} p_i²), with the z of `logits`; [3, N] fp32, without gradient."""
    scores_3N = hidden_NH.new_empty(3, len(hidden_NH), dtype=torch.float32)
    with torch.no_grad():
        for part in chunks(len(hidden_NH)):
            logp_CV = torch.log_softmax(logits(hidden_NH[part], weight_VH, temperature, cap), dim=-1)
            p_CV = logp_CV.exp()
            scores_3N[0, part] = logp_CV.gather(1, targets_N[part, None]).squeeze(1)
            scores_3N[1, part] = entropy(logp_CV, p_CV)
            # 1 − 2 p_y + Σ p² would leave rounding noise of a token with p_y near 1
            p_CV.scatter_(1, targets_N[part, None], 0.0)
            scores_3N[2, part] = (p_CV.sum(1).square() + torch.einsum("cv,cv->c", p_CV, p_CV)).sqrt()
            del logp_CV, p_CV  # before the next chunk's are made
    return scores_3N


def loss(hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor, temperature: float,
         token_loss: Callable, with_entropy: bool, weights_N: torch.Tensor, data: NamedTuple,
         cap: float | None = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """-> Σ weight · loss over the tokens, differentiable in hidden_NH and weight_VH; sums of what is logged.

    token_loss(logp_C, entropy_C, data of these tokens) -> their losses [C], and what to log of them, name ->
    [C]; entropy_C is NaN without with_entropy. data holds [N] arrays. With z of `logits` and p = softmax(z):
    ∂log p_y/∂z_i = 1[i=y] − p_i, ∂H/∂z_i = −p_i (log p_i + H), and z' = 1 − (z/cap)² where z is capped.
    """
    total, logged = torch.zeros((), device=hidden_NH.device), {}
    grad_hidden_NH = torch.empty_like(hidden_NH)
    # bf16 would lose the small addends of the later chunks
    grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32)
    with torch.no_grad():
        for part in chunks(len(hidden_NH)):
            target_C1 = targets_N[part, None]
            z_CV = logits(hidden_NH[part], weight_VH, temperature, cap)
            logp_CV = torch.log_softmax(z_CV, dim=-1)
            slope_CV = None if cap is None else 1 - (z_CV / cap).square()
            del z_CV
            logp_C = logp_CV.gather(1, target_C1).squeeze(1)
            p_CV = logp_CV.exp() if with_entropy else logp_CV.exp_()
            entropy_C = entropy(logp_CV, p_CV) if with_entropy else torch.full_like(logp_C, torch.nan)

            with torch.enable_grad():
                inputs = logp_C.requires_grad_(), entropy_C.requires_grad_()
                loss_C, logged_C = token_loss(*inputs, data._make(x_N[part] for x_N in data))
                chunk_loss = (weights_N[part] * loss_C).sum()
                by_logp_C, by_entropy_C = torch.autograd.grad(
                    chunk_loss / temperature, inputs, allow_unused=True)
            total += chunk_loss.detach()
            for name, x_C in logged_C.items():
                logged[name] = logged.get(name, 0) + (weights_N[part] * x_C).sum().double()

            if by_entropy_C is None:  # ∂loss/∂z, in place of p
                p_CV.mul_(-by_logp_C[:, None])
            else:
                logp_CV.add_(entropy_C[:, None]).mul_(-by_entropy_C[:, None]).sub_(by_logp_C[:, None])
                p_CV.mul_(logp_CV)
            grad_CV = p_CV.scatter_add_(1, target_C1, by_logp_C[:, None])
            grad_CV = (grad_CV if cap is None else grad_CV.mul_(slope_CV)).to(hidden_NH.dtype)
            grad_hidden_NH[part] = grad_CV @ weight_VH
            if grad_CV.dtype == torch.float32:
                grad_weight_VH.addmm_(grad_CV.T, hidden_NH[part])  # without a second [V, H] array
            else:
                grad_weight_VH += grad_CV.T @ hidden_NH[part]
            del logp_CV, p_CV, grad_CV, slope_CV  # before the next chunk's logits are made
    grad_weight_VH = grad_weight_VH.to(weight_VH.dtype)
    return KnownGradient.apply(hidden_NH, weight_VH, total, grad_hidden_NH, grad_weight_VH), logged


class KnownGradient(torch.autograd.Function):
    """The loss, as a function of hidden states and weight whose gradients are known already."""

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


def logits(hidden_CH: torch.Tensor, weight_VH, temperature: float, cap: float | None) -> torch.Tensor:
    """-> z = h Wᵀ / temperature of every token of the vocabulary, or cap · tanh(z / cap); [C, V] fp32"""
    z_CV = (hidden_CH @ weight_VH.T).float().div_(temperature)
    return z_CV if cap is None else z_CV.div_(cap).tanh_().mul_(cap)


def entropy(logp_CV: torch.Tensor, p_CV: torch.Tensor) -> torch.Tensor:
    """−Σ p log p without a third [C, V] array. -> [C]"""
    return -torch.einsum("cv,cv->c", p_CV, logp_CV)
