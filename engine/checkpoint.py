"""Checkpoints of all models and optimizers, readable by any number of processes (torch.distributed.checkpoint)."""

import logging
import shutil
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from engine.batch import Rollout
from engine.distributed import World, raise_on_all_ranks
from engine.errors import RunError, first_cause, free_space, require, run_error
from engine.files import replace_text

Trained = dict[str, tuple[nn.Module, torch.optim.Optimizer]]  # name -> model and its optimizer


def save_checkpoint(folder: Path, models: Trained, step: int, keep: int, world: World, replay: list = ()) -> None:
    """Write folder/step-N, renamed into place when it is complete; keep the last `keep`. Collective.

    replay: rollouts that the next steps fit critics on.
    """
    new = folder / f"step-{step}.new"
    with raise_on_all_ranks(world), run_error(new):
        if world.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(new, ignore_errors=True)
            require_space(new, models)
    with run_error(new):
        dcp.save(state_dicts(models), checkpoint_id=new)
        if replay and world.is_main:
            with (new / "replay.pt").open("wb") as file:  # torch.save to a path hides a full disk behind RuntimeError
                torch.save([vars(rollout) for rollout in replay], file)
    if world.is_main:
        new.rename(folder / f"step-{step}")
        replace_text(folder.with_name("saved"), f"{step}\n")  # shows later that a checkpoint was lost
        for old in saved_steps(folder)[:-keep]:
            shutil.rmtree(folder / f"step-{old}", ignore_errors=True)
    dist.barrier()


def require_space(path: Path, models: Trained) -> None:
    """Raise before a checkpoint is begun that the disk cannot hold."""
    size = 12 * sum(p.numel() for model, _ in models.values() for p in model.parameters())  # weights, two moments
    if shutil.disk_usage(path.parent).free < size:
        raise RunError(f"{path}: the checkpoint needs {size / 2**30:.2f} GiB, but {free_space(path)}. Make room, then "
                       "continue with --resume.")


def saved_steps(folder: Path) -> list[int]:
    """Return the steps of the folder's checkpoints in order; other names are ignored."""
    return sorted(int(path.name[5:]) for path in folder.glob("step-[1-9]*") if path.name[5:].isdecimal())


def load_checkpoint(folder: Path, models: Trained, world: World, replay: list | None = None) -> int:
    """Fill models, optimizers and replay from the last readable checkpoint. -> its step, or 0 if there is none

    An unreadable checkpoint is renamed, with a message, and the one before it is used.
    """
    unreadable = {}
    for step in reversed(saved_steps(folder)):
        path, state = folder / f"step-{step}", state_dicts(models)
        logging.disable(logging.WARNING)  # dcp prints the trace of the error that it raises, on all ranks
        try:
            dcp.load(state, checkpoint_id=path)
            replay_file = path / "replay.pt"
            rollouts = [Rollout(**x) for x in torch.load(replay_file)] if replay_file.exists() else []
        except (Exception, CheckpointException) as error:
            unreadable[path] = first_cause(error)
            continue
        finally:
            logging.disable(logging.NOTSET)
        for pair, saved in zip(models.values(), state.values()):
            set_state_dict(*pair, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])
        if replay is not None:
            replay[:] = rollouts
        for path, why in unreadable.items() if world.is_main else ():
            aside = path.rename(f"{path}.cut-{time.time():.0f}")
            print(f"{path} cannot be read ({why!r}) and is now {aside}; continuing from step {step}.", file=sys.stderr)
        return step
    require(not unreadable,
            f"--resume: no checkpoint in {folder} can be read ({'; '.join(map(repr, unreadable.values()))}); "
            "start a new run in another --out.")
    if world.is_main:
        print(f"{folder} holds no checkpoint yet: the run starts at step 1.", file=sys.stderr)
    return 0


def state_dicts(models: Trained) -> dict[str, dict]:
    """Return name -> {model, optimizer} with sharded state dicts."""
    new_optimizers = [optimizer for _, optimizer in models.values() if not optimizer.state]
    states = {name: dict(zip(("model", "optimizer"), get_state_dict(*x))) for name, x in models.items()}
    # get_state_dict creates a missing state by an empty step, which AdamW must not count
    for optimizer in new_optimizers:
        for state in optimizer.state.values():
            state["step"].zero_()
    return states
