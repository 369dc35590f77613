"""A run can be stopped, killed, moved or cut off at any moment, and goes on from its last checkpoint."""

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch

import train
from folder import finished_rows
from tests.conftest import ROOT
from tests.forks import run_forked
from tests.runs import rows, run_here, run_ranks, weights

# a few responses a step, for tests in which many runs start
FEW = ["--prompts-per-step", 2, "--group-size", 4, "--n-problems", 50, "--eval-data", ""]


def assert_equal_models(a, b) -> None:
    assert weights(a).keys() == weights(b).keys()
    for name, expected in weights(a).items():
        assert torch.equal(expected, weights(b)[name]), name


def without_clock(folder) -> list[dict]:
    return [{k: v for k, v in m.items() if not re.search("time|per_s|memory", k)} for m in rows(folder)]


def refusal(capsys, *flags) -> tuple[int, str]:
    code = train.main([str(flag) for flag in flags])
    return code, capsys.readouterr().err


def test_half_a_run_resumed_equals_a_whole_one_to_the_last_bit(tmp_path, capsys):
    whole, half = tmp_path / "whole", tmp_path / "half"
    (tmp_path / "test.jsonl").write_text('{"problem": "1+2+3", "answer": "6"}\n' * 4)
    flags = [*FEW, "--eval-data", tmp_path / "test.jsonl"]
    run_here(whole, "--steps", 4, *flags)
    run_here(half, "--steps", 2, *flags)
    run_here(half, "--steps", 4, *flags, "--resume")
    assert_equal_models(whole, half)
    assert [m for m in without_clock(half) if m["step"] > 2] == [m for m in without_clock(whole) if m["step"] > 2]
    assert [m["step"] for m in rows(half)] == [0, 1, 2, 3, 4]
    for wrong, sentence in ((["--steps", 6, "--lr", "1e-5"], "has --lr"), (["--steps", 3], "has done more than 3 steps")):
        code, error = refusal(capsys, "--out", half, *flags, "--resume", *wrong)
        assert code == 2 and sentence in error


def test_sigkill_at_random_moments_of_every_phase_changes_nothing(tmp_path):
    """Twenty kills: while starting, generating, fitting, updating, saving, and writing the final models."""
    done = run_forked("tests/kills.py", tmp_path, 20, 0)
    assert done.returncode == 0, done.stderr
    hits = json.loads(done.stdout)
    assert sum(hits.values()) == 20 and all(hits.values())
    assert_equal_models(tmp_path / "whole", tmp_path / "killed")
    assert without_clock(tmp_path / "whole") == without_clock(tmp_path / "killed")
    assert rows(tmp_path / "whole", "rollouts.jsonl") == rows(tmp_path / "killed", "rollouts.jsonl")
    # --keep 2, and nothing half-written stays
    assert sorted(path.name for path in (tmp_path / "killed/checkpoint").iterdir()) == ["step-13", "step-14"]


@pytest.mark.parametrize("processes", [0, 2])
def test_a_run_that_is_told_to_stop_finishes_its_step_saves_and_goes_on_where_it_was(tmp_path, processes):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    flags = [*FEW, "--steps"]
    launcher = [sys.executable]
    if processes:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    child = subprocess.Popen(
        [*launcher, "train.py", *map(str, flags), "500", "--out", stopped], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
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
    run = partial(run_ranks, processes=processes) if processes else run_here
    run(stopped, *flags, last + 2, "--resume")
    run(whole, *flags, last + 2)
    assert_equal_models(whole, stopped)
    assert without_clock(whole) == without_clock(stopped)


def test_a_checkpoint_of_two_processes_goes_on_with_one_and_with_four_and_one_of_one_with_two(tmp_path):
    """Nothing is learned after the resume, so that the weights that come out are those that went in."""
    two = tmp_path / "two"
    run_ranks(two, *FEW, "--steps", 1, processes=2)
    for name, run in (("one", run_here), ("four", partial(run_ranks, processes=4))):
        moved = tmp_path / name
        shutil.copytree(two, moved)
        shutil.rmtree(moved / "model")
        run(moved, *FEW, "--steps", 1, "--resume")
        assert_equal_models(two, moved)
    run_here(tmp_path / "one", *FEW, "--steps", 2, "--resume")
    assert [m["step"] for m in rows(tmp_path / "one")] == [1, 2]
    # and back
    shutil.copytree(tmp_path / "one", tmp_path / "two again")
    shutil.rmtree(tmp_path / "two again/model")
    run_ranks(tmp_path / "two again", *FEW, "--steps", 2, "--resume", processes=2)
    assert_equal_models(tmp_path / "one", tmp_path / "two again")


@pytest.mark.parametrize("how, sentence", [("hangs", "rank 1 does not answer"), ("dies", r"rank +: 1 .*\n.*exitcode +: -9")])
def test_a_hanging_or_dead_rank_ends_the_job_and_is_named(tmp_path, how, sentence):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         "tests/lost_rank.py", "1", how, *map(str, FEW), "--save-every", "1", "--timeout", "0.2", "--steps", "3", "--out",
         tmp_path / "run"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0 and re.search(sentence, done.stderr), done.stderr
    assert [m["step"] for m in rows(tmp_path / "run")] == [1]
    assert train.saved_steps(tmp_path / "run/checkpoint") == [1]


def test_a_log_whose_last_line_was_cut_by_a_kill_is_mended_on_resume(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    assert finished_rows(log, 2) == ['{"step": 1}\n', '{"step": 2}\n']
    assert finished_rows(log, 9) == ['{"step": 1}\n', '{"step": 2}\n', '{"step": 3}\n']


def test_changed_data_or_models_are_refused_on_resume_by_name(tmp_path, capsys):
    data, actor, critic = tmp_path / "data.jsonl", tmp_path / "actor", tmp_path / "critic"
    shutil.copy(ROOT / "tiny/test.jsonl", data)
    shutil.copytree(ROOT / "tiny/actor", actor)
    shutil.copytree(ROOT / "tiny/critic", critic)
    flags = ["--model", actor, "--critics", critic, "--data", data, "--n-problems", 0, "--prompts-per-step", 1, "--group-size", 2,
             "--max-new-tokens", 8, "--out", tmp_path / "run", "--steps"]  # fmt: skip
    assert train.main([*map(str, flags), "1"]) == 0
    for flag, path in (("--data", data), ("--model", actor / "model.safetensors"), ("--critics", critic / "model.safetensors")):
        before = path.read_bytes()
        if flag == "--data":
            path.write_bytes(before.replace(b'"answer": "', b'"answer": "9', 1))
        else:
            path.write_bytes(before[:-4000] + bytes(4000))
        code, error = refusal(capsys, *flags, 2, "--resume")
        assert code == 2 and f"what {flag} names is not what the run" in error
        path.write_bytes(before)
    assert refusal(capsys, *flags, 2, "--resume") == (0, "")


def test_a_full_disk_is_said_in_one_sentence_and_leaves_the_last_checkpoint_whole(tmp_path, capsys):
    out = tmp_path / "run"
    run_here(out, *FEW, "--steps", 1)
    before = {path: path.read_bytes() for path in (out / "checkpoint").rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # no file may grow beyond 1 MB
    try:
        code, error = refusal(capsys, *FEW, "--steps", 2, "--out", out, "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1 and "could not be written" in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before
    run_here(out, *FEW, "--steps", 2, "--resume")
    run_here(tmp_path / "whole", *FEW, "--steps", 2)
    assert_equal_models(tmp_path / "whole", out)


def test_wandb_offline_asks_for_no_login_and_a_resumed_run_goes_on_in_the_same_curves(tmp_path):
    out = tmp_path / "run"
    flags = [*FEW, "--wandb", "offline"]
    run_ranks(out, "--steps", 1, *flags, processes=0)
    name = (out / "wandb_id").read_text()
    run_ranks(out, "--steps", 2, *flags, "--resume", processes=0)
    runs = [folder.name for folder in (out / "wandb").glob("offline-run-*")]
    assert len(runs) == 2 and all(run.endswith(f"-{name}") for run in runs)
