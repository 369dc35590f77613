"""AsyPPO: two mini-critics, each fitted on its own half of every prompt's responses, guide a larger actor.

    python train.py                                                   # the embedded default: CPU, minutes
    torchrun train.py --model Qwen/Qwen3-4B-Base                      # the paper's setting on one GPU
    torchrun --nproc_per_node 8 train.py --model Qwen/Qwen3-4B-Base   # the same, divided over eight
    python train.py --algo ppo | grpo | asyppo                        # baselines: settings of the same code

Liu et al., Asymmetric Proximal Policy Optimization: mini-critics boost LLM reasoning, arXiv 2510.01656.

In reading order: one step of the method, the loop around it, what a run needs, and the flags. A tag such as
verl#1960 is an issue of that project, where the trap was found.

Legend for shape suffixes: M critics, B responses of the step, T response tokens, N all response tokens in one
row. mask_BT is true on response tokens, group_B is the index of a response's prompt, std_BT the paper's σ.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch

import asyppo
import distributed
import generation
import plan
from critics import correlation_metrics, ensemble_values, fit_critics, shard, value_metrics
from distributed import StopRequest, UserError, World, gather_list, generator, number, refuse
from distributed import load_checkpoint, save_checkpoint, saved_steps, stream_seed, together, writing
from evaluate import evaluate, summarise
from folder import GROUPS_SHOWN, Folder, Log, digest, open_folder, rollout_samples, timed
from generation import Sampling, check_generation, generate_responses, sampling_of, stop_token_ids
from models import Actor, MiniCritic, check_config, compute_dtype, load_actor, load_config, load_critic
from models import load_tokenizer, save_actor, save_critic
from rollout import Problem, Rollout, load_problems, make_rollout, problems_of_step, prompt_tokens
from rollout import read_template, verify
from updates import adamw, offloaded, score_responses
from verifier import Verifier


def train_step(run: Run, step: int) -> tuple[dict[str, float], Rollout, asyppo.PolicyData]:
    """One step of the method, in the paper's order. -> metrics, rollout, what the policy learned from"""
    args, world, metrics, began = run.args, run.world, {}, time.time()

    # 1. Sample P prompts, draw G responses to each from the current policy, verify them; keep log π_old.
    rollout = sample_rollout(run, step, metrics)
    mask_BT = rollout.mask_BT

    if run.critics:
        # 2. Shard: each critic gets its own part of every prompt's responses.
        order = generator(args.seed, "shards", step)
        shards_MB = shard(rollout.group_B, len(run.critics), args.shard_by, order)

        # 3. Fit each critic to the returns of its shard. Values from before the fit are in the targets where
        # --critic-lam is below 1, and with --critic-order last it is they that make the advantage.
        rewards_BT = asyppo.terminal_rewards(rollout.rewards_B, mask_BT)
        returns_BT = asyppo.discounted_returns(rewards_BT, mask_BT, args.gamma)
        wants_before = args.critic_order == "last" or args.critic_lam < 1
        before_MBT = run.values(rollout, metrics) if wants_before else None
        targets_MBT = returns_BT.expand(len(run.critics), -1, -1)
        if args.critic_lam < 1:  # by each critic's own values: another's have seen what it must not
            targets_MBT = torch.stack([
                asyppo.lambda_returns(rewards_BT, own_BT, mask_BT, args.gamma, args.critic_lam)
                for own_BT in before_MBT])
        with timed(metrics, "fit_critics", world), offloaded([run.actor_optimizer], args.offload):
            metrics |= fit_critics(run.critics, run.critic_optimizers, rollout, targets_MBT, shards_MB, args,
                                   step, world)

        # 4. Ensemble: every critic's value of every state, their mean, generalised advantage estimation;
        # and the disagreement σ, which the masks of step 5 rank tokens by.
        values_MBT = run.values(rollout, metrics) if args.critic_order == "first" else before_MBT
        values_BT = asyppo.aggregate(values_MBT, args.aggregate, shards_MB)
        raw_BT = asyppo.gae(rewards_BT, values_BT, mask_BT, args.gamma, args.lam)
        std_BT = asyppo.disagreement(values_MBT)
        rollout.values_MBT, rollout.shards_MB = values_MBT, shards_MB
        metrics |= value_metrics(values_MBT, std_BT, returns_BT, rollout, shards_MB)
        if args.gate:  # critics that explain nothing add noise: the group's mean is better then (EVPO, 2026)
            # the key is missing where all returns are equal: nothing is explained then
            metrics["gated"] = float(metrics.get("ensemble/explained_variance_heldout", 0.0) <= 0)
            if metrics["gated"]:
                centred_B = asyppo.group_advantages(rollout.rewards_B, rollout.group_B, scale_by_std=False)
                raw_BT = mask_BT * centred_B[:, None]
    else:  # without critics: a group's advantages in the place of steps 2 to 4
        advantages_B = ALGORITHMS[args.algo].advantages(rollout.rewards_B, rollout.group_B, args)
        raw_BT, std_BT = mask_BT * advantages_B[:, None], None
    advantages_BT = asyppo.whiten(raw_BT, mask_BT) if args.whiten else raw_BT
    if args.whiten and (rollout.rewards_B == rollout.rewards_B[0]).all():
        # all right or all wrong: only the critics' error is left, which whitening would scale up to 1
        advantages_BT = torch.zeros_like(raw_BT)

    # 5. Masks: no policy gradient where critics agree most, no entropy bonus where they differ most.
    # (Both signals are σ by default; the random streams serve --mask-by random and --filter-by random alone.)
    low_BT = token_signal(args.mask_by, std_BT, rollout, generator(args.seed, "random mask", step))
    advantage_mask_BT = asyppo.advantage_mask(low_BT, mask_BT, mask_fraction(args, metrics))
    high_BT = token_signal(args.filter_by, std_BT, rollout, generator(args.seed, "random filter", step))
    entropy_filter_BT = asyppo.entropy_filter(high_BT, mask_BT, args.filter_fraction)

    # 6. Policy: several passes of the clipped objective over the same rollout.
    data = asyppo.PolicyData(rollout.old_logp_BT, advantages_BT, advantage_mask_BT, entropy_filter_BT)
    if step > args.critic_warmup:
        with timed(metrics, "policy", world), offloaded(run.critic_optimizers, args.offload):
            metrics |= asyppo.update_policy(run.actor, run.actor_optimizer, rollout, data, args, step, world)

    if run.critics and looked_into(args, step):
        metrics |= correlation_metrics(values_MBT, std_BT, advantages_BT, rollout)
    metrics |= batch_metrics(rollout, raw_BT, data) | {"time/step": time.time() - began}
    metrics["peak_memory_gb"] = max(x for key, x in metrics.items() if key.startswith("memory/"))
    metrics["tokens_per_s"] = int(mask_BT.sum()) / metrics["time/step"]
    return metrics, rollout, data


def sample_rollout(run: Run, step: int, metrics: dict[str, float]) -> Rollout:
    """Step 1. -> all responses with their rewards, their log-probabilities and entropies"""
    args, world = run.args, run.world
    batch = problems_of_step(run.problems, step, args.prompts_per_step, args.seed)
    pairs = [(prompt_tokens(p.problem, run.template, run.tokenizer), p.answer) for p in batch]
    prompts = [prompt for prompt, _ in pairs for _ in range(args.group_size)]
    golds = [gold for _, gold in pairs for _ in range(args.group_size)]
    optimizers = [run.actor_optimizer, *run.critic_optimizers]
    with timed(metrics, "generate", world), offloaded(optimizers, args.offload):
        responses = generate_responses(run.actor, run.tokenizer, prompts, run.sampling, world,
                                       stream_seed(args.seed, "rollout", step), "generate")
    with timed(metrics, "verify", world):
        answers, rewards = verify(responses, golds, args.extract, run.reward, run.tokenizer, world)
    rollout = make_rollout(responses, golds, answers, rewards, args.group_size)
    with timed(metrics, "score", world):
        scores = score_responses(run.actor, rollout, args.token_budget, world)
    rollout.old_logp_BT, rollout.old_entropy_BT, rollout.old_slope_BT = scores
    return rollout


def token_signal(by: str, std_BT, rollout: Rollout, order: torch.Generator) -> torch.Tensor | None:
    """What --mask-by and --filter-by rank tokens by, [B, T]; None: by nothing, every token is kept."""
    if by == "random":
        return torch.rand(rollout.mask_BT.shape, generator=order)
    return {"std": std_BT, "entropy": rollout.old_entropy_BT, "none": None}[by]


def mask_fraction(args: argparse.Namespace, metrics: dict[str, float]) -> float:
    """k; adaptive: 0.2 times the share of the returns' variance that critics, where they were not fitted,
    leave unexplained."""
    if args.mask_fraction != "adaptive":
        return args.mask_fraction
    return 0.2 * (1 - max(0.0, metrics.get("ensemble/explained_variance_heldout", 0.0)))


def looked_into(args: argparse.Namespace, step: int) -> bool:
    """Steps with the costlier metrics, all that is known of some tokens in inside/, and an evaluation, which
    the last step has in any case."""
    return bool(args.eval_every) and step % args.eval_every == 0


def batch_metrics(rollout: Rollout, raw_BT: torch.Tensor, data: asyppo.PolicyData) -> dict[str, float]:
    """What the responses and their advantages before whitening are like, and what the masks take out."""
    raw_N, n_tokens = raw_BT[rollout.mask_BT], int(rollout.mask_BT.sum())
    return {
        "reward_mean": rollout.rewards_B.mean().item(),
        "reward_std": rollout.rewards_B.std(correction=0).item(),
        "response_len_mean": rollout.response_len_B.float().mean().item(),
        "truncated_frac": rollout.truncated_B.float().mean().item(),
        "entropy": rollout.old_entropy_BT[rollout.mask_BT].mean().item(),
        "adv_mean": raw_N.mean().item(),
        "adv_std": raw_N.std(correction=0).item(),
        "adv_masked_frac": 1 - int(data.advantage_mask.sum()) / n_tokens,
        "entropy_filtered_frac": 1 - int(data.entropy_filter.sum()) / n_tokens,
    }


# -- the loop ------------------------------------------------------------------------------------------------
def train(args: argparse.Namespace, world: World) -> int:
    """-> exit code: 0, 1 after too many bad steps, 128 + signal if stopped by one."""
    began = time.time()
    run = set_up(args, world)
    args, world, out = run.args, run.world, run.folder.path
    done = load_checkpoint(out / "checkpoint", run.trained, world) if args.resume else 0
    log, bad_steps, last_step = Log(args, out, world, done), 0, args.critic_warmup + args.steps
    due = lambda step: step in (0, last_step) or looked_into(args, step)
    with run.verifier, StopRequest(world) as request:
        # before the first step, and what a run that was told to stop left out
        if run.held_out and due(done) and not gather_list([log.evaluated(done)], world)[0]:
            log.write({"step": done, log.eval_key: held_out_accuracy(run)}, [])
        for step in range(done + 1, last_step + 1):
            failures = run.verifier.failures
            metrics, rollout, data = train_step(run, step)
            metrics["verify_failures"] = sum(gather_list([run.verifier.failures - failures], world))
            # one count for actor and critics together, in the place of one each
            skipped = sum(metrics.pop(key) for key in list(metrics) if key.endswith("skipped_updates"))
            if skipped and world.is_main:
                with writing(out / f"bad-step-{step}.pt") as path, path.open("wb") as file:
                    torch.save(vars(rollout) | data._asdict(), file)
            bad_steps = bad_steps + 1 if skipped else 0
            too_bad, last = bad_steps == args.max_bad_steps, step == last_step
            if run.held_out and due(step) and not (too_bad or request.seen()):
                metrics[log.eval_key] = held_out_accuracy(run)
            metrics = {key: x for key, x in metrics.items() if math.isfinite(x)}
            metrics = {"step": step} | metrics | {"skipped_updates": skipped}
            known = {}
            if looked_into(args, step) and not skipped:  # scored once more, for ρ after the update
                shown = GROUPS_SHOWN * args.group_size
                new_logp_BT = score_responses(run.actor, rollout, args.token_budget, world, shown)[0]
                known = vars(rollout) | data._asdict() | {"old_logp": None, "new_logp_BT": new_logp_BT}
            log.write(metrics, rollout_samples(rollout, run.tokenizer, step), known)
            stopped_by = request.seen()
            if last or stopped_by or too_bad or (args.save_every and step % args.save_every == 0):
                save_checkpoint(out / "checkpoint", run.trained, step, args.keep, world)
            if too_bad or (stopped_by and not last):
                why = f"{bad_steps} steps in a row had gradients that are not finite"
                log.stop(step, why if too_bad else signal.Signals(stopped_by).name)
                return 1 if too_bad else 128 + stopped_by
    save_models(run)
    log.finish(time.time() - began)
    return 0


def held_out_accuracy(run: Run) -> float:
    """Share of right answers, one sampled response to each held-out problem."""
    with offloaded([run.actor_optimizer, *run.critic_optimizers], run.args.offload):
        records = evaluate(run.actor, run.tokenizer, {"held-out": run.held_out}, run.template, run.sampling,
                           run.world, extract=run.args.extract, reward=run.reward, k=1, seed=run.args.seed)
    return summarise(records)["avg@k"]


def save_models(run: Run) -> None:
    """The actor in Hugging Face format in model/, the critics beside it in critic0/, critic1/, …"""
    out = run.folder.path
    with writing(out / "model"):
        save_actor(run.actor, run.tokenizer, out / "model", run.world)
        for m, critic in enumerate(run.critics):
            save_critic(critic, run.tokenizer, out / f"critic{m}", run.world)


# -- what a run needs ----------------------------------------------------------------------------------------
@dataclass
class Run:
    """What the steps of one run share."""

    args: argparse.Namespace
    world: World
    folder: Folder
    tokenizer: object
    template: str | None
    problems: list[Problem]
    held_out: list[Problem]
    sampling: Sampling
    verifier: Verifier
    reward: Callable  # (texts, golds) -> 1.0 for each right one, else 0.0; a fork puts its own here
    actor: Actor
    actor_optimizer: torch.optim.Optimizer
    critics: list[MiniCritic]
    critic_optimizers: list[torch.optim.Optimizer]

    @property
    def trained(self) -> distributed.Trained:
        """Everything that a checkpoint holds."""
        pairs = [(self.actor, self.actor_optimizer), *zip(self.critics, self.critic_optimizers)]
        return dict(zip(["actor", *(f"critic{m}" for m in range(len(self.critics)))], pairs))

    def values(self, rollout: Rollout, metrics: dict[str, float]) -> torch.Tensor:
        """Every critic's value of every state, [M, B, T]."""
        with timed(metrics, "values", self.world):
            return ensemble_values(self.critics, rollout, self.args.token_budget, self.world)


def set_up(args: argparse.Namespace, world: World) -> Run:
    """Everything that can be wrong with the user's models and data is found here, cheap checks first."""
    names, n_responses = critic_names(args), args.prompts_per_step * args.group_size
    equal_critics = args.n_critics > 1 and len(set(names)) == 1
    one_update = (args.critic_minibatch_size or args.minibatch_size) >= n_responses
    refuse(equal_critics and args.shard_by == "none" and one_update,
           "--shard-by none would fit equal critics alike, so that they never disagree; give a "
           f"--critic-minibatch-size below the {n_responses} responses of a step (each critic then has its "
           "own order), or different --critics.")
    with together(world):
        if args.wandb == "online" and world.is_main:
            import wandb

            refuse(not wandb.login(prompt=False),  # it would ask in the middle of a job
                   "--wandb online: no login is known here; run `wandb login` first, or use --wandb offline.")
    tokenizer = load_tokenizer(args.model, "--model")
    for name in dict.fromkeys(names):
        refuse(load_tokenizer(name, "--critics").get_vocab() != tokenizer.get_vocab(),
               f"--critics {name}: its tokenizer is not the actor's; critics read the actor's tokens.")
    template = read_template(args.template, tokenizer, args.model)
    problems = load_problems(args.data, args.n_problems, args.seed)
    held_out = load_problems(args.eval_data, None, args.seed, "test", "--eval-data") if args.eval_data else []
    prompts = [prompt_tokens(p.problem, template, tokenizer) for p in problems + held_out]
    longest = max(map(len, prompts)) + args.max_new_tokens
    refuse(longest > args.token_budget,
           f"--token-budget {args.token_budget} cannot hold the longest prompt and response "
           f"({longest} tokens).")
    rows = check_config(args.model, "--model", prompts, args.max_new_tokens)
    drawn = [i for i in tokenizer.get_vocab().values() if i < rows]
    for name in dict.fromkeys(names):
        check_config(name, "--critics", prompts, args.max_new_tokens, drawn)
    folder = open_folder(args, args.algo, MAY_CHANGE, world)
    done = max(saved_steps(folder.path / "checkpoint"), default=0)
    refuse(args.resume and args.critic_warmup + args.steps < done,
           f"--resume: the run in {folder.path} has done more than {args.steps} steps already; "
           "raise --steps.")

    draw = plan.Draw(folder.generate_batch, n_responses, args.group_size, max(map(len, prompts)))
    args, world = plan.settle(args, names, draw, world)
    dtype = compute_dtype(args.dtype, world)
    how = dict(gradient_checkpointing=args.gradient_checkpointing, offload=args.offload)
    actor = load_actor(args.model, world, dtype, args.temperature, **how)
    critics = [load_critic(name, world, dtype, **how) for name in names]
    check_generation(actor, tokenizer, min(prompts, key=len), args.max_new_tokens, args.model, world, dtype)
    digests = {"--data": digest(problems), "--eval-data": digest(held_out), "--model": actor.lm.digest}
    digests["--critics"] = " ".join(critic.backbone.digest for critic in critics)
    digests["--template"] = digest([Problem(template or tokenizer.chat_template, "")])
    sampling = sampling_of(args, stop_token_ids(actor, tokenizer, template))
    folder.begin(args, digests, world)
    if world.is_main:
        print(f"{args.algo}: actor {args.model}, {len(critics)} critics {' '.join(dict.fromkeys(names))}")
        print(f"{len(problems)} problems, {args.prompts_per_step} × {args.group_size} responses a step, "
              f"{args.minibatch_size} per optimizer step, {args.epochs} passes; "
              f"{' × '.join(map(str, world.mesh.shape))} × {world.device.type}, {dtype}; "
              f"files in {folder.path}", flush=True)
    verifier = Verifier(args.extract)
    return Run(
        args=args, world=world, folder=folder, tokenizer=tokenizer, template=template, problems=problems,
        held_out=held_out, sampling=sampling, verifier=verifier, reward=verifier.reward,
        actor=actor, actor_optimizer=adamw(actor, args.lr),
        critics=critics, critic_optimizers=[adamw(critic, args.critic_lr) for critic in critics])


# the paper's pairs: the Qwen3 actor's (hidden size, layers) -> its mini-critics
QWEN3_CRITICS = {
    (2560, 36): "Qwen/Qwen3-0.6B-Base",  # 4B
    (4096, 36): "Qwen/Qwen3-1.7B-Base",  # 8B
    (5120, 40): "Qwen/Qwen3-4B-Base",  # 14B
}


def critic_names(args: argparse.Namespace) -> list[str]:
    """One name per critic. PPO's classic critic is as large as the actor; AsyPPO's is the paper's pair."""
    if args.critics:
        return args.critics if len(args.critics) == args.n_critics else args.critics * args.n_critics
    if ALGORITHMS[args.algo].critic_like_actor or args.n_critics == 0:
        return [args.model] * args.n_critics
    config = load_config(args.model, "--model")
    sizes = (config.hidden_size, config.num_hidden_layers) if config.model_type == "qwen3" else None
    refuse(sizes not in QWEN3_CRITICS,
           f"--model {args.model}: no default mini-critics are known for it (they are for Qwen3 4B, 8B "
           "and 14B); name them with --critics: a pretrained model with the same tokenizer, or one for each "
           "critic.")
    return [QWEN3_CRITICS[sizes]] * args.n_critics


# -- settings and flags --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Algorithm:
    """What --algo stands for. A flag given by the user wins over the defaults."""

    defaults: dict
    critic_like_actor: bool = False  # else mini-critics
    advantages: Callable | None = None  # without critics: (rewards_B, group_B, args) -> [B]


NO_MASKS = dict(shard_by="none", mask_by="none", filter_by="none")
NO_CRITICS = NO_MASKS | dict(n_critics=0, whiten=False, entropy_coef=0.0)
ALGORITHMS = {
    "asyppo": Algorithm({}),
    "ppo": Algorithm(NO_MASKS | dict(n_critics=1), critic_like_actor=True),
    "grpo": Algorithm(NO_CRITICS, advantages=lambda rewards_B, group_B, args: asyppo.group_advantages(
        rewards_B, group_B, args.group_std)),
}

TINY = Path(__file__).resolve().parent / "tiny"
TINY_DEFAULTS = (  # without a --model: minutes on a CPU
    dict(model=f"{TINY}/actor", data=f"{TINY}/train.jsonl", eval_data=f"{TINY}/test.jsonl", n_problems=0)
    | dict(prompts_per_step=16, group_size=16, max_new_tokens=80, token_budget=4096, generate_batch=256)
    | dict(lr=5e-5, minibatch_size=128, critic_lr=1e-4, critic_minibatch_size=16)
    | dict(steps=15, eval_every=5, gradient_checkpointing=False)
)

# a resumed run may have other ones
MAY_CHANGE = {"steps", "out", "resume", "eval_every", "save_every", "keep", "max_bad_steps", "wandb"}
MAY_CHANGE |= {"timeout", "device", "offload", "generate_batch", "token_budget", "ranks_per_copy"}
MAY_CHANGE |= {"plan", "gpus", "gpu_memory"}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The run's settings: all flags, and what follows from them."""
    parser = distributed.Parser(__doc__)
    switch, least_0, least_1 = argparse.BooleanOptionalAction, number(int, 0), number(int, 1)
    positive, share = number(float, 0, above=True), number(float, 0, 1)

    add = parser.add_argument_group("models").add_argument
    add("--model", help="actor: directory or hub id; default: the embedded tiny/actor with small sizes")
    add("--critics", nargs="+", help="mini-critics: one name for all, or one each; default: by the actor's family and size")
    add("--n-critics", type=least_0, default=2, help="M, the number of critics")
    add("--gradient-checkpointing", action=switch, default=True, help="recompute activations in backward to save memory")
    add("--offload", choices=("auto", *plan.OFFLOAD), default="auto", help="what waits on the CPU; auto: the least that the GPU's memory asks for, moments: AdamW's while their model is not updated, all: weights, gradients and moments, slowly")

    add = parser.add_argument_group("problems").add_argument
    add("--data", default="zwhe99/DeepMath-103K", help="training problems: .jsonl, .parquet, or hub id as ID[:CONFIG[:SPLIT]]")
    add("--n-problems", type=least_0, default=5000, help="train on this many of them, drawn by seed; 0 means all")
    add("--prompts-per-step", type=least_1, default=32, help="P, prompts in a rollout batch")
    add("--group-size", type=least_1, default=32, help="G, responses to each prompt")
    generation.add_flags(parser, greedy=False)

    add = parser.add_argument_group("critics").add_argument
    add("--critic-lr", type=positive, default=5e-6, help="AdamW learning rate of the critics")
    add("--critic-epochs", type=least_1, default=4, help="passes of each critic over its shard of a rollout")
    add("--critic-order", choices=("first", "last"), default="first", help="first: fit, then ask them for the values of the advantage (the paper); last: values from before the fit")
    add("--critic-minibatch-size", type=least_1, help="responses of its shard per optimizer step of a critic, at most; default: as many steps as the actor")
    add("--critic-warmup", type=least_0, default=0, help="rollouts before the others that fit the critics and leave the actor alone")
    add("--critic-states", type=share, nargs="+", help="fit at these fractions of each response only, e.g. 0.3 0.6 0.9 (SP3O); default: all tokens")
    add("--critic-norm", choices=("none", "std"), default="none", help="std: a group's loss over its rewards' deviation in the shard (EasyPPO)")
    add("--gate", action=switch, default=False, help="the group's mean as baseline while critics explain nothing of unseen responses (EVPO)")
    add("--shard-by", choices=("group", "prompt", "none"), default="group", help="divide each group's responses over critics, whole prompts, or nothing")
    add("--aggregate", choices=("mean", "min", "crossfit"), default="mean", help="ensemble value; crossfit: of critics not fitted on the response")

    add = parser.add_argument_group("advantage").add_argument
    add("--gamma", type=share, default=1.0, help="discount γ")
    add("--lam", type=share, default=1.0, help="λ of the actor's GAE")
    add("--critic-lam", type=share, default=1.0, help="λ of the critics' targets; 1 is the Monte-Carlo return")
    add("--whiten", action=switch, default=True, help="advantages to mean 0, deviation 1 over the batch, before the mask")
    add("--group-std", action=switch, default=True, help="grpo: divide by the group's standard deviation")

    add = parser.add_argument_group("policy objective").add_argument
    add("--algo", choices=tuple(ALGORITHMS), default="asyppo", help="sets the defaults of the flags below and above")
    add("--lr", type=positive, default=1e-6, help="AdamW learning rate of the actor")
    add("--epochs", type=least_1, default=4, help="passes over a rollout (the paper's update-to-data ratio)")
    add("--minibatch-size", type=least_1, help="responses per optimizer step at most, equal parts; default: all of the rollout")
    add("--clip-low", type=positive, default=0.2, help="ε: the probability ratio ρ is clipped from below at 1 − ε")
    add("--clip-high", type=positive, default=0.2, help="ε: ρ is clipped from above at 1 + ε")
    add("--entropy-coef", type=number(float, 0), default=1e-3, help="β, weight of the entropy bonus")
    signals = ("std", "entropy", "random", "none")
    add("--mask-by", choices=signals, default="std", help="tokens lowest in this get no policy gradient")
    add("--mask-fraction", type=lambda text: text if text == "adaptive" else share(text), help="k, share of tokens so masked (default: 0.2, with none 0); adaptive: less as the critics learn")
    add("--filter-by", choices=signals, default="std", help="tokens highest in this get no entropy bonus")
    add("--filter-fraction", type=share, help="h, share of response tokens so filtered (default: 0.2, with none 0)")
    add("--loss-norm", choices=("sequence", "token"), default="sequence", help="mean over each response, then responses; or over all tokens")
    add("--max-grad-norm", type=positive, default=1.0, help="gradient norms are clipped to this, actor and critics")

    add = parser.add_argument_group("run").add_argument
    add("--seed", type=int, default=0, help="rules the streams data, sampling, shards and minibatches, independently")
    add("--steps", type=least_1, default=500, help="rollouts to train the actor on, after those of --critic-warmup")
    add("--token-budget", type=least_1, default=16384, help="tokens of a micro-batch, padding included: a hard bound")
    add("--eval-every", type=least_0, default=10, help="steps between evaluations on --eval-data (first and last always), inside/ files and the costlier metrics; 0: none between")
    add("--eval-data", help="held-out problems, named like --data; one sampled response each")
    add("--save-every", type=least_0, default=20, help="steps between checkpoints; 0: only at the end")
    add("--keep", type=least_1, default=1, help="checkpoints to keep, the last ones")
    add("--max-bad-steps", type=least_1, default=3, help="stop after so many steps in a row with a gradient that is not finite")
    add("--out", type=Path, help="folder of the run; default: runs/ALGO-TIME")
    add("--resume", nargs="?", const=True, help="go on from the checkpoint in --out, or in the folder given here")
    add("--wandb", choices=("disabled", "offline", "online"), default="disabled", help="log to Weights & Biases as well")
    add("--plan", action="store_true", help="print the bytes of every phase on each GPU, from the models' configurations alone, and stop")
    add("--gpus", type=least_1, default=1, help="with --plan: so many GPUs, which hold one copy of the weights together unless --ranks-per-copy is given")
    add("--gpu-memory", type=positive, default=80.0, help="with --plan: GiB of each")
    distributed.add_flags(parser)

    first, _ = parser.parse_known_args(argv)
    algorithm = ALGORITHMS[first.algo]
    parser.set_defaults(**algorithm.defaults)
    if first.model is None:
        mini_critics = not (algorithm.critic_like_actor or algorithm.advantages)
        parser.set_defaults(**TINY_DEFAULTS, critics=[f"{TINY}/critic"] if mini_critics else None)
    try:
        return derive(parser.parse_args(argv))
    except UserError as error:
        parser.error(str(error))


def derive(flags: argparse.Namespace) -> argparse.Namespace:
    """The settings that flags make: what follows from other flags is filled in, what cannot work refused."""
    algo, n_critics, n_responses = flags.algo, flags.n_critics, flags.prompts_per_step * flags.group_size
    without_critics = ALGORITHMS[algo].advantages is not None
    refuse(not without_critics and n_critics == 0,
           f"--n-critics 0 leaves --algo {algo} without advantages; use --algo grpo for a run without "
           "critics.")
    refuse(without_critics and (n_critics or flags.critics),
           f"--algo {algo} has no critics: leave out --critics and --n-critics, or use --algo ppo or asyppo.")
    refuse(flags.critics and len(flags.critics) not in (1, n_critics),
           f"--critics names {len(flags.critics or [])} models for --n-critics {n_critics}: give one, or one "
           "each.")

    by = {"mask": flags.mask_by, "filter": flags.filter_by}
    refuse(n_critics == 0 and "std" in by.values(),
           f"--mask-by std and --filter-by std need critics; use entropy, random or none with --algo {algo}.")
    if n_critics == 1 and "std" in by.values():
        by = {name: "none" if chosen == "std" else chosen for name, chosen in by.items()}
        if os.environ.get("RANK", "0") == "0":
            text = "One critic has no disagreement: --mask-by std and --filter-by std become none."
            print(text, file=sys.stderr)
    fractions = {"mask": flags.mask_fraction, "filter": flags.filter_fraction}
    for name, fraction in fractions.items():
        refuse(by[name] == "none" and fraction,
               f"--{name}-fraction {fraction} needs a signal to choose tokens by, not none.")
        fractions[name] = fraction if fraction is not None else 0.0 if by[name] == "none" else 0.2

    minibatch_size = min(flags.minibatch_size or n_responses, n_responses)
    unit = flags.group_size if flags.shard_by == "prompt" else 1  # responses that stay together
    smallest_shard = n_responses // unit // max(1, n_critics) * unit
    refuse(flags.shard_by == "group" and flags.group_size < n_critics,
           f"--group-size {flags.group_size} cannot be divided over {n_critics} critics; raise it.")
    refuse(flags.shard_by == "prompt" and flags.prompts_per_step < n_critics,
           f"--prompts-per-step {flags.prompts_per_step} cannot be divided over {n_critics} critics; "
           "raise it.")
    as_the_actor = n_critics and not flags.critic_minibatch_size
    refuse(flags.shard_by != "none" and as_the_actor and smallest_shard < -(-n_responses // minibatch_size),
           f"--minibatch-size {minibatch_size} leaves critics without a response in a minibatch; raise it.")
    unseen = n_critics > 1 and flags.shard_by != "none"
    for flag, wanted in (("--aggregate crossfit", flags.aggregate == "crossfit"), ("--gate", flags.gate),
                         ("--mask-fraction adaptive", flags.mask_fraction == "adaptive")):
        refuse(wanted and not unseen,
               f"{flag} needs responses that a critic was not fitted on: two critics or more, and shards.")
    refuse(n_critics == 0 and flags.critic_warmup, "--critic-warmup needs critics.")

    out = Path(flags.resume) if isinstance(flags.resume, str) else flags.out
    refuse(flags.out and flags.out != out,
           f"--resume {out} and --out {flags.out} name two folders; give one.")
    refuse(flags.resume and not out, "--resume needs the folder of the run: --resume DIR or --out DIR.")
    derived = dict(mask_by=by["mask"], mask_fraction=fractions["mask"], minibatch_size=minibatch_size)
    derived |= dict(filter_by=by["filter"], filter_fraction=fractions["filter"])
    return argparse.Namespace(**vars(flags) | derived | dict(n_problems=flags.n_problems or None, out=out))


def main(argv: list[str] | None = None) -> int:
    distributed.secure_output()
    args = parse_args(argv)
    if args.plan:
        return distributed.exit_code("train.py", lambda: print(plan.preview(args, critic_names(args))))
    world = lambda: distributed.start(args.device, args.timeout, args.ranks_per_copy)
    return distributed.exit_code("train.py", lambda: train(args, world()))


if __name__ == "__main__":
    sys.exit(main())
