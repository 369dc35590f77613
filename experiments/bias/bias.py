"""Measure the bias of the policy gradient when critics are fitted before they are asked, by enumeration.

    python experiments/bias/bias.py [--rollouts 20000] [--fit-steps 8] [--seed 0]

The problem is small enough to enumerate: two prompts, 8 responses each, a vocabulary of 5, at most three
tokens, a random reward of 0 or 1 for every response. Policy and critics are tables over the 62 states. The
exact gradient of expected reward is a sum over all responses. It is compared with the mean gradient of one
policy step over many rollouts, at ρ = 1, without whitening, masks and entropy bonus. The step is made of the
functions that train.py calls:

first       the paper's order: each critic is fitted on its shard, then gives the values of all responses
last        values before the fit
crossfit    as first, but a response's value comes from the critic that was not fitted on it
group mean  no critics: the mean of the group including the response itself; short by 1/8, for comparison

Before the fit every critic knows the exact value of each prompt and uses it for all states. The gradient is a
sum over tokens and a mean over responses; with 1/|o| it would be the gradient of another objective.

Legend for shape suffixes: R rollouts, M critics, B responses of all rollouts, T response tokens, S states,
V vocabulary.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import asyppo
from critics import ValueData, shard, value_loss

VOCABULARY, LONGEST, PROMPTS, GROUP, CRITICS = 5, 3, 2, 8, 2
END = 0  # where responses may end early, after this token
BEFORE_T = torch.tensor([0, 1, 1 + VOCABULARY])  # states with fewer tokens than t + 1, of one prompt
STATES = 1 + VOCABULARY + VOCABULARY**2  # of one prompt
ORDERS = ("first", "last", "crossfit", "group mean")


class Task(NamedTuple):
    """A policy and the rewards of its responses."""

    logits_SV: torch.Tensor
    rewards: torch.Tensor  # [prompt, o_1, o_2, o_3], tokens after the end are END
    ends_early: bool


def make_task(ends_early: bool, seed: int) -> Task:
    torch.manual_seed(seed)
    rewards = (torch.rand(PROMPTS, *[VOCABULARY] * LONGEST) < 0.4).double()
    return Task(torch.randn(PROMPTS * STATES, VOCABULARY, dtype=torch.float64), rewards, ends_early)


def states_of(prompt_B: torch.Tensor, tokens_BT: torch.Tensor) -> torch.Tensor:
    """Return the state before each token as a row of the tables. -> [B, T]"""
    number_B = torch.zeros_like(prompt_B)
    states = []
    for t in range(LONGEST):
        states.append(prompt_B * STATES + BEFORE_T[t] + number_B)
        number_B = number_B * VOCABULARY + tokens_BT[:, t]
    return torch.stack(states, 1)


def response_mask(tokens_BT: torch.Tensor, ends_early: bool) -> torch.Tensor:
    """Return True up to the token that ends a response. -> bool [B, T]"""
    ended_BT = (tokens_BT == END).cumsum(1) - (tokens_BT == END).long() > 0
    return ~ended_BT if ends_early else torch.ones_like(ended_BT)


def enumerate_responses(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the exact gradient of expected reward in the logits [S, V], and each prompt's reward."""
    logits_SV = task.logits_SV.clone().requires_grad_()
    tokens_BT = torch.cartesian_prod(*[torch.arange(VOCABULARY)] * LONGEST)
    mask_BT = response_mask(tokens_BT, task.ends_early)
    tokens_BT, mask_BT = (x[((tokens_BT == END) | mask_BT).all(1)] for x in (tokens_BT, mask_BT))
    values = []
    for prompt in range(PROMPTS):
        states_BT = states_of(torch.full((len(tokens_BT),), prompt), tokens_BT)
        logp_BT = torch.log_softmax(logits_SV, -1)[states_BT, tokens_BT]
        p_B = torch.where(mask_BT, logp_BT, 0.0).sum(1).exp()
        assert torch.isclose(p_B.sum(), torch.ones(()).double())
        values.append((p_B * task.rewards[prompt][tuple(tokens_BT.T)]).sum())
    (exact_SV,) = torch.autograd.grad(torch.stack(values).mean(), logits_SV)
    return exact_SV, torch.stack(values).detach()


def gradients(task: Task, n_rollouts: int, fit_steps: int, lr: float, seed: int) -> dict[str, torch.Tensor]:
    """Return the gradient of one policy step in each of n rollouts: order -> [R, S, V]."""
    order = torch.Generator().manual_seed(seed)
    prompt_B = torch.arange(PROMPTS).repeat_interleave(GROUP).repeat(n_rollouts)
    rollout_B = torch.arange(n_rollouts).repeat_interleave(PROMPTS * GROUP)
    tokens_BT = torch.zeros(len(prompt_B), LONGEST, dtype=torch.long)
    for t in range(LONGEST):
        p_BV = torch.softmax(task.logits_SV, -1)[states_of(prompt_B, tokens_BT)[:, t]]
        tokens_BT[:, t] = torch.multinomial(p_BV, 1, generator=order).squeeze(1)
    mask_BT, states_BT = response_mask(tokens_BT, task.ends_early), states_of(prompt_B, tokens_BT)
    rewards_B = task.rewards[(prompt_B, *torch.where(mask_BT, tokens_BT, END).T)]

    # steps 2 and 3: shards of each group; each critic's table is fitted on its own by gradient descent
    group_B = torch.arange(len(prompt_B)) // GROUP
    shards_MB = shard(group_B, CRITICS, "group", order)
    rewards_BT = asyppo.terminal_rewards(rewards_B, mask_BT)
    returns_BT = asyppo.discounted_returns(rewards_BT, mask_BT, gamma=1.0)
    _, values_of_prompts = enumerate_responses(task)
    table_MRS = values_of_prompts.repeat_interleave(STATES).repeat(CRITICS, n_rollouts, 1)
    counted_MBT = (shards_MB[:, :, None] & mask_BT).double()
    n_MR = counted_MBT.sum(2).unflatten(1, (n_rollouts, -1)).sum(2)
    weights_MBT = counted_MBT / n_MR[:, rollout_B, None]

    def values_MBT():
        return table_MRS[:, rollout_B[:, None], states_BT]

    before_MBT = values_MBT()
    for _ in range(fit_steps):
        table_MRS.requires_grad_()
        losses_MBT, _ = value_loss(values_MBT(), ValueData(returns_BT))
        (grad_MRS,) = torch.autograd.grad((weights_MBT * losses_MBT).sum(), table_MRS)
        table_MRS = table_MRS.detach() - lr * grad_MRS
    after_MBT = values_MBT()

    # steps 4 and 6
    baselines = {
        "first": asyppo.aggregate(after_MBT, "mean"),
        "last": asyppo.aggregate(before_MBT, "mean"),
        "crossfit": asyppo.aggregate(after_MBT, "crossfit", shards_MB),
    }
    advantages = {
        name: asyppo.gae(rewards_BT, x_BT, mask_BT, gamma=1.0, lam=1.0) for name, x_BT in baselines.items()
    }
    by_group_B = asyppo.group_advantages(rewards_B, group_B, scale_by_std=False)
    advantages["group mean"] = mask_BT * by_group_B[:, None]
    found = {}
    for name, advantages_BT in advantages.items():
        logits_RSV = task.logits_SV.expand(n_rollouts, -1, -1).clone().requires_grad_()
        logp_BT = torch.log_softmax(logits_RSV, -1)[rollout_B[:, None], states_BT, tokens_BT]
        data = asyppo.PolicyData(logp_BT.detach(), advantages_BT, mask_BT, mask_BT)
        terms_BT = asyppo.objective(logp_BT, None, data, clip_low=0.2, clip_high=0.2, entropy_coef=0.0)
        (found[name],) = torch.autograd.grad(terms_BT.sum() / (PROMPTS * GROUP), logits_RSV)
    return found


class Measured(NamedTuple):
    """The mean gradient against the exact one, in units of the exact one's length."""

    along: float  # the mean's component along the exact gradient: 1 without bias
    error: float  # its standard error
    apart: float  # distance between mean and exact
    noise: float  # that distance if there were noise alone (root mean square)


def measure(task: Task, n_rollouts: int, fit_steps=8, lr=1.0, seed=0, at_once=1000) -> dict[str, Measured]:
    exact_SV, _ = enumerate_responses(task)
    length = exact_SV.norm()
    total, squares, along = {}, {}, {name: [] for name in ORDERS}
    for i in range(0, n_rollouts, at_once):
        found = gradients(task, min(at_once, n_rollouts - i), fit_steps, lr, seed=seed * 2**32 + i)
        for name, grad_RSV in found.items():
            total[name] = total.get(name, 0) + grad_RSV.sum(0)
            squares[name] = squares.get(name, 0) + grad_RSV.square().sum(0)
            along[name].append((grad_RSV * exact_SV).sum((1, 2)) / length**2)
    measured = {}
    for name in ORDERS:
        along_R, mean_SV = torch.cat(along[name]), total[name] / n_rollouts
        variance_SV = (squares[name] / n_rollouts - mean_SV.square()) / (n_rollouts - 1)
        measured[name] = Measured(
            along=along_R.mean().item(), error=(along_R.std() / n_rollouts**0.5).item(),
            apart=((mean_SV - exact_SV).norm() / length).item(),
            noise=(variance_SV.sum().sqrt() / length).item(),
        )
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rollouts", type=int, default=20000)
    parser.add_argument("--fit-steps", type=int, default=8, help="steps of gradient descent, learning rate 1")
    parser.add_argument("--seed", type=int, default=0, help="seed of the task and of the rollouts")
    args = parser.parse_args()
    print("| responses | values | along the exact gradient | distance to it | by noise alone |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for ends_early in (False, True):
        measured = measure(make_task(ends_early, args.seed), args.rollouts, args.fit_steps, seed=args.seed)
        for name, m in measured.items():
            kind = "end early" if ends_early else "three tokens"
            print(f"| {kind} | {name} | {m.along:.3f} ± {m.error:.3f} | {m.apart:.3f} | {m.noise:.3f} |")


if __name__ == "__main__":
    main()
