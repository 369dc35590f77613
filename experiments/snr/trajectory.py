"""Policies of one run of train.py, and critics that are fitted beside it: passengers.

A passenger is fitted on the run's rollouts as the run's own critics are, but the actor never hears of it. So
many critics can be compared on the same policies and the same responses.

Legend for shape suffixes: M critics, B responses, T response tokens, N response tokens in one row.
"""

import copy
import math
import re
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Iterator

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import train
from critics import ensemble_values, fit_critics, shard, targets, with_replay
from engine.batch import Rollout
from engine.distributed import World
from engine.metrics import Timer
from engine.models import MiniCritic, load_critic
from engine.streams import generator, stream_seed
from engine.updates import UpdateConfig, adamw
from experiments.claims.comparisons import SMALL
from rollout import Problem, sample_rollout
from tiny.make_tiny import right_solution

# the run whose actor gives the policies: regime "small" with one critic and no mask
DRIVER = f"{SMALL} --n-critics 1 --mask-by none --filter-by none --eval-every 0"


# -- the run and its passengers ------------------------------------------------------------------------------
def open_driver(flags: list[str], world: World) -> train.Run:
    """Open the run whose actor gives the policies."""
    args = train.parse_args(flags)
    inputs = train.check_inputs(args, world)
    args, world = train.settle(args, inputs, world)
    return train.open_run(args, inputs, train.load_models(args, inputs, world), world)


@dataclass
class Passenger:
    """Critics, and how they are fitted."""

    critics: list[MiniCritic]
    optimizers: list[torch.optim.Optimizer]
    shard_by: str = "none"
    epochs: int = 4
    n_replay: int = 1  # rollouts that each fit is on
    frozen: bool = False
    replay: list[Rollout] = field(default_factory=list)

    def shards(self, rollout: Rollout, step: int, seed: int) -> torch.Tensor:
        return shard(rollout.group_B, len(self.critics), self.shard_by, generator(seed, "shards", step))

    def fit(self, rollout: Rollout, step: int, run: train.Run) -> None:
        """Fit on this rollout and those before it, as `train.fit_and_value` does with the run's settings."""
        if self.frozen:
            return
        args = run.args
        seen = replace(rollout, shards_MB=self.shards(rollout, step, args.seed), values_MBT=None)
        fitted = with_replay(self.replay, seen, self.n_replay)
        targets_MBT = targets(fitted, None, len(self.critics), args.gamma, 1.0)
        config = UpdateConfig(self.epochs, args.critic_minibatch_size, args.token_budget, args.max_grad_norm, args.seed,
                              loss_norm="token")
        fit_critics(self.critics, self.optimizers, fitted, targets_MBT, config, step, run.world)

    def values(self, rollout: Rollout, run: train.Run) -> torch.Tensor:
        return ensemble_values(self.critics, rollout, run.args.token_budget, run.world)

    def twin(self) -> "Passenger":
        """Return a copy with its own weights and optimizer state, whose fits leave this passenger alone."""
        return copy.deepcopy(self)


def passenger(names: list[str], world: World, lr: float, head_only: bool = False, **settings) -> Passenger:
    """Load a passenger's critics; one name for each critic. head_only: the backbone stays as it is."""
    critics = [load_critic(name, world, torch.float32) for name in names]
    for critic in critics:
        critic.backbone.requires_grad_(not head_only)
    fitted_parts = [critic.value_head if head_only else critic for critic in critics]
    return Passenger(critics, [adamw(part, lr) for part in fitted_parts], **settings)


def steps_of(run: train.Run, passengers: dict[str, Passenger], last: int) -> Iterator[int]:
    """Make the run's steps up to the last, and fit all passengers on each rollout. Yields 0 first, then each step."""
    with run.verifier:
        yield 0
        for step in range(1, last + 1):
            rollout = train.train_step(run, step)[1]
            for each in passengers.values():
                each.fit(rollout, step, run)
            yield step


def fitted(fits: Path, n: int, fit_seed: int) -> list[str]:
    """Return the names of n critics that were fitted before; two or more on shards of every group."""
    return [str(fits / f"{('one', 'two', '', 'four')[n - 1]}{fit_seed}" / f"critic{m}") for m in range(n)]


# -- responses of the policy ---------------------------------------------------------------------------------
def draw(run: train.Run, problems: list[Problem], group_size: int, *stream) -> Rollout:
    """Draw responses of the run's actor as it is now, that no critic is fitted on."""
    config = replace(run.rollout_config, group_size=group_size)
    seed = stream_seed(run.args.seed, *stream)
    return sample_rollout(run.actor, run.tokenizer, problems, config, seed, Timer(run.world), run.world)


def part(rollout: Rollout, rows: list[int]) -> Rollout:
    """Return these responses as a rollout of their own."""
    every = {each.name: getattr(rollout, each.name) for each in fields(rollout)}
    by_row = {name: x[rows] for name, x in every.items() if isinstance(x, torch.Tensor) and not name.endswith("MBT")}
    by_row |= {name: [x[row] for row in rows] for name, x in every.items() if isinstance(x, list)}
    return Rollout(**by_row)


# -- what can be known of a state ----------------------------------------------------------------------------
def terms_of(problem: str) -> list[int]:
    """Return the signed terms of an embedded problem: 7+5-3 -> [7, 5, -3]."""
    return [int(term) for term in re.findall(r"[+-]?\d+", problem)]


def prefixes(rollout: Rollout, row: int, tokenizer) -> tuple[str, list[str]]:
    """Return a response's problem, and the text before each of its tokens."""
    n_prompt, n = int(rollout.prompt_len_B[row]), int(rollout.response_len_B[row])
    tokens = rollout.tokens_BS[row].tolist()
    parts = [tokenizer.decode([token], skip_special_tokens=True) for token in tokens[n_prompt : n_prompt + n]]
    texts = [""]
    for part in parts[:-1]:
        texts.append(texts[-1] + part)
    return tokenizer.decode(tokens[:n_prompt]).strip(), texts


def right_so_far(rollout: Rollout, tokenizer) -> torch.Tensor:
    """Is all that stands before a token the beginning of the right solution? -> bool [B, T]"""
    right_BT = torch.zeros_like(rollout.mask_BT)
    for row in range(len(rollout)):
        problem, texts = prefixes(rollout, row, tokenizer)
        solution = right_solution(terms_of(problem))
        right_BT[row, : len(texts)] = torch.tensor([solution.startswith(text) for text in texts])
    return right_BT


def line_rates(rollout: Rollout, tokenizer) -> dict[int, float]:
    """Return how often a line is right whose predecessors are: signed term -> share, smoothed by one of each."""
    counts = {term: [1, 2] for term in (*range(-9, 0), *range(1, 10))}
    for row in range(len(rollout)):
        problem, texts = prefixes(rollout, row, tokenizer)
        terms, right = terms_of(problem), right_solution(terms_of(problem)).split("\n")
        for term, line, wanted in zip(terms[1:], texts[-1].split("\n"), right):
            counts[term][0] += line == wanted
            counts[term][1] += 1
            if line != wanted:
                break
    return {term: n_right / n for term, (n_right, n) in counts.items()}


def known_values(rollout: Rollout, rates: dict[int, float], tokenizer) -> torch.Tensor:
    """Return the values of a critic that can add: 0 where the text is wrong so far, else the probability that all
    lines to come are right. A line counts as written from its result's first digit on. -> [B, T]"""
    values_BT = right_so_far(rollout, tokenizer).float()
    for row in range(len(rollout)):
        problem, texts = prefixes(rollout, row, tokenizer)
        to_come = [rates[term] for term in terms_of(problem)[1:]]
        written = [len(re.findall(r"=\d", text)) for text in texts]
        values_BT[row, : len(texts)] *= torch.tensor([math.prod(to_come[n:]) for n in written])
    return values_BT


def line_changes(rollout: Rollout, values_BT: torch.Tensor, tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Return how a value changes over each line behind a right text, and whether the line is wrong. -> [L], [L]"""
    changes, wrong = [], []
    for row in range(len(rollout)):
        problem, texts = prefixes(rollout, row, tokenizer)
        solution = right_solution(terms_of(problem)).split("\n")
        starts = [0] + [t for t, text in enumerate(texts) if text.endswith("\n")]
        for i, (begin, end) in enumerate(zip(starts, starts[1:])):
            line = texts[end][len(texts[begin]) :].removesuffix("\n")
            is_wrong = i >= len(solution) or line != solution[i]
            changes.append((values_BT[row, end] - values_BT[row, begin]).item())
            wrong.append(is_wrong)
            if is_wrong:
                break
    return np.array(changes), np.array(wrong, dtype=bool)


def area_under_curve(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Return how often a true item has a higher score than a false one, ties counted half; NaN without both."""
    true, false = score_N[label_N], np.sort(score_N[~label_N])
    if not len(true) or not len(false):
        return float("nan")
    below = np.searchsorted(false, true, "left") + np.searchsorted(false, true, "right")
    return float(below.mean() / 2 / len(false))
