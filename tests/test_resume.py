"""A stopped, killed or cut run continues from its last checkpoint; a folder belongs to one run."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from engine.checkpoint import load_checkpoint, save_checkpoint, saved_steps
from engine.folder import Folder
from engine.log import mend_log
from engine.updates import adamw
from tests.runs import FEW, FORKS, ROOT, launch, launcher, rows, run, weights
from tests.synthetic import full_weights, same_weights

# a few responses and one pass over them
SHORT = [*FEW, "--max-new-tokens", 40, "--epochs", 1, "--critic-epochs", 1]


def assert_equal_models(a, b) -> None:
    assert weights(a).keys() == weights(b).keys()
    for name, expected in weights(a).items():
        assert torch.equal(expected, weights(b)[name]), name


def without_clock(folder) -> list[dict]:
    return [{k: v for k, v in m.items() if not re.search("time|per_s|memory", k)} for m in rows(folder)]


def test_half_a_run_resumed_equals_a_whole_one_to_the_last_bit(tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    (tmp_path / "test.jsonl").write_text('{"problem": "1+2+3", "answer": "6"}\n' * 4)
    flags = [*SHORT, "--eval-data", tmp_path / "test.jsonl"]
    run("train.py", "--out", whole, "--steps", 2, *flags)
    run("train.py", "--out", half, "--steps", 1, *flags)
    run("train.py", "--out", half, "--steps", 2, *flags, "--resume")
    assert_equal_models(whole, half)
    assert without_clock(half)[2:] == without_clock(whole)[2:]
    assert [m["step"] for m in rows(half)] == [0, 1, 2] and rows(half)[-1]["critic0/grad_norm"] > 0
    for wrong, sentence in (("--steps 6 --lr 1e-5", "has --lr"), ("--steps 1", "has done 2 steps")):
        done = run("train.py", "--out", half, *flags, "--resume", *wrong.split(), code=2)
        assert sentence in done.stderr


@pytest.mark.slow
def test_a_resumed_run_with_replay_is_the_undisturbed_run_to_the_last_bit(tmp_path):
    flags = ("--prompts-per-step 4 --group-size 4 --n-problems 50 --max-new-tokens 60 --epochs 1 --critic-epochs 1 "
             "--eval-every 0 --critic-replay 3 --eval-data").split() + [""]
    run("train.py", *flags, "--steps", 4, "--out", tmp_path / "whole")
    run("train.py", *flags, "--steps", 2, "--out", tmp_path / "parts")
    run("train.py", *flags, "--steps", 4, "--resume", tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(x, parts[name]) for name, x in whole.items())
    losses = [[row["critic0/loss"] for row in rows(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == losses[1] and len(set(losses[0])) == 4


@pytest.mark.slow
def test_a_seeded_run_is_the_same_to_the_last_bit_with_one_thread_and_with_two(tmp_path):
    for threads in ("1", "2"):
        command = [*launcher(0), "train.py", *map(str, SHORT), "--steps", "1", "--out", str(tmp_path / threads)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": threads})
        assert done.returncode == 0, done.stderr
    assert_equal_models(tmp_path / "1", tmp_path / "2")
    assert without_clock(tmp_path / "1") == without_clock(tmp_path / "2")



@pytest.mark.slow
def test_sigkill_at_random_moments_of_every_phase_changes_nothing(tmp_path):
    """Twelve kills: while starting, generating, fitting, updating, saving, and writing the final models."""
    hits = json.loads(launch("tests/kills.py", tmp_path, 12, 0).stdout)
    assert sum(hits.values()) == 12 and all(hits.values())
    assert_equal_models(tmp_path / "whole", tmp_path / "killed")
    assert without_clock(tmp_path / "whole") == without_clock(tmp_path / "killed")
    assert rows(tmp_path / "whole", "rollouts.jsonl") == rows(tmp_path / "killed", "rollouts.jsonl")
    # --keep 2, and nothing half-written stays
    assert sorted(path.name for path in (tmp_path / "killed/checkpoint").iterdir()) == ["step-13", "step-14"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_sigterm_lets_the_step_finish_and_be_saved_and_the_run_continues_from_there(tmp_path, processes):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    flags = [*map(str, SHORT), "--steps"]
    command = [*launcher(processes), "train.py", *flags, "500", "--out", stopped]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    for line in child.stdout:
        if line.startswith("step    1/"):
            child.send_signal(signal.SIGTERM)
            break
    rest, errors = child.communicate(timeout=100)
    stop = re.search(r"Stopped after step (\d+): SIGTERM.* --resume", rest)
    assert stop, errors
    assert child.returncode != 0 if processes else child.returncode == 143
    last = int(stop[1])
    assert [m["step"] for m in rows(stopped)] == list(range(1, last + 1)) and last < 20
    run("train.py", "--out", stopped, *flags, last + 1, "--resume", processes=processes)
    run("train.py", "--out", whole, *flags, last + 1, processes=processes)
    assert_equal_models(whole, stopped)
    assert without_clock(whole) == without_clock(stopped) and rows(whole)[-1]["critic0/grad_norm"] > 0


@pytest.mark.slow
def test_an_evaluation_that_a_stop_left_out_is_made_up_on_resume(tmp_path, around):
    (tmp_path / "test.jsonl").write_text('{"problem": "1+2", "answer": "3"}\n' * 20)
    flags = [*SHORT, "--eval-data", tmp_path / "test.jsonl", "--max-new-tokens", 24]
    flags += ["--eval-every", 1, "--steps", 2, "--out"]
    run("train.py", *flags, tmp_path / "whole")
    told = [True]
    around("train_step", before=lambda: told and os.kill(os.getpid(), signal.SIGTERM))
    run("train.py", *flags, tmp_path / "stopped", code=128 + signal.SIGTERM)
    told.clear()
    assert ["eval/test" in row for row in rows(tmp_path / "stopped")] == [True, False]
    run("train.py", *flags, tmp_path / "stopped", "--resume")
    expected, found = (
        [(row["step"], row["eval/test"]) for row in rows(tmp_path / name) if "eval/test" in row]
        for name in ("whole", "stopped"))
    assert found == expected and [step for step, _ in found] == [0, 1, 2]


# gloo's own words of the rank that waits, torchrun's of the dead rank
@pytest.mark.slow
@pytest.mark.parametrize(
    "fate, sentence", [("hangs", "Timed out waiting"), ("dies", r"rank +: 1 .*\n.*exitcode +: -9")])
def test_a_hanging_or_dead_rank_ends_the_job_and_leaves_the_last_checkpoint(tmp_path, fate, sentence):
    flags = [*FEW, "--save-every", 1, "--steps", 3, "--out", tmp_path]
    done = launch("tests/lost_rank.py", 1, fate, *flags, processes=2, code=None, timeout=300)
    assert re.search(sentence, done.stderr), done.stderr
    assert [m["step"] for m in rows(tmp_path)] == [1]
    assert saved_steps(tmp_path / "checkpoint") == [1]


@pytest.mark.slow
def test_a_run_that_has_lost_its_checkpoints_is_refused_and_keeps_its_log(tmp_path):
    out = tmp_path / "run"
    flags = [*SHORT, "--max-new-tokens", 8, "--save-every", 1, "--keep", 2, "--steps"]
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
    assert "starts at step 1" in said and [m["step"] for m in rows(out)] == [1]


def test_a_log_whose_last_line_was_cut_by_a_kill_is_mended_on_resume(tmp_path):
    log = tmp_path / "metrics.jsonl"
    one, two, three = (f'{{"step": {n}}}\n' for n in (1, 2, 3))
    for done, lines in ((2, one + two), (9, one + two + three), (0, "")):
        log.write_text(one + two + three + '{"ste')
        mend_log(log, done)
        assert log.read_text() == lines


@pytest.mark.slow
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
            "--max-new-tokens", 8, "--epochs", 1, "--critic-epochs", 1, "--out", tmp_path / "run", "--steps"]

    run("train.py", *flags(tmp_path), 1)
    files = {
        "--data": data, "--model": actor / "model.safetensors", "--critics": critic / "model.safetensors",
        "--template": template}
    for flag, path in files.items():
        before = path.read_bytes()
        if flag == "--data":
            path.write_bytes(before.replace(b'"answer": "', b'"answer": "9', 1))
        elif flag == "--template":
            path.write_bytes(before * 2)
        else:
            path.write_bytes(before[:-4] + bytes(4))
        error = run("train.py", *flags(tmp_path), 2, "--resume", code=2).stderr
        assert flag in error and "differs from the one" in error
        path.write_bytes(before)
    (tmp_path / "moved").mkdir()
    for path in (data, actor, critic, template):
        path.rename(tmp_path / "moved" / path.name)
    assert run("train.py", *flags(tmp_path / "moved"), 2, "--resume").stderr == ""


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_sentence_and_leaves_the_last_checkpoint_whole(tmp_path):
    out = tmp_path / "run"
    run("train.py", "--out", out, *SHORT, "--steps", 1)
    before = {path: path.read_bytes() for path in (out / "checkpoint").rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # no file may grow beyond 1 MB
    try:
        error = run("train.py", "--out", out, *SHORT, "--steps", 2, "--resume", code=1).stderr
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be written" in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before
    run("train.py", "--out", out, *SHORT, "--steps", 2, "--resume")
    assert [m["step"] for m in rows(out)] == [1, 2]


# -- wandb ---------------------------------------------------------------------------------------------------
class Recorder:
    """Stands in for a run of wandb."""

    def __init__(self, **settings):
        self.settings, self.id, self.rows, self.ended = settings, settings["id"], [], False

    def log(self, row: dict, step: int) -> None:
        self.rows.append({"step": step} | row)

    def finish(self, exit_code: int = 0) -> None:
        self.ended = True


@pytest.mark.slow
def test_wandb_gets_every_metric_in_a_section_with_histograms_and_samples(tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr("wandb.init", lambda **settings: runs.append(Recorder(**settings)) or runs[-1])
    flags = [*SHORT, "--eval-every", 2, "--wandb", "offline", "--out", tmp_path]
    run("train.py", "--steps", 1, *flags)
    run("train.py", "--steps", 2, *flags, "--resume")
    first, second = runs
    assert first.settings["id"] == second.settings["id"] and second.settings["resume"] == "allow"
    assert first.settings["config"]["lr"] > 0 and first.ended and second.ended
    logged, metrics = {}, rows(tmp_path)[-1]
    for row in second.rows:  # wandb merges the rows of a step
        assert row["step"] == 2
        logged |= row
    for key, x in metrics.items():
        assert logged[key if "/" in key or key == "step" else f"train/{key}"] == x
    for key in ("tokens/advantage", "tokens/sigma"):
        assert sum(logged[key].histogram) == pytest.approx(8 * metrics["response_len_mean"])
    samples = [row for row in rows(tmp_path, "rollouts.jsonl") if row["step"] == 2]
    assert [dict(zip(logged["rollouts"].columns, row)) for row in logged["rollouts"].data] == samples


@pytest.mark.slow
def test_wandb_offline_needs_no_login_and_a_resumed_run_keeps_its_id(tmp_path):
    flags = [*SHORT, "--eval-every", 2, "--wandb", "offline"]
    # in processes of their own: wandb's service outlives a run
    run("train.py", "--out", tmp_path, "--steps", 1, *flags, processes=1)
    name = (tmp_path / "wandb_id").read_text()
    run("train.py", "--out", tmp_path, "--steps", 2, *flags, "--resume", processes=1)
    folders = [folder.name for folder in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(folders) == 2 and all(folder.endswith(f"-{name}") for folder in folders)
    (table,) = (json.loads(path.read_text()) for path in tmp_path.glob("wandb/offline-run-*/files/media/table/*.json"))
    assert len(table["data"]) == len([row for row in rows(tmp_path, "rollouts.jsonl") if row["step"] == 2])


# -- the folder and its checkpoints --------------------------------------------------------------------------
def claim(path: Path, resumed: bool, results, barrier) -> None:
    """Claim a folder in a process, at once with others. None ends before all have tried."""
    folder = Folder(path, old_digests={} if resumed else None)
    barrier.wait()
    results.put(folder.claim())
    barrier.wait()


@pytest.mark.parametrize("state", ["none yet", "to be resumed", "empty"])
def test_of_runs_that_begin_at_once_one_gets_the_folder(tmp_path, state):
    path, resumed = tmp_path / "runs/run", state == "to be resumed"
    if state != "none yet":
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}" if resumed else "")  # empty: killed between claim and write
    results, barrier = FORKS.Queue(), FORKS.Barrier(3)
    claims = [FORKS.Process(target=claim, args=(path, resumed, results, barrier)) for _ in range(3)]
    for process in claims:
        process.start()
    assert sorted(results.get(timeout=60) for _ in claims) == [False, False, True]
    for process in claims:
        process.join()
    # the lock of a dead process is no claim
    assert Folder(path, old_digests={} if resumed else None).claim()


@pytest.mark.parametrize("file", [".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("how", ["gone", "half"])
def test_a_cut_checkpoint_is_named_and_the_one_before_it_used(
        new_critics, world, tmp_path, capfd, how, file):
    def model() -> dict:
        (critic,) = new_critics(1)
        return {"critic": (critic, adamw(critic, 1e-3))}

    before, models = {}, model()
    critic, optimizer = models["critic"]
    for step in (1, 2, 3):
        before[step] = full_weights(critic)
        save_checkpoint(tmp_path, models, step, keep=2, world=world)
        for p in critic.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    for name in ("step-1-backup1", "step-", "step-04", "step-9.new", "step-8 (copy) 7"):
        (tmp_path / name).mkdir()  # files of the user
    last = tmp_path / "step-3"
    (last / file).unlink() if how == "gone" else os.truncate(last / file, (last / file).stat().st_size // 2)
    models = model()
    assert load_checkpoint(tmp_path, models, world) == 2
    assert same_weights(full_weights(models["critic"][0]), before[2])
    assert {state["step"].item() for state in models["critic"][1].state.values()} == {1}
    error = capfd.readouterr().err
    assert f"{last} cannot be read" in error and "continuing from step 2" in error
    assert "Traceback" not in error
    save_checkpoint(tmp_path, models, 3, keep=1, world=world)
    assert saved_steps(tmp_path) == [3] and (tmp_path / "step-1-backup1").exists()
    assert load_checkpoint(tmp_path, model(), world) == 3
