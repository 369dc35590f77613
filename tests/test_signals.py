"""What ends a run early loses nothing: signals and a killed torchrun, with real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.checkpoint import saved_steps
from tests.runs import FEW, ROOT, launcher, rows

pytestmark = pytest.mark.slow
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


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_step_finish_and_saves_it(tmp_path, sent):
    out = tmp_path / "run"
    process = begin(out)
    wait_for(lambda: n_steps(out) >= 2)
    process.send_signal(sent)
    assert process.wait(60) == 128 + sent
    assert is_saved(out)


def test_a_hang_up_that_nohup_ignores_does_not_end_the_run(tmp_path):
    out = tmp_path / "run"
    process = begin(out, 0, True)
    wait_for(lambda: n_steps(out) >= 1)
    process.send_signal(signal.SIGHUP)
    seen = n_steps(out)
    wait_for(lambda: n_steps(out) >= seen + 3)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM


def test_a_hang_up_under_nohup_and_torchrun_saves_the_run(tmp_path):
    out = tmp_path / "run"
    process = begin(out, 2, True)
    wait_for(lambda: n_steps(out) >= 2)
    os.killpg(process.pid, signal.SIGHUP)
    process.wait(60)
    wait_for(lambda: not processes_of(out), 30)
    assert is_saved(out)


def test_sigusr1_saves_a_checkpoint_and_the_run_goes_on(tmp_path):
    out = tmp_path / "run"
    process = begin(out)
    wait_for(lambda: n_steps(out) >= 1)
    assert not saved_steps(out / "checkpoint")
    process.send_signal(signal.SIGUSR1)
    saved = wait_for(lambda: saved_steps(out / "checkpoint"))[-1]
    wait_for(lambda: n_steps(out) >= saved + 2)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM


def test_a_stopped_and_continued_run_goes_on(tmp_path):
    out = tmp_path / "run"
    process = begin(out)
    wait_for(lambda: n_steps(out) >= 1)
    process.send_signal(signal.SIGSTOP)  # SIGTSTP, which a terminal sends, does the same and can be caught
    time.sleep(5)
    seen = n_steps(out)
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: n_steps(out) >= seen + 2)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert all(row["verify_failures"] == 0 for row in rows(out))


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


def test_the_same_command_starts_a_run_and_continues_it(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "train.py", *FLAGS, "--out", str(out), "--resume", "auto", "--steps"]
    for steps in ("1", "2"):
        done = subprocess.run([*command, steps], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert [row["step"] for row in rows(out)] == [1, 2]
