"""One process, two or four make the same update, share one checkpoint, say a mistake once and end cleanly."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.runs import FEW, ROOT, launch, rows, run, weights


# -- the same update -----------------------------------------------------------------------------------------
def updates(model: str, out: Path, processes: int, **flags) -> dict:
    """-> what fixed_updates.py saves. Every process must end with 0; gloo can abort after all is done."""
    argv = [x for name, value in flags.items() for x in (f"--{name.replace('_', '-')}", value)]
    run("tests/fixed_updates.py", "--model", model, "--out", out, *argv, processes=processes)
    return torch.load(out)


def close(a: dict, b: dict, tolerance: float) -> None:
    """Compare to the norm of all tensors together: single entries near 0 consist of rounding."""
    assert a.keys() == b.keys()
    difference = sum(((a[k] - b[k]).double() ** 2).sum() for k in a) ** 0.5
    norm = sum((a[k].double() ** 2).sum() for k in a) ** 0.5
    assert norm > 0 and difference <= tolerance * norm, f"they differ by {(difference / norm).item():.2e}"


def same_updates(whole: dict, other: dict) -> None:
    assert torch.allclose(whole["logp"], other["logp"], atol=1e-5)
    for name in ("actor", "critic0", "critic1"):
        close(whole[f"gradients of {name}"], other[f"gradients of {name}"], 1e-6)
        close(whole[f"weights of {name}"], other[f"weights of {name}"], 1e-5)
    assert other["first"]["policy_loss"] == pytest.approx(whole["first"]["policy_loss"], abs=1e-6)
    assert other["first"]["grad_norm"] == pytest.approx(whole["first"]["grad_norm"], rel=1e-6)


@pytest.mark.slow
def test_two_processes_and_a_small_token_budget_make_the_update_of_one(qwen, tmp_path):
    flags = dict(minibatch_size=24, loss_norm="sequence")
    whole = updates(qwen, tmp_path / "one", processes=0, token_budget=4096, **flags)
    same_updates(whole, updates(qwen, tmp_path / "two", processes=2, token_budget=61, **flags))


@pytest.mark.slow
@pytest.mark.parametrize("model, loss_norm, ranks_per_copy", [("qwen", "sequence", 2), ("llama", "token", 4)])
def test_one_process_two_four_and_any_token_budget_make_the_same_update(
        model, loss_norm, ranks_per_copy, request, tmp_path):
    name = request.getfixturevalue(model)
    # one process with everything in one micro-batch; a small budget; two processes; four, some with fillers,
    # as two copies of the weights in two parts each, or one copy in four
    kinds = {"whole": (0, 4096), "small": (0, 61), "two": (2, 4096), "four small": (4, 40)}
    runs = {
        label: updates(
            name, tmp_path / label, processes, token_budget=budget, minibatch_size=24, loss_norm=loss_norm,
            ranks_per_copy=min(ranks_per_copy, max(1, processes)))
        for label, (processes, budget) in kinds.items()}
    whole = runs.pop("whole")
    for other in runs.values():
        same_updates(whole, other)


@pytest.mark.slow
def test_minibatches_are_the_same_responses_for_any_number_of_processes(qwen, tmp_path):
    flags = dict(token_budget=64, minibatch_size=6, loss_norm="sequence")
    runs = [updates(qwen, tmp_path / str(n), processes=n, **flags) for n in (0, 2)]
    for name in ("actor", "critic0", "critic1"):
        close(runs[0][f"weights of {name}"], runs[1][f"weights of {name}"], 1e-5)


@pytest.mark.slow
def test_ten_runs_of_four_processes_end_cleanly(qwen, tmp_path):
    """Gloo's threads can abort a process after all is done, so every exit code counts."""
    for i in range(10):
        updates(qwen, tmp_path / str(i), processes=4, token_budget=64, minibatch_size=24, loss_norm="token")


# -- one checkpoint for any number ---------------------------------------------------------------------------
def assert_equal_models(a, b) -> None:
    for name, expected in weights(a).items():
        assert torch.equal(expected, weights(b)[name]), name


@pytest.mark.slow
def test_a_checkpoint_of_two_copies_continues_in_one_copy_and_on_one_process_and_one_of_one_on_two(tmp_path):
    """Without a further step the weights that come out are those that went in; with a step, the optimizers'
    states have come along too."""
    copies, four, one, back = (tmp_path / name for name in ("copies", "four", "one", "two"))
    saved = ("--save-every", 1, "--keep", 2)
    run("train.py", "--out", copies, *FEW, "--steps", 2, *saved, "--ranks-per-copy", 2, processes=4)
    for moved in (four, one):
        shutil.copytree(copies, moved)
        shutil.rmtree(moved / "model")
    run("train.py", "--out", one, *FEW, "--steps", 2, "--resume")
    assert_equal_models(copies, one)
    shutil.rmtree(four / "checkpoint/step-2")
    run("train.py", "--out", four, *FEW, "--steps", 2, "--resume", "--ranks-per-copy", 4, processes=4)
    for name, x in weights(copies).items():
        assert (weights(four)[name] - x).norm() <= 1e-5 * (1e-3 + x.norm()), name
    run("train.py", "--out", one, *FEW, "--steps", 3, "--resume")
    assert [m["step"] for m in rows(one)] == [1, 2, 3] and rows(one)[-1]["critic0/grad_norm"] > 0
    shutil.copytree(one, back)
    shutil.rmtree(back / "model")
    run("train.py", "--out", back, *FEW, "--steps", 3, "--resume", processes=2)
    assert_equal_models(one, back)


# -- mistakes ------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("flags, sentence", [
    ("--data none.jsonl", "there is no such file"), ("--group-size 1", "cannot be split over 2 critics")])
def test_a_mistake_under_torchrun_is_said_once(flags, sentence, tmp_path):
    error = launch("train.py", *flags.split(), "--out", tmp_path / "run", processes=2, code=None).stderr
    assert error.count(sentence) == 1 and "in load_problems" not in error


@pytest.mark.slow
def test_a_mistake_that_rank_0_alone_can_find_is_raised_on_all_ranks(tmp_path):
    shutil.copytree(ROOT / "tiny/critic", tmp_path / "half")
    tensors = load_file(tmp_path / "half/model.safetensors")
    half = dict(list(tensors.items())[::2])
    save_file(half, tmp_path / "half/model.safetensors", metadata={"format": "pt"})
    flags = ["--model", tmp_path / "half", "--critics", "tiny/critic", "--data", "tiny/test.jsonl"]
    flags += ["--n-problems", 0, "--max-new-tokens", 80, "--out", tmp_path / "run"]
    done = run("train.py", *flags, processes=2, code=2)
    assert done.stderr.count("weights are missing") == 2 and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("what, sentence", [
    ("folder", "--out run is not the same folder on every machine"),
    ("data", "--data has different content")])
def test_machines_that_do_not_share_what_they_must_are_told(what, sentence, tmp_path):
    for rank in "01":
        (tmp_path / rank).mkdir()
    done = run("tests/elsewhere.py", what, tmp_path, processes=2, code=2)
    assert done.stdout.count(sentence) == 2 and not [*tmp_path.glob("*/*"), *tmp_path.glob("run")]
