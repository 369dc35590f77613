"""The data of one step: `Response` and `Rollout`.

Legend for shape suffixes: B responses, S prompt + response tokens, T response tokens, N response tokens of all B
responses in row-major order, M critics.
"""

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Response:
    prompt: list[int]
    tokens: list[int]  # with the token that ended it
    truncated: bool  # cut at max_new_tokens


@dataclass
class Rollout:
    """All responses of a step, the same on every rank, on the CPU.

    Column t of a [B, T] array belongs to response token t, counted from 0, and to the state before it. Responses of
    one group are neighbours.
    """

    tokens_BS: torch.Tensor  # prompt, response, padding, without gaps
    prompt_len_B: torch.Tensor
    response_len_B: torch.Tensor
    truncated_B: torch.Tensor  # bool
    group_B: torch.Tensor  # index of the prompt within the step
    rewards_B: torch.Tensor  # 0.0 or 1.0
    mask_BT: torch.Tensor  # bool: true on response tokens, the ending one included
    golds: list[str]
    answers: list[str | None]  # as extracted from the responses
    old_logp_BT: torch.Tensor | None = None  # log π_old(o_t | s_t) at the sampling temperature
    old_entropy_BT: torch.Tensor | None = None  # in nats
    old_slope_BT: torch.Tensor | None = None  # ‖∂ log π_old(o_t | s_t)/∂logits‖
    values_MBT: torch.Tensor | None = None
    shards_MB: torch.Tensor | None = None  # bool: critic m is fitted on response b

    def __len__(self) -> int:
        return len(self.response_len_B)

    @property
    def lengths(self) -> list[int]:
        return (self.prompt_len_B + self.response_len_B).tolist()

    def inputs(self, rows: list[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the models' inputs of these rows, cut to the longest row. The CPU does not wait for the GPU's copy."""
        width = int((self.prompt_len_B + self.response_len_B)[rows].max())
        b_N, t_N = self.mask_BT[rows].nonzero(as_tuple=True)
        place_N = b_N * width + self.prompt_len_B[rows][b_N] + t_N - 1
        return tuple(x.to(device, non_blocking=True) for x in (self.tokens_BS[rows, :width], place_N))

    def pick(self, x_BT: torch.Tensor, rows: list[int], device: torch.device) -> torch.Tensor:
        """Return the entries of x_BT at the response tokens of these rows, [N], in the models' order."""
        return x_BT[rows][self.mask_BT[rows]].to(device, non_blocking=True)


def join_rollouts(rollouts: list[Rollout]) -> Rollout:
    """Return all responses of several rollouts as one, for fitting critics on it (--critic-replay)."""
    if len(rollouts) == 1:
        return rollouts[0]
    offsets = torch.tensor([0] + [int(r.group_B.max()) + 1 for r in rollouts[:-1]]).cumsum(0)
    responses = [Response(tokens[:p].tolist(), tokens[p : p + n].tolist(), truncated)
                 for r in rollouts for tokens, p, n, truncated
                 in zip(r.tokens_BS, r.prompt_len_B.tolist(), r.response_len_B.tolist(), r.truncated_B.tolist())]
    joined = make_rollout(responses, [], [], torch.cat([r.rewards_B for r in rollouts]).tolist(), group_size=1)
    joined.group_B = torch.cat([r.group_B + offset for r, offset in zip(rollouts, offsets)])
    joined.shards_MB = torch.cat([r.shards_MB for r in rollouts], dim=1)
    return joined


def make_rollout(responses: list[Response], golds: list[str], answers: list[str | None],
                 rewards: list[float], group_size: int) -> Rollout:
    prompt_len_B = torch.tensor([len(r.prompt) for r in responses])
    response_len_B = torch.tensor([len(r.tokens) for r in responses])
    tokens_BS = pad_sequence([torch.tensor(r.prompt + r.tokens) for r in responses], batch_first=True)
    return Rollout(tokens_BS=tokens_BS, prompt_len_B=prompt_len_B, response_len_B=response_len_B,
                   truncated_B=torch.tensor([r.truncated for r in responses]), golds=golds, answers=answers,
                   group_B=torch.arange(len(responses)) // group_size,
                   rewards_B=torch.tensor(rewards, dtype=torch.float32),
                   mask_BT=torch.arange(int(response_len_B.max())) < response_len_B[:, None])
