"""Aggregation, disagreement, and the two masks against a sort."""

import numpy as np
import pytest
import torch

import asyppo


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.2, 1 / 3, 0.999, 1.0])
def test_masks_take_the_exact_fraction_and_agree_with_a_sort(fraction):
    rng = np.random.default_rng(1)
    mask_BT = torch.tensor(rng.random((9, 17)) < 0.7)
    sigma_BT = torch.tensor(rng.permutation(9 * 17).reshape(9, 17).astype(np.float32))
    inside = sorted(sigma_BT[mask_BT].tolist())
    n = round(fraction * len(inside))
    lowest, highest = set(inside[:n]), set(inside[len(inside) - n :])
    advantage_mask_BT = asyppo.advantage_mask(sigma_BT, mask_BT, fraction)
    entropy_filter_BT = asyppo.entropy_filter(sigma_BT, mask_BT, fraction)
    for b in range(9):
        for t in range(17):
            s = sigma_BT[b, t].item()
            assert advantage_mask_BT[b, t].item() == (mask_BT[b, t].item() and s not in lowest)
            assert entropy_filter_BT[b, t].item() == (mask_BT[b, t].item() and s not in highest)


def test_ties_keep_the_fraction_exact_and_do_not_favour_a_place_in_the_batch():
    mask_BT = torch.ones(100, 100, dtype=torch.bool)
    masked_BT = ~asyppo.advantage_mask(torch.zeros(100, 100), mask_BT, 0.2)
    assert masked_BT.sum() == 2000
    assert torch.equal(masked_BT, ~asyppo.advantage_mask(torch.zeros(100, 100), mask_BT, 0.2))
    # by position, one of these halves would have all of them; 4000 draws of one half deviate by under 40 · 4
    for half in (masked_BT[:50], masked_BT[:, :50]):
        assert 840 < half.sum() < 1160
    # the two masks take different tokens: by chance 400 in common, deviation 16
    filtered_BT = ~asyppo.entropy_filter(torch.zeros(100, 100), mask_BT, 0.2)
    assert filtered_BT.sum() == 2000 and 330 < (masked_BT & filtered_BT).sum() < 470


def test_the_fraction_is_of_the_whole_batch_not_of_each_response():
    sigma_BT = torch.tensor([[0.1] * 10, [0.9] * 10])
    advantage_mask_BT = asyppo.advantage_mask(sigma_BT, torch.ones(2, 10, dtype=torch.bool), 0.5)
    assert not advantage_mask_BT[0].any() and advantage_mask_BT[1].all()


def test_disagreement_is_the_population_deviation_over_critics():
    # two critics: half their distance; three at 0, 0, 3: mean 1, squares 1, 1, 4 -> √2
    assert asyppo.disagreement(torch.tensor([[[0.2]], [[0.8]]])).item() == pytest.approx(0.3)
    assert asyppo.disagreement(torch.tensor([[[0.0]], [[0.0]], [[3.0]]])).item() == pytest.approx(2**0.5)
    assert asyppo.disagreement(torch.tensor([[[0.7]]])).item() == 0.0


def test_ensemble_value_is_the_mean_or_the_smallest():
    values_MBT = torch.tensor([[[0.25, 1.0]], [[0.75, -1.0]]])
    assert asyppo.aggregate(values_MBT, "mean").tolist() == [[0.5, 0.0]]
    assert asyppo.aggregate(values_MBT, "min").tolist() == [[0.25, -1.0]]
