"""A run loses nothing to its surroundings: signals, a killed torchrun, a full disk, a dead wandb."""

import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from engine.checkpoint import require_space, saved_steps
from engine.errors import RunError
from engine.log import Log
from rollout import Problem, digests, tokenize
from tests.runs import FEW, ROOT, launcher, rows

STEP = [*FEW, "--max-new-tokens", "8", "--steps", "2", "--eval-every", "1"]


class BrokenWandb:
    """A wandb run whose service has died."""

    id = "x"

    def log(self, *args, **kwargs):
        raise BrokenPipeError("the service is gone")


def test_a_wandb_that_fails_during_a_run_is_said_once_and_left_out(tmp_path, world, capsys):
    log = Log(tmp_path, done=0, last_step=3, eval_key=None, wandb=BrokenWandb(), world=world)
    for step in (1, 2):
        log.write(step, {"some": 1.0})
    log.finish(seconds=1.0, steps=3)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]
    assert capsys.readouterr().err.count("wandb failed") == 1


@pytest.mark.slow
def test_wandb_writes_below_the_runs_folder_only(tmp_path):
    out, home = tmp_path / "run", "/proc/nowhere"
    clean = {key: x for key, x in os.environ.items() if not key.startswith("WANDB")}
    command = [sys.executable, "train.py", *STEP, "--wandb", "offline", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean | {"HOME": home})
    assert done.returncode == 0, done.stderr
    assert list((out / "wandb").rglob("*.wandb"))
    assert "wandb failed" not in done.stderr
    assert len(rows(out)) == 2


@pytest.mark.slow
def test_an_unreachable_wandb_server_is_a_sentence_before_the_folder_is_claimed(tmp_path):
    out = tmp_path / "run"
    environment = os.environ | {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    command = [sys.executable, "train.py", *STEP, "--wandb", "online", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "--wandb online failed" in done.stderr and "Traceback" not in done.stderr
    assert not (out / "config.json").exists()


def test_a_checkpoint_that_the_disk_cannot_hold_is_not_begun(tmp_path, actor, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(RunError, match="GiB free"):
        require_space(tmp_path / "step-1.new", {"actor": (actor, None)})


def test_prompts_that_change_with_the_date_change_the_digest_of_a_run(tokenizer):
    problems = [Problem("1+1", "2")]
    today, tomorrow = (tokenize(problems, f"On {day}: {{problem}}", tokenizer) for day in ("Monday", "Tuesday"))
    assert digests(today)[0] == digests(tomorrow)[0]
    assert digests(today)[1] != digests(tomorrow)[1]


# -- signals and a killed torchrun, with real processes ------------------------------------------------------------
FLAGS = [*FEW, "--max-new-tokens", "24", "--eval-every", "0", "--save-every", "0", "--steps", "400"]


def begin(out: Path, processes: int = 0, nohup: bool = False, *flags) -> subprocess.Popen:
    """Start train.py in a session of its own."""
    command = [*(["nohup"] if nohup else []), *launcher(processes), "train.py", *FLAGS, *flags, "--out", str(out)]
    log = out.with_suffix(".log").open("w")
    heed_hang_up = lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                            start_new_session=True, preexec_fn=heed_hang_up)


def wait_for(what, seconds: float = 120):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.1)
    return found


def n_steps(out: Path) -> int:
    return len(rows(out)) if (out / "metrics.jsonl").exists() else 0


def processes_of(out: Path) -> list[int]:
    """The processes with the run's folder on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(out).encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def is_saved(out: Path) -> bool:
    steps = saved_steps(out / "checkpoint")
    return bool(steps) and steps[-1] == rows(out)[-1]["step"]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_step_finish_and_saves_it(tmp_path, sent):
    out = tmp_path / "run"
    process = begin(out)
    wait_for(lambda: n_steps(out) >= 2)
    process.send_signal(sent)
    assert process.wait(60) == 128 + sent
    assert is_saved(out)


def goes_on_to(process: subprocess.Popen, out: Path, step: int) -> None:
    """The run reaches this step, and SIGTERM ends it as always."""
    wait_for(lambda: n_steps(out) >= step)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_hang_up_that_nohup_ignores_does_not_end_the_run(tmp_path):
    out = tmp_path / "run"
    process = begin(out, 0, True)
    wait_for(lambda: n_steps(out) >= 1)
    process.send_signal(signal.SIGHUP)
    seen = n_steps(out)
    goes_on_to(process, out, seen + 3)


@pytest.mark.slow
def test_a_hang_up_under_nohup_and_torchrun_saves_the_run(tmp_path):
    out = tmp_path / "run"
    process = begin(out, 2, True)
    wait_for(lambda: n_steps(out) >= 2)
    os.killpg(process.pid, signal.SIGHUP)
    process.wait(60)
    wait_for(lambda: not processes_of(out), 30)
    assert is_saved(out)


@pytest.mark.slow
def test_sigusr1_saves_a_checkpoint_and_the_run_goes_on(tmp_path):
    out = tmp_path / "run"
    process = begin(out)
    wait_for(lambda: n_steps(out) >= 1)
    assert not saved_steps(out / "checkpoint")
    process.send_signal(signal.SIGUSR1)
    saved = wait_for(lambda: saved_steps(out / "checkpoint"))[-1]
    goes_on_to(process, out, saved + 2)


@pytest.mark.slow
def test_a_stopped_and_continued_run_goes_on(tmp_path):
    out = tmp_path / "run"
    process = begin(out)
    wait_for(lambda: n_steps(out) >= 1)
    process.send_signal(signal.SIGSTOP)  # SIGTSTP, which a terminal sends, does the same and can be caught
    time.sleep(5)
    seen = n_steps(out)
    process.send_signal(signal.SIGCONT)
    goes_on_to(process, out, seen + 2)
    assert all(row["verify_failures"] == 0 for row in rows(out))


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["starting", "loading", "training"])
def test_a_killed_torchrun_takes_its_ranks_with_it(tmp_path, phase):
    out = tmp_path / "run"
    process = begin(out, 2)
    if phase == "starting":
        wait_for(lambda: len(processes_of(out)) >= 3)
    elif phase == "loading":
        wait_for(lambda: len(processes_of(out)) >= 3)
        time.sleep(6)
    else:
        wait_for(lambda: n_steps(out) >= 2)
    process.kill()
    process.wait()
    wait_for(lambda: not processes_of(out), 60)
    if phase == "training":
        assert is_saved(out)


@pytest.mark.slow
def test_the_same_command_starts_a_run_and_continues_it(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "train.py", *FLAGS, "--out", str(out), "--resume", "auto", "--steps"]
    for steps in ("1", "2"):
        done = subprocess.run([*command, steps], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert [row["step"] for row in rows(out)] == [1, 2]
