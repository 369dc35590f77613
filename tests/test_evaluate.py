"""Scores and their intervals, comparisons, and evaluations as users run them."""

import itertools
import json
import shutil

import numpy as np
import pytest

from distributed import UserError
from evaluate import average, compare, majority, paired_bootstrap, pass_at_k, summarise
from tests.runs import ROOT, rows, run

SMALL = "--model tiny/actor --benchmarks tiny/test.jsonl --n-problems 31 --max-new-tokens 80".split()


def made_up_records(rewards_PK, name: str = "made up") -> list[dict]:
    return [
        {
            "benchmark": name, "row": p, "sample": k, "problem": f"{name} {p}", "gold": "1",
            "answer": str(int(reward)), "reward": float(reward), "length": 10, "truncated": bool(k)
        }
        for p, rewards_K in enumerate(rewards_PK)
        for k, reward in enumerate(rewards_K)
    ]


@pytest.mark.parametrize("n, right", [(4, 0), (4, 1), (4, 3), (4, 4), (6, 2)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_response(n, right):
    for k in range(1, n + 1):
        draws = list(itertools.combinations([1] * right + [0] * (n - right), k))
        assert pass_at_k(n, right, k) == pytest.approx(sum(any(d) for d in draws) / len(draws))


@pytest.mark.parametrize(
    "answers, rewards, expected",
    [
        (["3", "3", "4", "5"], [1, 1, 0, 0], 1.0),
        (["3", "4", "4", "5"], [1, 0, 0, 0], 0.0),
        (["3", "4", "4", "3"], [1, 0, 0, 1], 0.5),  # a tie of two
        (["3", "4", "5", "6"], [1, 0, 0, 0], 0.25),  # a tie of four
        ([r"\frac{1}{2}", "0.5", "4", "4", "4"], [1, 1, 0, 0, 0], 0.0),
        ([r"\frac{1}{2}", "0.5", "4", "4"], [1, 1, 0, 0], 0.5),  # one answer, written in two ways
        (["3", "$4$", "4 ", "x"], [1, 0, 0, 0], 0.0),  # the same wrong answer in two dressings
        (["3", None, None, None], [1, 0, 0, 0], 1.0),  # no answer, no vote
        ([None, None], [0, 0], 0.0)
    ]
)
def test_the_majority_is_counted_over_answers_that_are_equal(answers, rewards, expected):
    assert majority(answers, rewards) == expected


def test_a_table_worked_by_hand():
    # four problems, right 2/2, 1/2, 0/2, 1/2: mean 0.5, deviation of (1, .5, 0, .5) is √(1/6), half-width
    # 1.96·√(1/24)
    row = summarise(made_up_records([[1, 1], [1, 0], [0, 0], [0, 1]]))
    assert row["avg@k"] == 0.5 and row["truncated"] == 0.5 and row["length"] == 10 and row["unparsed"] == 0
    assert row["pass@"] == {"1": 0.5, "2": 0.75} and row["maj@k"] == 0.5
    assert row["scores"] == [1, 0.5, 0, 0.5]
    assert row["interval"] == pytest.approx(1.96 * (1 / 24) ** 0.5)
    # problems that all score alike are no proof that every problem does; one problem proves nothing
    assert summarise(made_up_records([[0, 0]] * 30))["interval"] == pytest.approx(0.1)
    assert summarise(made_up_records([[1, 0]]))["interval"] is None
    # beside a benchmark of two problems, half of them right: the average counts benchmarks, not problems
    other = summarise(made_up_records([[1, 1], [1, 1]]))
    both = average({"a": row, "b": other})
    assert both["avg@k"] == 0.75
    assert both["interval"] == pytest.approx((row["interval"] ** 2 + 1.5**2) ** 0.5 / 2)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Problems of unequal difficulty, 4 responses each: one over single responses would be too narrow."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        difficulty = rng.beta(0.5, 0.5, size=(100, 1))
        row = summarise(made_up_records(rng.random((100, 4)) < difficulty))
        hits += abs(row["avg@k"] - 0.5) <= row["interval"]
    assert 0.92 <= hits / 400 <= 0.98


def test_the_paired_interval_holds_the_true_difference_and_is_narrower_than_an_unpaired_one():
    rng = np.random.default_rng(1)
    hits, widths = 0, []
    for i in range(200):
        difficulty = rng.beta(0.5, 0.5, size=(80, 1)) * 0.9
        b_P, a_P = ((rng.random((80, 4)) < difficulty + gain).mean(1) for gain in (0, 0.1))
        mean, low, high = paired_bootstrap([a_P - b_P], n=1000, seed=i)
        hits += low <= 0.1 <= high
        assert mean == pytest.approx(a_P.mean() - b_P.mean()) and low < mean < high
        widths.append((high - low) / (2 * 1.96 * ((a_P.var() + b_P.var()) / 80) ** 0.5))
    assert 0.90 <= hits / 200 <= 0.98 and np.mean(widths) < 0.7
    # one benchmark's interval agrees with the normal one of its differences
    mean, low, high = paired_bootstrap([d_P := a_P - b_P])
    assert (high - low) / 2 == pytest.approx(1.96 * d_P.std(ddof=1) / 80**0.5, rel=0.05)
    assert paired_bootstrap([-d_P])[1] == pytest.approx(-high, abs=0.01)


def test_a_comparison_says_what_can_be_said_and_refuses_other_problems(tmp_path):
    def write(name, results):
        (tmp_path / name).write_text(json.dumps({"results": results}))
        return str(tmp_path / name)

    def results(**benchmarks):
        return {name: summarise(made_up_records(rewards_PK, name)) for name, rewards_PK in benchmarks.items()}

    rng = np.random.default_rng(0)
    weak = rng.random((60, 4)) < 0.3
    strong = weak | (rng.random((60, 4)) < 0.4)
    a = write("a.json", results(x=strong, y=weak))
    b = write("b.json", results(x=weak, y=weak[::-1]))
    lines = compare(a, b).splitlines()
    x, y, both = (next(line for line in lines if line.startswith(name)) for name in ("x ", "y ", "average"))
    assert x.endswith("A is better") and f"{strong.mean() - weak.mean():+.1%}" in x
    assert y.endswith("no difference shown") and "+0.0%" in y
    assert f"{(strong.mean() + weak.mean()) / 2:.1%}" in both
    assert "B is better" in compare(b, a)
    one, other = write("one.json", results(x=[[1, 1]])), write("other.json", results(x=[[0, 0]]))
    assert "nothing can be said" in compare(one, other)
    # thirds that sum to nothing but rounding
    rng = np.random.default_rng(2)
    for i in range(50):
        thirds = rng.integers(0, 4, size=12) / 3
        mean, low, high = paired_bootstrap([thirds - rng.permutation(thirds)], n=200, seed=i)
        assert abs(mean) < 1e-9
    refused = {
        write("c.json", results(x=weak[:50])): "not the same", write("d.json", {}): "no benchmark in common",
        write("old.json", {"x": {"avg@k": 0.5}}): "not a file", "none": "not a file"
    }
    for path, sentence in refused.items():
        with pytest.raises(UserError, match=sentence):
            compare(a, path)


def test_greedy_evaluation_is_the_same_on_one_process_and_on_two(tmp_path):
    outputs = []
    for processes in (0, 2):
        out = tmp_path / str(processes)
        done = run("evaluate.py", *SMALL, "--temperature", 0, "--k", 1, "--out", out, processes=processes)
        results = json.loads((out / "eval.json").read_text())["results"]
        outputs.append((results, (out / "responses.jsonl").read_text()))
        assert "avg@1" in done.stdout and "maj@1" in done.stdout and "tokens/s" in done.stdout
    assert outputs[0] == outputs[1]
    records, accuracy = rows(out, "responses.jsonl"), results["test"]["avg@k"]
    assert len(records) == 31 and np.mean([r["reward"] for r in records]) == accuracy > 0.9
    for r in records:
        assert r["response"].endswith("<|eos|>") and (r["answer"] == r["gold"]) == r["reward"]


def test_an_interrupted_evaluation_goes_on_and_gives_the_same_table(tmp_path):
    """Sampled; half of the portions are taken away, and the line of a record is cut, as by a kill."""
    whole, half = tmp_path / "whole", tmp_path / "half"
    problems = tmp_path / "test.jsonl"
    shutil.copy(ROOT / "tiny/test.jsonl", problems)
    flags = [*SMALL, "--benchmarks", problems, "--k", 4, "--generate-batch", 8]
    run("evaluate.py", *flags, "--out", whole)
    # portions of 32 in the order of the pool: longest prompts first (one token a character)
    pool = sorted(rows(whole, "responses.jsonl"), key=lambda r: -len(r["problem"]))
    half.mkdir()
    shutil.copy(whole / "config.json", half)
    lines = [json.dumps(r) + "\n" for r in pool[:65]]
    (half / "responses.jsonl").write_text("".join(lines[:64]) + lines[64][:50])
    done = run("evaluate.py", *flags, "--out", half, "--resume")
    assert "60 responses" in done.stdout
    for name in ("eval.json", "responses.jsonl"):
        assert (half / name).read_text() == (whole / name).read_text()
    problems.write_text(problems.read_text().replace('"problem": "', '"problem": "1+'))
    refused = {
        "": "holds another run", "--resume": "what --benchmarks test names",
        "--resume --seed 1": "has --seed 0, not 1"
    }
    for extra, sentence in refused.items():
        assert sentence in run("evaluate.py", *flags, "--out", half, *extra.split(), code=2).stderr


def test_benchmarks_that_are_files_are_pooled_and_unparsable_golds_are_named(tmp_path):
    lines = (ROOT / "tiny/test.jsonl").read_text().splitlines()
    (tmp_path / "aime24.jsonl").write_text("\n".join(lines[:3]))
    problems = [json.loads(line) for line in lines[3:7]]
    # OlympiadBench's columns
    problems[1] = {"question": problems[1]["problem"], "final_answer": ["m_{\\max }=n^{2}-n-1"]}
    (tmp_path / "olympiadbench.jsonl").write_text("\n".join(map(json.dumps, problems)))
    done = run(
        "evaluate.py", "--model", "tiny/actor", "--benchmarks", tmp_path / "aime24.jsonl",
        tmp_path / "olympiadbench.jsonl", "--k", 2, "--temperature", 0, "--max-new-tokens", 80,
        "--out", tmp_path / "eval"
    )
    assert "olympiadbench, row 1 (" in done.stdout and "cannot parse the gold answer" in done.stdout
    summary = json.loads((tmp_path / "eval/eval.json").read_text())
    of_each, average_row = summary["results"], summary["average"]
    assert of_each["aime24"]["problems"] == 3 and of_each["aime24"]["avg@k"] == 1
    assert of_each["olympiadbench"]["problems"] == 4 and of_each["olympiadbench"]["avg@k"] == 0.75
    assert average_row["avg@k"] == 0.875 and "average" in done.stdout
