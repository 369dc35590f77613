"""The folder of a run or an evaluation: made once, found again with the same settings, and what it holds.

Every write leaves either the old or the new file whole, or adds lines whose last may be cut by a kill.
"""

import argparse
import datetime
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import resource
import secrets
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Iterable, Iterator

import numpy as np
import torch

from asyppo import disagreement
from distributed import World, gather_list, reading, refuse, replace_text, saved_steps, together, writing
from rollout import Problem, Rollout

HERE = Path(__file__).resolve().parent
GROUPS_SHOWN = 4  # that inside/step-N.npz holds
PACKAGES = ("torch", "transformers", "math-verify", "numpy")


@dataclass
class Folder:
    """A run's folder, and the digests of models and data with which a run that goes on in it began.

    generate_batch: the flag's; where it is auto, a resumed run's number: another would draw other responses.
    """

    path: Path
    old_digests: dict[str, str] | None = None
    generate_batch: int | str = "auto"
    config: IO | None = None  # rank 0's config.json, held open for its lock

    def begin(self, args: argparse.Namespace, digests: dict[str, str], world: World) -> None:
        """Claim the folder and write config.json: every setting, the code's commit where git knows it, the
        packages' versions, and digests of what flags name. A resumed run must find the same digests there."""
        for flag in digests:
            refuse(len(set(gather_list([digests[flag]], world))) > 1,
                   f"{flag} names different things on the machines of the run; give all of them the same.")
        for flag in [*digests, *self.old_digests] if self.old_digests is not None else ():
            refuse(digests.get(flag) != self.old_digests.get(flag),
                   f"--resume: what {flag} names is not what the run in {self.path} began with; put the old "
                   "back, or start a new run in another --out.")
        refuse([*digests] != [*(self.old_digests or digests)],
               "--resume: name the same things in the same order as when the run began.")
        with together(world):
            path = world.is_main and self.claim(bool(args.out))
        path = gather_list([path], world)[0]
        refuse(path is None, TAKEN.format(self.path))
        self.path = path
        if world.is_main and self.old_digests is None:
            config = {
                "settings": settings_of(args) | {"out": str(self.path)},
                "world_size": world.size, "git_commit": git_commit(),
                "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
                "digests": digests,
            }
            with reading(f"--out {path} cannot be written; name another folder"):
                print(json.dumps(config, indent=2), file=self.config, flush=True)

    def claim(self, named: bool) -> Path | None:
        """Make the folder this process's alone until it ends. -> its path, or None; the next free one if it
        has a default name and another run began in the same second"""
        for path in [self.path, *(Path(f"{self.path}-{n}") for n in range(2, 2 if named else 100))]:
            with reading(f"--out {path} cannot be written; name another folder"):
                path.mkdir(parents=True, exist_ok=True)
                self.config, taken = (path / "config.json").open("a+"), False
                try:
                    fcntl.lockf(self.config, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:  # not every file system has locks
                    taken = error.errno in (errno.EACCES, errno.EAGAIN)
            if not taken and (self.old_digests is not None or not os.fstat(self.config.fileno()).st_size):
                return path
        return None


TAKEN = "--out {} holds another run; give a new folder, or go on with --resume once nobody is at work there."


def open_folder(args: argparse.Namespace, name: str, free: set[str], world: World) -> Folder:
    """The folder --out, by default runs/NAME-TIME. Refused are one that holds another run or cannot be
    written; on --resume one that holds none, has lost its checkpoint, or has other settings than these, but
    for those in `free` and those whose digests `begin` compares."""
    out = gather_list([args.out or Path(f"runs/{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}")], world)[0]
    config, batch, digests = out / "config.json", args.generate_batch, None
    with reading(f"--out {out} cannot be written; name another folder"):
        refuse(out.is_file(), f"--out {out} is a file; name a folder.")
        refuse(out == Path() and not args.resume, "--out is the working directory; name a folder of its own.")
        refuse(args.out and not args.resume and config.exists() and config.stat().st_size, TAKEN.format(out))
        there = next(path for path in (out, *out.parents) if path.exists() or path.is_symlink())
        with tempfile.TemporaryDirectory(dir=there) as trial:
            (Path(trial) / out.relative_to(there)).mkdir(parents=True, exist_ok=True)
            trials = gather_list([there / Path(trial).name], world)
            shared = min(gather_list([trials[0].exists()], world))
    refuse(not shared,
           f"--out {out} is not the same folder on every machine; name one on a disk that all of them share.")
    if args.resume:
        with reading(f"--resume: {out} holds no run; start one without --resume", KeyError, TypeError):
            old = json.loads(config.read_text())
            before, digests = old["settings"], old["digests"]
        batch = before.get("generate_batch", batch) if batch == "auto" else batch
        by_digest = {flag.split()[0] for flag in digests}  # what these name may have moved
        for key, value in settings_of(args).items():
            flag = "--" + key.replace("_", "-")
            refuse(key not in free and flag not in by_digest and value != before.get(key),
                   f"--resume: the run in {out} has {flag} {before.get(key)}, not {value}; give the same "
                   "settings, or start a new run in another --out.")
        refuse((out / "saved").exists() and not saved_steps(out / "checkpoint"),
               f"--resume: the run in {out} was saved, but its checkpoint is gone; put it back, or start a "
               "new run in another --out.")
    return Folder(out, digests, batch)


def settings_of(args: argparse.Namespace) -> dict:
    """The flags' values as JSON can hold them."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}


def git_commit() -> str | None:
    git = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(git, cwd=HERE, capture_output=True, text=True) if shutil.which("git") else None
    return done.stdout.strip() or None if done else None


def digest(problems: list[Problem]) -> str:
    """Tells a list of problems from any other one."""
    return hashlib.sha256(json.dumps([[p.problem, p.answer] for p in problems]).encode()).hexdigest()


def whole_rows(path: Path) -> list[dict]:
    """The rows of a .jsonl file, up to one that a kill has cut; none if there is no such file."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def append_rows(path: Path, rows: Iterable[dict]) -> None:
    with writing(path), path.open("a") as file:
        file.write(jsonl(rows))


def mend_log(path: Path, done: int) -> None:
    """Cut off what a killed run logged after its checkpoint at step `done`; all, where there is none and the
    run begins again with the evaluation before step 1."""
    replace_text(path, jsonl(row for row in whole_rows(path) if done and row["step"] <= done))


def jsonl(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


class Log:
    """metrics.jsonl, rollouts.jsonl, inside/, wandb and the line a step; only rank 0 writes."""

    def __init__(self, args: argparse.Namespace, folder: Path, world: World, done: int):
        self.args, self.folder, self.is_main = args, folder, world.is_main
        self.eval_key = f"eval/{Path(args.eval_data).stem}" if args.eval_data else None
        self.wandb = None
        if not self.is_main:
            return
        for name in ("metrics.jsonl", "rollouts.jsonl"):
            mend_log(folder / name, done)
        for path in folder.glob("inside/step-*[0-9].npz"):
            if int(path.stem[5:]) > done:
                path.unlink()
        if args.wandb != "disabled":
            import wandb

            id_file = folder / "wandb_id"  # a resumed run goes on in the same curves
            if not id_file.exists():
                id_file.write_text(secrets.token_hex(4))
            identity = dict(project="asyppo", id=id_file.read_text(), resume="allow")
            settings = settings_of(args) | {"out": str(folder)}
            self.wandb = wandb.init(**identity, dir=folder, mode=args.wandb, config=settings)

    def evaluated(self, step: int) -> bool:
        """Is the held-out accuracy after this step in the log?"""
        log = whole_rows(self.folder / "metrics.jsonl")
        return any(row["step"] == step and self.eval_key in row for row in log)

    def write(self, metrics: dict, samples: list[dict], known: dict | None = None) -> None:
        """known, in some steps: what is known of all responses and, as [..., B, T], of their tokens."""
        if self.is_main:
            append_rows(self.folder / "metrics.jsonl", [metrics])
            append_rows(self.folder / "rollouts.jsonl", samples)
            media = self.look(metrics["step"], samples, known) if known else {}
            if self.wandb:
                section = lambda key: next((SECTIONS[x] for x in SECTIONS if re.match(x, key)), "")
                logged = {section(key) + key: x for key, x in metrics.items()} | media
                self.wandb.log(logged, step=metrics["step"])
            print(readable(metrics, self.args), flush=True)

    def look(self, step: int, samples: list[dict], known: dict) -> dict:
        """inside/step-N.npz: the first four groups, for experiments/inside.py (no answer is an empty one). ->
        what wandb is to show: histograms over all response tokens, and the samples as a table"""
        n, path = GROUPS_SHOWN * self.args.group_size, self.folder / f"inside/step-{step}.npz"
        cut = {key: x[:, :n] if "_MB" in key else x[:n] for key, x in known.items() if x is not None}
        cut["answers"] = [answer or "" for answer in cut["answers"]]
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            np.savez_compressed(new := path.with_suffix(".new.npz"), **cut)
            new.replace(path)
        if not self.wandb:
            return {}
        import wandb

        tokens = {"advantage": known["advantage"]}
        if known["values_MBT"] is not None:
            tokens["sigma"] = disagreement(known["values_MBT"])
        media = {f"tokens/{name}": wandb.Histogram(x_BT[known["mask_BT"]]) for name, x_BT in tokens.items()}
        return media | {"rollouts": wandb.Table(list(samples[0]), [[*sample.values()] for sample in samples])}

    def stop(self, step: int, why: str) -> None:
        if self.is_main:
            if self.wandb:
                self.wandb.finish(exit_code=1)
            print(f"Stopped after step {step}: {why}. Saved; go on with the same command and --resume "
                  f"{self.folder}.")

    def finish(self, seconds: float) -> None:
        if not self.is_main:
            return
        if self.wandb:
            self.wandb.finish()
        rows = whole_rows(self.folder / "metrics.jsonl")
        accuracies = [row[self.eval_key] for row in rows if self.eval_key in row]
        reached = f"held-out accuracy {accuracies[0]:.1%} → {accuracies[-1]:.1%}; " if accuracies else ""
        steps, where = self.args.steps, self.folder
        print(f"Finished step {self.args.critic_warmup + steps} after {seconds / 60:.1f} minutes: {reached}"
              f"models, checkpoint, metrics and rollouts are in {where}.\nNext: train on with the same "
              f"command and --resume {where} --steps {2 * steps}, or score the actor with evaluate.py "
              f"--model {where}/model.")


# wandb makes a section of what stands before a slash; other keys get theirs by how they begin
SECTIONS = {"adv_masked|entropy_filtered": "masks/", "value|critic_corr|gated": "values/",
            "reward|response|trunc|entropy|verify": "rollout/", "tokens|peak": "speed/",
            "policy|clip|approx|grad|adv|skip": "policy/"}
SHOWN = (("entropy", "entropy", 3), ("kl", "approx_kl", 4), ("clip", "clip_frac", 3))


def readable(metrics: dict, args: argparse.Namespace) -> str:
    """The step in one line."""
    parts = [f"step {metrics['step']:>4}/{args.critic_warmup + args.steps}"]
    if 0 < metrics["step"] <= args.critic_warmup:
        parts.append("critics only")
    if "reward_mean" in metrics:
        parts.append(f"reward {metrics['reward_mean']:.3f}  length {metrics['response_len_mean']:.1f}")
        parts += [f"{name} {metrics[key]:.{n}f}" for name, key, n in SHOWN if key in metrics]
        if n := metrics["skipped_updates"]:
            parts.append(f"{n} updates SKIPPED (gradient not finite; see bad-step-{metrics['step']}.pt)")
        if metrics["truncated_frac"] > 0.1:
            # few of these can be right, and the policy learns from the cut (TRL#5697)
            parts.append(f"{metrics['truncated_frac']:.0%} TRUNCATED at {args.max_new_tokens} tokens")
        variances = [x for key, x in metrics.items() if re.fullmatch(r"critic\d+/explained_variance", key)]
        if variances:
            parts.append("explained " + "/".join(f"{v:.2f}" for v in variances))
        if "value_std_p50" in metrics:
            parts.append(f"σ {metrics['value_std_p50']:.3f}")
        parts.append(f"{metrics['time/step']:.1f} s")
    parts += [f"{key[5:]} accuracy {value:.1%}" for key, value in metrics.items() if key.startswith("eval/")]
    return "  ".join(parts)


def rollout_samples(rollout: Rollout, tokenizer, step: int, n: int = 4) -> list[dict]:
    """A few decoded responses, special tokens shown, spread over the batch."""
    samples = []
    for row in list(range(0, len(rollout), max(1, len(rollout) // n)))[:n]:
        prompt_len, length = int(rollout.prompt_len_B[row]), int(rollout.response_len_B[row])
        tokens = rollout.tokens_BS[row].tolist()
        samples.append(dict(
            step=step, prompt=tokenizer.decode(tokens[:prompt_len]),
            response=tokenizer.decode(tokens[prompt_len : prompt_len + length]), answer=rollout.answers[row],
            gold=rollout.golds[row], reward=rollout.rewards_B[row].item(), length=length,
            truncated=bool(rollout.truncated_B[row])))
    return samples


# -- the clock -----------------------------------------------------------------------------------------------
@contextmanager
def timed(metrics: dict[str, float], phase: str, world: World) -> Iterator[None]:
    """Add a phase's seconds, and its peak memory on the fullest process, to metrics: time/<phase> and
    memory/<phase> (GiB; CPU: so far)."""
    began, on_gpu = time.time(), world.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    yield
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if on_gpu:
        torch.cuda.synchronize()  # what was launched belongs to this phase
        gib = torch.cuda.max_memory_allocated() / 2**30
    seconds, memory = f"time/{phase}", f"memory/{phase}"
    metrics[seconds] = metrics.get(seconds, 0.0) + time.time() - began
    metrics[memory] = max(metrics.get(memory, 0.0), *gather_list([gib], world))
