"""The head: log-probabilities, entropies, slopes and gradients equal those of the full logits."""

from typing import NamedTuple

import pytest
import torch

from engine import head
from engine.head import LogitsShape


class Curves(NamedTuple):
    slope: torch.Tensor
    curve: torch.Tensor


def random_states(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """-> hidden states, output embedding, targets"""
    torch.manual_seed(0)
    return torch.randn(n, 16), torch.randn(50, 16), torch.randint(50, (n,))


@pytest.mark.parametrize("entropy_coef", [0.0, 0.3])
@pytest.mark.parametrize("n, chunk, factor, shape", [
    (1, 256, 1.0, LogitsShape()), (100, 7, 2.0, LogitsShape(0.7)), (100, 100, 0.0, LogitsShape(1.3)),
    (100, 256, 0.5, LogitsShape(0.7)), (100, 256, 2.0, LogitsShape(0.7, scale=0.3)),
    (100, 7, 2.0, LogitsShape(0.7, cap=5.0)),
    (100, 256, 1.0, LogitsShape(1.0, scale=3.0, cap=30.0))], ids=str)
def test_the_head_equals_full_logits_in_values_and_gradients(
        monkeypatch, n, chunk, factor, shape, entropy_coef):
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
        return head.loss(h, w, targets, shape, token_loss, entropy_coef > 0, weights, data)

    def full(h, w):
        logits = h @ w.T * shape.scale
        logits = logits if shape.cap is None else shape.cap * torch.tanh(logits / shape.cap)
        distribution = torch.distributions.Categorical(logits=logits / shape.temperature)
        loss, logged = token_loss(distribution.log_prob(targets), distribution.entropy(), data)
        return (weights * loss).sum(), {"slope": (weights.double() * logged["slope"]).sum()}

    def results(dtype, loss_of):
        h, w = (x.to(dtype, copy=True).requires_grad_() for x in (hidden, weight))
        loss, logged = loss_of(h, w)
        (loss * factor).backward()
        logp, entropy = map(torch.cat, zip(*seen))
        seen.clear()
        return dict(loss=loss.detach(), logged=logged["slope"], logp=logp, entropy=entropy, hidden=h.grad,
                    weight=w.grad)

    seen = []
    ours, exact = results(torch.float32, chunked), results(torch.float64, full)
    if not entropy_coef:
        assert ours.pop("entropy").isnan().all()
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
    shape = LogitsShape(0.7)
    head.loss(hidden.requires_grad_(), weight, targets, shape, token_loss, True, torch.ones(600), data)
    scored = head.score(hidden, weight, targets, shape)
    for in_training, in_scoring in zip(map(torch.cat, zip(*seen)), scored):
        assert torch.equal(in_training, in_scoring)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("scale", [1.0, 8.0], ids=["uncertain", "confident"])
def test_the_slope_is_the_norm_of_the_log_probabilitys_gradient(monkeypatch, scale, temperature):
    """Also where p is 1 within 1e-6, and a difference of squares would be rounding noise."""
    monkeypatch.setattr(head, "HEAD_CHUNK", 7)
    torch.manual_seed(0)
    hidden_NH, weight_VH = scale * torch.randn(60, 4), torch.randn(50, 4)
    logits_NV = (hidden_NH @ weight_VH.T).double() / temperature
    targets_N = torch.where(torch.arange(60) % 3 == 0, torch.randint(50, (60,)), logits_NV.argmax(1))
    logits_NV.requires_grad_()
    logp_N = torch.log_softmax(logits_NV, -1).gather(1, targets_N[:, None])
    (grad_NV,) = torch.autograd.grad(logp_N.sum(), logits_NV)
    slope_N = head.score(hidden_NH, weight_VH, targets_N, LogitsShape(temperature), with_slope=True)[2]
    assert torch.allclose(slope_N.double(), grad_NV.norm(dim=1), rtol=1e-3, atol=1e-12)


def test_gradients_of_many_chunks_in_bf16_are_as_good_as_one_chunks(monkeypatch):
    """Small addends to a large bf16 sum would vanish, so chunks are added in fp32 and rounded once."""
    hidden, weight, targets = random_states(2000)

    def token_loss(logp, entropy, data):
        return logp.exp(), {}

    def gradient(dtype, chunk):
        monkeypatch.setattr(head, "HEAD_CHUNK", chunk)
        h, w = (x.bfloat16().to(dtype).requires_grad_() for x in (hidden, weight))
        data = Curves(torch.zeros(2000), torch.zeros(2000))
        loss, _ = head.loss(h, w, targets, LogitsShape(), token_loss, False, torch.ones(2000), data)
        loss.backward()
        return w.grad.float()

    exact = gradient(torch.float32, 2000)
    one, many = (
        ((gradient(torch.bfloat16, chunk) - exact).norm() / exact.norm()).item() for chunk in (2000, 4))
    assert one < 0.02 and many < 1.5 * one
