"""The objective and its normalisation against a loop written from the equation, token by token."""

import math

import pytest
import torch

import asyppo
from updates import minibatches, token_weights


def equation_6(
    logp, old_logp, advantages, entropy, keep_advantage, keep_entropy, lengths, low, high, beta, loss_norm
):
    """E (1/|o|) Σ_t [I^A min(ρ A, clip(ρ) A) + β I^H H] with plain floats; token: Σ over all / Σ |o|."""
    total = 0.0
    for b, length in enumerate(lengths):
        response = 0.0
        for t in range(length):
            rho = math.exp(logp[b][t] - old_logp[b][t])
            clipped = max(min(rho, 1 + high), 1 - low)
            if keep_advantage[b][t]:
                response += min(rho * advantages[b][t], clipped * advantages[b][t])
            if keep_entropy[b][t]:
                response += beta * entropy[b][t]
        total += response / length / len(lengths) if loss_norm == "sequence" else response / sum(lengths)
    return total


@pytest.mark.parametrize("loss_norm", ["sequence", "token"])
def test_the_objective_is_equation_6(loss_norm):
    torch.manual_seed(0)
    lengths = [1, 4, 9]
    mask_BT = torch.arange(9) < torch.tensor(lengths)[:, None]
    logp, old_logp = (-torch.rand(3, 9, dtype=torch.float64) * 2 for _ in range(2))
    advantages, entropy = torch.randn(3, 9, dtype=torch.float64), torch.rand(3, 9, dtype=torch.float64)
    keep_advantage, keep_entropy = torch.rand(3, 9) < 0.7, torch.rand(3, 9) < 0.7
    data = asyppo.PolicyData(
        old_logp=old_logp, advantage=advantages, advantage_mask=keep_advantage, entropy_filter=keep_entropy
    )
    terms_BT = asyppo.objective(logp, entropy, data, clip_low=0.2, clip_high=0.3, entropy_coef=0.1)
    ours = (token_weights(mask_BT, loss_norm).double() * terms_BT)[mask_BT].sum().item()
    arrays = (logp, old_logp, advantages, entropy, keep_advantage, keep_entropy)
    expected = equation_6(
        *(x.tolist() for x in arrays), lengths=lengths, low=0.2, high=0.3, beta=0.1, loss_norm=loss_norm
    )
    assert ours == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "ratio, advantage, expected",
    [(1.5, 2.0, 2.4), (1.5, -2.0, -3.0), (0.5, 2.0, 1.0), (0.5, -2.0, -1.6), (1.1, 2.0, 2.2)]
)
def test_clipping_worked_by_hand(ratio, advantage, expected):
    on, zero = torch.tensor([True]), torch.zeros(1)
    data = asyppo.PolicyData(
        old_logp=zero, advantage=torch.tensor([advantage]), advantage_mask=on, entropy_filter=on
    )
    logp = torch.tensor([ratio]).log()
    term = asyppo.objective(logp, zero, data, clip_low=0.2, clip_high=0.2, entropy_coef=0.0)
    assert term.item() == pytest.approx(expected, rel=1e-6)


def test_masked_tokens_get_no_gradient_but_count_in_the_denominator():
    mask_BT = torch.ones(1, 4, dtype=torch.bool)
    logp_BT = torch.full((1, 4), -1.0, requires_grad=True)
    entropy_BT = torch.full((1, 4), 0.5, requires_grad=True)
    data = asyppo.PolicyData(
        old_logp=torch.full((1, 4), -1.0), advantage=torch.ones(1, 4),
        advantage_mask=torch.tensor([[True, True, False, False]]),
        entropy_filter=torch.tensor([[True, False, True, False]])
    )
    terms_BT = asyppo.objective(logp_BT, entropy_BT, data, clip_low=0.2, clip_high=0.2, entropy_coef=0.01)
    (token_weights(mask_BT, "sequence") * terms_BT).sum().backward()
    assert logp_BT.grad.tolist() == [[0.25, 0.25, 0.0, 0.0]]
    assert entropy_BT.grad.tolist() == [pytest.approx([0.0025, 0.0, 0.0025, 0.0])]


@pytest.mark.parametrize("loss_norm", ["sequence", "token"])
def test_the_weights_of_a_batch_sum_to_one(loss_norm):
    mask_BT = torch.arange(7) < torch.tensor([7, 1, 3])[:, None]
    weights_BT = token_weights(mask_BT, loss_norm)
    assert weights_BT.sum().item() == pytest.approx(1.0) and (weights_BT[~mask_BT] == 0).all()


def test_minibatches_cover_every_response_once():
    parts = minibatches(list(range(10, 23)), 4, torch.Generator().manual_seed(0))
    assert sorted(r for part in parts for r in part) == list(range(10, 23))
    assert {len(part) for part in parts} == {3, 4}
