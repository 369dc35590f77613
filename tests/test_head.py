"""The head: log-probabilities, entropies and gradients without the full logits are those with them."""

from typing import NamedTuple

import pytest
import torch

import head


class Curves(NamedTuple):
    slope: torch.Tensor
    curve: torch.Tensor


def random_states(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """-> hidden states, output embedding, targets"""
    torch.manual_seed(0)
    return torch.randn(n, 16), torch.randn(50, 16), torch.randint(50, (n,))


@pytest.mark.parametrize("entropy_coef", [0.0, 0.3])
@pytest.mark.parametrize(
    "n, chunk, temperature, scale, cap",
    [
        (1, 256, 1.0, 1.0, None), (100, 7, 0.7, 2.0, None), (100, 100, 1.3, 0.0, None),
        (100, 256, 0.7, 0.5, None), (100, 7, 0.7, 2.0, 5.0), (100, 256, 1.0, 1.0, 30.0)
    ]
)
def test_the_head_equals_full_logits_in_values_and_gradients(
    monkeypatch, n, chunk, temperature, scale, cap, entropy_coef
):
    monkeypatch.setattr(head, "HEAD_CHUNK", chunk)
    hidden, weight, targets = random_states(n)
    data, weights = Curves(torch.randn(n), torch.rand(n)), torch.rand(n)

    def token_loss(logp, entropy, data):
        seen.append((logp.detach(), entropy.detach()))
        loss = data.slope * logp + data.curve * logp.exp().square()
        if entropy_coef:
            loss = loss - entropy_coef * data.curve * entropy
        return loss, {"slope": data.slope}

    def chunked(h, w):
        return head.loss(h, w, targets, temperature, token_loss, entropy_coef > 0, weights, data, cap)

    def full(h, w):
        logits = h @ w.T / temperature
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        distribution = torch.distributions.Categorical(logits=logits)
        loss, logged = token_loss(distribution.log_prob(targets), distribution.entropy(), data)
        return (weights * loss).sum(), {"slope": (weights.double() * logged["slope"]).sum()}

    def results(dtype, loss_of):
        h, w = (x.to(dtype, copy=True).requires_grad_() for x in (hidden, weight))
        loss, logged = loss_of(h, w)
        (loss * scale).backward()
        logp, entropy = map(torch.cat, zip(*seen))
        seen.clear()
        return dict(
            loss=loss.detach(), logged=logged["slope"], logp=logp, entropy=entropy,
            hidden=h.grad, weight=w.grad
        )

    seen = []
    ours, exact = results(torch.float32, chunked), results(torch.float64, full)
    if not entropy_coef:
        assert ours.pop("entropy").isnan().all()  # not asked for
    for what, mine in ours.items():
        assert mine.dtype == (torch.float64 if what == "logged" else torch.float32)
        assert (mine - exact[what]).norm() <= 1e-6 * exact[what].norm() + 1e-7, what


def test_scoring_and_training_see_the_same_log_probabilities_to_the_last_bit():
    hidden, weight, targets = random_states(600)
    seen = []

    def token_loss(logp, entropy, data):
        seen.append((logp.detach(), entropy.detach()))
        return logp + entropy, {}

    data = Curves(torch.zeros(600), torch.zeros(600))
    head.loss(
        hidden.requires_grad_(), weight, targets, temperature=0.7, token_loss=token_loss, with_entropy=True,
        weights_N=torch.ones(600), data=data
    )
    scored = head.score(hidden, weight, targets, temperature=0.7)
    for in_training, in_scoring in zip(map(torch.cat, zip(*seen)), scored):
        assert torch.equal(in_training, in_scoring)


def test_gradients_of_many_chunks_in_bf16_are_as_good_as_one_chunks(monkeypatch):
    """Small addends to a large bf16 sum would vanish: chunks are added in fp32, and rounded once."""
    hidden, weight, targets = random_states(2000)

    def token_loss(logp, entropy, data):
        return logp.exp(), {}

    def gradient(dtype, chunk):
        monkeypatch.setattr(head, "HEAD_CHUNK", chunk)
        h, w = (x.bfloat16().to(dtype).requires_grad_() for x in (hidden, weight))
        loss, _ = head.loss(
            h, w, targets, temperature=1.0, token_loss=token_loss, with_entropy=False,
            weights_N=torch.ones(2000), data=Curves(torch.zeros(2000), torch.zeros(2000))
        )
        loss.backward()
        return w.grad.float()

    exact = gradient(torch.float32, 2000)
    one, many = (
        ((gradient(torch.bfloat16, chunk) - exact).norm() / exact.norm()).item() for chunk in (2000, 4)
    )
    assert one < 0.02 and many < 1.5 * one
