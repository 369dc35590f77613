"""The experiments: their statistics, figures and pages, from made-up and committed results and from new runs."""

import base64
import gzip
import html
import itertools
import json
import math
import re
import shutil
import statistics
import subprocess

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from engine.log import Log
from experiments.bias.bias import END, GROUP, Measured, Task, enumerate_responses, make_task, measure
from experiments.claims import claims as script, claims
from experiments.claims.claims import digest_of, finished, flags_of, regime_rows, run_all, tenths
from experiments.claims.comparisons import CLAIMS, HEADLINES, POST_HOC, REGIMES, VARIANTS, Claim
from experiments.claims.student import benjamini_hochberg, central, critical, holm, p_value
from experiments.claims.verdicts import area, differences, headlines, interval, multiplicity, pooled, table, verdict
from experiments.headline import embedded, headline, pairs
from experiments.headline.headline import CONFIRMATION, ENSEMBLE_SETTINGS, GRPO_SETTINGS, LONG, PRIMARY, SECONDARY
from experiments.headline.headline import SETTINGS, choose, confirmation, contrast, round_1, score, scores, sign_flips
from experiments.headline.headline import tuning, wanted
from experiments.inside import inside
from experiments.values.values import errors
from tests.runs import FEW, ROOT, rows, run
from train import parse_args

# -- critics that have seen a response's return shorten its gradient -----------------------------------------------
ROLLOUTS = 1500


def within(measured: Measured, expected: float) -> bool:
    return abs(measured.along - expected) < 4 * measured.error


@pytest.fixture(scope="module", params=[False, True], ids=["three tokens", "ends early"])
def task(request) -> Task:
    return make_task(request.param, seed=0)


@pytest.fixture(scope="module")
def measured(task) -> dict[str, Measured]:
    return measure(task, ROLLOUTS)


def test_the_papers_order_is_biased_by_construction(measured):
    first = measured["first"]
    assert first.along < 0.9 and first.along < 1 - 10 * first.error
    assert first.apart > 2.5 * first.noise


@pytest.mark.parametrize("order", ["last", "crossfit"])
def test_values_that_do_not_know_the_return_leave_the_gradient_unbiased(measured, order):
    assert within(measured[order], 1.0)
    assert measured[order].apart < 1.5 * measured[order].noise


def test_a_group_mean_that_counts_the_response_itself_is_short_by_one_over_the_group_size(measured):
    """Known without a measurement: the baseline's own share of the return is 1/G."""
    assert within(measured["group mean"], 1 - 1 / GROUP)


def test_the_exact_gradient_is_the_policy_gradient_of_every_response_one_by_one(task):
    exact_SV, _ = enumerate_responses(task)
    expected_SV = torch.zeros_like(exact_SV)
    policy = torch.softmax(task.logits_SV, -1).tolist()
    for prompt, response in itertools.product(range(2), itertools.product(range(5), repeat=3)):
        length = response.index(END) + 1 if task.ends_early and END in response else 3
        if any(response[length:]):
            continue  # the same response with other tokens after its end
        # 31 states of each prompt: none, one and two tokens
        states = [31 * prompt, 31 * prompt + 1 + response[0], 31 * prompt + 6 + 5 * response[0] + response[1]]
        steps = list(zip(states, response))[:length]
        p = math.prod(policy[s][o] for s, o in steps)
        reward = task.rewards[prompt][response].item()
        for s, o in steps:
            for v in range(5):
                expected_SV[s, v] += p * reward * ((v == o) - policy[s][v]) / 2
    assert torch.allclose(exact_SV, expected_SV, atol=1e-12)


# -- verdicts on the paper's claims --------------------------------------------------------------------------------
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


@pytest.mark.parametrize("script", ("headline.py", "pairs.py", "embedded.py --table"))
def test_the_headlines_tables_are_those_of_the_committed_runs(script):
    file, *flags = script.split()
    printed = run(f"experiments/headline/{file}", *(flags or ["table"])).stdout
    page = (ROOT / "experiments/headline/README.md").read_text()
    lines = printed[printed.index("\n\n|") :].split("\n")  # behind the tuning
    assert len(lines) > 5 and all(line in page for line in lines)


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


# -- curves --------------------------------------------------------------------------------------------------------
def test_the_committed_numbers_are_those_of_the_run_in_the_readme():
    committed = {row["step"]: row for row in rows(ROOT / "experiments/inside/tiny")}
    assert list(committed) == list(range(21))
    shown = re.findall(r"^step +(\d+)/15  (.*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(shown) >= 5
    for step, line in shown:
        row = committed[int(step)]
        for pattern, key, scale in ((r"reward (\S+)", "reward_mean", 1), (r"σ (\S+)", "value_std_p50", 1),
                                    (r"accuracy (\S+)%", "eval/test", 100)):
            for written in re.findall(pattern, line):
                assert float(written) == pytest.approx(scale * row[key], abs=0.00051 * scale), (step, key)


def test_several_runs_are_drawn_whatever_they_lack(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    from experiments.inside import plot

    for name in ("critics", "none"):
        (tmp_path / name).mkdir()
        kept = [{k: x for k, x in row.items() if name == "critics" or not k.startswith(("critic", "value"))}
                for row in rows(ROOT / "experiments/inside/tiny")]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    for runs in (["critics"], ["none"], ["none", "critics"]):
        folders = [str(tmp_path / name) for name in runs]
        plot.main([*folders, "--out", str(tmp_path / f"{'-'.join(runs)}.png")])
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in ("critics", "none", "none-critics")}) == 3
    for wrong in ([str(tmp_path / "nowhere"), "--out", "x.png"], [str(tmp_path)]):
        with pytest.raises(SystemExit):
            plot.main(wrong)
    assert "nowhere holds no readable metrics.jsonl" in capsys.readouterr().err


# -- the page that shows a run from the inside ---------------------------------------------------------------------
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module", params=["asyppo", "grpo"])
def out(request, tmp_path_factory):
    """One step, all of whose responses are saved, and its page."""
    out = tmp_path_factory.mktemp(request.param)
    flags = ["--algo", request.param, "--lr", 3e-4, "--steps", 1, "--eval-every", 1]
    run("train.py", "--out", out, *FEW, *flags)
    run("experiments/inside/inside.py", out, "--out", out / "page.html")
    return out


def responses(page: str) -> list[dict]:
    packed = re.search(r"gzip\+base64\">(.*?)</script>", page).group(1)
    return json.loads(gzip.decompress(base64.b64decode(packed)))["steps"]["1"]


@pytest.mark.slow
def test_the_pages_numbers_are_those_of_the_metrics(out):
    (metrics,) = rows(out)
    all_ = responses((out / "page.html").read_text())
    tokens = {key: [x for r in all_ for x in r[key]] for key in ("entropy", "masked", "filtered", "tokens")}
    assert np.mean([r["reward"] for r in all_]) == metrics["reward_mean"]
    assert len(tokens["tokens"]) / len(all_) == metrics["response_len_mean"]
    assert np.mean(tokens["entropy"]) == pytest.approx(metrics["entropy"], rel=1e-3)
    assert np.mean(tokens["masked"]) == pytest.approx(metrics["adv_masked_frac"])
    assert np.mean(tokens["filtered"]) == pytest.approx(metrics["entropy_filtered_frac"])
    critics = sum(key.endswith("/loss") for key in metrics)
    assert all(len(r.get("value", [])) == critics for r in all_)
    if critics:
        values = [x for r in all_ for values_T in r["value"] for x in values_T]
        assert np.mean(values) == pytest.approx(metrics["value_mean"], rel=1e-3)
    if critics > 1:
        sigma = [x for r in all_ for x in r["sigma"]]
        assert np.quantile(sigma, 0.9) == pytest.approx(metrics["value_std_p90"], rel=1e-3)
        assert all(len(r["fitted"]) == 1 for r in all_) and {r["fitted"][0] for r in all_} == {0, 1}
    for sample, r in zip(rows(out, "rollouts.jsonl"), all_[::2], strict=True):
        assert "".join(r["tokens"]) == sample["response"] and r["prompt"] == sample["prompt"]
        assert (r["answer"] or None, r["gold"]) == (sample["answer"], sample["gold"])
        assert r["reward"] == sample["reward"]


@pytest.mark.slow
@torch.no_grad()
def test_the_ratio_is_that_of_the_saved_model_and_the_one_before(out):
    """Both loaded by plain transformers."""
    tokens_BS = torch.tensor(np.load(out / "inside/step-1.npz")["tokens_BS"])
    before, after = (
        AutoModelForCausalLM.from_pretrained(model)(tokens_BS).logits.log_softmax(-1)
        for model in (ROOT / "tiny/actor", out / "model")
    )
    ratio_BS = (after - before)[:, :-1].gather(2, tokens_BS[:, 1:, None])[..., 0].exp()
    prompts = np.load(out / "inside/step-1.npz")["prompt_len_B"]
    shown = responses((out / "page.html").read_text())
    for ratio_S, first, r in zip(ratio_BS, prompts, shown):
        expected = ratio_S[first - 1 : first - 1 + len(r["tokens"])].tolist()
        assert r["ratio"] == pytest.approx(expected, rel=1e-3)
    assert max(abs(x - 1) for r in shown for x in r["ratio"]) > 1e-3


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_a_browser_shows_the_responses_and_the_numbers_of_the_token_in_the_address(out, tmp_path):
    """The address asks for the ratio; then the key 1, for the first quantity, and an arrow are pressed."""
    all_ = responses(page := (out / "page.html").read_text())
    r, t = all_[3], 4
    keys = "for (const key of ['1', 'ArrowRight']) dispatchEvent(new KeyboardEvent('keydown', { key }))"
    (tmp_path / "page.html").write_text(f"{page}<script>setTimeout(() => {{ {keys} }}, 500)</script>")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run",
          f"--user-data-dir={tmp_path}/profile",
         "--virtual-time-budget=3000", "--dump-dom",
          f"{(tmp_path / 'page.html').as_uri()}#show=ratio&at=3.{t - 1}"],
        capture_output=True, text=True, timeout=60,
    )
    dom = done.stdout
    numbers = {name: float(x) for name, x in re.findall(r'data-name="([^"]+)">([-\d.e]+)<', dom)}
    expected = {name: r[name][t] for name in ("advantage", "entropy", "ratio")} | {"length": len(r["tokens"])}
    expected |= {f"V{m}": values[t] for m, values in enumerate(r.get("value", []))}
    expected |= {"σ": r["sigma"][t]} if "sigma" in r else {}
    assert {name: numbers[name] for name in expected} == expected and numbers["return"] == r["reward"]
    (pressed,) = re.findall(r'id="shows">.*?aria-pressed="true">(\S+)<kbd>1<', dom)
    assert pressed == ("σ" if "sigma" in r else "advantage")
    assert dom.count("<article") == len(all_)
    shown = re.findall(r'<div class="text">(.*?)</div>', dom, re.DOTALL)
    assert [html.unescape(re.sub("<.*?>", "", x)) for x in shown] == ["".join(r["tokens"]) for r in all_]
    for mark in ("masked", "filtered"):  # and one in the legend
        spans = re.findall(rf'class="t[^"]*\b{mark}\b', dom)
        assert len(spans) == 1 + sum(sum(r[mark]) for r in all_)


@pytest.mark.slow
def test_a_page_asks_the_network_for_nothing_and_is_cut_to_its_size_by_name(out, monkeypatch):
    page = (out / "page.html").read_text()
    assert re.findall(r"https?://[\w./]+", page) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"\b(src|href)=|@import|url\(", page)
    step = responses(page)
    settings = json.loads((out / "config.json").read_text())["settings"]
    whole = {n: [r | {"prompt": str(n)} for r in step] for n in range(1, 10)}
    for share, words in ((0.99, r"\b5 of 9 saved steps"), (0.0, r"responses of step 9")):
        small = len(inside.page(out, settings, {9: step[:2]}, "some words of a note that takes place"))
        large = len(inside.page(out, settings, whole, ""))
        monkeypatch.setattr(inside, "LIMIT", int(small + share * (large - small)))
        html_, note = inside.fitting_page(out, settings, whole, len(whole))
        assert len(html_) <= inside.LIMIT and re.search(words, note)


def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def metaspace() -> Tokenizer:
    """As SentencePiece's: spaces are ▁, unknown characters become bytes, decoding drops the first space."""
    pieces = ["<unk>", "▁", "▁x", "x", "=", "1", "\\", "^", "\n", *(f"<0x{b:02X}>" for b in range(256))]
    vocabulary = {c: i for i, c in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "x")], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("make", [byte_level, metaspace])
def test_joined_the_tokens_of_a_response_are_its_text_whatever_they_cut(make):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make())
    prompt, text = "x=1", " x\n\n  \\frac{1}{2}\t= 中文 ½ 👩‍🔬\r\nΣ_{i} ^x "
    tokens = tokenizer.encode(prompt + text)
    first = len(tokenizer.encode(prompt))
    texts = inside.token_texts(tokens, first, tokenizer)
    assert "".join(texts) == text and len(texts) == len(tokens) - first
    whole = [x for x in texts if x]
    assert texts[texts.index("中") - 2 : texts.index("中") + 1] == ["", "", "中"]
    assert all("\N{REPLACEMENT CHARACTER}" not in x for x in whole)
    # a response that is cut within a character
    cut = inside.token_texts(tokens[: first + texts.index("中")], first, tokenizer)
    assert "".join(cut).rstrip("\N{REPLACEMENT CHARACTER}") == text[: text.index("中")]


@pytest.mark.slow
@pytest.mark.parametrize("flags, sentence", [
    (["nowhere"], "no run is there"), ([".", "--step", "3"], "--step 3 was not saved; these were: 1"),
    ([".", "--out", "no/such/folder.html"], "could not be written"),
])
def test_a_mistake_is_answered_with_a_sentence(out, monkeypatch, flags, sentence):
    monkeypatch.chdir(out)
    error = run("experiments/inside/inside.py", "--out", "page2.html", *flags, code=2).stderr
    assert sentence in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_resumed_run_drops_what_was_saved_after_its_checkpoint(tmp_path, world):
    (tmp_path / "inside").mkdir()
    for step in (5, 10, 15):
        (tmp_path / f"inside/step-{step}.npz").write_bytes(b"")
    Log(tmp_path, done=10, last_step=20, eval_key=None, wandb=None, world=world)
    assert {path.name for path in (tmp_path / "inside").iterdir()} == {"step-5.npz", "step-10.npz"}


# -- the headline's rules ------------------------------------------------------------------------------------------
CHOSEN = {"GRPO": "no deviation, lr 5e-5", "ensemble": "λ 0.8, critics that keep, lr 1e-4",
          "ensemble, λ 1": "λ 1, critics that keep, lr 5e-5", "nothing": "lr 1e-4", LONG: "lr 2.5e-05"}
DESIGN = (ROOT / "experiments/headline/DESIGN.md").read_text()


def settings_of(side: str, setting: str, seed: int = 200):
    return parse_args(headline.flags_of(side, setting, seed).split())


def differing(a, b) -> set[str]:
    return {key for key in vars(a) if getattr(a, key) != getattr(b, key)}


def test_both_tuned_sides_have_as_many_settings_and_all_are_different():
    assert len(GRPO_SETTINGS) == len(ENSEMBLE_SETTINGS) == 10
    for side, settings in SETTINGS.items():
        parsed = [settings_of(side, setting) for setting in settings.values()]
        assert all(differing(a, b) for i, a in enumerate(parsed) for b in parsed[:i])
        assert {each.algo for each in parsed} == {"grpo" if side == "GRPO" else "asyppo"}
    for name, setting in ENSEMBLE_SETTINGS.items():
        assert settings_of("ensemble", setting).lam == float(re.search(r"λ ([\d.]+)", name)[1])


def test_the_sides_of_the_confirmation_differ_in_what_their_names_say_alone():
    parsed = {side: settings_of(side, setting) for side, _, setting, _ in confirmation(CHOSEN)}
    assert {*parsed} == {name for pair in (PRIMARY, *SECONDARY) for name in pair}
    masks = {"mask_by", "mask_fraction", "filter_by", "filter_fraction"}
    assert differing(parsed["ensemble"], parsed["ensemble, masks"]) == masks
    assert differing(parsed["ensemble"], parsed["one critic"]) == {"n_critics", "critics"}
    assert differing(parsed["ensemble"], parsed["ensemble, λ 1"]) == {"lam", "lr"}
    nothing = parsed["nothing"]
    assert differing(parsed["one critic"], nothing) == {"critics", "critic_lr", "critic_replay", "critic_epochs", "lam"}
    assert nothing.critic_lr == 1e-12 and nothing.lam == 1 and nothing.critics == [str(ROOT / "tiny/critic")]
    assert parsed["ensemble"].shard_by == "group" and parsed["ensemble"].lam == 0.8
    assert differing(parsed["GRPO"], parsed[LONG]) == {"steps", "lr"}
    assert parsed[LONG].steps == 110 and parsed[LONG].lr == 2.5e-5


def test_critics_are_confirmed_that_were_not_tuned_on_and_each_fit_has_as_many_seeds():
    setting = ENSEMBLE_SETTINGS[CHOSEN["ensemble"]]
    tuned, confirmed = ([settings_of("ensemble", setting, seed).critics[0] for seed in seeds]
                        for seeds in ([*headline.ROUND_1, *headline.ROUND_2], CONFIRMATION))
    assert {confirmed.count(name) for name in confirmed} == {8} and len({*confirmed}) == 8
    assert not {*tuned} & {*confirmed}
    assert settings_of("ensemble", setting, 202).critics == [f"runs/fits/two1006/critic{m}" for m in (0, 1)]
    assert settings_of("one critic", setting, 202).critics == ["runs/fits/one1006/critic0"]


def test_the_design_names_every_setting_side_and_number():
    for name, setting in [*GRPO_SETTINGS.items(), *ENSEMBLE_SETTINGS.items()]:
        assert f"| {name} | `{setting}` |" in DESIGN, name
    for a, b in (PRIMARY, *SECONDARY):
        assert f"{a} − {b}" in DESIGN
    numbers = ("100 to 103", "104 to 111", "112 to 115", "200 to 263", "200 to 231", "200 to 215", "1004 to 1011")
    assert all(each in DESIGN for each in (*numbers, f"δ = {headline.DELTA}"))


def test_pairs_of_responses_are_tuned_and_confirmed_on_seeds_and_settings_of_their_own():
    assert len(pairs.SETTINGS["GRPO"]) == len(pairs.SETTINGS["ensemble"]) == 4
    for side, settings in pairs.SETTINGS.items():
        for name, setting in settings.items():
            assert f"| {side}: {name} |" in DESIGN
            parsed = settings_of(side, setting)
            assert (parsed.prompts_per_step, parsed.group_size) == (16, 2)
            assert differing(parsed, settings_of(side, SETTINGS[side][name])) == {"prompts_per_step", "group_size"}
    assert all(f"{a} − {b}" in DESIGN for a, b in pairs.COMPARED)
    used = [*headline.ROUND_1, *headline.ROUND_2, *headline.ROUND_3, *CONFIRMATION]
    assert not {*used} & {*pairs.TUNING, *pairs.CONFIRMATION}
    assert "116 to 119" in DESIGN and "264 to 287" in DESIGN
    fits = [headline.fit_of(seed) for seed in pairs.CONFIRMATION]
    assert {fits.count(fit) for fit in headline.CONFIRMATION_FITS} == {3} and len({*fits}) == 8
    assert {headline.fit_of(seed) for seed in pairs.TUNING} == {*headline.TUNING_FITS}


def test_pairs_of_responses_have_one_look_too():
    each = pairs.tuning({})
    done = results_of(each, lambda name, seed: 0.5 + 0.01 * ("lr 5e-5" in name) + 0.01 * ("0.95" in name))
    chosen = pairs.choose(done)
    assert chosen == {"GRPO": "as is, lr 5e-5", "ensemble": "λ 0.95, critics that keep, lr 5e-5", "nothing": "lr 5e-5"}
    done.popitem()
    with pytest.raises(SystemExit, match="^1 runs"):
        pairs.choose(done)
    confirmed = results_of(pairs.confirmation(chosen), lambda name, seed: (
        0.5 + 0.001 * (len(name) * seed % 7) + 0.1 * (name == "ensemble")))
    text = headline.table_of_verdicts(pairs.confirmation(chosen), pairs.COMPARED, confirmed)
    assert len(confirmed) == 72 and len(re.findall(r"\| 24 \| holds \|", text)) == 2
    confirmed.popitem()
    assert "71 of 72" in headline.table_of_verdicts(pairs.confirmation(chosen), pairs.COMPARED, confirmed)


def ended(names: dict[tuple[str, int], float]) -> dict[str, dict]:
    """Return finished runs of embedded.py; names: (setting, seed) -> the end."""
    return {digest_of(*embedded.run_of(*each)): row_of(value) for each, value in names.items()}


def test_the_embedded_default_changes_only_if_ten_of_ten_seeds_end_better():
    first, second = embedded.CANDIDATES
    tuned = ended({
        (name, seed): value for name, value in ((first, 0.80), (second, 0.81)) for seed in embedded.TUNING})
    assert {*embedded.planned({}).values()} == {first, second}
    assert embedded.chosen(dict(list(tuned.items())[:-1])) is None and embedded.chosen(tuned) == second
    assert set(embedded.planned(tuned)) == {embedded.run_of(name, 0) for name in (second, embedded.DEFAULT)}

    def tested(gains: list[float]) -> dict[str, dict]:
        ours = {(second, seed): 0.8 + gain for seed, gain in enumerate(gains)}
        return tuned | ended(ours | {(embedded.DEFAULT, seed): 0.8 for seed in range(len(gains))})

    assert "not yet known" in embedded.table(tested([0.1])) and embedded.planned(tested([0.1]))
    for gains, answer in (([0.1] * 10, "10 of 10 seeds: yes."), ([0.1, 0.0], "1 of 2 seeds: no."), ([-0.1], ": no.")):
        assert answer in embedded.table(tested(gains)) and not embedded.planned(tested(gains))


def test_a_candidate_of_the_embedded_default_takes_as_many_responses():
    default = parse_args([])
    for setting in embedded.CANDIDATES.values():
        args = parse_args(setting.split())
        assert args.critic_warmup + args.steps == default.steps and args.lam < default.lam


# -- scores, choices, verdicts -------------------------------------------------------------------------------
def row_of(value: float, steps: int = 30, **more) -> dict:
    return dict(accuracy=[[step, value] for step in range(0, steps + 1, 5)], reward=[value] * steps, **more)


def test_the_score_is_the_mean_of_two_areas_and_the_end_that_of_the_last_steps():
    row = dict(accuracy=[[0, 0.0], [10, 0.4], [20, 0.6]], reward=[0.1] * 10 + [0.5] * 10)
    assert score(row) == pytest.approx(((2 + 5) / 20 + 0.3) / 2)
    assert headline.end(row) == pytest.approx((0.5 + 0.5) / 2)


def verdicts_of(chosen: dict[str, str], done: dict[str, dict]) -> str:
    return headline.table_of_verdicts(confirmation(chosen), headline.compared(chosen), done)


def results_of(each: list, value) -> dict[str, dict]:
    """Return made-up finished runs; value: (name, seed) -> score."""
    return {digest_of(*run): row_of(value(name, run[1]), 110 if "as many" in name else 30)
            for run, name in wanted(each).items()}


def test_the_three_best_settings_go_on_and_the_best_by_all_seeds_is_chosen():
    lucky, good = "ensemble: λ 0.5, critics that keep, lr 5e-5", "ensemble: λ 0, critics that keep, lr 5e-5"
    leads = {good: 0.01, "GRPO: as is, lr 5e-5": 0.01, "nothing: lr 5e-5": 0.01, f"{LONG}: lr 2.5e-05": 0.01,
             "ensemble: λ 1, critics that keep, lr 1e-4": 0.001}

    def value(name, seed):
        return 0.7 + leads.get(name, 0) + (0.02 * (seed < 104) - 0.01 * (seed > 103)) * (name == lucky)

    done = results_of(round_1(), value)
    assert len(tuning(done)) == 22 + 6, "round 2 is planned from round 1"
    with pytest.raises(SystemExit, match="48 runs"):
        choose(done)
    done |= results_of(tuning(done), value)
    with pytest.raises(SystemExit, match="8 runs"):
        choose(done)
    done |= results_of(tuning(done), value)
    assert len(done) == 88 + 48 + 8
    assert choose(done) == {
        "GRPO": "as is, lr 5e-5", "ensemble": good.removeprefix("ensemble: "), "nothing": "lr 5e-5",
        "ensemble, λ 1": "λ 1, critics that keep, lr 1e-4", LONG: "lr 2.5e-05"}


def test_if_a_setting_with_lam_1_wins_it_is_the_control_too():
    best = "λ 1, critics that keep, lr 5e-5"  # the other setting with λ 1 was better in round 1

    def value(name, seed):
        other = name == "ensemble: λ 1, critics that keep, lr 1e-4"
        return 0.7 + (0.1 if seed > 103 else 0.01) * (name == f"ensemble: {best}") + 0.02 * (other and seed < 104)

    done: dict = {}
    for _ in range(3):
        done |= results_of(tuning(done), value)
    chosen = choose(done)
    assert chosen["ensemble"] == chosen["ensemble, λ 1"] == best
    done = results_of(confirmation(chosen), lambda name, seed: 0.7 + 0.001 * (len(name) * seed % 7))
    assert len(done) == 240 and "| ensemble | ensemble, λ 1 |" not in verdicts_of(chosen, done)


@pytest.mark.parametrize("verdict, q, expected", [
    ("holds", None, "holds"), ("holds", 0.04, "holds"), ("holds", 0.06, "undecided (Holm)"),
    ("contradicted", 0.04, "contradicted"), ("contradicted", 0.06, "no gain"), ("no gain", 0.9, "no gain")])
def test_a_secondary_row_needs_holms_p_to_hold_or_to_be_contradicted(verdict, q, expected):
    assert headline.decided(dict(verdict=verdict), q) == expected


def test_there_is_one_look_and_the_verdict_is_that_of_the_means_over_fits():
    order = np.random.default_rng(0)
    noise = {seed: order.normal(0, 0.05) for seed in CONFIRMATION}
    lead = {"ensemble": 0.05, "one critic": 0.05}
    done = results_of(confirmation(CHOSEN), lambda name, seed: (
        0.7 + noise[seed] + lead.get(name, 0) + 0.01 * order.normal()))
    text = verdicts_of(CHOSEN, done)
    first = next(line for line in text.splitlines() if line.startswith("| primary |"))
    assert "| ensemble | GRPO | +0.0" in first and first.endswith("| 0.0078 | 64 | holds |")
    assert next(line for line in text.splitlines() if "| ensemble | one critic |" in line).endswith("| no gain |")
    assert "| 64, 16 |" in next(line for line in text.splitlines() if f"| ensemble | {LONG} |" in line)
    found = scores(confirmation(CHOSEN), done)
    each = [found["ensemble"][seed] - found["GRPO"][seed] for seed in CONFIRMATION]
    assert f"{statistics.fmean(each):+.3f}" in first
    done.popitem()
    text = verdicts_of(CHOSEN, done)
    assert "holds" not in text and "271 of 272 runs are done. No look" in text


def test_the_fit_is_the_unit_so_that_a_lead_with_one_fit_alone_does_not_hold():
    order = np.random.default_rng(1)
    each = {seed: 0.03 + 0.01 * order.normal() for seed in CONFIRMATION}
    zero = dict.fromkeys(CONFIRMATION, 0.0)
    assert contrast("a", "b", {"a": each, "b": zero})["verdict"] == "holds"
    lucky = {seed: 0.24 * (headline.fit_of(seed) == 1004) + x - 0.03 for seed, x in each.items()}
    said = contrast("a", "b", {"a": lucky, "b": zero})
    assert statistics.fmean(lucky.values()) > 0.02 and said["verdict"].startswith("undecided")


def test_the_test_of_signs_counts_all_signs():
    assert sign_flips([1, 1, 1]) == 2 / 8 and sign_flips([1, -1]) == 1
    assert sign_flips([3, 1, 1, -2]) == 10 / 16  # sums as far from 0 as 3: all but ±1


def test_scatter_is_compared_by_pairs_and_a_lead_or_shared_luck_does_not_matter():
    def said(seed, narrow, wide):
        order = np.random.default_rng(seed)
        shared = order.normal(0, 0.05, 64)
        sides = {"a": 0.6 + shared + order.normal(0, narrow, 64), "b": 0.5 + shared + order.normal(0, wide, 64)}
        return headline.scatter("a", "b", {name: dict(enumerate(each.tolist())) for name, each in sides.items()})

    assert ": holds." in said(0, 0.01, 0.06) and ": contradicted." in said(0, 0.06, 0.01)
    false_alarms = sum("undecided" not in said(seed, 0.03, 0.03) for seed in range(1000))
    assert 30 <= false_alarms <= 70, "5 % of 1,000, up to three standard deviations"


# -- the runner ----------------------------------------------------------------------------------------------
def pretend_to_run(monkeypatch, reward) -> list[tuple[str, int]]:
    """Let runs end at once; reward: (flags, seed) -> that of every step. -> the (flags, seed) made, as they are"""
    made = []

    def fake(flags, seed, folder, measured):
        made.append((flags, seed))
        curves = dict(accuracy=[[0, 0.1], [30, 0.3]], reward_mean=[[step, reward(flags, seed)] for step in range(1, 31)])
        return dict(digest=digest_of(flags, seed), seed=seed, commit="0123456789", seconds=1.0, curves=curves)

    monkeypatch.setattr(claims, "run", fake)
    return made


def test_runs_are_made_once_and_spread_over_calls(tmp_path, monkeypatch):
    made = pretend_to_run(monkeypatch, lambda flags, seed: 0.25)
    results = tmp_path / "headline.jsonl"
    command = ["experiments/headline/headline.py", "tune", "--jobs", 1, "--results", results, "--chosen",
               tmp_path / "chosen.json"]
    assert "0 of 88 runs" in run(*command, "--most", 3).stdout
    assert "3 of 88 runs" in run(*command, "--most", 2).stdout
    assert len(made) == len({*made}) == len(finished(results)) == 5
    assert results.stat().st_size < 5 * 700
    assert score(next(iter(finished(results).values()))) == pytest.approx((0.2 + 0.25) / 2)
    choose = [*command[:1], "choose", *command[2:]]
    assert "83 runs of the tuning are missing" in str(run(*choose, code=None).returncode)
    assert "choose the settings first" in run(*command[:1], "confirm", *command[2:], code=None).stderr


def test_the_embedded_default_is_decided_by_the_runs_that_its_rule_needs(tmp_path, monkeypatch):
    made = pretend_to_run(monkeypatch, lambda flags, seed: (  # seed 1 is a tie
        0.5 - 0.1 * ("--lam 0.8" in flags) + 0.1 * ("--lam" in flags and seed == 0)))
    command = ["experiments/headline/embedded.py", "--jobs", 1, "--results", tmp_path / "embedded.jsonl"]
    assert "Better in 1 of 2 seeds: no." in run(*command).stdout
    assert [seed for _, seed in made] == [130, 130, 131, 131, 0, 0, 1, 1] and len({*made}) == 8
    assert all("0.95" in flags or "--lam" not in flags for flags, _ in made[4:])
    assert "no." in run(*command).stdout and len(made) == 8


@pytest.mark.slow
def test_a_real_run_of_each_side_leaves_a_line(tmp_path, monkeypatch):
    (tmp_path / "two1000").mkdir()
    for m in (0, 1):
        (tmp_path / f"two1000/critic{m}").symlink_to(ROOT / "tiny/critic")
    monkeypatch.setattr(headline, "FITS", str(tmp_path))
    monkeypatch.setattr(headline, "REGIME", f"{headline.SMALL} --steps 1 --n-problems 8 --max-new-tokens 24")
    monkeypatch.setattr(headline, "ROUND_1", range(100, 101))
    first = {side: dict([*settings.items()][:1]) for side, settings in SETTINGS.items()}
    monkeypatch.setattr(headline, "SETTINGS", first)
    monkeypatch.setattr(headline, "tuning", lambda done: headline.round_1())
    results = tmp_path / "headline.jsonl"
    done = run("experiments/headline/headline.py", "tune", "--jobs", 1, "--results", results, "--chosen",
               tmp_path / "chosen.json", "--folder", tmp_path / "runs")
    rows = finished(results).values()
    assert "0 of 3 runs" in done.stdout and len(rows) == 3
    assert all(len(row["accuracy"]) == 2 and len(row["reward"]) == 1 for row in rows)
