"""The headline's runner: its sides are what DESIGN.md says, choices and verdicts follow the rule, one look."""

import re
import statistics

import numpy as np
import pytest

from experiments.claims import claims
from experiments.claims.claims import digest_of, finished
from experiments.headline import headline
from experiments.headline.headline import (
    CONFIRMATION, CRITIC_SETTINGS, GRPO_SETTINGS, PRIMARY, SECONDARY, SETTINGS, best, between_critics, contrast,
    flags_of, score, scores, sides, table_of_verdicts, wanted, wilcoxon)
from tests.runs import ROOT, run
from train import parse_args

CHOSEN = {"GRPO": "no deviation, lr 5e-5", "one critic": "λ 0.8, critics that keep, lr 1e-4",
          "GRPO, as many responses": "lr 2.5e-05"}
DESIGN = (ROOT / "experiments/headline/DESIGN.md").read_text()


def settings_of(side: str, setting: str, seed: int = 200):
    return parse_args(flags_of(side, setting, seed).split())


def differing(a, b) -> set[str]:
    return {key for key in vars(a) if getattr(a, key) != getattr(b, key)}


def test_both_tuned_sides_have_as_many_settings_and_all_are_different():
    for side, settings in SETTINGS.items():
        assert len(settings) == 8
        parsed = [settings_of(side, setting) for setting in settings.values()]
        assert all(differing(a, b) for i, a in enumerate(parsed) for b in parsed[:i])
        assert {each.algo for each in parsed} == {"grpo" if side == "GRPO" else "asyppo"}
    assert {float(re.search(r"λ ([\d.]+)", name)[1]) for name in CRITIC_SETTINGS} == {1.0, 0.8, 0.5}


def test_the_sides_of_the_confirmation_differ_in_what_their_names_say_alone():
    parsed = {side: settings_of(side, setting) for side, setting in sides(CHOSEN).items()}
    assert {*parsed} == {name for pair in (PRIMARY, *SECONDARY) for name in pair}
    masks = {"mask_by", "mask_fraction", "filter_by", "filter_fraction"}
    assert differing(parsed["ensemble"], parsed["ensemble, masks"]) == masks
    assert differing(parsed["ensemble"], parsed["one critic"]) == {"n_critics", "critics"}
    assert differing(parsed["one critic"], parsed["one critic, λ 1"]) == {"lam"}
    nothing = parsed["nothing"]
    assert differing(parsed["one critic"], nothing) == {"critics", "critic_lr", "critic_replay", "critic_epochs"}
    assert nothing.critic_lr == 1e-12 and nothing.critics == [str(ROOT / "tiny/critic")]
    assert parsed["ensemble"].shard_by == "group" and parsed["ensemble"].lam == 0.8
    assert differing(parsed["GRPO"], parsed["GRPO, as many responses"]) == {"steps", "lr", "eval_every"}
    assert parsed["GRPO, as many responses"].steps == 110 and parsed["GRPO, as many responses"].lr == 2.5e-5


def test_each_fitted_critic_gets_a_quarter_of_the_seeds():
    setting = CRITIC_SETTINGS[CHOSEN["one critic"]]
    names = [settings_of("one critic", setting, seed).critics[0] for seed in CONFIRMATION]
    assert {names.count(name) for name in names} == {16} and len({*names}) == 4
    assert settings_of("ensemble", setting, 202).critics == [f"runs/fits/two1002/critic{m}" for m in (0, 1)]


def test_the_design_names_every_setting_side_and_number():
    for name, setting in [*GRPO_SETTINGS.items(), *CRITIC_SETTINGS.items()]:
        assert f"| {name} | `{setting}` |" in DESIGN, name
    for a, b in (PRIMARY, *SECONDARY):
        assert f"{a} − {b}" in DESIGN
    assert "100 to 107" in DESIGN and "200 to 263" in DESIGN and f"δ = {headline.DELTA}" in DESIGN


# -- scores, choices, verdicts -------------------------------------------------------------------------------
def row_of(value: float, steps: int = 30, **more) -> dict:
    return dict(accuracy=[[step, value] for step in range(0, steps + 1, 5)], reward=[value] * steps, **more)


def test_the_score_is_the_mean_of_two_areas_after_a_step():
    row = dict(accuracy=[[0, 0.0], [10, 0.4], [20, 0.6]], reward=[0.1] * 10 + [0.5] * 10)
    assert score(row) == pytest.approx(((2 + 5) / 20 + 0.3) / 2)
    assert score(row, 10) == pytest.approx((0.5 + 0.5) / 2)


def results_of(stage: str, chosen: dict, value) -> dict[str, dict]:
    """Return made-up finished runs of a stage; value: (name, seed) -> score."""
    return {digest_of(*each): row_of(value(name, each[1]), 110 if "as many" in name else 30)
            for each, name in wanted(stage, chosen).items()}


def test_the_best_setting_is_chosen_when_all_runs_are_there():
    top = {"GRPO: as is, lr 5e-5", "one critic: λ 0.5, critics that move on, lr 1e-4"}
    done = results_of("tune", {}, lambda name, seed: 0.7 + 0.01 * (seed % 3) + 0.005 * (name in top))
    assert best("tune", {}, done) == {"GRPO": "as is, lr 5e-5", "one critic": "λ 0.5, critics that move on, lr 1e-4"}
    done.popitem()
    with pytest.raises(SystemExit, match="1 of 128 runs"):
        best("tune", {}, done)


def test_there_is_one_look_and_the_verdict_is_that_of_the_paired_scores():
    order = np.random.default_rng(0)
    noise = {seed: order.normal(0, 0.05) for seed in CONFIRMATION}
    lead = {"ensemble": 0.05, "one critic": 0.05}
    done = results_of("confirm", CHOSEN, lambda name, seed: (
        0.7 + noise[seed] + lead.get(name, 0) + 0.01 * order.normal()))
    text = table_of_verdicts(CHOSEN, done)
    first = next(line for line in text.splitlines() if line.startswith("| primary |"))
    assert "| ensemble | GRPO | +0.0" in first and first.endswith("| seeds | 64 | holds |")
    line = next(line for line in text.splitlines() if "| ensemble | one critic |" in line)
    assert line.endswith("| no gain |")
    found = scores("confirm", CHOSEN, done)
    each = [found["ensemble"][seed] - found["GRPO"][seed] for seed in CONFIRMATION]
    assert f"{statistics.fmean(each):+.3f}" in first
    done.popitem()
    assert "One" not in (text := table_of_verdicts(CHOSEN, done)) and "399 of 400 runs are done. No look" in text


def test_if_the_fitted_critics_differ_they_are_the_unit():
    order = np.random.default_rng(1)
    each = {seed: 0.03 + 0.01 * order.normal() for seed in CONFIRMATION}
    assert between_critics(each) > 0.05
    effect = {0: -0.05, 1: 0.0, 2: 0.02, 3: 0.05}
    by_critic = {seed: x + effect[seed % 4] for seed, x in each.items()}
    assert between_critics(by_critic) < 0.01
    zero = dict.fromkeys(CONFIRMATION, 0.0)
    assert contrast("a", "b", {"a": each, "b": zero})["verdict"] == "holds"
    said = contrast("a", "b", {"a": by_critic, "b": zero})
    assert said["unit"] == "critics" and len(said["each"]) == 4 and said["verdict"].startswith("undecided")


def test_wilcoxons_test_is_that_of_a_printed_example():
    # differences of Wilcoxon's first example (maize, 15 pairs): smaller sum of ranks 24, two-sided p about 0.041
    each = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert wilcoxon(each) == pytest.approx(0.041, abs=0.001)
    assert wilcoxon([-x for x in each]) == wilcoxon(each)


# -- the runner ----------------------------------------------------------------------------------------------
def test_runs_are_made_once_and_spread_over_calls(tmp_path, monkeypatch):
    made = []

    def fake(flags, seed, folder, measured):
        made.append((flags, seed))
        curves = dict(accuracy=[[0, 0.1], [30, 0.3]], reward_mean=[[step, 0.25] for step in range(1, 31)])
        return dict(digest=digest_of(flags, seed), seed=seed, commit="0123456789", seconds=1.0, curves=curves)

    monkeypatch.setattr(claims, "run", fake)
    results = tmp_path / "headline.jsonl"
    command = ["experiments/headline/headline.py", "tune", "--jobs", 1, "--results", results, "--chosen",
               tmp_path / "chosen.json"]
    assert "0 of 128 runs" in run(*command, "--most", 3).stdout
    assert "3 of 128 runs" in run(*command, "--most", 2).stdout
    assert len(made) == len({*made}) == len(finished(results)) == 5
    assert results.stat().st_size < 5 * 700
    assert score(next(iter(finished(results).values()))) == pytest.approx((0.2 + 0.25) / 2)
    choose = [*command[:1], "choose", *command[2:]]
    assert "123 of 128 runs are missing" in str(run(*choose, code=None).returncode)
    assert "choose the settings first" in run(*command[:1], "confirm", *command[2:], code=None).stderr


@pytest.mark.slow
def test_a_real_run_of_each_side_leaves_a_line(tmp_path, monkeypatch):
    (tmp_path / "one1000").mkdir()
    (tmp_path / "one1000/critic0").symlink_to(ROOT / "tiny/critic")
    monkeypatch.setattr(headline, "FITS", str(tmp_path))
    monkeypatch.setattr(headline, "SMALL", f"{headline.SMALL} --steps 1 --n-problems 8 --max-new-tokens 24")
    monkeypatch.setattr(headline, "TUNING", range(100, 101))
    first = {side: dict([*settings.items()][:1]) for side, settings in SETTINGS.items()}
    monkeypatch.setattr(headline, "SETTINGS", first)
    results = tmp_path / "headline.jsonl"
    done = run("experiments/headline/headline.py", "tune", "--jobs", 1, "--results", results, "--chosen",
               tmp_path / "chosen.json", "--folder", tmp_path / "runs")
    rows = finished(results).values()
    assert "0 of 2 runs" in done.stdout and len(rows) == 2
    assert all(len(row["accuracy"]) == 2 and len(row["reward"]) == 1 for row in rows)
