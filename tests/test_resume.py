"""A run can be stopped, killed, moved or cut off at any moment, and goes on from its last checkpoint."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess

import pytest
import torch

from distributed import saved_steps
from folder import mend_log
from tests.runs import FEW, ROOT, launcher, rows, run, weights


def assert_equal_models(a, b) -> None:
    assert weights(a).keys() == weights(b).keys()
    for name, expected in weights(a).items():
        assert torch.equal(expected, weights(b)[name]), name


def without_clock(folder) -> list[dict]:
    return [{k: v for k, v in m.items() if not re.search("time|per_s|memory", k)} for m in rows(folder)]


def test_half_a_run_resumed_equals_a_whole_one_to_the_last_bit(tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    (tmp_path / "test.jsonl").write_text('{"problem": "1+2+3", "answer": "6"}\n' * 4)
    flags = [*FEW, "--eval-data", tmp_path / "test.jsonl"]
    run("train.py", "--out", whole, "--steps", 4, *flags)
    run("train.py", "--out", half, "--steps", 2, *flags)
    run("train.py", "--out", half, "--steps", 4, *flags, "--resume")
    assert_equal_models(whole, half)
    after, expected = ([m for m in without_clock(out) if m["step"] > 2] for out in (half, whole))
    assert after == expected
    assert [m["step"] for m in rows(half)] == [0, 1, 2, 3, 4]
    for wrong, sentence in (("--steps 6 --lr 1e-5", "has --lr"), ("--steps 3", "has done more than 3 steps")):
        done = run("train.py", "--out", half, *flags, "--resume", *wrong.split(), code=2)
        assert sentence in done.stderr


def test_sigkill_at_random_moments_of_every_phase_changes_nothing(begun, request):
    """Twelve kills: while starting, generating, fitting, updating, saving, and writing the final models."""
    tmp_path, killed_run = begun[request.node.name]
    hits = json.loads(killed_run.result().stdout)
    assert sum(hits.values()) == 12 and all(hits.values())
    assert_equal_models(tmp_path / "whole", tmp_path / "killed")
    assert without_clock(tmp_path / "whole") == without_clock(tmp_path / "killed")
    assert rows(tmp_path / "whole", "rollouts.jsonl") == rows(tmp_path / "killed", "rollouts.jsonl")
    # --keep 2, and nothing half-written stays
    assert sorted(path.name for path in (tmp_path / "killed/checkpoint").iterdir()) == ["step-13", "step-14"]


@pytest.mark.parametrize("processes", [0, 2])
def test_a_run_that_is_told_to_stop_finishes_its_step_saves_and_goes_on_where_it_was(tmp_path, processes):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    flags = [*FEW, "--steps"]
    command = [*launcher(processes), "train.py", *flags, "500", "--out", stopped]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    for line in child.stdout:
        if line.startswith("step    1/"):
            child.send_signal(signal.SIGTERM)
            break
    rest, errors = child.communicate(timeout=100)
    stop = re.search(r"Stopped after step (\d+): SIGTERM. Saved; go on with .* --resume", rest)
    assert stop, errors
    assert child.returncode != 0 if processes else child.returncode == 143
    last = int(stop[1])
    assert [m["step"] for m in rows(stopped)] == list(range(1, last + 1)) and last < 20
    run("train.py", "--out", stopped, *flags, last + 2, "--resume", processes=processes)
    run("train.py", "--out", whole, *flags, last + 2, processes=processes)
    assert_equal_models(whole, stopped)
    assert without_clock(whole) == without_clock(stopped) and rows(whole)[-1]["critic0/grad_norm"] > 0


def test_an_evaluation_that_a_stop_left_out_is_made_up_on_resume(tmp_path, monkeypatch):
    (tmp_path / "test.jsonl").write_text('{"problem": "1+2", "answer": "3"}\n' * 20)
    flags = [*FEW[:-1], tmp_path / "test.jsonl", "--max-new-tokens", 24]
    flags += ["--eval-every", 1, "--steps", 2, "--out"]
    run("train.py", *flags, tmp_path / "whole")
    with monkeypatch.context() as told:
        told.setattr("train.StopRequest.seen", lambda request: signal.SIGTERM)
        run("train.py", *flags, tmp_path / "stopped", code=128 + signal.SIGTERM)
    assert ["eval/test" in row for row in rows(tmp_path / "stopped")] == [True, False]
    run("train.py", *flags, tmp_path / "stopped", "--resume")
    expected, found = (
        [(row["step"], row["eval/test"]) for row in rows(tmp_path / name) if "eval/test" in row]
        for name in ("whole", "stopped"))
    assert found == expected and [step for step, _ in found] == [0, 1, 2]


def test_a_checkpoint_of_two_copies_goes_on_in_one_copy_and_with_one_process_and_one_of_one_with_two(
    tmp_path
):
    """Where nothing is learned after the resume, the weights that come out are those that went in; where a
    step is, the optimizers' states have come along too."""
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


# gloo's own words for the rank that waits, torchrun's for the rank that is gone
@pytest.mark.parametrize(
    "sentence", ["Timed out waiting", r"rank +: 1 .*\n.*exitcode +: -9"], ids=["hangs", "dies"]
)
def test_a_hanging_or_dead_rank_ends_the_job_and_leaves_the_last_checkpoint(begun, request, sentence):
    tmp_path, lost = begun[request.node.name]
    done = lost.result()
    assert re.search(sentence, done.stderr), done.stderr
    assert [m["step"] for m in rows(tmp_path / "run")] == [1]
    assert saved_steps(tmp_path / "run/checkpoint") == [1]


def test_a_run_that_has_lost_its_checkpoints_is_refused_and_keeps_its_log(tmp_path):
    out = tmp_path / "run"
    flags = [*FEW, "--max-new-tokens", 8, "--save-every", 1, "--keep", 2, "--steps"]
    run("train.py", "--out", out, *flags, 2)
    log = (out / "metrics.jsonl").read_bytes()

    def refused() -> str:
        error = run("train.py", "--out", out, *flags, 3, "--resume", code=2).stderr
        assert (out / "metrics.jsonl").read_bytes() == log
        return error

    for step in (1, 2):
        os.truncate(out / f"checkpoint/step-{step}/.metadata", 0)
    assert "no checkpoint in" in refused() and saved_steps(out / "checkpoint") == [1, 2]
    shutil.rmtree(out / "checkpoint")
    assert "was saved, but its checkpoint is gone" in refused()
    shutil.rmtree(out / "model")  # as if stopped by a signal, which saves whenever it comes
    assert "was saved, but its checkpoint is gone" in refused()
    (out / "saved").unlink()  # as if killed while it wrote its first checkpoint
    said = run("train.py", "--out", out, *flags, 1, "--resume").stderr
    assert "begins again at step 1" in said and [m["step"] for m in rows(out)] == [1]


def test_a_log_whose_last_line_was_cut_by_a_kill_is_mended_on_resume(tmp_path):
    log = tmp_path / "metrics.jsonl"
    one, two, three = (f'{{"step": {n}}}\n' for n in (1, 2, 3))
    for done, lines in ((2, one + two), (9, one + two + three), (0, "")):
        log.write_text(one + two + three + '{"ste')
        mend_log(log, done)
        assert log.read_text() == lines


def test_changed_data_models_or_templates_are_refused_on_resume_by_name_and_moved_ones_are_not(tmp_path):
    names = ("data.jsonl", "actor", "critic", "template")
    data, actor, critic, template = (tmp_path / name for name in names)
    template.write_text("{problem}\n")
    shutil.copy(ROOT / "tiny/test.jsonl", data)
    shutil.copytree(ROOT / "tiny/actor", actor)
    shutil.copytree(ROOT / "tiny/critic", critic)

    def flags(folder):
        return [
            "--model", folder / "actor", "--critics", folder / "critic", "--data", folder / "data.jsonl",
            "--template", folder / "template", "--n-problems", 0, "--prompts-per-step", 1, "--group-size", 2,
            "--max-new-tokens", 8, "--out", tmp_path / "run", "--steps"
        ]

    run("train.py", *flags(tmp_path), 1)
    files = {
        "--data": data, "--model": actor / "model.safetensors", "--critics": critic / "model.safetensors",
        "--template": template
    }
    for flag, path in files.items():
        before = path.read_bytes()
        if flag == "--data":
            path.write_bytes(before.replace(b'"answer": "', b'"answer": "9', 1))
        elif flag == "--template":
            path.write_bytes(before * 2)
        else:
            path.write_bytes(before[:-4] + bytes(4))
        error = run("train.py", *flags(tmp_path), 2, "--resume", code=2).stderr
        assert f"what {flag} names is not what the run" in error
        path.write_bytes(before)
    (tmp_path / "moved").mkdir()
    for path in (data, actor, critic, template):
        path.rename(tmp_path / "moved" / path.name)
    assert run("train.py", *flags(tmp_path / "moved"), 2, "--resume").stderr == ""


def test_a_full_disk_is_said_in_one_sentence_and_leaves_the_last_checkpoint_whole(tmp_path):
    out = tmp_path / "run"
    run("train.py", "--out", out, *FEW, "--steps", 1)
    before = {path: path.read_bytes() for path in (out / "checkpoint").rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # no file may grow beyond 1 MB
    try:
        error = run("train.py", "--out", out, *FEW, "--steps", 2, "--resume", code=1).stderr
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be written" in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before
    run("train.py", "--out", out, *FEW, "--steps", 2, "--resume")
    run("train.py", "--out", tmp_path / "whole", *FEW, "--steps", 2)
    assert_equal_models(tmp_path / "whole", out)


def test_wandb_offline_asks_for_no_login_and_a_resumed_run_goes_on_in_the_same_curves(tmp_path):
    out = tmp_path / "run"
    flags = [*FEW, "--eval-every", 2, "--wandb", "offline"]
    # in processes of their own: wandb's service outlives a run
    run("train.py", "--out", out, "--steps", 1, *flags, processes=1)
    name = (out / "wandb_id").read_text()
    run("train.py", "--out", out, "--steps", 2, *flags, "--resume", processes=1)
    names = [folder.name for folder in (out / "wandb").glob("offline-run-*")]
    assert len(names) == 2 and all(x.endswith(f"-{name}") for x in names)
    # what the second one logged: every metric in a section, histograms over all response tokens, a table
    logs = [path.read_bytes() for path in out.glob("wandb/offline-run-*/*.wandb")]
    (log,) = (log for log in logs if b"tokens/sigma" in log)
    metrics = rows(out)[-1]
    assert all(key.encode() in log for key in metrics if "/" in key)
    for key in ("rollout/reward_mean", "rollout/entropy", "masks/entropy_filtered_frac",
                "values/value_std_p50", "values/critic_corr", "policy/grad_norm", "policy/adv_std"):
        assert key.encode() in log and key.split("/")[1] in metrics
    histograms = re.findall(rb"tokens/(advantage|sigma)\x12\x06values.{2,6}?\[([\d,]+)\]", log, re.DOTALL)
    n_tokens = {name: sum(map(int, counts.split(b","))) for name, counts in histograms}
    assert n_tokens == dict.fromkeys([b"advantage", b"sigma"], 8 * metrics["response_len_mean"])
    tables = out.glob("wandb/offline-run-*/files/media/table/*.json")
    (table,) = (json.loads(path.read_text()) for path in tables)
    samples = [row for row in rows(out, "rollouts.jsonl") if row["step"] == 2]
    assert [dict(zip(table["columns"], row)) for row in table["data"]] == samples
