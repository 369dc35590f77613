"""Scores and their intervals."""

import itertools
import json

import numpy as np
import pytest

from evaluate import pass_at_k, summarise
from tests.conftest import run_script


@pytest.mark.parametrize("n, right", [(4, 0), (4, 1), (4, 3), (4, 4), (6, 2)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_response(n, right):
    for k in range(1, n + 1):
        draws = list(itertools.combinations([1] * right + [0] * (n - right), k))
        assert pass_at_k(n, right, k) == pytest.approx(sum(any(d) for d in draws) / len(draws))


def test_a_table_worked_by_hand():
    # four problems, right 2/2, 1/2, 0/2, 1/2: mean 0.5, deviation of (1, .5, 0, .5) is √(1/6), half-width 1.96·√(1/24)
    rewards = np.array([[1, 1], [1, 0], [0, 0], [0, 1]])
    table = summarise(rewards, np.full((4, 2), 10), np.array([[False, True]] * 4))
    assert table["avg@k"] == 0.5 and table["pass@k"] == 0.75 and table["truncated"] == 0.5 and table["length"] == 10
    assert table["interval"] == pytest.approx(1.96 * (1 / 24) ** 0.5)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Problems of unequal difficulty, 4 responses each: an interval over single responses would be too narrow."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        difficulty = rng.beta(0.5, 0.5, size=(100, 1))
        table = summarise((rng.random((100, 4)) < difficulty).astype(float), np.ones((100, 4)), np.zeros((100, 4)))
        hits += abs(table["avg@k"] - 0.5) <= table["interval"]
    assert 0.92 <= hits / 400 <= 0.98


def test_greedy_evaluation_is_the_same_on_one_process_and_on_two(tmp_path):
    outputs = []
    for processes in (0, 2):
        out = tmp_path / str(processes)
        done = run_script(
            "evaluate.py", "--model", "tiny/actor", "--benchmarks", "tiny/test.jsonl", "--temperature", 0, "--k", 1, "--n-problems", 31, "--max-new-tokens", 64, "--out", out, processes=processes,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        outputs.append((json.loads((out / "eval.json").read_text())["results"], (out / "test.jsonl").read_text()))
        assert "test" in done.stdout and "avg@1" in done.stdout
    assert outputs[0] == outputs[1]
    records = [json.loads(line) for line in outputs[0][1].splitlines()]
    assert len(records) == 31 and np.mean([r["reward"] for r in records]) == outputs[0][0]["test"]["avg@k"] > 0.9


def test_bad_commands_get_one_sentence_and_exit_code_2(tmp_path):
    for flags, sentence in (
        (["--model", "tiny/actor", "--benchmarks", "none.jsonl"], "no such file"),
        (["--model", "no/model", "--benchmarks", "tiny/test.jsonl"], "no tokenizer could be read"),
        (["--model", "tiny/actor", "--benchmarks", "tiny/test.jsonl", "--k", "0"], "--k must be at least 1"),
        (["--model", "tiny/actor", "--benchmarks", "tiny/test.jsonl", "--template", "x"], "neither a text with {problem}"),
    ):
        done = run_script("evaluate.py", *flags, "--out", tmp_path / "eval")
        assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
