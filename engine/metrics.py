"""The metrics of a step: batch, critics, seconds and memory.

All statistics are over the response tokens of all ranks. A quantity that does not exist (for instance the mean value
of wrong responses when all are right) is NaN here, and the log leaves it out.

Legend for shape suffixes: M critics, B responses, T response tokens, N response tokens in row-major order.
"""

import resource
import time
from contextlib import contextmanager
from typing import Iterator

import numpy as np
import torch

from engine.batch import Rollout
from engine.distributed import World, gather_list


class Timer:
    """Seconds and peak memory of a step's phases."""

    def __init__(self, world: World):
        self.world, self.began = world, time.time()
        self.seconds: dict[str, float] = {}
        self.gib: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began, on_gpu = time.time(), self.world.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        yield
        gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if on_gpu:
            torch.cuda.synchronize()  # count kernels in the phase that launched them
            gib = torch.cuda.max_memory_allocated() / 2**30
        self.seconds[name] = self.seconds.get(name, 0.0) + time.time() - began
        self.gib[name] = max(self.gib.get(name, 0.0), gib)

    def metrics(self, n_tokens: int) -> dict[str, float]:
        """Return seconds a phase, peak memory a phase (GiB, fullest rank), and tokens a second. Collective.

        On a CPU the peak is that of the process so far.
        """
        step = time.time() - self.began
        peaks = {name: max(gather_list([gib], self.world)) for name, gib in self.gib.items()}
        seconds = {f"time/{name}": x for name, x in self.seconds.items()} | {"time/step": step}
        memory = {f"memory/{name}": x for name, x in peaks.items()}
        return seconds | memory | {"peak_memory_gb": max(peaks.values()), "tokens_per_s": n_tokens / step}


def batch_metrics(rollout: Rollout, raw_BT, advantage_mask_BT, entropy_filter_BT) -> dict[str, float]:
    """Describe the responses, their advantages before whitening (raw_BT), and the two masks."""
    raw_N, n_tokens = raw_BT[rollout.mask_BT], int(rollout.mask_BT.sum())
    return {
        "reward_mean": rollout.rewards_B.mean().item(),
        "reward_std": rollout.rewards_B.std(correction=0).item(),
        "response_len_mean": rollout.response_len_B.float().mean().item(),
        "truncated_frac": rollout.truncated_B.float().mean().item(),
        "entropy": rollout.old_entropy_BT[rollout.mask_BT].mean().item(),
        "adv_mean": raw_N.mean().item(),
        "adv_std": raw_N.std(correction=0).item(),
        "adv_masked_frac": 1 - int(advantage_mask_BT.sum()) / n_tokens,
        "entropy_filtered_frac": 1 - int(entropy_filter_BT.sum()) / n_tokens,
    }


def explained_variance(values_N: torch.Tensor, returns_N: torch.Tensor) -> float:
    """Return 1 − Var(R − V) / Var(R): 1 is perfect, 0 no better than a constant, NaN if returns are equal."""
    variance = returns_N.double().var(correction=0)
    if variance == 0:
        return float("nan")
    return (1 - (returns_N - values_N).double().var(correction=0) / variance).item()


def share_within(x_BT: torch.Tensor, mask_BT: torch.Tensor) -> float:
    """Return the share of x's variance over response tokens that lies within responses, not between them."""
    x_BT = torch.where(mask_BT, x_BT, 0.0).double()
    mean_B1 = x_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True)
    return ((x_BT - mean_B1)[mask_BT].square().mean() / x_BT[mask_BT].var(correction=0)).item()


def value_metrics(values_MBT, unseen_BT, std_BT, returns_BT, rollout: Rollout, shards_MB) -> dict[str, float]:
    """Describe what the critics know and how they differ.

    returns_BT: Monte-Carlo returns; bootstrapped targets contain the values and would inflate explained variance.
    unseen_BT: each response's mean value over the critics not fitted on it, or None. Metrics named *_heldout use only
    responses that the critic was not fitted on, of the step's rollout and not of --eval-data.
    """
    mask_BT = rollout.mask_BT
    right_BT = mask_BT & (rollout.rewards_B > 0)[:, None]
    mean_BT = values_MBT.mean(0)
    metrics = {"value_mean": mean_BT[mask_BT].mean().item(), "value_within": share_within(mean_BT, mask_BT)}
    metrics["ensemble/explained_variance"] = explained_variance(mean_BT[mask_BT], returns_BT[mask_BT])
    if unseen_BT is not None:
        heldout = explained_variance(unseen_BT[mask_BT], returns_BT[mask_BT])
        metrics["ensemble/explained_variance_heldout"] = heldout
    for m, values_BT in enumerate(values_MBT):
        heldout_BT = mask_BT & ~shards_MB[m][:, None]
        for name, chosen_BT in (("explained_variance", mask_BT), ("explained_variance_heldout", heldout_BT)):
            if chosen_BT.any():
                metrics[f"critic{m}/{name}"] = explained_variance(values_BT[chosen_BT], returns_BT[chosen_BT])
        metrics[f"critic{m}/value_correct"] = values_BT[right_BT].mean().item()
        metrics[f"critic{m}/value_wrong"] = values_BT[mask_BT & ~right_BT].mean().item()
    if len(values_MBT) > 1:
        for q, sigma in zip((10, 50, 90), np.quantile(std_BT[mask_BT].numpy(), (0.1, 0.5, 0.9))):
            metrics[f"value_std_p{q}"] = float(sigma)
        corr_MM = torch.corrcoef(values_MBT[:, mask_BT].double())
        pairs = torch.triu_indices(*corr_MM.shape, offset=1)
        metrics["critic_corr"] = corr_MM[pairs[0], pairs[1]].mean().item()
        metrics["value_std_within"] = share_within(std_BT, mask_BT)
    return metrics


def correlation_metrics(values_MBT, std_BT, advantages_BT, rollout: Rollout) -> dict[str, float]:
    """Correlate values and σ with the policy's entropy and with the size of a token's gradient.

    The size is |Ā_t| · ‖∂ log π(o_t | s_t)/∂logits‖, at ρ = 1 (the paper's figures 6 and 11).
    """
    gradient_BT = advantages_BT.abs() * rollout.old_slope_BT
    four_4BT = torch.stack([values_MBT.mean(0), std_BT, rollout.old_entropy_BT, gradient_BT])
    corr_44 = torch.corrcoef(four_4BT[:, rollout.mask_BT].double()).tolist()
    return {f"{name}_{what}_corr": row[i] for name, row in zip(("value", "value_std"), corr_44)
            for i, what in ((2, "entropy"), (3, "gradient"))}
