"""The logs of a run: metrics.jsonl, rollouts.jsonl, inside/, wandb and one printed line for each step."""

import math
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Callable

import numpy as np
import torch

from engine.batch import Rollout
from engine.distributed import World, gather_list
from engine.errors import run_error, user_error
from engine.files import append_rows, jsonl, replace_text, whole_rows

GROUPS_SAVED = 4  # in inside/step-N.npz


def start_wandb(folder: Path, mode: str, settings: dict):
    """Start or continue a wandb run whose files all lie in folder. -> the run, or None if mode is disabled

    Raises if the key, the login or the server fails, before models are loaded.
    """
    if mode == "disabled":
        return None
    import wandb

    folder = folder.absolute()
    os.environ.setdefault("WANDB_DIR", str(folder))  # wandb makes wandb/ in it
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):  # the home folder may not be writable
        os.environ.setdefault(name, str(folder / "wandb"))
    id_file = folder / "wandb_id"  # a resumed run continues the same curves
    run_id = id_file.read_text() if id_file.exists() else secrets.token_hex(4)
    with user_error(f"--wandb {mode} failed; check `wandb login` and the server, or use --wandb offline", Exception):
        if mode == "online" and not wandb.login(prompt=False, verify=True):  # a prompt would block a job
            raise ValueError("no login is known here")
        (folder / "wandb").mkdir(parents=True, exist_ok=True)
        return wandb.init(project="asyppo", id=run_id, resume="allow", mode=mode, config=settings)


def mend_log(path: Path, done: int) -> None:
    """Drop the rows that a killed run wrote after its checkpoint at step `done`; all rows if done is 0."""
    replace_text(path, jsonl(row for row in whole_rows(path) if done and row["step"] <= done))


class Log:
    """Only rank 0 writes. eval_key: the metric name of the held-out accuracy, or None. wandb: its run, or None."""

    def __init__(self, folder: Path, done: int, last_step: int, eval_key: str | None, wandb, world: World):
        self.folder, self.last_step, self.eval_key, self.world = folder, last_step, eval_key, world
        self.wandb = wandb
        if not world.is_main:
            return
        for name in ("metrics.jsonl", "rollouts.jsonl"):
            mend_log(folder / name, done)
        for path in folder.glob("inside/step-*[0-9].npz"):
            if int(path.stem[5:]) > done:
                path.unlink()
        if wandb:
            (folder / "wandb_id").write_text(wandb.id)

    def tell_wandb(self, action: Callable) -> None:
        """Call action(wandb's run). A failure never ends the run: it turns wandb off."""
        if self.wandb:
            try:
                action(self.wandb)
            except Exception as error:
                print(f"wandb failed and is off from now on; metrics.jsonl has everything ({error})", file=sys.stderr)
                self.wandb = None

    def is_evaluated(self, step: int) -> bool:
        """Return whether the held-out accuracy after this step is in the log. Collective."""
        rows = whole_rows(self.folder / "metrics.jsonl") if self.world.is_main else []
        logged = any(row["step"] == step and self.eval_key in row for row in rows)
        return gather_list([logged], self.world)[0]

    def write(self, step: int, metrics: dict[str, float], samples: list[dict] = ()) -> None:
        """Append a step to the files and print it. Values that are not finite are left out."""
        if self.world.is_main:
            metrics = {key: x for key, x in metrics.items() if math.isfinite(x)}
            append_rows(self.folder / "metrics.jsonl", [{"step": step} | metrics])
            append_rows(self.folder / "rollouts.jsonl", samples)
            sections = {key if "/" in key else f"train/{key}": x for key, x in metrics.items()}
            self.tell_wandb(lambda run: run.log(sections, step=step))
            print(readable(step, self.last_step, metrics), flush=True)

    def save_tokens(self, step: int, rollout: Rollout, data: dict, new_logp_BT, samples: list[dict]) -> None:
        """Write inside/step-N.npz: every per-token tensor of the first groups, for experiments/inside/.

        data: name -> [B, T] of the policy's update. wandb gets histograms over all tokens, and the samples.
        """
        if not self.world.is_main:
            return
        arrays = vars(rollout) | data | {"new_logp_BT": new_logp_BT}
        arrays["answers"] = [answer or "" for answer in rollout.answers]
        del arrays["old_logp"]  # rollout.old_logp_BT
        n, path = int((rollout.group_B < GROUPS_SAVED).sum()), self.folder / f"inside/step-{step}.npz"
        cut = {key: x[:, :n] if "_MB" in key else x[:n] for key, x in arrays.items() if x is not None}
        with run_error(path):
            path.parent.mkdir(exist_ok=True)
            np.savez_compressed(new := path.with_suffix(".new.npz"), **cut)
            new.replace(path)

        def media(run) -> None:
            import wandb

            tokens = {"tokens/advantage": data["advantage"]}
            if rollout.values_MBT is not None:
                tokens["tokens/sigma"] = rollout.values_MBT.std(0, correction=0)
            shown = {key: wandb.Histogram(x_BT[rollout.mask_BT]) for key, x_BT in tokens.items()}
            shown["rollouts"] = wandb.Table(list(samples[0]), [[*sample.values()] for sample in samples])
            run.log(shown, step=step)

        self.tell_wandb(media)

    def save_bad_step(self, step: int, rollout: Rollout, data: dict) -> None:
        """Write bad-step-N.pt, all tensors of a step with a gradient that is not finite."""
        if self.world.is_main:
            with run_error(self.folder / f"bad-step-{step}.pt") as path, path.open("wb") as file:
                torch.save(vars(rollout) | data, file)

    def stop(self, step: int, why: str) -> None:
        if self.world.is_main:
            self.tell_wandb(lambda run: run.finish(exit_code=1))
            print(f"Stopped after step {step}: {why}. Everything is saved; continue with the same command and "
                  f"--resume {self.folder}.")

    def finish(self, seconds: float, steps: int) -> None:
        if not self.world.is_main:
            return
        self.tell_wandb(lambda run: run.finish())
        rows = whole_rows(self.folder / "metrics.jsonl")
        accuracies = [row[self.eval_key] for row in rows if self.eval_key in row]
        reached = f"held-out accuracy {accuracies[0]:.1%} → {accuracies[-1]:.1%}; " if accuracies else ""
        print(f"Finished step {self.last_step} after {seconds / 60:.1f} minutes: {reached}"
              f"models, checkpoint, metrics and rollouts are in {self.folder}.\nNext: train on with the same "
              f"command and --resume {self.folder} --steps {2 * steps}, or score the actor with evaluate.py "
              f"--model {self.folder}/model.")


def readable(step: int, last_step: int, metrics: dict[str, float]) -> str:
    """Return a step as one line."""
    parts = [f"step {step:>4}/{last_step}"]
    if "reward_mean" in metrics:
        if "policy_loss" not in metrics:
            parts.append("actor not updated")
        parts.append(f"reward {metrics['reward_mean']:.3f}  length {metrics['response_len_mean']:.1f}")
        shown = (("entropy", "entropy", 3), ("kl", "approx_kl", 4), ("clip", "clip_frac", 3))
        parts += [f"{name} {metrics[key]:.{digits}f}" for name, key, digits in shown if key in metrics]
        if n := metrics["skipped_updates"]:
            parts.append(f"{n} updates SKIPPED (gradient not finite; see bad-step-{step}.pt)")
        if metrics["truncated_frac"] > 0.1:  # few of these can be right (TRL#5697)
            parts.append(f"{metrics['truncated_frac']:.0%} TRUNCATED by --max-new-tokens")
        variances = [x for key, x in metrics.items() if re.fullmatch(r"critic\d+/explained_variance", key)]
        if variances:
            parts.append("explained " + "/".join(f"{v:.2f}" for v in variances))
        if "value_std_p50" in metrics:
            parts.append(f"σ {metrics['value_std_p50']:.3f}")
        parts.append(f"{metrics['time/step']:.1f} s")
    parts += [f"{key[5:]} accuracy {value:.1%}" for key, value in metrics.items() if key.startswith("eval/")]
    return "  ".join(parts)
