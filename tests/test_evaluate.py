"""Scores and their intervals, comparisons, and evaluations as users run them."""

import itertools
import json
import shutil

import numpy as np
import pytest

from engine.errors import UserError
from engine.statistics import interval, paired_interval
from evaluate import average, compare, majority, pass_at_k, summarise
from tests.runs import ROOT, rows, run

SMALL = "--model tiny/actor --benchmarks tiny/test.jsonl --n-problems 9 --max-new-tokens 80".split()


def made_up_records(rewards_PK, name: str = "made up") -> list[dict]:
    return [
        {
            "benchmark": name, "row": p, "sample": k, "problem": f"{name} {p}", "gold": "1",
            "answer": str(int(reward)), "reward": float(reward), "length": 10, "truncated": bool(k)}
        for p, rewards_K in enumerate(rewards_PK)
        for k, reward in enumerate(rewards_K)]


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
        ([None, None], [0, 0], 0.0)])
def test_the_majority_is_counted_over_answers_that_are_equal(answers, rewards, expected):
    assert majority(answers, rewards) == expected


def test_a_table_worked_by_hand():
    row = summarise(made_up_records([[1, 1], [1, 0], [0, 0], [0, 1]]))
    assert row["avg@k"] == 0.5 and row["truncated"] == 0.5 and row["length"] == 10 and row["unparsed"] == 0
    assert row["pass@"] == {"1": 0.5, "2": 0.75} and row["maj@k"] == 0.5
    assert row["scores"] == [1, 0.5, 0, 0.5]
    # variance 1/6, three informative problems: scatter (3/6 + 1/4) / 4 = 3/16, as of 16/3 responses;
    # low = (16/3 + 3.8416 − 1 − 1.96 √(3.8416 − 2 − 0.1875 + 2 (8/3 + 1))) / (2 (16/3 + 3.8416))
    #     = 2.299 / 18.35
    assert row["interval"] == pytest.approx((0.1253, 0.8747), abs=1e-4)
    assert summarise(made_up_records([[1, 0]]))["interval"] is None  # one problem proves nothing
    # beside a benchmark of two problems, all of them right: the average counts benchmarks, not problems
    other = summarise(made_up_records([[1, 1], [1, 1]]))
    both = average({"a": row, "b": other})
    low = other["interval"][0]
    assert both["avg@k"] == 0.75 and other["interval"][1] == 1 and 0 < low < 0.5
    below = (0.3747**2 + (1 - low) ** 2) ** 0.5 / 2
    assert both["interval"] == pytest.approx((0.75 - below, 0.75 + 0.3747 / 2), abs=1e-4)


@pytest.mark.parametrize("right, n, low, high", [  # Newcombe 1998, table I, method 4
    (81, 263, 0.2535, 0.3682), (15, 148, 0.0598, 0.1644), (0, 20, 0.0, 0.2005), (1, 29, 0.0018, 0.1963)])
def test_the_interval_of_single_responses_is_the_published_one(right, n, low, high):
    scores_P = np.array([1.0] * right + [0.0] * (n - right))
    assert interval(scores_P) == pytest.approx((low, high), abs=1e-4)
    assert interval(1 - scores_P) == pytest.approx((1 - high, 1 - low), abs=1e-4)


MEANS = (0.03, 0.06, 0.2, 0.5, 0.9, 0.97)


@pytest.mark.slow
@pytest.mark.parametrize("n_problems, k", [(30, 1), (30, 4), (30, 64), (100, 1), (100, 16)])
def test_the_interval_holds_the_truth_from_30_problems_at_means_of_3_to_97_percent(n_problems, k):
    """Also where a few problems have most of the right responses: Wald's held it in 81 to 95 % of these."""
    rng = np.random.default_rng(0)
    for mean in MEANS:
        for alike in (0.3, 2, 1e6):  # from nearly all-or-nothing problems to equally hard ones
            difficulty = rng.beta(mean * alike, (1 - mean) * alike, (600, n_problems))
            ends = [interval(scores_P) for scores_P in rng.binomial(k, difficulty) / k]
            assert np.mean([low <= mean <= high for low, high in ends]) >= 0.93 - 0.015  # noise of 600: 0.01


@pytest.mark.slow
@pytest.mark.parametrize("n_problems, k", [(30, 1), (30, 4), (30, 64), (100, 4)])
def test_the_paired_interval_holds_the_true_difference(n_problems, k):
    """Difficulties of A and B: equal, shifted, or only correlated; a bootstrap of 30 held it in 85 %."""
    rng = np.random.default_rng(1)
    for centre, spread in itertools.product((-4, -1, 3), (0.1, 3)):
        for shift, noise in ((0, 0), (0.5, 1), (2, 0)):
            logit = centre + spread * rng.standard_normal((300, n_problems))
            other = logit + shift + noise * rng.standard_normal(logit.shape)
            many = centre + spread * rng.standard_normal(200_000)
            more = many + shift + noise * rng.standard_normal(len(many))
            a, b, a_mean, b_mean = (1 / (1 + np.exp(-x)) for x in (logit, other, many, more))
            truth = a_mean.mean() - b_mean.mean()
            if not 0.03 <= a_mean.mean() <= b_mean.mean() + 0.01 <= 0.98:
                continue
            pairs = zip(rng.binomial(k, a) / k, rng.binomial(k, b) / k)
            ends = [paired_interval(a_P, b_P) for a_P, b_P in pairs]
            assert np.mean([low <= truth <= high for low, high in ends]) >= 0.93 - 0.025  # noise: 0.014


def test_the_paired_interval_is_narrower_than_that_of_two_sets_of_problems():
    rng = np.random.default_rng(1)
    difficulty = rng.beta(0.5, 0.5, size=(80, 1)) * 0.9
    b_P, a_P = ((rng.random((80, 4)) < difficulty + gain).mean(1) for gain in (0, 0.1))
    low, high = paired_interval(a_P, b_P)
    unpaired = 2 * 1.96 * ((a_P.var() + b_P.var()) / 80) ** 0.5
    assert low < a_P.mean() - b_P.mean() < high and high - low < 0.8 * unpaired
    assert paired_interval(b_P, a_P) == pytest.approx((-high, -low))


def test_a_comparison_names_the_better_one_only_with_evidence_and_refuses_other_problems(tmp_path):
    def write(name, results, **settings):
        (tmp_path / name).write_text(json.dumps({"results": results, "settings": {"k": 4} | settings}))
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
    assert "Not alike" not in compare(a, b)
    warm = write("warm.json", results(x=weak), temperature=0.7, model="another", seed=3)
    assert [line for line in compare(a, warm).splitlines() if line.startswith("Not")] == [
        "Not alike: --temperature is None for A, 0.7 for B."]
    refused = {
        write("c.json", results(x=weak[:50])): "not the same", write("d.json", {}): "no benchmark in common",
        write("old.json", {"x": {"avg@k": 0.5}}): "not a file", "none": "not a file"}
    for path, sentence in refused.items():
        with pytest.raises(UserError, match=sentence):
            compare(a, path)


@pytest.mark.slow
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
    assert len(records) == 9 and np.mean([r["reward"] for r in records]) == accuracy > 0.7
    for r in records:
        assert r["response"].endswith("<|eos|>") and (r["answer"] == r["gold"]) == r["reward"]


@pytest.mark.slow
def test_an_interrupted_evaluation_continues_and_gives_the_same_table(tmp_path):
    """Half of the portions are missing, and the line of a record is cut, as by a kill."""
    whole, half = tmp_path / "whole", tmp_path / "half"
    problems = tmp_path / "test.jsonl"
    shutil.copy(ROOT / "tiny/test.jsonl", problems)
    flags = [*SMALL, "--benchmarks", problems, "--k", 4, "--generate-batch", 4]
    run("evaluate.py", *flags, "--out", whole)
    # portions of 16 in the order of the pool: longest prompts first (one token a character)
    pool = sorted(rows(whole, "responses.jsonl"), key=lambda r: -len(r["problem"]))
    half.mkdir()
    shutil.copy(whole / "config.json", half)
    lines = [json.dumps(r) + "\n" for r in pool[:17]]
    (half / "responses.jsonl").write_text("".join(lines[:16]) + lines[16][:50])
    done = run("evaluate.py", *flags, "--out", half, "--resume")
    assert "20 responses" in done.stdout
    for name in ("eval.json", "responses.jsonl"):
        assert (half / name).read_text() == (whole / name).read_text()
    problems.write_text(problems.read_text().replace('"problem": "', '"problem": "1+'))
    refused = {
        "": "holds another run", "--resume": "--benchmarks test differs from",
        "--resume --seed 1": "has --seed 0, not 1"}
    for extra, sentence in refused.items():
        assert sentence in run("evaluate.py", *flags, "--out", half, *extra.split(), code=2).stderr


def test_benchmarks_in_files_are_pooled_and_unparsable_golds_are_named(tmp_path):
    lines = (ROOT / "tiny/test.jsonl").read_text().splitlines()
    (tmp_path / "aime24.jsonl").write_text("\n".join(lines[:3]))
    problems = [json.loads(line) for line in lines[3:7]]
    # OlympiadBench's columns
    problems[1] = {"question": problems[1]["problem"], "final_answer": ["\\nabla\\cdot F"]}
    (tmp_path / "olympiadbench.jsonl").write_text("\n".join(map(json.dumps, problems)))
    done = run("evaluate.py", "--model", "tiny/actor", "--benchmarks", tmp_path / "aime24.jsonl",
               tmp_path / "olympiadbench.jsonl", "--k", 2, "--temperature", 0, "--max-new-tokens", 80,
               "--out", tmp_path / "eval")
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("olympiadbench: only the same text"))
    assert "1 of 4 golds" in said and "nabla" in said
    summary = json.loads((tmp_path / "eval/eval.json").read_text())
    of_each, average_row = summary["results"], summary["average"]
    assert of_each["aime24"]["problems"] == 3 and of_each["aime24"]["avg@k"] == 1
    assert of_each["olympiadbench"]["problems"] == 4 and of_each["olympiadbench"]["avg@k"] == 0.75
    assert average_row["avg@k"] == 0.875 and "average" in done.stdout
