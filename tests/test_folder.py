"""A folder belongs to one run, and of its checkpoints the last whole one counts."""

import os
from pathlib import Path

import pytest
import torch

from distributed import load_checkpoint, save_checkpoint, saved_steps
from folder import Folder
from tests.runs import FORKS
from tests.synthetic import full_weights, same_weights
from updates import adamw

N = 3


def claim(path: Path, named: bool, resumed: bool, results, barrier) -> None:
    """In a process of its own, at once with others, none of which ends before all have tried."""
    folder = Folder(path, old_digests={} if resumed else None)
    barrier.wait()
    results.put(str(folder.claim(named)))
    barrier.wait()


@pytest.mark.parametrize(
    "named, state", [(True, "none yet"), (True, "to be resumed"), (False, "none yet"), (False, "empty")]
)
def test_of_runs_that_begin_at_once_one_gets_a_given_folder_and_each_a_default_one(tmp_path, named, state):
    path, resumed = tmp_path / "runs/run", state == "to be resumed"
    if state != "none yet":
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}" if resumed else "")  # empty: killed between claim and write
    results, barrier = FORKS.Queue(), FORKS.Barrier(N)
    runs = [FORKS.Process(target=claim, args=(path, named, resumed, results, barrier)) for _ in range(N)]
    for each in runs:
        each.start()
    found = sorted(results.get(timeout=60) for _ in runs)
    for each in runs:
        each.join()
    if named:
        assert found == sorted(["None"] * (N - 1) + [str(path)])
        # what a killed one leaves is no claim
        assert Folder(path, old_digests={} if resumed else None).claim(named=True) == path
    else:
        assert found == [str(path), *(f"{path}-{n}" for n in range(2, N + 1))]


@pytest.mark.parametrize("file", [".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("how", ["gone", "half"])
def test_a_cut_checkpoint_is_named_and_the_one_before_it_used(new_critics, world, tmp_path, capfd, how, file):
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
        (tmp_path / name).mkdir()  # what others put there
    last = tmp_path / "step-3"
    (last / file).unlink() if how == "gone" else os.truncate(last / file, (last / file).stat().st_size // 2)
    models = model()
    assert load_checkpoint(tmp_path, models, world) == 2
    assert same_weights(full_weights(models["critic"][0]), before[2])
    assert {state["step"].item() for state in models["critic"][1].state.values()} == {1}
    error = capfd.readouterr().err
    assert f"{last} cannot be read" in error and "going on from step 2" in error and "Traceback" not in error
    save_checkpoint(tmp_path, models, 3, keep=1, world=world)
    assert saved_steps(tmp_path) == [3] and (tmp_path / "step-1-backup1").exists()
    assert load_checkpoint(tmp_path, model(), world) == 3
