"""Verdicts on the paper's claims: by hand from made-up results, from the committed ones, from new runs."""

import json

import numpy as np
import pytest

from experiments.claims import claims as script
from experiments.claims.claims import finished, flags_of, regime_rows, run_all, tenths
from experiments.claims.comparisons import CLAIMS, HEADLINES, POST_HOC, REGIMES, VARIANTS, Claim
from experiments.claims.student import benjamini_hochberg, central, critical, holm, p_value
from experiments.claims.verdicts import (
    area, differences, headlines, interval, multiplicity, pooled, table, verdict)
from experiments.values.values import errors
from tests.runs import FEW, run


def made_up(accuracy: float, seed: int, **curves) -> dict:
    return {"seed": seed, "seconds": 100.0, "curves": {"accuracy": [[0, accuracy], [10, accuracy]]} | curves}


BETTER = Claim("X", "a is better than b", "a", "b", delta=0.01)
NO_WORSE = Claim("X", "a is no worse than b", "a", "b", delta=0.01, no_worse=True)


@pytest.mark.parametrize("claim, values, expected", [
    # deviation 0.01, three seeds: the interval is ± 4.303 · 0.01 / √3 = 0.0248
    (BETTER, (0.02, 0.03, 0.04), "holds"),
    (BETTER, (0.01, 0.02, 0.03), "undecided"),
    (BETTER, (-0.05, -0.04, -0.03), "contradicted"),
    (BETTER, (-0.03, -0.02, -0.01), "no gain"),  # perhaps none, surely not + 0.01
    (BETTER, (0.001, 0.0011, 0.0012), "no gain"),  # surely above 0, as surely too small to count
    (BETTER, (-0.001, 0.0, 0.001), "no gain"),
    (BETTER, (-0.0012, -0.0011, -0.001), "no gain"),  # surely below 0, as surely too little to count
    (BETTER, (0.0, 0.0, 0.0), "undecided (3 of 3 pairs are equal)"),
    (NO_WORSE, (0.0, 0.0, 0.0), "undecided (3 of 3 pairs are equal)"),
    (BETTER, (0.0, 0.0, 0.0, 0.04), "undecided (3 of 4 pairs are equal)"),
    (BETTER, (0.05,), "undecided (one seed)"),
    (NO_WORSE, (0.01, 0.02, 0.03), "holds"),
    (NO_WORSE, (-0.01, 0.0, 0.01), "undecided"),
    (NO_WORSE, (-0.05, -0.04, -0.03), "contradicted"),
])
def test_a_verdict_needs_the_whole_interval_and_a_difference_that_counts(claim, values, expected):
    assert verdict(claim, list(values)).startswith(expected)


def test_the_interval_is_students():
    middle, low, high = interval([0.01, 0.02, 0.03])
    assert (middle, low, high) == pytest.approx((0.02, 0.02 - 0.02484, 0.02 + 0.02484), abs=1e-5)
    # undecided: half-widths of δ / 2 need (2 · 2 · 0.01 / 0.01)² seeds
    assert "about 20 seeds" in verdict(BETTER, [0.01, 0.02, 0.03]), "16, to one digit"
    assert "about 4 seeds" in verdict(BETTER, [0.007, 0.009, 0.011]), "more than there are"


def test_students_t_is_that_of_printed_tables_for_every_number_of_seeds():
    for df, expected in ((1, 12.706), (2, 4.303), (4, 2.776), (13, 2.160), (14, 2.145), (15, 2.131),
                         (23, 2.069), (30, 2.042), (47, 2.012), (120, 1.980), (1000, 1.962)):
        assert critical(df) == pytest.approx(expected, abs=5e-4), df
    for df, expected in ((1, 63.657), (5, 4.032), (24, 2.797), (60, 2.660)):
        assert critical(df, 0.99) == pytest.approx(expected, abs=5e-4), df
    # one degree of freedom is Cauchy's: half of its mass lies within 1
    assert central(1.0, 1) == pytest.approx(0.5) and central(0.0, 7) == 0
    assert p_value(-2.069, 1.0, 23) == pytest.approx(0.05, abs=1e-4)
    assert p_value(0.0, 0.0, 4) == 1 and p_value(0.1, 0.0, 4) == 0


def test_corrections_for_many_comparisons_worked_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 4 · 0.005, 3 · 0.01, 2 · 0.03, and no less
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])  # p · 4 / rank, and no more
    assert holm([0.6, 0.9]) == [1.0, 1.0] and benjamini_hochberg([0.6, 0.9]) == pytest.approx([0.9, 0.9])


def test_the_pooled_interval_uses_the_residuals_of_all_variants():
    scores = {"AsyPPO": (0.5, 0.7), "GRPO": (0.4, 0.8), "gate": (0.0, 1.0)}
    rows = {name: {seed: made_up(x, seed) for seed, x in enumerate(each)} for name, each in scores.items()}
    half, variants, df = pooled(rows, left_out=("gate",))
    # four residuals of ± 0.05 with one degree of freedom: a variance of 0.01, and t = 12.706
    assert (variants, df) == (2, 1) and half == pytest.approx(12.706 * 0.1, abs=1e-3)


def test_the_readmes_numbers_are_those_of_the_committed_runs():
    regimes = {name: regime_rows(name) for name in REGIMES}
    readme = (script.ROOT / "experiments/README.md").read_text()
    assert headlines(regimes) in readme and len(HEADLINES) <= 16
    for sentence in multiplicity(regimes).split("\n"):
        assert sentence in readme
    tables = (script.ROOT / "experiments/claims/README.md").read_text()
    printed = run("experiments/claims/claims.py", "--table").stdout
    assert all(line in tables for line in printed.split("\n"))


def test_seeds_are_paired_and_the_area_is_that_of_trapezoids():
    assert area({"curves": {"accuracy": [[0, 0.2], [5, 0.6], [15, 0.8]]}}) == pytest.approx((2 + 7) / 15)
    # two rollouts of warm-up, which leave the actor alone, are none
    warm = {"flags": "--critic-warmup 2 --gate", "curves": {"accuracy": [[0, 0.2], [7, 0.6], [17, 0.8]]}}
    assert area(warm) == pytest.approx((2 + 7) / 15)
    b = {0: made_up(0.4, 0), 1: made_up(0.1, 1), 2: made_up(0.7, 2)}
    rows = {"a": {0: made_up(0.5, 0), 2: made_up(0.9, 2)}, "b": b}
    assert differences(BETTER, rows) == pytest.approx([0.1, 0.2])
    assert "| +0.150 (" in table(rows, [BETTER]) and "| 2 |" in table(rows, [BETTER])
    late = {"a": {0: {"seed": 0, "curves": {"accuracy": [[0, 0.1], [10, 0.9]]}}}, "b": {0: made_up(0.5, 0)}}
    assert "| +0.000 | +0.400 | 1 |" in table(late, [BETTER]), "equal areas, another end"
    one_q = table(rows, [BETTER], {BETTER: 0.25})
    assert "| 0.2 | 0.25 |" in one_q  # t = 0.15 / 0.05 with one degree of freedom: 1 − 2 atan(3) / π
    unmeasured = Claim("X", "a knows more", "a", "b", "truth")
    assert differences(unmeasured, rows) == [], "a score that a run lacks says nothing"
    assert differences(BETTER, {"a": rows["a"]}) == [] and table({}, [BETTER]).count("\n") == 1


def test_every_claim_names_variants_and_every_variant_is_of_use():
    used = {name for claim in CLAIMS for name in (claim.a, claim.b) if name}
    assert {name for claim in POST_HOC for name in (claim.a, claim.b)} <= used
    assert used == VARIANTS.keys()
    assert {f"C{i}" for i in range(1, 16) if i != 13} <= {claim.name for claim in CLAIMS}


def test_critics_of_another_model_are_given_to_the_runs_that_have_mini_critics():
    more = ["--model", "x"]
    has = [name for name in VARIANTS if "--critics small --model x" in flags_of(name, more, "small")]
    assert {"AsyPPO", "crossfit"} <= {*has} and not {"PPO", "GRPO", "PPO, λ 0.95, warm-up"} & {*has}
    nothing = "a critic that learns nothing"
    assert "--critics small" in flags_of(nothing, ["--model=x"], "small")
    assert nothing in has and flags_of(nothing, (), "fitted before") == flags_of(nothing), "it would know"


@pytest.mark.slow
def test_runs_are_made_once_and_leave_a_line_from_which_the_verdict_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "MEASURED", ("AsyPPO",))
    monkeypatch.setattr(script, "STATES", "--problems 1 --continuations 2")
    command = ["experiments/claims/claims.py", "--claim", "C9", "--seeds", 1, "--jobs", 1]
    command += ["--results", tmp_path / "results.jsonl"]
    (tmp_path / "test.jsonl").write_text('{"problem": "1+2+3", "answer": "6"}\n')
    few = [*FEW[:-1], tmp_path / "test.jsonl", "--max-new-tokens", 24, "--steps", 1]
    flags = ["--folder", tmp_path / "runs", "--", *few]
    assert "2 variants × 1 seeds: 0 runs done, 2 to do" in run(*command, "--list", *flags).stdout
    assert "2 runs finished, 0 failed" in run(*command, *flags).stdout
    line, other = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    metrics = (tmp_path / "runs" / line["digest"] / "run/metrics.jsonl").read_text().splitlines()
    assert line["curves"]["reward_mean"] == [[1, json.loads(metrics[1])["reward_mean"]]]
    assert set(line["values"]) == {"a constant", "critic 0", "critic 1", "their mean"}
    assert "--aggregate min" in other["flags"] and "values" not in other
    assert "0 runs finished" in run(*command, *flags).stdout
    assert "undecided (one seed)" in run(*command, "--table", *flags).stdout
    # flags that would undo a variant's own leave its claims out: it would be the other side's twin
    assert "0 variants" in run(*command, "--list", *flags, "--aggregate", "mean").stdout
    listed = run("experiments/claims/claims.py", "--claim", "C4", "C10", "--list", "--", "--group-size", 8).stdout
    assert "8 passes" in listed and "groups of 32" not in listed
    # one that fails is said, with where its words are, and costs the others nothing
    failed = run(*command, "--folder", tmp_path / "bad", "--", *few, "--n-problems", 10**9, code=1)
    assert "0 runs finished, 2 failed" in failed.stdout and "log.txt" in failed.stderr + failed.stdout


@pytest.mark.parametrize("before, kept", [
    (None, []), ("", []), ('{"digest": "a"}\n', ["a"]), ('{"digest": "a"}\n{"digest": "cu', ["a"]),
])
def test_a_line_that_a_kill_has_cut_costs_no_other(before, kept, tmp_path, monkeypatch):
    results = tmp_path / "results.jsonl"
    if before is not None:
        results.write_text(before)
    monkeypatch.setattr(script, "run", lambda flags, seed, *_: {"digest": f"new {seed}"})
    assert run_all([("", 0), ("", 1)], tmp_path, results, 1, set()) == 0
    assert [*finished(results)] == [*kept, "new 0", "new 1"]


def test_the_lowest_fifth_is_held_against_the_average_token():
    tenths = {"entropy by sigma": [0.5, 0.7] + [1.1] * 8, "sigma by entropy": [1.3, 1.1] + [0.95] * 8}
    row = {"seed": 0, "tenths": tenths, "curves": {}}
    less, no_lower = (claim for claim in CLAIMS if claim.name == "C6")
    assert differences(less, {"AsyPPO": {0: row}}) == pytest.approx([0.4])
    assert differences(no_lower, {"AsyPPO": {0: row}}) == pytest.approx([0.2])
    assert differences(less, {"AsyPPO": {0: row | {"tenths": {}}}}) == []


def test_what_goes_with_sigma_is_seen_in_tenths_of_the_response_tokens(tmp_path):
    (tmp_path / "inside").mkdir()
    sigma_BT = np.arange(20.0).reshape(2, 10)  # of two critics: half their distance
    saved = dict(values_MBT=np.stack([-sigma_BT, sigma_BT]), old_entropy_BT=19 - sigma_BT,
                 old_slope_BT=np.ones((2, 10)), advantage=np.where(sigma_BT < 10, -1.0, 3.0))
    # three more columns of padding, whose numbers must not be looked at
    padded = {key: np.concatenate([x, np.full((*x.shape[:-1], 3), 99.0)], -1) for key, x in saved.items()}
    mask_BT = np.arange(13)[None].repeat(2, 0) < 10
    np.savez(tmp_path / "inside/step-3.npz", mask_BT=mask_BT, **padded)
    found = tenths(tmp_path)
    pairs = [(18.5 - 2 * i) / 9.5 for i in range(10)]
    assert found["entropy by sigma"] == pytest.approx(pairs, abs=6e-3)
    assert found["sigma by entropy"] == pytest.approx(pairs, abs=6e-3)
    assert found["gradient by sigma"] == pytest.approx([0.5] * 5 + [1.5] * 5)


def test_values_are_held_against_the_truth_without_its_noise():
    # a mean whose sum is not exact has no correlation with anything either
    tenth_S, zero_S = np.array([0.1, 0.7, 0.2] * 105), np.zeros((1, 315))
    assert errors(tenth_S, zero_S, np.arange(315), 2)["a constant"][1:] == [None, None]
    # four states of two responses; continuations right in 0, 2, 1 and 2 of 2
    truth_S, response_S = np.array([0.0, 1.0, 0.5, 1.0]), np.array([0, 0, 1, 1])
    values_MS = np.array([[0.2, 0.8, 0.5, 0.5], [0.0, 1.0, 0.3, 0.7]])
    found = errors(truth_S, values_MS, response_S, 2)
    noise = (0 + 0 + 0.25 + 0) / 4  # p (1 − p) / (n − 1), averaged
    assert found["critic 0"][0] == pytest.approx((0.04 + 0.04 + 0 + 0.25) / 4 - noise)
    assert found["their mean"][0] == pytest.approx((0.01 + 0.01 + 0.01 + 0.16) / 4 - noise)
    assert found["a constant"] == [pytest.approx(0.171875 - noise), None, None]
    # changes within the responses: 1 and 0.5 in truth, 0.6 and 0 as critic 0 has it
    assert found["critic 0"][2] == pytest.approx(1.0)
    # distances from the means: (−0.625, 0.375, −0.125, 0.375) and (−0.5, 0.5, −0.2, 0.2)
    assert found["critic 1"][1] == pytest.approx(0.6 / (0.6875 * 0.58) ** 0.5)


@pytest.mark.slow
def test_figures_are_drawn_from_the_committed_results_alone(tmp_path):
    pytest.importorskip("matplotlib")
    from experiments.claims import figures

    figures.main(["--out", str(tmp_path)])
    committed = [path.name for path in figures.HERE.glob("*.png")] + ["curve.png", "curve-dark.png"]
    assert {path.name for path in tmp_path.iterdir()} == {*committed}
    assert all(path.stat().st_size > 10_000 for path in tmp_path.iterdir())
