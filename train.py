"""AsyPPO: two mini-critics, each fitted on its own half of every prompt's responses, guide a larger actor.

    python train.py                                                   # the embedded default: CPU, minutes
    torchrun train.py --model Qwen/Qwen3-4B-Base                      # the paper's setting on one GPU
    torchrun --nproc_per_node 8 train.py --model Qwen/Qwen3-4B-Base   # the same, sharded over eight GPUs
    python train.py --algo ppo                                        # baselines: ppo and grpo, the same code

Liu et al., Asymmetric Proximal Policy Optimization: mini-critics boost LLM reasoning, arXiv 2510.01656, ICLR 2026.

In reading order: one step of the method, the loop around it, what a run needs, and the flags. In this code, verl#1960
and the like are GitHub issues that describe a pitfall. A rollout is all responses of one step.

Legend for shape suffixes: M critics, B responses of the step, T response tokens (padded). mask_BT is true on response
tokens, group_B is the index of a response's prompt, std_BT is the paper's σ. All of these tensors are on the CPU and
equal on every rank.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

import asyppo
from critics import adaptive_fraction, ensemble_values, fit_critics, gated, shard, targets, unseen_values, with_replay
from engine import plan
from engine.checkpoint import Trained, load_checkpoint, save_checkpoint, saved_steps
from engine.command_line import AT_LEAST_0, COUNT, COUNT_OR_0, GPUS, POSITIVE, SHARE, Parser
from engine.command_line import add_process_flags, add_response_flags, exit_code
from engine.distributed import Signals, World, gather_list, raise_on_all_ranks, start
from engine.duration import time_plan
from engine.errors import UserError, require, run_error
from engine.files import jsonable
from engine.folder import Folder, open_folder
from engine.generation import SamplingConfig
from engine.log import GROUPS_SAVED, Log, start_wandb
from engine.metrics import Timer, batch_metrics, correlation_metrics, value_metrics
from engine.model_check import check_config, check_generation, check_states
from engine.models import Actor, MiniCritic, load_actor, load_config, load_critic, load_tokenizer
from engine.models import save_actor, save_critic
from engine.sharding import OFFLOAD, compute_dtype, offloaded
from engine.streams import generator, stream_seed
from engine.updates import UpdateConfig, adamw, mean_of_updates, score_responses, update_model
from evaluate import benchmark_name, evaluate, summarise
from rollout import Problem, Rollout, RolloutConfig, digests, load_problems, problems_of_step, read_template
from rollout import print_unparsable, rollout_samples, sample_rollout, stop_token_ids, tokenize
from verifier import Verifier


def train_step(run: Run, step: int) -> tuple[dict[str, float], Rollout, asyppo.PolicyData]:
    """Make one step of the method, in the paper's order. -> metrics, rollout, inputs of the objective"""
    args, world, timer, metrics = run.args, run.world, Timer(run.world), {}
    detailed = is_eval_step(step, args.eval_every)

    # 1. Rollout: sample P prompts, draw G responses to each from the current policy, verify them.
    problems = problems_of_step(run.problems, step, args.prompts_per_step, args.seed)
    seed = stream_seed(args.seed, "rollout", step)
    with offloaded(run.optimizers, args.offload):
        rollout = sample_rollout(run.actor, run.tokenizer, problems, run.rollout_config, seed, timer, world, detailed)
    mask_BT = rollout.mask_BT

    if run.critics:
        # 2. Shard: each critic gets its own part of every prompt's responses.
        order = generator(args.seed, "shards", step)
        rollout.shards_MB = shards_MB = shard(rollout.group_B, len(run.critics), args.shard_by, order)

        # 3. Fit: each critic minimises (V_m(s_t) − R_t)² over its shard. Then it computes values of all responses.
        values_MBT, fit_metrics = fit_and_value(run, rollout, step, timer)

        # 4. Ensemble: the mean of the critics' values gives the advantage (GAE), their disagreement is σ.
        rewards_BT = asyppo.terminal_rewards(rollout.rewards_B, mask_BT)
        values_BT = asyppo.aggregate(values_MBT, args.aggregate, shards_MB)
        lam = asyppo.lam_by_length(mask_BT, args.lam_by_length) if args.lam_by_length else args.lam
        raw_BT = asyppo.gae(rewards_BT, values_BT, mask_BT, args.gamma, lam)
        std_BT = asyppo.disagreement(values_MBT)

        returns_BT = asyppo.discounted_returns(rewards_BT, mask_BT, args.gamma)
        unseen_BT = unseen_values(values_MBT, shards_MB)
        metrics |= fit_metrics | value_metrics(values_MBT, unseen_BT, std_BT, returns_BT, rollout, shards_MB)
        if args.gate:
            raw_BT, metrics["gated"] = gated(raw_BT, rollout, unseen_explained_variance(metrics))
    else:  # GRPO: the group's mean reward is the baseline, in place of steps 2 to 4
        advantages_B = asyppo.group_advantages(rollout.rewards_B, rollout.group_B, args.group_std)
        raw_BT, std_BT = mask_BT * advantages_B[:, None], None  # without critics there is no σ
    advantages_BT = asyppo.whiten(raw_BT, mask_BT, rollout.rewards_B) if args.whiten else raw_BT

    # 5. Masks: no policy gradient where the critics agree most, no entropy bonus where they disagree most.
    mask_signal_BT = token_signal(args.mask_by, std_BT, rollout, generator(args.seed, "random mask", step))
    advantage_mask_BT = asyppo.advantage_mask(mask_signal_BT, mask_BT, resolve_fraction(args.mask_fraction, metrics))
    filter_signal_BT = token_signal(args.filter_by, std_BT, rollout, generator(args.seed, "random filter", step))
    entropy_filter_BT = asyppo.entropy_filter(filter_signal_BT, mask_BT, args.filter_fraction)

    # 6. Policy: several passes of the clipped objective over the same rollout.
    data = asyppo.PolicyData(rollout.old_logp_BT, advantages_BT, advantage_mask_BT, entropy_filter_BT)
    if step > args.critic_warmup:  # before, only the critics are updated
        with timer.phase("policy"), offloaded(run.critic_optimizers, args.offload):
            metrics |= update_policy(run, rollout, data, step)

    if run.critics and detailed:
        metrics |= correlation_metrics(values_MBT, std_BT, advantages_BT, rollout)
    metrics |= batch_metrics(rollout, raw_BT, advantage_mask_BT, entropy_filter_BT)
    return metrics | timer.metrics(int(mask_BT.sum())), rollout, data


def fit_and_value(run: Run, rollout: Rollout, step: int, timer: Timer) -> tuple[torch.Tensor, dict[str, float]]:
    """Step 3: fit each critic on its shard, then compute values of all responses. -> values_MBT, metrics of the fit

    With --critic-order last the values are those from before the fit. With --critic-lam below 1 the targets bootstrap
    from these. --critic-replay fits on the shards of the last rollouts.
    """
    args = run.args

    def values() -> torch.Tensor:
        with timer.phase("values"):
            return ensemble_values(run.critics, rollout, args.token_budget, run.world)

    before_MBT = values() if args.critic_order == "last" or args.critic_lam < 1 else None
    fitted = with_replay(run.replay, rollout, args.critic_replay)
    targets_MBT = targets(fitted, before_MBT, len(run.critics), args.gamma, args.critic_lam)
    n_minibatches = None if args.critic_minibatch_size else math.ceil(len(rollout) / args.minibatch_size)
    config = UpdateConfig(args.critic_epochs, args.critic_minibatch_size, args.token_budget, args.max_grad_norm,
                          args.seed, loss_norm="token", n_minibatches=n_minibatches)
    with timer.phase("fit_critics"), offloaded([run.actor_optimizer], args.offload):
        metrics = fit_critics(run.critics, run.critic_optimizers, fitted, targets_MBT, config, step, run.world,
                              args.critic_states, args.critic_norm)
    rollout.values_MBT = before_MBT if args.critic_order == "last" else values()
    return rollout.values_MBT, metrics


def update_policy(run: Run, rollout: Rollout, data: asyppo.PolicyData, step: int) -> dict[str, float]:
    """Step 6: --epochs passes over the rollout, one optimizer step for each minibatch. -> metrics

    --truncated masked leaves truncated responses out (EasyPPO; DAPO's overlong filtering). They still count in the
    advantages and in the critics' fit.
    """
    args = run.args
    clips = dict(clip_low=args.clip_low, clip_high=args.clip_high)
    token_loss = partial(asyppo.policy_loss, **clips, entropy_coef=args.entropy_coef)
    loss = partial(run.actor.loss, token_loss=token_loss, with_entropy=args.entropy_coef > 0)
    config = UpdateConfig(
        args.epochs, args.minibatch_size, args.token_budget, args.max_grad_norm, args.seed, args.loss_norm)
    rows = [b for b, cut in enumerate(rollout.truncated_B.tolist()) if args.truncated == "wrong" or not cut]
    if not rows:  # every response is truncated
        return {}
    updates = update_model(run.actor, run.actor_optimizer, loss, rollout, rows, data, rollout.mask_BT, config,
                           ("minibatches", step), run.world)
    means, updates_per_pass = mean_of_updates(updates), len(updates) // args.epochs
    last_pass = mean_of_updates(updates[-updates_per_pass:])
    return {"policy_loss": means.pop("loss"), "approx_kl_first": updates[0]["approx_kl"],
            "clip_frac_last": last_pass["clip_frac"]} | means


def token_signal(by: str, std_BT, rollout: Rollout, order: torch.Generator) -> torch.Tensor | None:
    """Return the signal that --mask-by or --filter-by ranks tokens by, [B, T]; None if no token is masked."""
    if by == "random":
        return torch.rand(rollout.mask_BT.shape, generator=order)
    return {"std": std_BT, "entropy": rollout.old_entropy_BT, "none": None}[by]


def resolve_fraction(fraction: float | str, metrics: dict[str, float]) -> float:
    """Return k of step 5; adaptive: it shrinks as the critics learn."""
    return adaptive_fraction(unseen_explained_variance(metrics)) if fraction == "adaptive" else fraction


def unseen_explained_variance(metrics: dict[str, float]) -> float:
    """Return the variance that the critics explain outside their shards; NaN if all returns are equal."""
    return metrics.get("ensemble/explained_variance_heldout", math.nan)


def is_eval_step(step: int, eval_every: int) -> bool:
    """Return whether --eval-every asks for an evaluation and detailed metrics after this step."""
    return bool(eval_every) and step % eval_every == 0


# -- the loop ------------------------------------------------------------------------------------------------
def train(args: argparse.Namespace, world: World) -> int:
    """Train. -> exit code: 0 on success, 1 after too many bad steps, 128 + signal if a signal stopped the run"""
    began = time.time()
    inputs = check_inputs(args, world)
    args, world = settle(args, inputs, world)
    models = load_models(args, inputs, world)
    run = open_run(args, inputs, models, world)

    done = load_checkpoint(run.checkpoint, run.trained, world, run.replay) if args.resume else 0
    last_step, bad_steps = args.critic_warmup + args.steps, 0
    eval_key = f"eval/{benchmark_name(args.eval_data)}" if run.held_out else None
    log = Log(run.folder.path, done, last_step, eval_key, inputs.wandb, world)
    with run.verifier, Signals(world) as signals:
        # evaluate before step 1, or catch up on an evaluation that the interruption skipped
        is_due = done in (0, last_step) or is_eval_step(done, args.eval_every)
        if eval_key and is_due and not log.is_evaluated(done):
            log.write(done, {eval_key: held_out_accuracy(run)})
        for step in range(done + 1, last_step + 1):
            failures = run.verifier.failures
            metrics, rollout, data = train_step(run, step)
            metrics["verify_failures"] = sum(gather_list([run.verifier.failures - failures], world))
            skipped_keys = [key for key in metrics if key.endswith("skipped_updates")]
            metrics["skipped_updates"] = skipped = sum(metrics.pop(key) for key in skipped_keys)
            if skipped:
                log.save_bad_step(step, rollout, data._asdict())
            bad_steps = bad_steps + 1 if skipped else 0
            hopeless, is_last = bad_steps == args.max_bad_steps, step == last_step
            detailed = is_eval_step(step, args.eval_every)
            if eval_key and (detailed or is_last) and not hopeless and not signals.poll()[0]:
                metrics[eval_key] = held_out_accuracy(run)
            samples = rollout_samples(rollout, run.tokenizer, step)
            if detailed and not skipped:
                n = GROUPS_SAVED * args.group_size
                new_logp_BT = score_responses(run.actor, rollout, args.token_budget, world, n)[0]
                log.save_tokens(step, rollout, data._asdict(), new_logp_BT, samples)
            log.write(step, metrics, samples)

            stop_signal, save_asked = signals.poll()
            save_due = save_asked or (args.save_every and step % args.save_every == 0)
            if save_due or is_last or hopeless or stop_signal:
                signals.save_asked = False
                replay = run.replay if args.critic_replay > 1 else []
                save_checkpoint(run.checkpoint, run.trained, step, args.keep, world, replay)
            if hopeless:
                log.stop(step, f"{bad_steps} steps in a row had non-finite gradients")
                return 1
            if stop_signal and not is_last:
                log.stop(step, signal.Signals(stop_signal).name)
                return 128 + stop_signal
    save_models(run)
    log.finish(time.time() - began, args.steps)
    return 0


def held_out_accuracy(run: Run) -> float:
    """Return the accuracy on the held-out problems, with one sampled response to each."""
    config = replace(run.rollout_config, group_size=1)
    with offloaded(run.optimizers, run.args.offload):
        records = evaluate(run.actor, run.tokenizer, {"held-out": run.held_out}, config, run.args.seed, run.world)
    return summarise(records)["avg@k"]


def save_models(run: Run) -> None:
    """Write the actor in Hugging Face format to model/, the critics beside it to critic0/, critic1/, …"""
    out = run.folder.path
    with run_error(out):
        save_actor(run.actor, run.tokenizer, out / "model", run.world)
        for m, critic in enumerate(run.critics):
            save_critic(critic, run.tokenizer, out / f"critic{m}", run.world)


# -- what a run needs ----------------------------------------------------------------------------------------
@dataclass
class Run:
    """The state that all steps of a run share."""

    args: argparse.Namespace
    world: World
    folder: Folder
    tokenizer: object
    problems: list[Problem]
    held_out: list[Problem]
    rollout_config: RolloutConfig
    verifier: Verifier
    actor: Actor
    actor_optimizer: torch.optim.Optimizer
    critics: list[MiniCritic]
    critic_optimizers: list[torch.optim.Optimizer]
    replay: list[Rollout]  # the last --critic-replay rollouts

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.actor_optimizer, *self.critic_optimizers]

    @property
    def trained(self) -> Trained:
        """Everything that a checkpoint holds."""
        critics = {f"critic{m}": pair for m, pair in enumerate(zip(self.critics, self.critic_optimizers))}
        return {"actor": (self.actor, self.actor_optimizer)} | critics

    @property
    def checkpoint(self) -> Path:
        return self.folder.path / "checkpoint"


@dataclass
class Inputs:
    """Validated inputs, before any model is loaded."""

    critic_names: list[str]
    tokenizer: object
    template: str | None
    problems: list[Problem]
    held_out: list[Problem]
    folder: Folder
    prompts: list[tuple[int, ...]]  # of problems and held_out
    wandb: object | None  # the wandb run, on rank 0


def check_inputs(args: argparse.Namespace, world: World) -> Inputs:
    """Validate everything before any model is loaded; cheap checks first."""
    names, n_responses = critic_names(args), args.prompts_per_step * args.group_size
    same_critics = args.n_critics > 1 and len(set(names)) == 1 and args.shard_by == "none"
    require(not same_critics or (args.critic_minibatch_size or args.minibatch_size) < n_responses,
            "identical critics that see the same data (--shard-by none) never disagree. Give different --critics, or a "
            f"--critic-minibatch-size below the {n_responses} responses of a step, so that each has its own order.")
    tokenizer = load_tokenizer(args.model, "--model")
    for name in dict.fromkeys(names):
        require(load_tokenizer(name, "--critics").get_vocab() == tokenizer.get_vocab(),
                f"--critics {name}: its tokenizer is not the actor's; critics read the actor's tokens.")
    template = read_template(args.template, tokenizer, args.model)
    problems = tokenize(load_problems(args.data, args.n_problems, args.seed), template, tokenizer)
    held_out = load_problems(args.eval_data, None, args.seed, "test", "--eval-data") if args.eval_data else []
    held_out = tokenize(held_out, template, tokenizer)
    prompts = [p.prompt for p in problems + held_out]
    if len(problems) > 1 and len({p.answer for p in problems}) == 1 and world.is_main:
        print(f"--data {args.data}: all {len(problems)} answers are {problems[0].answer!r}; the actor can learn to "
              "say this without reading the problem.", file=sys.stderr)
    longest = max(map(len, prompts)) + args.max_new_tokens
    require(longest <= args.token_budget,
            f"--token-budget {args.token_budget} cannot hold the longest prompt and response "
            f"({longest} tokens); raise it.")
    vocab_size = check_config(args.model, "--model", prompts, args.max_new_tokens)
    sampled_ids = [i for i in tokenizer.get_vocab().values() if i < vocab_size]
    for name in dict.fromkeys(names):
        check_config(name, "--critics", prompts, args.max_new_tokens, sampled_ids)
    folder = open_folder(args.out, bool(args.resume), jsonable(vars(args)), MAY_CHANGE, args.algo, world)
    done = max(saved_steps(folder.path / "checkpoint"), default=0)
    require(not args.resume or args.critic_warmup + args.steps >= done,
            f"--resume: the run in {folder.path} has done {done} steps already; raise --steps.")
    with raise_on_all_ranks(world):
        wandb = start_wandb(folder.path, args.wandb, jsonable(vars(args))) if world.is_main else None
    return Inputs(names, tokenizer, template, problems, held_out, folder, prompts, wandb)


def settle(args: argparse.Namespace, inputs: Inputs, world: World) -> tuple[argparse.Namespace, World]:
    """Resolve auto for --offload and --generate-batch, and choose how ranks shard the models."""
    if args.generate_batch == "auto" and inputs.folder.old_generate_batch:
        args = argparse.Namespace(**vars(args) | {"generate_batch": inputs.folder.old_generate_batch})
    work = workload(args, inputs.critic_names, max(map(len, inputs.prompts)))
    chosen, world = plan.settle(work, args.dtype, args.ranks_per_copy, world)
    return argparse.Namespace(**vars(args) | chosen), world


def workload(args: argparse.Namespace, names: list[str], longest_prompt: int) -> plan.Workload:
    share = 1.0 if args.shard_by == "none" else 1 / max(1, len(names))  # of the responses, for each critic
    return plan.Workload(args.model, names, args.prompts_per_step * args.group_size, args.group_size, longest_prompt,
                         args.max_new_tokens, args.token_budget, args.gradient_checkpointing, args.offload,
                         args.generate_batch, args.critic_replay, args.epochs, args.critic_epochs, share, args.steps)


def load_models(args: argparse.Namespace, inputs: Inputs, world: World) -> tuple[Actor, list[MiniCritic]]:
    """Load, shard and check the actor and the critics."""
    dtype = compute_dtype(args.dtype, world)
    options = dict(gradient_checkpointing=args.gradient_checkpointing, offload=args.offload)
    actor = load_actor(args.model, world, dtype, args.temperature, **options)
    check_states(actor, args.model, world, dtype)
    critics = []
    for name in inputs.critic_names:
        critics.append(load_critic(name, world, dtype, **options))
        check_states(critics[-1], name, world, dtype)
    check_generation(
        actor, inputs.tokenizer, inputs.prompts, args.max_new_tokens, args.model, world, dtype, args.decode)
    return actor, critics


def open_run(args: argparse.Namespace, inputs: Inputs, models: tuple[Actor, list[MiniCritic]], world: World) -> Run:
    """Claim the run's folder, start the verifier and make the optimizers."""
    (actor, critics), tokenizer, template = models, inputs.tokenizer, inputs.template
    # before the folder is claimed, because a chat template may raise
    stops = frozenset(stop_token_ids(actor, tokenizer, template))
    require(stops or args.stop, f"--model {args.model}: no token ends a response, so all would be truncated; name a "
                                "model with an EOS token, or give --stop.")
    (data, prompts), (held_out, held_out_prompts) = digests(inputs.problems), digests(inputs.held_out)
    named = {"--data": data, "--eval-data": held_out, "--model": actor.lm.digest,
             "--critics": " ".join(x.backbone.digest for x in critics),
             "--template (prompt tokens)": f"{prompts} {held_out_prompts}"}
    inputs.folder.begin(jsonable(vars(args)), named, world)
    if world.is_main:
        print(f"{args.algo}: actor {args.model}, {len(critics)} critics {' '.join(dict.fromkeys(inputs.critic_names))}")
        print(f"{len(inputs.problems)} problems, {args.prompts_per_step} × {args.group_size} responses a step, "
              f"{args.minibatch_size} per optimizer step, {args.epochs} passes; "
              f"{' × '.join(map(str, world.mesh.shape))} × {world.device.type}, {compute_dtype(args.dtype, world)}, "
              f"{torch.get_num_threads()} CPU threads a process; files in {inputs.folder.path}", flush=True)
    verifier = Verifier(args.extract, method=args.verifier)
    if world.is_main:
        print_unparsable(f"--data {args.data}", inputs.problems, verifier)
    sampling = SamplingConfig(args.max_new_tokens, args.temperature, stops, tuple(args.stop), args.generate_batch,
                              args.decode)
    rollout_config = RolloutConfig(args.group_size, sampling, args.extract, verifier.reward, args.token_budget)
    return Run(args, world, inputs.folder, tokenizer, inputs.problems, inputs.held_out, rollout_config, verifier,
               actor, adamw(actor, args.lr), critics, [adamw(critic, args.critic_lr) for critic in critics], replay=[])


# the paper's pairs: the Qwen3 actor's (hidden size, layers) -> its mini-critics
QWEN3_CRITICS = {
    (2560, 36): "Qwen/Qwen3-0.6B-Base",  # 4B
    (4096, 36): "Qwen/Qwen3-1.7B-Base",  # 8B
    (5120, 40): "Qwen/Qwen3-4B-Base",  # 14B
}


def critic_names(args: argparse.Namespace) -> list[str]:
    """Return a name for each critic. PPO's critic is as large as the actor; AsyPPO's are the paper's pair."""
    if args.critics:
        return args.critics if len(args.critics) == args.n_critics else args.critics * args.n_critics
    if args.algo == "ppo" or args.n_critics == 0:
        return [args.model] * args.n_critics
    config = load_config(args.model, "--model")
    size = (config.hidden_size, config.num_hidden_layers) if config.model_type == "qwen3" else None
    require(size in QWEN3_CRITICS,
            f"--model {args.model}: default critics exist only for Qwen3 4B, 8B and 14B; name critics with "
            "--critics: a pretrained model with the same tokenizer, or one for each critic.")
    return [QWEN3_CRITICS[size]] * args.n_critics


# -- settings and flags --------------------------------------------------------------------------------------
# defaults that --algo sets; explicit flags override them
NO_MASKS = dict(shard_by="none", mask_by="none", filter_by="none")
ALGORITHMS = {
    "asyppo": {},
    "ppo": NO_MASKS | dict(n_critics=1),
    "grpo": NO_MASKS | dict(n_critics=0, whiten=False, entropy_coef=0.0),
}

TINY = Path(__file__).resolve().parent / "tiny"
TINY_DEFAULTS = dict(  # without --model: minutes on a CPU
    model=f"{TINY}/actor", data=f"{TINY}/train.jsonl", eval_data=f"{TINY}/test.jsonl", n_problems=0,
    prompts_per_step=16, group_size=16, max_new_tokens=80, token_budget=4096, generate_batch=256,
    lr=5e-5, minibatch_size=128, critic_lr=1e-4, critic_minibatch_size=16,
    steps=15, eval_every=5, gradient_checkpointing=False)

# settings that a resumed run may change
MAY_CHANGE = {"steps", "out", "resume", "eval_every", "save_every", "keep", "max_bad_steps", "wandb"}
MAY_CHANGE |= {"offload", "generate_batch", "decode", "token_budget", "ranks_per_copy", "plan"}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Return the run's settings: all flags and the settings derived from them."""
    parser, switch = Parser(__doc__), argparse.BooleanOptionalAction

    add = parser.add_argument_group("method").add_argument
    add("--algo", choices=tuple(ALGORITHMS), default="asyppo",
        help="sets defaults of --n-critics, --critics, --shard-by, --mask-by, --filter-by, --whiten, --entropy-coef")
    add("--n-critics", type=COUNT_OR_0, default=2, help="M, the number of critics")
    add("--shard-by", choices=("group", "prompt", "none"), default="group", help="what is split over critics")
    add("--aggregate", choices=("mean", "min", "crossfit"), default="mean",
        help="ensemble value; crossfit: the mean over the critics not fitted on the response")
    signals = ("std", "entropy", "random", "none")
    add("--mask-by", choices=signals, default="std", help="tokens lowest in this signal get no policy gradient")
    add("--mask-fraction", type=lambda text: text if text == "adaptive" else SHARE(text),
        help="k, share of tokens masked (default 0.2, with none 0); adaptive: less as the critics learn")
    add("--filter-by", choices=signals, default="std", help="tokens highest in this signal get no entropy bonus")
    add("--filter-fraction", type=SHARE, help="h, share of tokens filtered (default 0.2, with none 0)")

    add = parser.add_argument_group("models").add_argument
    add("--model", help="actor: directory or hub id; default: the embedded tiny/actor with small sizes")
    add("--critics", nargs="+", help="one name for all critics, or one per critic; default: by the actor's size")
    add("--gradient-checkpointing", action=switch, default=True, help="recompute activations to save memory")
    add("--offload", choices=("auto", *OFFLOAD), default="auto", help="what the CPU holds; auto: as little as fits")

    add = parser.add_argument_group("problems").add_argument
    add("--data", default="zwhe99/DeepMath-103K", help="problems: .jsonl, .parquet, or hub id as ID[:CONFIG[:SPLIT]]")
    add("--n-problems", type=COUNT_OR_0, default=5000, help="train on this many, drawn by seed; 0 means all")
    add("--prompts-per-step", type=COUNT, default=32, help="P, prompts in a rollout batch")
    add("--group-size", type=COUNT, default=32, help="G, responses to each prompt")
    add_response_flags(parser, POSITIVE, "sampling temperature; log-probabilities are taken at it too")

    add = parser.add_argument_group("critics").add_argument
    add("--critic-lr", type=POSITIVE, default=5e-6, help="AdamW learning rate of the critics")
    add("--critic-epochs", type=COUNT, default=4, help="passes of each critic over its shard of a rollout")
    add("--critic-order", choices=("first", "last"), default="first", help="first: fit, then compute values")
    add("--critic-minibatch-size", type=COUNT, help="responses per optimizer step; default: as many steps as the actor")
    add("--critic-warmup", type=COUNT_OR_0, default=0, help="rollouts before --steps that fit the critics only")
    add("--critic-states", type=SHARE, nargs="+", help="fit at these fractions of each response: 0.3 0.6 0.9 (SP3O)")
    add("--critic-norm", choices=("none", "std"), default="none", help="std: weight groups by 1 / std (EasyPPO)")
    add("--critic-replay", type=COUNT, default=1, help="fit on the last K rollouts; responses keep their shard")
    add("--gate", action=switch, default=False,
        help="use reward − group mean, without γ and λ, while critics explain nothing outside their shards (EVPO)")

    add = parser.add_argument_group("advantage").add_argument
    add("--gamma", type=SHARE, default=1.0, help="discount γ")
    add("--lam", type=SHARE, default=1.0, help="λ of the actor's GAE")
    add("--lam-by-length", type=POSITIVE, metavar="A", help="λ of the actor's GAE: 1 − 1/(A · length) (VAPO)")
    add("--critic-lam", type=SHARE, default=1.0, help="λ of the critics' targets; 1 is the Monte-Carlo return")
    add("--whiten", action=switch, default=True, help="whiten advantages over the batch")
    add("--group-std", action=switch, default=True, help="grpo: divide by the group's standard deviation")

    add = parser.add_argument_group("policy objective").add_argument
    add("--lr", type=POSITIVE, default=1e-6, help="AdamW learning rate of the actor")
    add("--epochs", type=COUNT, default=4, help="passes over a rollout (the paper's update-to-data ratio)")
    add("--minibatch-size", type=COUNT, help="maximum responses per optimizer step; default: all of the rollout")
    add("--clip-low", type=POSITIVE, default=0.2, help="ε: the ratio ρ is clipped from below at 1 − ε")
    add("--clip-high", type=POSITIVE, default=0.2, help="ε: the ratio ρ is clipped from above at 1 + ε")
    add("--entropy-coef", type=AT_LEAST_0, default=1e-3, help="β, weight of the entropy bonus")
    add("--loss-norm", choices=("sequence", "token"), default="sequence", help="mean over responses, or over tokens")
    add("--truncated", choices=("wrong", "masked"), default="wrong",
        help="wrong: use truncated responses with their verified reward; masked: leave them out of the actor's update")
    add("--max-grad-norm", type=POSITIVE, default=1.0, help="gradient norms are clipped to this, actor and critics")

    add = parser.add_argument_group("run").add_argument
    add("--seed", type=int, default=0, help="seeds data, sampling, shards and minibatches independently")
    add("--steps", type=COUNT, default=500, help="rollouts to train the actor on, after those of --critic-warmup")
    add("--token-budget", type=COUNT, default=16384, help="maximum tokens per micro-batch, padding included")
    add("--eval-every", type=COUNT_OR_0, default=10,
        help="steps between evaluations with detailed logs; 0: evaluate only before the first and after the last step")
    add("--eval-data", help="held-out problems, named like --data, default split test; one response each")
    add("--save-every", type=COUNT_OR_0, default=20, help="steps between checkpoints; 0: only at the end")
    add("--keep", type=COUNT, default=1, help="checkpoints to keep, the last ones")
    add("--max-bad-steps", type=COUNT, default=3, help="stop after so many steps in a row with a non-finite gradient")
    add("--out", type=Path, help="folder of the run; default: runs/ALGO-TIME-XXXX")
    add("--resume", nargs="?", const=True, metavar="DIR",
        help="continue the run in --out or DIR; auto: continue it if it exists, else start it")
    add("--wandb", choices=("disabled", "offline", "online"), default="disabled", help="log to Weights & Biases too")
    add("--plan", type=GPUS, metavar="GPUSxGIB", help="print memory and time for so many GPUs of so many GiB, and stop")
    add_process_flags(parser)

    given, _ = parser.parse_known_args(argv)
    parser.set_defaults(**ALGORITHMS[given.algo])
    if given.model is None:
        parser.set_defaults(**TINY_DEFAULTS, critics=[f"{TINY}/critic"] if given.algo == "asyppo" else None)
    try:
        return derive(parser.parse_args(argv))
    except UserError as error:
        parser.error(str(error))


def derive(flags: argparse.Namespace) -> argparse.Namespace:
    """Return the settings with all defaults filled in; raise for flags that contradict each other."""
    algo, n_critics, n_responses = flags.algo, flags.n_critics, flags.prompts_per_step * flags.group_size
    require(algo == "grpo" or n_critics,
            f"--n-critics 0 leaves --algo {algo} without advantages; use --algo grpo for a run without critics.")
    require(algo != "grpo" or not (n_critics or flags.critics),
            "--algo grpo has no critics: leave out --critics and --n-critics, or use --algo ppo or asyppo.")
    require(not flags.critics or len(flags.critics) in (1, n_critics),
            f"--critics names {len(flags.critics or [])} models for --n-critics {n_critics}: give one, or one each.")
    require(n_critics or not (flags.critic_warmup or flags.critic_replay > 1),
            "--critic-warmup and --critic-replay need critics.")
    require(algo != "grpo" or flags.group_size > 1,
            "--algo grpo --group-size 1 makes every advantage 0; give a group of two responses or more.")
    require(flags.critic_replay == 1 or flags.critic_lam == 1,
            "--critic-replay fits on Monte-Carlo returns; leave --critic-lam at 1.")
    require(flags.lam_by_length is None or flags.lam == 1, "--lam and --lam-by-length both set λ; give one.")

    signal_by = {"mask": flags.mask_by, "filter": flags.filter_by}
    require(n_critics or "std" not in signal_by.values(),
            f"--mask-by std and --filter-by std need critics; use entropy, random or none with --algo {algo}.")
    if n_critics == 1 and "std" in signal_by.values():
        signal_by = {name: "none" if by == "std" else by for name, by in signal_by.items()}
        if os.environ.get("RANK", "0") == "0":
            print("One critic has no disagreement: --mask-by std and --filter-by std become none.", file=sys.stderr)
    fractions = {"mask": flags.mask_fraction, "filter": flags.filter_fraction}
    for name, fraction in fractions.items():
        require(signal_by[name] != "none" or not fraction,
                f"--{name}-fraction {fraction} has no effect with --{name}-by none; leave out one of the two.")
        fractions[name] = fraction if fraction is not None else 0.0 if signal_by[name] == "none" else 0.2

    minibatch_size = min(flags.minibatch_size or n_responses, n_responses)
    unit = flags.group_size if flags.shard_by == "prompt" else 1  # responses that stay together
    smallest_shard = n_responses // unit // max(1, n_critics) * unit
    require(flags.shard_by != "group" or flags.group_size >= n_critics,
            f"--group-size {flags.group_size} cannot be split over {n_critics} critics; raise it.")
    require(flags.shard_by != "prompt" or flags.prompts_per_step >= n_critics,
            f"--prompts-per-step {flags.prompts_per_step} cannot be split over {n_critics} critics; raise it.")
    steps_as_actor = n_critics and not flags.critic_minibatch_size and flags.shard_by != "none"
    require(not steps_as_actor or smallest_shard >= math.ceil(n_responses / minibatch_size),
            f"--minibatch-size {minibatch_size} gives a critic more optimizer steps a pass than its shard has "
            f"responses ({smallest_shard}); raise it, or give --critic-minibatch-size.")
    for flag, wanted in (("--aggregate crossfit", flags.aggregate == "crossfit"), ("--gate", flags.gate),
                         ("--mask-fraction adaptive", flags.mask_fraction == "adaptive")):
        require(not wanted or (n_critics > 1 and flags.shard_by != "none"),
                f"{flag} needs responses that a critic was not fitted on: two critics or more, and shards.")

    resume = flags.resume
    if resume == "auto":  # the same command starts the run and continues it
        require(flags.out, "--resume auto needs --out DIR.")
        resume = (config := flags.out / "config.json").exists() and config.stat().st_size > 0
    out = Path(resume) if isinstance(resume, str) else flags.out
    require(not flags.out or flags.out == out, f"--resume {out} and --out {flags.out} name two folders; give one.")
    require(not resume or out, "--resume needs the folder of the run: --resume DIR or --out DIR.")
    derived = dict(minibatch_size=minibatch_size, n_problems=flags.n_problems or None, out=out, resume=resume)
    for name in ("mask", "filter"):
        derived |= {f"{name}_by": signal_by[name], f"{name}_fraction": fractions[name]}
    return argparse.Namespace(**vars(flags) | derived)


def memory_and_time(args: argparse.Namespace) -> str:
    (n_gpus, gib), work = args.plan, workload(args, critic_names(args), plan.LONGEST_PROMPT)
    item = 4 if args.dtype == "fp32" else 2
    sizes = plan.sizes_to_try(n_gpus if n_gpus % 8 else 8, n_gpus, args.ranks_per_copy)
    require(n_gpus % sizes[0] == 0, f"--ranks-per-copy {sizes[0]} does not divide the {n_gpus} GPUs of --plan.")
    chosen, memory = plan.choose(work, item, n_gpus, sizes, gib * 2**30)
    return f"{memory}\n{time_plan(work, item, chosen, n_gpus, gib)}"


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.plan:
        return exit_code("train.py", lambda: print(memory_and_time(args)))
    return exit_code("train.py", lambda: train(args, start(ranks_per_copy=args.ranks_per_copy)))


if __name__ == "__main__":
    sys.exit(main())
