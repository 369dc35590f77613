"""AsyPPO: two mini-critics, each fitted on its own half of every prompt's responses, guide a larger actor.

    python train.py                                                       # the embedded default: CPU, minutes
    torchrun train.py --model Qwen/Qwen3-4B-Base                          # the paper's setting on one GPU
    torchrun --nproc_per_node 8 train.py --model Qwen/Qwen3-4B-Base       # the same, sharded over eight
    python train.py --algo ppo | grpo | asyppo                            # baselines are settings of the same code

Liu et al., Asymmetric Proximal Policy Optimization: mini-critics boost LLM reasoning, arXiv 2510.01656.
"""

import argparse
import math
import os
import resource
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from transformers import PreTrainedTokenizerBase

import asyppo
from actor import Actor, load_actor, load_config, load_tokenizer
from critics import MiniCritic, ensemble_values, fit_critics, load_critic, save_critic, shard, strip, value_metrics
from distributed import (
    Parser,
    UserError,
    World,
    adamw,
    full_state,
    gather_list,
    generator,
    load_checkpoint,
    naming_silent_ranks,
    offloaded,
    report,
    save_checkpoint,
    saved_steps,
    start,
    stop,
    stream_seed,
    writing,
)
from evaluate import compute_dtype, evaluate, stop_strings, summarise
from folder import Log, digest, open_folder, rollout_samples, write_config
from rollout import (
    Problem,
    Rollout,
    Sampling,
    generate_responses,
    load_problems,
    make_rollout,
    problems_of_step,
    prompt_tokens,
    read_template,
    score_responses,
    stop_token_ids,
    verify_responses,
)
from verifier import Verifier

HERE = Path(__file__).resolve().parent

# --algo and the lack of a --model only set defaults; a flag given by the user wins
ALGO_DEFAULTS = {
    "asyppo": {},
    "ppo": dict(n_critics=1, shard_by="none", mask_by="none", filter_by="none"),
    "grpo": dict(n_critics=0, shard_by="none", mask_by="none", filter_by="none", whiten=False, entropy_coef=0.0),
}
TINY_DEFAULTS = dict(
    model=str(HERE / "tiny/actor"), data=str(HERE / "tiny/train.jsonl"), eval_data=str(HERE / "tiny/test.jsonl"),
    n_problems=None, prompts_per_step=16, group_size=16, max_new_tokens=64, lr=2e-5, critic_lr=2e-3,
    token_budget=4096, generate_batch=256, gradient_checkpointing=False, steps=40, eval_every=10,
)  # fmt: skip
TINY_CRITIC = str(HERE / "tiny/critic")

# a resumed run may have other ones
MAY_CHANGE = {
    "max_bad_steps", "steps", "out", "resume", "eval_every", "save_every", "keep", "timeout", "wandb", "device",
    "offload", "generate_batch", "token_budget",
}  # fmt: skip

# the paper's pairs: the Qwen3 actor's (hidden size, layers) -> its mini-critics
QWEN3_CRITICS = {
    (2560, 36): "Qwen/Qwen3-0.6B-Base",  # 4B
    (4096, 36): "Qwen/Qwen3-1.7B-Base",  # 8B
    (5120, 40): "Qwen/Qwen3-4B-Base",  # 14B
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, []) else action.help


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=HelpFormatter, allow_abbrev=False)
    switch = argparse.BooleanOptionalAction

    add = parser.add_argument_group("models").add_argument
    add("--model", help="actor: directory or hub id; default: the embedded tiny/actor with small sizes")
    add("--critics", nargs="+", help="mini-critics: one name for all, or one each; default: by the actor's family and size")
    add("--n-critics", type=int, default=2, help="M, the number of critics")
    add("--gradient-checkpointing", action=switch, default=True, help="recompute activations in backward to save memory")
    add("--offload", action=switch, default=False, help="optimizer states wait on the CPU while their model is not updated")
    add("--dtype", choices=("auto", "fp32", "bf16"), default="auto", help="compute type (master weights are fp32); auto: bf16 on GPU, fp32 on CPU")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")

    add = parser.add_argument_group("problems and prompts").add_argument
    add("--data", default="zwhe99/DeepMath-103K", help="training problems: .jsonl, .parquet, or hub id as ID[:CONFIG[:SPLIT]]")
    add("--n-problems", type=int, default=5000, help="train on this many of them, drawn by seed; 0 means all")
    add("--template", help="prompt as text or file with {problem} in it; default: the tokenizer's chat template")
    add("--extract", choices=("boxed", "last_number"), default="boxed", help="where the answer stands in a response")

    add = parser.add_argument_group("rollout").add_argument
    add("--prompts-per-step", type=int, default=32, help="P, prompts in a rollout batch")
    add("--group-size", type=int, default=32, help="G, responses to each prompt")
    add("--max-new-tokens", type=int, default=8192, help="a longer response is cut and counted as truncated")
    add("--temperature", type=float, default=1.0, help="sampling temperature; log-probabilities are taken at it too")
    add("--stop", nargs="+", default=[], help="strings that end a response beside the EOS tokens; \\n stands for a newline")
    add("--generate-batch", type=int, default=16, help="responses generated together on one process")

    add = parser.add_argument_group("critics").add_argument
    add("--critic-lr", type=float, default=5e-6, help="AdamW learning rate of the critics")
    add("--critic-epochs", type=int, default=4, help="passes of each critic over its shard of a rollout")
    add(
        "--critic-order", choices=("first", "last"), default="first", help="fit before or after their values make the advantage"
    )
    add("--shard-by", choices=("group", "prompt", "none"), default="group", help="divide each group's responses over critics, whole prompts, or nothing")  # fmt: skip
    add("--aggregate", choices=("mean", "min"), default="mean", help="ensemble value from the critics' values")

    add = parser.add_argument_group("advantage").add_argument
    add("--gamma", type=float, default=1.0, help="discount γ")
    add("--lam", type=float, default=1.0, help="λ of the actor's GAE")
    add("--critic-lam", type=float, default=1.0, help="λ of the critics' targets; 1 is the Monte-Carlo return")
    add("--whiten", action=switch, default=True, help="advantages to mean 0, deviation 1 over the batch, before the mask")
    add("--group-std", action=switch, default=True, help="grpo: divide by the group's standard deviation")

    add = parser.add_argument_group("policy objective").add_argument
    add("--algo", choices=tuple(ALGO_DEFAULTS), default="asyppo", help="sets the defaults of the flags below and above")
    add("--lr", type=float, default=1e-6, help="AdamW learning rate of the actor")
    add("--epochs", type=int, default=4, help="passes over a rollout (UTD)")
    add("--minibatch-size", type=int, help="responses per optimizer step; default: the whole rollout batch")
    add("--clip-low", type=float, default=0.2, help="ε below 1")
    add("--clip-high", type=float, default=0.2, help="ε above 1")
    add("--entropy-coef", type=float, default=1e-3, help="β, weight of the entropy bonus")
    signals = ("std", "entropy", "random", "none")
    add("--mask-by", choices=signals, default="std", help="tokens lowest in this get no policy gradient")
    add("--mask-fraction", type=float, help="k, share of response tokens so masked (default: 0.2, with none 0)")
    add("--filter-by", choices=signals, default="std", help="tokens highest in this get no entropy bonus")
    add("--filter-fraction", type=float, help="h, share of response tokens so filtered (default: 0.2, with none 0)")
    add("--loss-norm", choices=("sequence", "token"), default="sequence", help="mean over each response, then responses; or over all tokens")  # fmt: skip
    add("--max-grad-norm", type=float, default=1.0, help="gradient norms are clipped to this, actor and critics")

    add = parser.add_argument_group("run").add_argument
    add("--seed", type=int, default=0, help="rules the streams data, sampling, shards and minibatches, independently")
    add("--steps", type=int, default=500, help="rollouts to train on")
    add("--token-budget", type=int, default=16384, help="tokens of a micro-batch, padding included: a hard bound")
    add("--eval-every", type=int, default=10, help="steps between evaluations on --eval-data; first and last always")
    add("--eval-data", help="held-out problems, named like --data; one sampled response each")
    add("--save-every", type=int, default=20, help="steps between checkpoints; 0: only at the end")
    add("--keep", type=int, default=1, help="checkpoints to keep, the last ones")
    add("--timeout", type=float, default=30.0, help="minutes that a rank may keep the others waiting before the job ends")
    add("--max-bad-steps", type=int, default=3, help="stop after so many steps in a row with a gradient that is not finite")
    add("--out", type=Path, help="folder of the run; default: runs/ALGO-TIME")
    add("--resume", nargs="?", const=True, help="go on from the checkpoint in --out, or in the folder given here")
    add("--wandb", choices=("disabled", "offline", "online"), default="disabled", help="log to Weights & Biases as well")

    first, _ = parser.parse_known_args(argv)
    parser.set_defaults(**ALGO_DEFAULTS[first.algo])
    if first.model is None:
        parser.set_defaults(**TINY_DEFAULTS)
        if first.algo == "asyppo":
            parser.set_defaults(critics=[TINY_CRITIC])
    args = parser.parse_args(argv)
    try:
        check_args(args)
    except UserError as error:
        parser.error(str(error))
    return args


def check_args(args: argparse.Namespace) -> None:
    """Refuse what cannot work, and derive what follows from other flags (minibatch size, output folder)."""
    for name in ("group_size", "prompts_per_step", "max_new_tokens", "generate_batch", "epochs", "critic_epochs", "steps", "token_budget", "keep", "max_bad_steps"):  # fmt: skip
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}.")
    for name in ("lr", "critic_lr", "temperature", "max_grad_norm", "clip_low", "clip_high", "timeout"):
        if not (getattr(args, name) > 0 and math.isfinite(getattr(args, name))):
            raise UserError(f"--{name.replace('_', '-')} must be a positive number, not {getattr(args, name)}.")
    for name in ("gamma", "lam", "critic_lam", "mask_fraction", "filter_fraction"):
        if not 0 <= (getattr(args, name) or 0) <= 1:
            raise UserError(f"--{name.replace('_', '-')} must lie between 0 and 1, not {getattr(args, name)}.")
    for name in ("n_critics", "n_problems", "eval_every", "save_every", "entropy_coef"):
        if not 0 <= (getattr(args, name) or 0) < math.inf:
            raise UserError(f"--{name.replace('_', '-')} must be a number of at least 0, not {getattr(args, name)}.")
    args.n_problems = args.n_problems or None
    if args.n_critics == 0 and args.algo != "grpo":
        raise UserError(
            f"--n-critics 0 leaves --algo {args.algo} without advantages; use --algo grpo for a run without critics."
        )
    if args.algo == "grpo" and (args.n_critics or args.critics):
        raise UserError("--algo grpo has no critics: leave out --critics and --n-critics, or use --algo ppo or asyppo.")
    if args.critics and len(args.critics) not in (1, args.n_critics):
        raise UserError(f"--critics names {len(args.critics)} models for --n-critics {args.n_critics}: give one, or one each.")
    if args.n_critics < 2 and "std" in (args.mask_by, args.filter_by):
        if args.n_critics == 0:
            raise UserError("--mask-by std and --filter-by std need critics; use entropy, random or none with --algo grpo.")
        if os.environ.get("RANK", "0") == "0":
            print("One critic has no disagreement: --mask-by std and --filter-by std become none.", file=sys.stderr)
        args.mask_by, args.filter_by = (by if by != "std" else "none" for by in (args.mask_by, args.filter_by))
    for flag, by in (("mask_fraction", args.mask_by), ("filter_fraction", args.filter_by)):
        if by == "none" and getattr(args, flag):
            raise UserError(f"--{flag.replace('_', '-')} {getattr(args, flag)} needs a signal to choose tokens by, not none.")
        if getattr(args, flag) is None:
            setattr(args, flag, 0.0 if by == "none" else 0.2)
    if args.shard_by == "group" and args.group_size < args.n_critics:
        raise UserError(f"--group-size {args.group_size} cannot be divided over {args.n_critics} critics; raise it.")
    if args.shard_by == "prompt" and args.prompts_per_step < args.n_critics:
        raise UserError(
            f"--prompts-per-step {args.prompts_per_step} cannot be divided over {args.n_critics} critics; raise it."
        )
    n_responses = responses_of_step(args)
    if args.minibatch_size is None:
        args.minibatch_size = n_responses
    if args.minibatch_size < 1 or n_responses % args.minibatch_size:
        raise UserError(f"--minibatch-size {args.minibatch_size} does not divide the {n_responses} responses of a step.")
    smallest_shard = n_responses // max(1, args.n_critics)
    if args.shard_by == "prompt":
        smallest_shard = args.prompts_per_step // args.n_critics * args.group_size
    if args.shard_by != "none" and args.n_critics and smallest_shard < n_responses // args.minibatch_size:
        raise UserError(f"--minibatch-size {args.minibatch_size} leaves critics without a response in a minibatch; raise it.")
    if args.token_budget < args.max_new_tokens:
        raise UserError(
            f"--token-budget {args.token_budget} is smaller than a response of --max-new-tokens {args.max_new_tokens}."
        )
    if isinstance(args.resume, str):
        if args.out and args.out != Path(args.resume):
            raise UserError(f"--resume {args.resume} and --out {args.out} name two folders; give one.")
        args.out = Path(args.resume)
    if args.resume and args.out is None:
        raise UserError("--resume needs the folder of the run: --resume DIR or --out DIR.")


def responses_of_step(args: argparse.Namespace) -> int:
    return args.prompts_per_step * args.group_size


def critic_names(args: argparse.Namespace) -> list[str]:
    """One name per critic. PPO's classic critic is as large as the actor; AsyPPO's is the paper's pair."""
    if args.critics:
        return args.critics if len(args.critics) == args.n_critics else args.critics * args.n_critics
    if args.algo == "ppo" or args.n_critics == 0:
        return [args.model] * args.n_critics
    config = load_config(args.model, "--model")
    name = QWEN3_CRITICS.get((config.hidden_size, config.num_hidden_layers)) if config.model_type == "qwen3" else None
    if name is None:
        raise UserError(
            f"--model {args.model}: no default mini-critics are known for it (they are for Qwen3 4B, 8B and 14B); "
            "name them with --critics: a pretrained model with the same tokenizer, or one for each critic."
        )
    return [name] * args.n_critics


# -- the clock ---------------------------------------------------------------------------------------------------------


def peak_memory_gb(world: World) -> float:
    """Of this process: allocated on the GPU, or resident on the CPU."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Stopwatch:
    """Seconds and peak memory by phase, as time/<phase> and memory/<phase> (GiB; on the CPU the process's peak so far)."""

    def __init__(self, world: World):
        self.world, self.began = world, time.time()
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str):
        began = time.time()
        if self.world.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.time() - began
        self.memory[name] = max(self.memory.get(name, 0.0), peak_memory_gb(self.world))

    def metrics(self) -> dict[str, float]:
        ranks = gather_list([self.memory], self.world)
        memory = {name: max(rank[name] for rank in ranks) for name in self.memory}
        return (
            {f"time/{name}": seconds for name, seconds in self.seconds.items()}
            | {"time/step": time.time() - self.began, "peak_memory_gb": max(memory.values())}
            | {f"memory/{name}": gb for name, gb in memory.items()}
        )


# -- the algorithm ------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What the steps of one run share."""

    args: argparse.Namespace
    world: World
    tokenizer: PreTrainedTokenizerBase
    template: str | None
    problems: list[Problem]
    held_out: list[Problem]
    sampling: Sampling
    verifier: Verifier
    actor: Actor
    actor_optimizer: torch.optim.Optimizer
    critics: list[MiniCritic]
    critic_optimizers: list[torch.optim.Optimizer]

    @property
    def trained(self) -> dict[str, tuple[torch.nn.Module, torch.optim.Optimizer]]:
        """Everything that a checkpoint holds."""
        pairs = [(self.actor, self.actor_optimizer), *zip(self.critics, self.critic_optimizers)]
        return dict(zip(["actor", *(f"critic{m}" for m in range(len(self.critics)))], pairs))


def train_step(run: Run, step: int) -> tuple[dict, list[dict]]:
    """One step of the method, in the paper's order. -> metrics, and a few decoded responses."""
    args, world, watch = run.args, run.world, Stopwatch(run.world)
    metrics: dict = {"step": step}
    failures = run.verifier.failures

    # 1. Sample P prompts, draw G responses to each from the current policy, verify them; keep π_old and its entropy.
    rollout, answers = sample_rollout(run, step, watch)
    mask_BT = rollout.mask_BT
    rewards_BT = asyppo.terminal_rewards(rollout.rewards_B, mask_BT)

    if run.critics:
        # 2. Shard: each critic gets its own part of every prompt's responses.
        shards_MB = shard(rollout.group_B, len(run.critics), args.shard_by, generator(args.seed, "shards", step))

        # 3. Fit each critic to the returns of its shard.
        with watch.phase("values"):
            values_MBT = torch.zeros(len(run.critics), *mask_BT.shape)
            if args.critic_order == "last" or args.critic_lam < 1:
                values_MBT = ensemble_values(run.critics, rollout, args.token_budget, world)
        # at λ < 1 targets hold values: each critic's its own, for another's know responses that it must not
        returns_MBT = torch.stack(
            [asyppo.lambda_returns(rewards_BT, values_BT, mask_BT, args.gamma, args.critic_lam) for values_BT in values_MBT]
        )
        with watch.phase("fit_critics"), offloaded([run.actor_optimizer], args.offload):
            fitted = fit_critics(run.critics, run.critic_optimizers, rollout, returns_MBT, shards_MB, args, step, world)

        # 4. Ensemble: every critic's value of every state, their mean, generalised advantage estimation.
        with watch.phase("values"):
            if args.critic_order == "first":
                values_MBT = ensemble_values(run.critics, rollout, args.token_budget, world)
        values_BT = asyppo.aggregate(values_MBT, args.aggregate)
        advantages_BT = asyppo.gae(rewards_BT, values_BT, mask_BT, args.gamma, args.lam)
        std_BT = asyppo.disagreement(values_MBT)
        metrics |= {f"critic{m}/{key}": value for m, each in enumerate(fitted) for key, value in each.items()}
        metrics |= value_metrics(values_MBT, std_BT, returns_MBT, rollout, shards_MB)
    else:
        advantages_BT = mask_BT * asyppo.group_advantages(rollout.rewards_B, rollout.group_B, args.group_std)[:, None]
        std_BT = None
    metrics |= {"adv_mean": advantages_BT[mask_BT].mean().item(), "adv_std": advantages_BT[mask_BT].std(correction=0).item()}
    if args.whiten:
        advantages_BT = asyppo.whiten(advantages_BT, mask_BT)

    # 5. Disagreement: no policy gradient where the critics agree most, no entropy bonus where they differ most.
    signal_BT = token_signal(args.mask_by, std_BT, rollout, generator(args.seed, "random mask", step))
    advantage_mask_BT = asyppo.advantage_mask(signal_BT, mask_BT, args.mask_fraction)
    signal_BT = token_signal(args.filter_by, std_BT, rollout, generator(args.seed, "random filter", step))
    entropy_filter_BT = asyppo.entropy_filter(signal_BT, mask_BT, args.filter_fraction)

    # 6. Policy: several passes of the clipped objective over the same rollout.
    with watch.phase("policy"), offloaded(run.critic_optimizers, args.offload):
        metrics |= asyppo.update_policy(
            run.actor, run.actor_optimizer, rollout, advantages_BT, advantage_mask_BT, entropy_filter_BT, args, step, world
        )
    metrics |= watch.metrics() | batch_metrics(rollout, advantage_mask_BT, entropy_filter_BT)
    metrics["verify_failures"] = sum(gather_list([run.verifier.failures - failures], world))
    metrics["tokens_per_s"] = int(mask_BT.sum()) / metrics["time/step"]
    metrics["skipped_updates"] += sum(metrics.pop(f"critic{m}/skipped_updates") for m in range(len(run.critics)))
    if metrics["skipped_updates"] and world.is_main:
        torch.save(vars(rollout) | {"advantages_BT": advantages_BT}, args.out / f"bad-step-{step}.pt")
    # what does not exist, or is not finite, is left out
    metrics = {key: value for key, value in metrics.items() if math.isfinite(value)}
    return metrics, rollout_samples(rollout, answers, run.tokenizer, step)


def batch_metrics(rollout: Rollout, advantage_mask_BT: torch.Tensor, entropy_filter_BT: torch.Tensor) -> dict[str, float]:
    """What the responses are like, and the shares of their tokens that the masks take out."""
    n_tokens = int(rollout.mask_BT.sum())
    return {
        "reward_mean": rollout.rewards_B.mean().item(),
        "reward_std": rollout.rewards_B.std(correction=0).item(),
        "response_len_mean": rollout.response_len_B.float().mean().item(),
        "truncated_frac": rollout.truncated_B.float().mean().item(),
        "entropy": rollout.old_entropy_BT[rollout.mask_BT].mean().item(),
        "adv_masked_frac": 1 - int(advantage_mask_BT.sum()) / n_tokens,
        "entropy_filtered_frac": 1 - int(entropy_filter_BT.sum()) / n_tokens,
    }


def sample_rollout(run: Run, step: int, watch: Stopwatch) -> tuple[Rollout, list[str | None]]:
    """Step 1. -> the rollout with rewards, old log-probabilities and entropies, and the extracted answers."""
    args, world = run.args, run.world
    batch = problems_of_step(run.problems, step, args.prompts_per_step, args.seed)
    prompts = [x for p in batch for x in [prompt_tokens(p.problem, run.template, run.tokenizer)] * args.group_size]
    golds = [p.answer for p in batch for _ in range(args.group_size)]
    with watch.phase("generate"), offloaded([run.actor_optimizer, *run.critic_optimizers], args.offload):
        seed = stream_seed(args.seed, "rollout", step)
        responses = generate_responses(run.actor, run.tokenizer, prompts, run.sampling, world, seed, "generate")
    with watch.phase("verify"):
        texts = [run.tokenizer.decode(r.tokens, skip_special_tokens=True) for r in responses]
        answers, rewards = verify_responses(texts, golds, args.extract, run.verifier, world)
    rollout = make_rollout(responses, texts, golds, rewards, args.group_size)
    with watch.phase("score"):
        rollout.old_logp_BT, rollout.old_entropy_BT = score_responses(
            run.actor, rollout, args.token_budget, world, args.temperature
        )
    return rollout, answers


def token_signal(by: str, std_BT: torch.Tensor | None, rollout: Rollout, order: torch.Generator) -> torch.Tensor:
    """What --mask-by and --filter-by rank tokens by. -> [B, T]"""
    if by == "std":
        return std_BT
    if by == "entropy":
        return rollout.old_entropy_BT
    return torch.rand(rollout.mask_BT.shape, generator=order)


def held_out_accuracy(run: Run) -> float:
    """Share of right answers, one sampled response to each held-out problem."""
    records = evaluate(
        run.actor, run.tokenizer, {"held-out": run.held_out}, run.template, run.sampling, run.args.extract, 1, run.verifier,
        run.world, run.args.seed,
    )  # fmt: skip
    return summarise(records)["avg@k"]


def set_up(args: argparse.Namespace, world: World) -> Run:
    """Everything that can be wrong with the user's models and data is found here, cheap checks before costly ones."""
    names = critic_names(args)
    if (
        args.shard_by == "none"
        and args.n_critics > 1
        and len(set(names)) == 1
        and args.minibatch_size == responses_of_step(args)
    ):
        raise UserError(
            "--shard-by none would fit equal critics alike, so that they never disagree; give a --minibatch-size below "
            f"the {responses_of_step(args)} responses of a step (each critic then has its own order), or different --critics."
        )
    if args.wandb == "online" and world.is_main:
        import wandb

        if not wandb.login(prompt=False):  # it would ask in the middle of a job
            raise UserError("--wandb online: no login is known here; run `wandb login` first, or use --wandb offline.")
    tokenizer = load_tokenizer(args.model, "--model")
    for name in dict.fromkeys(names):
        if load_tokenizer(name, "--critics").get_vocab() != tokenizer.get_vocab():
            raise UserError(f"--critics {name}: its tokenizer is not the actor's; critics read the actor's tokens.")
    template = read_template(args.template, tokenizer, args.model)
    problems = load_problems(args.data, args.n_problems, args.seed)
    held_out = load_problems(args.eval_data, None, args.seed, split="test", flag="--eval-data") if args.eval_data else []
    longest = max(len(prompt_tokens(p.problem, template, tokenizer)) for p in problems + held_out) + args.max_new_tokens
    if longest > args.token_budget:
        raise UserError(f"--token-budget {args.token_budget} cannot hold the longest prompt and response ({longest} tokens).")
    old_digests = open_folder(args, args.algo, MAY_CHANGE, world)
    if args.resume and args.steps < max(saved_steps(args.out / "checkpoint"), default=0):
        raise UserError(f"--resume: the run in {args.out} has done more than {args.steps} steps already; raise --steps.")
    stops = stop_strings(args.stop)

    dtype = compute_dtype(args.dtype, world)
    actor = load_actor(args.model, world, dtype, args.gradient_checkpointing)
    critics = [load_critic(name, world, dtype, args.gradient_checkpointing) for name in names]
    digests = {"--data": digest(problems), "--eval-data": digest(held_out), "--model": actor.lm.digest}
    digests["--critics"] = " ".join(critic.backbone.digest for critic in critics)
    write_config(args, digests, old_digests, world)
    if world.is_main:
        print(
            f"{args.algo}: actor {args.model}, {len(critics)} critics {' '.join(dict.fromkeys(names))}\n"
            f"{len(problems)} problems, {args.prompts_per_step} × {args.group_size} responses a step, {args.minibatch_size} "
            f"per optimizer step, {args.epochs} passes; {world.size} × {world.device.type}, {dtype}; files in {args.out}",
            flush=True,
        )
    return Run(
        args=args,
        world=world,
        tokenizer=tokenizer,
        template=template,
        problems=problems,
        held_out=held_out,
        sampling=Sampling(
            args.max_new_tokens,
            args.temperature,
            frozenset(stop_token_ids(actor, tokenizer, template)),
            stops,
            args.generate_batch,
        ),
        verifier=Verifier(),
        actor=actor,
        actor_optimizer=adamw(actor, args.lr),
        critics=critics,
        critic_optimizers=[adamw(critic, args.critic_lr) for critic in critics],
    )


def save_models(run: Run) -> None:
    """The actor in Hugging Face format in model/, the critics beside it in critic0/, critic1/, …"""
    folder = run.args.out / "model"
    state = full_state(run.actor)
    with writing(folder):
        if run.world.is_main:
            run.actor.lm.save_pretrained(folder, state_dict=strip(state, "lm."))
            run.actor.saved_generation_config.save_pretrained(folder)
            run.tokenizer.save_pretrained(folder)
        for m, critic in enumerate(run.critics):
            save_critic(critic, run.tokenizer, run.args.out / f"critic{m}", run.world)


class StopRequest:
    """SIGTERM and Ctrl-C let the running step finish and be saved; again a few seconds later they end the process at once.

    torchrun kills what has not ended after 30 seconds, unless it is started with a longer --shutdown-timeout.
    """

    def __init__(self, world: World):
        self.world, self.signal, self.first = world, 0, math.inf

    def __enter__(self) -> Self:
        self.before = {number: signal.signal(number, self.notice) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def notice(self, number: int, frame) -> None:
        # job managers send a signal to every process, and torchrun then sends it once more
        if time.monotonic() > self.first + 5:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if not self.signal and self.world.is_main:
            print(
                f"\n{signal.Signals(number).name}: stopping as soon as the running step is finished and saved.", file=sys.stderr
            )
        self.signal, self.first = self.signal or number, min(self.first, time.monotonic())

    def seen(self) -> int:
        """The signal that any rank has got, else 0; the same on all ranks."""
        return max(gather_list([self.signal], self.world))


def train(args: argparse.Namespace, world: World) -> int:
    """-> exit code: 0, 1 after too many bad steps, 128 + signal if stopped by one."""
    began = time.time()
    run = set_up(args, world)
    done = load_checkpoint(args.out / "checkpoint", run.trained) if args.resume else 0
    log, bad_steps = Log(args, world, done), 0
    with run.verifier, StopRequest(world) as request:
        if run.held_out and done == 0:
            log.write({"step": 0, log.eval_key: held_out_accuracy(run)}, [])
        for step in range(done + 1, args.steps + 1):
            metrics, samples = train_step(run, step)
            bad_steps = bad_steps + 1 if metrics["skipped_updates"] else 0
            too_bad, last = bad_steps == args.max_bad_steps, step == args.steps
            if run.held_out and (last or (args.eval_every and step % args.eval_every == 0)) and not (too_bad or request.seen()):
                metrics[log.eval_key] = held_out_accuracy(run)
            log.write(metrics, samples)
            stopped_by = request.seen()
            if last or stopped_by or too_bad or (args.save_every and step % args.save_every == 0):
                save_checkpoint(args.out / "checkpoint", run.trained, step, args.keep, world)
            if too_bad or (stopped_by and not last):
                why = f"{bad_steps} steps in a row had gradients that are not finite"
                log.stop(step, why if too_bad else signal.Signals(stopped_by).name)
                return 1 if too_bad else 128 + stopped_by
    save_models(run)
    log.finish(time.time() - began)
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        world = start(args.device, args.timeout)
        with naming_silent_ranks(world):
            code = train(args, world)
    except UserError as error:
        code = report("train.py", error)
    # after train has returned, so that its models are gone; after a crash the others' collectives must not be waited for
    stop()
    return code


if __name__ == "__main__":
    sys.exit(main())
