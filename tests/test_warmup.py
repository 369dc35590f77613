"""Rollouts that train the critics alone, and rollouts that are looked at more closely: whole runs."""

import os
import re
import signal

import numpy as np
import pytest

import train
from tests.runs import FEW, rows, run, weights
from tests.synthetic import full_weights, same_weights


def test_a_warm_up_of_two_rollouts_fits_the_critics_and_leaves_the_actor_bitwise_as_it_was(
    tmp_path, monkeypatch
):
    real, models = train.train_step, {}

    def look(run, step):
        models.setdefault(0, [full_weights(x) for x in (run.actor, *run.critics)])
        result = real(run, step)
        models[step] = [full_weights(x) for x in (run.actor, *run.critics)]
        return result

    monkeypatch.setattr(train, "train_step", look)
    # enough responses for a right one in each shard: from V = 0 and no reward a critic has nothing to learn
    flags = [*FEW, "--eval-every", 0, "--prompts-per-step", 4, "--group-size", 8]
    said = run("train.py", "--out", tmp_path, *flags, "--critic-warmup", 2, "--steps", 2).stdout
    for after, changed in enumerate((False, False, True, True), start=1):
        assert same_weights(models[after][0], models[after - 1][0]) != changed
        assert not same_weights(models[after][1], models[after - 1][1])
        assert not same_weights(models[after][2], models[after - 1][2])
    metrics = rows(tmp_path)
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    assert ["policy_loss" in m for m in metrics] == [False, False, True, True]
    assert all("critic0/loss" in m for m in metrics)
    marked = ["critics only" in line for line in said.splitlines() if line.startswith("step ")]
    assert marked == [True, True, False, False]
    assert "step    1/4  critics only  reward" in said and "Finished step 4" in said
    # --steps asks for as many more of the actor's
    assert f"--resume {tmp_path} --steps 4" in said


def test_a_run_stopped_in_its_warm_up_and_resumed_equals_a_whole_one_to_the_last_bit(tmp_path, monkeypatch):
    """Its checkpoint holds an optimizer that has not taken a step yet; the whole run writes none such."""
    flags = [*FEW, "--critic-warmup", 2, "--steps", 2]
    run("train.py", "--out", tmp_path / "whole", *flags)
    real = train.train_step

    def stop_after(run, step):
        result = real(run, step)
        os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(train, "train_step", stop_after)
    said = run("train.py", "--out", tmp_path / "half", *flags, code=128 + signal.SIGTERM).stdout
    assert "Stopped after step 1: SIGTERM" in said
    monkeypatch.setattr(train, "train_step", real)
    run("train.py", "--out", tmp_path / "half", *flags, "--resume")
    assert same_weights(weights(tmp_path / "whole"), weights(tmp_path / "half"))
    whole, half = (
        [{k: x for k, x in m.items() if not re.search("time|per_s|memory", k)} for m in rows(tmp_path / name)]
        for name in ("whole", "half")
    )
    assert half == whole and len(whole) == 4


def test_correlations_are_logged_in_evaluated_steps_and_left_out_where_they_do_not_exist(tmp_path):
    names = {f"{x}_{of}_corr" for x in ("value", "value_std") for of in ("entropy", "gradient")}
    within = {"value_within", "value_std_within"}

    def logged(name, *flags):
        run("train.py", "--out", tmp_path / name, *FEW, "--group-size", 8, *flags)
        return [set(m) & (names | within) for m in rows(tmp_path / name)]

    assert logged("two critics", "--steps", 3, "--eval-every", 2) == [within, names | within, within]
    # one critic has values, but no disagreement
    one = {"value_within", "value_entropy_corr", "value_gradient_corr"}
    assert logged("one critic", "--steps", 1, "--eval-every", 1, "--n-critics", 1) == [one]
    assert logged("none", "--steps", 1, "--eval-every", 1, "--algo", "grpo") == [set()]


def test_what_is_explained_is_the_return_and_not_a_target_that_holds_the_critics_own_values(tmp_path):
    flags = ["--steps", 1, "--eval-every", 1, "--critic-lam", 0.5]
    run("train.py", "--out", tmp_path / "run", *FEW, *flags)
    (metrics,), saved = rows(tmp_path / "run"), np.load(tmp_path / "run/inside/step-1.npz")
    for m, fitted_B in enumerate(saved["shards_MB"]):
        mask_BT = saved["mask_BT"] & ~fitted_B[:, None]
        returns_BT = np.repeat(saved["rewards_B"][:, None], mask_BT.shape[1], 1)
        left = (returns_BT - saved["values_MBT"][m])[mask_BT].var(dtype=float)
        explained = 1 - left / returns_BT[mask_BT].var(dtype=float)
        assert metrics[f"critic{m}/explained_variance_heldout"] == pytest.approx(explained, abs=1e-5)
