"""The folder of a run or an evaluation: made once, found again with the same settings, and what is written into it.

Every write leaves either the old or the new file whole, or adds lines whose last may be cut by a kill.
"""

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import secrets
import shutil
import subprocess
from pathlib import Path

from distributed import UserError, World, gather_list, replace_text, writing
from rollout import Problem, Rollout

HERE = Path(__file__).resolve().parent


def open_folder(args: argparse.Namespace, name: str, free: set[str], world: World) -> dict | None:
    """Name args.out (default runs/NAME-TIME), and refuse one that holds another run; on args.resume, one that holds none or
    one with other settings than these, but for those in `free`. -> the digests in its config.json, on args.resume.
    """
    out = args.out or Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    args.out = gather_list([out], world)[0]
    config = args.out / "config.json"
    if not args.resume:
        if args.out.exists() and not args.out.is_dir():
            raise UserError(f"--out {args.out} is a file; name a folder.")
        if config.exists():
            raise UserError(f"--out {args.out} holds another run; give a new folder, or go on with --resume.")
        return None
    try:
        old = json.loads(config.read_text())
        before, digests = old["settings"], old["digests"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--resume: {args.out} holds no run; start one without --resume.") from error
    for key, value in settings_of(args).items():
        if key not in free and value != before.get(key):
            raise UserError(
                f"--resume: the run in {args.out} has --{key.replace('_', '-')} {before.get(key)}, not {value}; "
                "give the same settings, or start a new run in another --out."
            )
    return digests


def settings_of(args: argparse.Namespace) -> dict:
    """The flags' values as JSON can hold them."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}


def digest(problems: list[Problem]) -> str:
    """Tells a list of problems from any other one."""
    return hashlib.sha256(json.dumps([[p.problem, p.answer] for p in problems]).encode()).hexdigest()


def write_config(args: argparse.Namespace, digests: dict[str, str], old_digests: dict[str, str] | None, world: World) -> None:
    """config.json: every setting, the code's commit where git knows it, the packages' versions, and digests of what flags
    name. A resumed run must find the same digests there."""
    if old_digests is not None:
        if changed := [flag for flag in digests if digests[flag] != old_digests.get(flag)]:
            raise UserError(
                f"--resume: what {changed[0]} names is not what the run in {args.out} began with; put the old back, or start "
                "a new run in another --out."
            )
    gather_list([], world)  # nobody writes before everybody has looked
    if world.is_main and old_digests is None:
        args.out.mkdir(parents=True, exist_ok=True)
        git = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(git, cwd=HERE, capture_output=True, text=True).stdout.strip() if shutil.which("git") else ""
        packages = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "math-verify", "numpy")}
        config = {
            "settings": settings_of(args), "world_size": world.size, "git_commit": commit or None, "packages": packages,
            "digests": digests,
        }  # fmt: skip
        replace_text(args.out / "config.json", json.dumps(config, indent=2) + "\n")


def whole_rows(path: Path) -> list[dict]:
    """The rows of a .jsonl file, up to one that a kill has cut; none if there is no such file."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def finished_rows(path: Path, done: int) -> list[str]:
    """The log's lines up to step `done`: a killed run may have logged steps after its checkpoint.

    No line if it has no checkpoint: it then begins again, with the evaluation before step 1.
    """
    return [json.dumps(row) + "\n" for row in whole_rows(path) if done and row["step"] <= done]


class Log:
    """metrics.jsonl, rollouts.jsonl, wandb and the line a step; only rank 0 writes."""

    def __init__(self, args: argparse.Namespace, world: World, done: int):
        self.args, self.is_main = args, world.is_main
        self.eval_key = f"eval/{Path(args.eval_data).stem}" if args.eval_data else None
        self.wandb = None
        if not self.is_main:
            return
        for name in ("metrics.jsonl", "rollouts.jsonl"):
            replace_text(args.out / name, "".join(finished_rows(args.out / name, done)))
        if args.wandb != "disabled":
            import wandb

            id_file = args.out / "wandb_id"  # a resumed run goes on in the same curves
            if not id_file.exists():
                id_file.write_text(secrets.token_hex(4))
            self.wandb = wandb.init(
                project="asyppo", id=id_file.read_text(), resume="allow", dir=args.out, mode=args.wandb, config=vars(args)
            )

    def write(self, metrics: dict, samples: list[dict]) -> None:
        if self.is_main:
            for name, rows in (("metrics.jsonl", [metrics]), ("rollouts.jsonl", samples)):
                with writing(self.args.out / name), (self.args.out / name).open("a") as file:
                    file.write("".join(json.dumps(row) + "\n" for row in rows))
            if self.wandb:
                self.wandb.log(metrics, step=metrics["step"])
            print(readable(metrics, self.args.steps, self.args.max_new_tokens), flush=True)

    def stop(self, step: int, why: str) -> None:
        if self.is_main:
            if self.wandb:
                self.wandb.finish(exit_code=1)
            print(f"Stopped after step {step}: {why}. Saved; go on with the same command and --resume {self.args.out}.")

    def finish(self, seconds: float) -> None:
        if not self.is_main:
            return
        if self.wandb:
            self.wandb.finish()
        rows = whole_rows(self.args.out / "metrics.jsonl")
        accuracies = [row[self.eval_key] for row in rows if self.eval_key in row]
        reached = f"held-out accuracy {accuracies[0]:.1%} → {accuracies[-1]:.1%}; " if accuracies else ""
        print(
            f"Finished step {self.args.steps} after {seconds / 60:.1f} minutes: {reached}models, checkpoint, metrics and "
            f"rollouts are in {self.args.out}.\nNext: train on with the same command and --resume {self.args.out} "
            f"--steps {2 * self.args.steps}, or score the actor with evaluate.py --model {self.args.out}/model."
        )


SHOWN = (("entropy", "entropy", 3), ("kl", "approx_kl", 4), ("clip", "clip_frac", 3))


def readable(metrics: dict, n_steps: int, max_new_tokens: int) -> str:
    """The step in one line."""
    parts = [f"step {metrics['step']:>4}/{n_steps}"]
    if "reward_mean" in metrics:
        parts.append(f"reward {metrics['reward_mean']:.3f}  length {metrics['response_len_mean']:.1f}")
        parts += [f"{name} {metrics[key]:.{n}f}" for name, key, n in SHOWN if key in metrics]
        if metrics["skipped_updates"]:
            parts.append(
                f"{metrics['skipped_updates']} updates SKIPPED (gradient not finite; see bad-step-{metrics['step']}.pt)"
            )
        if metrics["truncated_frac"] > 0.1:
            # few of these can be right, and the policy learns from the cut (TRL#5697)
            parts.append(f"{metrics['truncated_frac']:.0%} TRUNCATED at {max_new_tokens} tokens")
        variances = [v for k, v in metrics.items() if k.endswith("/explained_variance")]
        if variances:
            parts.append("explained " + "/".join(f"{v:.2f}" for v in variances))
        if "value_std_p50" in metrics:
            parts.append(f"σ {metrics['value_std_p50']:.3f}")
        parts.append(f"{metrics['time/step']:.1f} s")
    parts += [f"{key[5:]} accuracy {value:.1%}" for key, value in metrics.items() if key.startswith("eval/")]
    return "  ".join(parts)


def rollout_samples(rollout: Rollout, answers: list, tokenizer, step: int, n: int = 4) -> list[dict]:
    """A few decoded responses, special tokens shown, spread over the batch."""
    rows = range(0, len(rollout.texts), max(1, len(rollout.texts) // n))
    samples = []
    for row in list(rows)[:n]:
        prompt_len, length = int(rollout.prompt_len_B[row]), int(rollout.response_len_B[row])
        tokens = rollout.tokens_BS[row].tolist()
        samples.append(
            {
                "step": step,
                "prompt": tokenizer.decode(tokens[:prompt_len]),
                "response": tokenizer.decode(tokens[prompt_len : prompt_len + length]),
                "answer": answers[row],
                "gold": rollout.golds[row],
                "reward": rollout.rewards_B[row].item(),
                "length": length,
                "truncated": bool(rollout.truncated_B[row]),
            }
        )
    return samples
