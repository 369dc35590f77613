"""Logging never ends a run, and nothing is written before it is known to work."""

import os
import subprocess
import sys
from collections import namedtuple

import pytest

from engine.checkpoint import require_space
from engine.errors import RunError
from engine.log import Log
from rollout import Problem, digests, tokenize
from tests.runs import FEW, ROOT, rows

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
