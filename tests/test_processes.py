"""One process, two or four and any token budget make the same update; a finished run ends cleanly."""

from pathlib import Path

import pytest
import torch

from distributed import UserError
from tests.runs import run
from updates import pack


def updates(model: str, out: Path, processes: int, **flags) -> dict:
    """-> what fixed_updates.py saves. Every process must end with 0; gloo can abort after all is done."""
    argv = [x for name, value in flags.items() for x in (f"--{name.replace('_', '-')}", value)]
    run("tests/fixed_updates.py", "--model", model, "--out", out, *argv, processes=processes)
    return torch.load(out)


def close(a: dict, b: dict, tolerance: float) -> None:
    """Relative to the norm of all tensors together: single entries near 0 are made of rounding."""
    assert a.keys() == b.keys()
    difference = sum(((a[k] - b[k]).double() ** 2).sum() for k in a) ** 0.5
    norm = sum((a[k].double() ** 2).sum() for k in a) ** 0.5
    assert norm > 0 and difference <= tolerance * norm, f"they differ by {(difference / norm).item():.2e}"


@pytest.mark.parametrize("model, loss_norm, ranks_per_copy", [("qwen", "sequence", 2), ("llama", "token", 4)])
def test_one_process_two_four_and_any_token_budget_make_the_same_update(
    model, loss_norm, ranks_per_copy, request, tmp_path
):
    name = request.getfixturevalue(model)
    # one process with everything in one micro-batch; a small budget; two processes; four, some with fillers,
    # as two copies of the weights in two parts each, or one copy in four
    kinds = {"whole": (0, 4096), "small": (0, 61), "two": (2, 4096), "four small": (4, 40)}
    runs = {
        label: updates(
            name, tmp_path / label, processes, token_budget=budget, minibatch_size=24, loss_norm=loss_norm,
            ranks_per_copy=min(ranks_per_copy, max(1, processes))
        )
        for label, (processes, budget) in kinds.items()
    }
    whole = runs.pop("whole")
    for other in runs.values():
        assert torch.allclose(whole["logp"], other["logp"], atol=1e-5)
        for name in ("actor", "critic0", "critic1"):
            close(whole[f"gradients of {name}"], other[f"gradients of {name}"], 1e-6)
            close(whole[f"weights of {name}"], other[f"weights of {name}"], 1e-5)
        assert other["first"]["policy_loss"] == pytest.approx(whole["first"]["policy_loss"], abs=1e-6)
        assert other["first"]["grad_norm"] == pytest.approx(whole["first"]["grad_norm"], rel=1e-6)


def test_minibatches_are_the_same_responses_for_any_number_of_processes(qwen, tmp_path):
    flags = dict(token_budget=64, minibatch_size=6, loss_norm="sequence")
    runs = [updates(qwen, tmp_path / str(n), processes=n, **flags) for n in (0, 2)]
    for name in ("actor", "critic0", "critic1"):
        close(runs[0][f"weights of {name}"], runs[1][f"weights of {name}"], 1e-5)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("budget", [50, 64, 333, 10**6])
def test_micro_batches_hold_every_response_once_within_the_budget_and_equally_many_a_rank(world_size, budget):
    lengths = torch.randint(1, 51, (97,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = list(range(5, 90))
    ranks = pack(rows, lengths, budget, world_size)
    assert len(ranks) == world_size and len({len(r) for r in ranks}) == 1
    counted = [row for r in ranks for m in r if m.weight == 1 for row in m.rows]
    assert sorted(counted) == rows
    for m in (m for r in ranks for m in r):
        assert m.weight in (0, 1) and len(m.rows) * max(lengths[row] for row in m.rows) <= budget
    # no rank does much more than another
    work = [sum(sum(lengths[row] for row in m.rows) for m in r if m.weight) for r in ranks]
    assert max(work) <= 1.3 * sum(work) / world_size + 50


def test_a_response_longer_than_the_budget_is_an_error_not_dropped():
    with pytest.raises(UserError, match="--token-budget 10 is smaller"):
        pack([0, 1], [5, 11], 10, 1)
