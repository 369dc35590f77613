"""How good is the policy gradient of 32 responses? One batch's gradient against the unbiased one, by estimator.

    python experiments/snr/snr.py --fits runs/fits    # runs; appends to snr.jsonl, skips policies that are in it
    python experiments/snr/snr.py --table             # the committed results as markdown; runs nothing
    python experiments/snr/snr.py --figure            # draws snr.png

The policies are those of regime *knowing* (4 × 8 responses, lr 1e-4, one fitted critic, λ = 1): before the
first update and after 5, 10 and 20. Other critics ride along (trajectory.py). At each policy, batches of 32
fresh responses are drawn. On the same batch every estimator gives its advantages, and these give the gradient
of the first update, of all actor weights, without entropy bonus. Nothing is trained on these batches but
copies of the critics.

With g the estimator's gradient of a batch, u the unbiased one (λ = 1, values of a critic that can add, not
whitened) and b ≠ b' two batches:

cos      E<g_b, u_b'> / √(E<u_b, u_b'> E<g_b, g_b>): the cosine of one batch's gradient to the unbiased mean
times    (1/cos² − 1) of another estimator, divided by this estimator's: so many times as large the other's batch
         would have to be. Exact for unbiased estimators, whose 1/cos² − 1 is noise over signal.
snr      E<g_b, g_b'> / (E<g_b, g_b> − E<g_b, g_b'>): signal over noise, around the estimator's own mean
agree    cosine of the estimator's mean gradient to the unbiased mean: 1 without bias

The same for Adam, which divides each weight's gradient by the root v of its second moment, here over the batches:

adam    E<g_b / √v, u_b'>, to first order what a step of Adam gains. "times" is the square of a ratio of gains: with
        little signal in each weight, a gain grows as the root of the batch.

No product is within one batch, except E<g_b, g_b>, so that noise does not pass for signal. Intervals are those of
the delete-one jackknife over batches. The mean over responses of (1/|o|) Σ_t is the objective of train.py;
"unbiased" is meant for it.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import asyppo
from engine import head
from engine.batch import Rollout
from engine.command_line import COUNT, COUNT_OR_0, Parser, exit_code
from engine.distributed import World, start
from engine.files import append_rows, whole_rows
from engine.folder import git_commit
from engine.metrics import explained_variance
from engine.models import Actor
from engine.streams import generator, stream_seed
from engine.updates import token_weights
from experiments.claims.student import critical
from experiments.claims.verdicts import markdown
from experiments.snr.trajectory import (
    DRIVER, Passenger, area_under_curve, draw, fitted, known_values, line_rates, open_driver, part, passenger,
    right_so_far, steps_of)
from train import Run

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "snr.jsonl"
STEPS = (0, 5, 10, 20)
LAMBDAS = (1.0, 0.95, 0.9, 0.8, 0.5, 0.0)
REFERENCE, BASE, GRPO = "can add, λ 1, not whitened", "one, before, λ 1", "GRPO"
AT_ONCE = 6  # estimators whose gradients of all batches are held in memory: 6 × 64 × 594,048 × 4 bytes = 0.9 GB
LASTING = dict(lr=2e-5, n_replay=16, epochs=4)  # the highest late AUC in lasting.jsonl

# passengers: how many critics were fitted before, which of them are loaded, how they are fitted on
RIDERS = {
    "one": (1, 1, dict(lr=1e-4)),
    "two": (2, 2, dict(lr=1e-4, shard_by="group")),
    "two, same data": (1, 2, dict(lr=1e-4)),
    "four": (4, 4, dict(lr=1e-4, shard_by="group")),
    "one, frozen": (1, 1, dict(lr=1e-4, frozen=True)),
    "one, lasting": (1, 1, LASTING),
    "two, lasting": (2, 2, LASTING | dict(shard_by="group")),
}


# -- estimators ----------------------------------------------------------------------------------------------
class Estimator(NamedTuple):
    """Advantages of a batch's tokens, and the estimator that it is compared with besides λ 1 and GRPO."""

    advantage: torch.Tensor  # [B, T]
    keep: torch.Tensor  # [B, T]; false: masked
    partner: str | None = None
    norm: str = "sequence"


class Values(NamedTuple):
    """A rider's values of a batch: before it is fitted on the batch, and after."""

    before: torch.Tensor  # [M, B, T]
    after: torch.Tensor  # [M, B, T]
    shards: torch.Tensor  # [M, B]


def ride_along(rider: Passenger, batch: Rollout, step: int, run: Run) -> Values:
    """Fit a copy of the rider on the batch, unless its fits are on many rollouts: these cost too much here."""
    before_MBT = after_MBT = rider.values(batch, run)
    if not rider.frozen and rider.n_replay == 1:
        twin = rider.twin()
        twin.fit(batch, step, run)
        after_MBT = twin.values(batch, run)
    return Values(before_MBT, after_MBT, rider.shards(batch, step, run.args.seed))


def estimators(batch: Rollout, values: dict[str, Values], known_BT: torch.Tensor, seed: int) -> dict[str, Estimator]:
    """Return every estimator of a batch; values: by rider; known_BT: those of a critic that can add."""
    mask_BT, found = batch.mask_BT, {}
    rewards_BT = asyppo.terminal_rewards(batch.rewards_B, mask_BT)

    def raw(values_BT: torch.Tensor, lam: float) -> torch.Tensor:
        return asyppo.gae(rewards_BT, values_BT, mask_BT, 1.0, lam)

    def add(name: str, raw_BT, partner: str | None = None, whiten=True, keep_BT=mask_BT, norm="sequence") -> None:
        white_BT = asyppo.whiten(raw_BT, mask_BT, batch.rewards_B) if whiten else raw_BT
        found[name] = Estimator(white_BT, keep_BT, partner, norm)

    # no critic
    nothing_BT, rewards_of_BT = torch.zeros(mask_BT.shape), batch.rewards_B[:, None] * mask_BT
    for lam in (1.0, 0.8, 0.5):
        add(f"nothing, λ {lam:g}", raw(nothing_BT, lam), "nothing, λ 1")
    groups = {std: mask_BT * asyppo.group_advantages(batch.rewards_B, batch.group_B, std)[:, None]
              for std in (True, False)}
    less_mean_BT = (rewards_of_BT - rewards_of_BT[mask_BT].mean()) * mask_BT
    add("nothing, λ 1, less the batch's mean", less_mean_BT, "nothing, λ 1", whiten=False)
    add(GRPO, groups[True], whiten=False)
    add("GRPO, no deviation", groups[False], GRPO, whiten=False)
    add("GRPO, no deviation, whitened", groups[False], GRPO)

    # a critic that can add, and the unbiased reference
    add(REFERENCE, raw(known_BT, 1.0), BASE, whiten=False)
    for lam in (1.0, 0.8, 0.0):
        add(f"can add, λ {lam:g}", raw(known_BT, lam), f"one, before, λ {lam:g}")

    # one critic
    one = values["one"]
    for lam in LAMBDAS:
        control = f"nothing, λ {lam:g}" if f"nothing, λ {lam:g}" in found else BASE
        add(f"one, before, λ {lam:g}", raw(one.before[0], lam), control)
    for lam in (1.0, 0.8, 0.5, 0.0):
        add(f"one, after, λ {lam:g}", raw(one.after[0], lam), f"one, before, λ {lam:g}")
    add(f"{BASE}, mean over tokens", raw(one.before[0], 1.0), BASE, norm="token")
    centred_BT = raw(one.before[0], 1.0)
    for group in batch.group_B.unique():
        members_BT = mask_BT & (batch.group_B == group)[:, None]
        centred_BT[members_BT] -= centred_BT[members_BT].mean()
    add(f"{BASE}, less each prompt's mean", centred_BT, BASE)
    for lam in (1.0, 0.8, 0.0):
        base = f"one, before, λ {lam:g}"
        add(f"{base}, not whitened", raw(one.before[0], lam), base, whiten=False)

    # other critics, and other ways to go on fitting: rider, its partner, λ before the fit, after it, of crossfit
    # "one of two" is the first of the pair: what it has over "one" is due to its fit, what the pair has over it is not
    values = values | {
        f"one of {name}": Values(*(x[:1] for x in values[name])) for name in ("two", "four") if name in values}
    for name, partner, before, after, cross in (
        ("one of two", "one", (0.8, 0.0), (), ()), ("two", "one of two", (0.8, 0.0), (), ()),
        ("two", "one", (), (1.0, 0.8), (1.0, 0.8)), ("two, same data", "one", (), (0.8,), ()),
        ("one of four", "one", (0.8, 0.0), (), ()), ("four", "one of four", (0.8, 0.0), (), ()),
        ("four", "two", (), (0.8,), (0.8,)), ("one, frozen", "one", (0.8, 0.0), (), ()),
        ("one, lasting", "one", (0.8, 0.0), (), ()), ("two, lasting", "one, lasting", (0.8, 0.0), (), ()),
    ):
        each = values.get(name)
        if each is None:
            continue
        for lam in before:
            add(f"{name}, before, λ {lam:g}", raw(each.before.mean(0), lam), f"{partner}, before, λ {lam:g}")
        for lam in after:
            add(f"{name}, after, λ {lam:g}", raw(each.after.mean(0), lam), f"{partner}, after, λ {lam:g}")
        for lam in cross:
            cross_BT = asyppo.aggregate(each.after, "crossfit", each.shards)
            add(f"{name}, crossfit, λ {lam:g}", raw(cross_BT, lam), f"{name}, after, λ {lam:g}")

    # masks of 20 %, on the paper's estimator: two critics on shards, fitted first
    two = values["two"]
    offset_M11 = torch.stack([x_BT[mask_BT].mean() for x_BT in two.after])[:, None, None]
    for lam in (1.0, 0.8):
        base, raw_BT = f"two, after, λ {lam:g}", raw(two.after.mean(0), lam)
        std_BT = asyppo.disagreement(two.after)
        signals = {"σ": std_BT, "random": torch.rand(mask_BT.shape, generator=generator(seed, "random mask"))}
        if lam == 1:
            size_BT = asyppo.whiten(raw_BT, mask_BT, batch.rewards_B).abs()
            signals |= {"centred σ": asyppo.disagreement(two.after - offset_M11), "highest σ": -std_BT,
                        "entropy": batch.old_entropy_BT, "|A|": size_BT}
        for name, signal_BT in signals.items():
            add(f"{base}, mask {name}", raw_BT, base, keep_BT=asyppo.advantage_mask(signal_BT, mask_BT, 0.2))
    return found


def gradients(actor: Actor, batch: Rollout, chosen: list[Estimator]) -> torch.Tensor:
    """Return the ascent direction of the first update, in all weights of the actor, by estimator. -> [E, D]

    The estimators differ in their tokens' weights alone. So they share the forward pass, and each needs its own
    loss of the head and its own backward pass.
    """
    rows, parameters = list(range(len(batch))), list(actor.parameters())
    device = parameters[0].device
    hidden_NH, weight_VH, targets_N = actor.states(batch.inputs(rows, device))
    loss = partial(asyppo.policy_loss, clip_low=0.2, clip_high=0.2, entropy_coef=0.0)
    found = []
    for each in chosen:
        data = asyppo.PolicyData(batch.old_logp_BT, each.advantage, each.keep, batch.mask_BT)
        weights_BT = token_weights(batch.mask_BT.float(), each.norm)
        weights_N, *picked = (batch.pick(x_BT, rows, device) for x_BT in (weights_BT, *data))
        ends = hidden_NH.detach().requires_grad_(), weight_VH.detach().requires_grad_()
        total, _ = head.loss(*ends, targets_N, actor.transform, loss, False, weights_N, data._make(picked))
        by_hidden_NH, by_weight_VH = torch.autograd.grad(total, ends)
        by_parameter = torch.autograd.grad(hidden_NH, parameters, by_hidden_NH, retain_graph=True, allow_unused=True)
        whole = [(0 if x is None else x) + (by_weight_VH if parameter is weight_VH else 0)
                 for parameter, x in zip(parameters, by_parameter)]
        found.append(-torch.cat([x.flatten() for x in whole]).cpu())
    return torch.stack(found)


# -- statistics of products between batches ------------------------------------------------------------------
class Products(NamedTuple):
    """Products of n batches' gradients of an estimator."""

    with_reference: np.ndarray  # [n, n]
    with_itself: np.ndarray  # [n, n]
    adam: np.ndarray  # gain of a step of Adam; then without batch 0, 1, … [1 + n]


def off_diagonal(x_nn: np.ndarray) -> np.ndarray:
    """Return the mean over pairs of two batches; then the same without batch 0, 1, … [1 + n]"""
    x_nn = x_nn.astype(float)
    n, diagonal = len(x_nn), np.diag(x_nn)
    total = x_nn.sum() - diagonal.sum()
    without_n = total - x_nn.sum(0) - x_nn.sum(1) + 2 * diagonal
    return np.concatenate([[total / (n * (n - 1))], without_n / ((n - 1) * (n - 2))])


def on_diagonal(x_nn: np.ndarray) -> np.ndarray:
    """Return the mean over batches; then the same without batch 0, 1, … [1 + n]"""
    x_nn = x_nn.astype(float)
    n, diagonal = len(x_nn), np.diag(x_nn)
    return np.concatenate([[diagonal.mean()], (diagonal.sum() - diagonal) / (n - 1)])


def gain_of_adam(own_nD: torch.Tensor, reference_nD: torch.Tensor) -> np.ndarray:
    """Return E<g_b / √v, u_b'> over pairs of two batches; then the same without batch 0, 1, … [1 + n]"""
    n, gains = len(own_nD), []
    own_D, reference_D = own_nD.sum(0), reference_nD.sum(0)
    within_D, square_D = (own_nD * reference_nD).sum(0), own_nD.square().sum(0)
    for i in range(-1, n):
        kept = n - (i >= 0)
        g_D, u_D = (own_nD[i], reference_nD[i]) if i >= 0 else (0.0, 0.0)
        pairs_D = (own_D - g_D) * (reference_D - u_D) - (within_D - g_D * u_D)
        root_D = ((square_D - g_D * g_D).clamp(min=0) / kept).sqrt() + 1e-8
        gains.append((pairs_D / root_D).double().sum().item() / (kept * (kept - 1)))
    return np.array(gains)


def statistics(products: Products, reference: Products) -> dict[str, np.ndarray]:
    """Return cos, noise = 1/cos² − 1, gain, snr, agree, each with its values without batch 0, 1, … [1 + n]"""
    along, size = off_diagonal(products.with_reference), on_diagonal(products.with_itself)
    own, unbiased = off_diagonal(products.with_itself), off_diagonal(reference.with_itself)
    with np.errstate(invalid="ignore", divide="ignore"):
        cos = along / np.sqrt(unbiased * size)
        return dict(cos=cos, noise=1 / cos**2 - 1, gain=products.adam, snr=own / (size - own),
                    agree=along / np.sqrt(unbiased * own))


def jackknife(x: np.ndarray) -> tuple[float, float]:
    """Return an estimate and its standard error from [the estimate, its values without batch 0, 1, …]."""
    n, without = len(x) - 1, x[1:]
    if not np.isfinite(x).all():  # the root of a negative estimate: too few batches
        return float(x[0]), float("nan")
    return float(x[0]), float(np.sqrt((n - 1) / n * np.square(without - without.mean()).sum()))


VERSUS = ("λ 1", "GRPO", "partner")
COLUMNS = ("cos", "snr", "agree", *(f"times {x}" for x in VERSUS), *(f"adam: times {x}" for x in VERSUS))  # times: logs


def compared(found: dict[str, dict[str, np.ndarray]], partners: dict[str, str | None]) -> dict[str, list]:
    """Return each estimator's columns: estimate and standard error of each, None where there is no number."""
    rows = {}
    for name, own in found.items():
        others, none = (BASE, GRPO, partners[name]), np.full(2, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            times = [np.log(found[other]["noise"] / own["noise"]) if other else none for other in others]
            adam = [2 * np.log(own["gain"] / found[other]["gain"]) if other else none for other in others]
        pairs = [jackknife(x) for x in (own["cos"], own["snr"], own["agree"], *times, *adam)]
        rows[name] = [None if not np.isfinite(x) else float(f"{x:.3g}") for pair in pairs for x in pair]
    return rows


# -- a policy ------------------------------------------------------------------------------------------------
def probe(run: Run, riders: dict[str, Passenger], step: int, n: int) -> dict:
    """Measure all estimators at the run's present policy on n batches. -> a line of results"""
    args, tokenizer = run.args, run.tokenizer
    order = np.random.default_rng(stream_seed(args.seed, "probe", step))
    n_problems, n_chosen = len(run.problems), n * args.prompts_per_step
    chosen = [run.problems[i] for i in order.choice(n_problems, n_chosen, replace=n_chosen > n_problems)]
    rates = line_rates(draw(run, chosen[: 2 * n], 4, "rates", step), tokenizer)
    drawn = draw(run, chosen, args.group_size, "probe", step)
    known_BT, right_BT = known_values(drawn, rates, tokenizer), right_so_far(drawn, tokenizer)
    size = args.prompts_per_step * args.group_size
    batches, tables, before = [], [], {name: [] for name in riders}
    for b in range(n):
        rows = list(range(b * size, (b + 1) * size))
        batch = part(drawn, rows)
        values = {name: ride_along(rider, batch, step + 1, run) for name, rider in riders.items()}
        batches.append(batch)
        tables.append(estimators(batch, values, known_BT[rows], stream_seed(args.seed, "masks", step, b)))
        for name, each in values.items():
            before[name].append(each.before.mean(0))
    returns_N = drawn.rewards_B[:, None].expand(drawn.mask_BT.shape)[drawn.mask_BT]
    guesses = {name: torch.cat(each)[drawn.mask_BT] for name, each in before.items()} | {
        "can add": known_BT[drawn.mask_BT]}
    knows = {name: [round(explained_variance(values_N, returns_N), 3),
                    round(area_under_curve(values_N.numpy(), right_BT[drawn.mask_BT].numpy()), 3)]
             for name, values_N in guesses.items()}

    def of_all_batches(names: list[str]) -> torch.Tensor:
        """-> [E, n, D]"""
        each = [gradients(run.actor, batch, [table[name] for name in names]) for batch, table in zip(batches, tables)]
        return torch.stack(each, dim=1)

    # names that are there for some policies only: a frozen critic is another one after the first update
    names = [name for name in tables[0] if step or not ("before" in name and ("frozen" in name or "lasting" in name))]
    reference_nD = of_all_batches([REFERENCE])[0]
    products = {}
    for i in range(0, len(names), AT_ONCE):
        for name, own_nD in zip(names[i : i + AT_ONCE], of_all_batches(names[i : i + AT_ONCE])):
            products[name] = Products((own_nD @ reference_nD.T).numpy(), (own_nD @ own_nD.T).numpy(),
                                      gain_of_adam(own_nD, reference_nD))
    partners = {name: tables[0][name].partner for name in names}
    partners = {name: partner if partner in names else None for name, partner in partners.items()}
    numbers = {name: statistics(each, products[REFERENCE]) for name, each in products.items()}
    return dict(seed=args.seed, step=step, batches=n, reward=round(drawn.rewards_B.mean().item(), 3), knows=knows,
                commit=git_commit(), columns=COLUMNS, partners=partners, estimators=compared(numbers, partners))


def make_policies(seed: int, fits: Path, fit_seed: int, steps: list[int], n: int, results: Path, world: World,
                  riders: dict = RIDERS, flags: tuple[str, ...] = ()) -> None:
    """Train one run with passengers up to the last of these steps, and probe its policy at each."""
    with tempfile.TemporaryDirectory() as folder:
        run = open_driver([*DRIVER.split(), "--critics", *fitted(fits, 1, fit_seed), "--seed", str(seed),
                           "--out", f"{folder}/run", *flags], world)
        aboard = {}
        for name, (n_fitted, n_critics, how) in riders.items():
            names = fitted(fits, n_fitted, fit_seed)
            aboard[name] = passenger(names if len(names) == n_critics else names * n_critics, world, **how)
        for step in steps_of(run, aboard, max(steps)):
            if step in steps:
                append_rows(results, [probe(run, aboard, step, n)])
                print(f"seed {seed}: policy after {step} updates measured", flush=True)


# -- what was found ------------------------------------------------------------------------------------------
def pooled(rows: list[dict], step: int) -> dict[str, dict[str, tuple[float, float]]]:
    """Return estimator -> column -> (mean over the policies' seeds, half of its 95 % interval).

    The interval is over batches, given these policies and critics.
    """
    here = [row for row in rows if row["step"] == step]
    t = critical(here[0]["batches"] - 1)
    found = {}
    for name in here[0]["estimators"]:
        each = np.array([row["estimators"][name] for row in here], dtype=float)  # None becomes NaN
        middle, error = each[:, 0::2].mean(0), np.sqrt(np.square(each[:, 1::2]).sum(0)) / len(here)
        found[name] = dict(zip(COLUMNS, zip(middle, t * error)))
    return found


def times(middle: float, half: float) -> str:
    if not np.isfinite(middle) or (middle, half) == (0, 0):
        return "–"
    return f"{np.exp(middle):.2f} ({np.exp(middle - half):.2f} … {np.exp(middle + half):.2f})"


def full_tables(rows: list[dict]) -> str:
    """Return all results as markdown, one table for each policy."""
    texts = []
    for step in sorted({row["step"] for row in rows}):
        here = [row for row in rows if row["step"] == step]
        lines = [("estimator", "partner", "cos", "agree", *COLUMNS[3:])]
        for name, columns in pooled(rows, step).items():
            lines.append((name, here[0]["partners"][name] or "–", "{:.3f} ± {:.3f}".format(*columns["cos"]),
                          f"{columns['agree'][0]:.2f}", *(times(*columns[key]) for key in COLUMNS[3:])))
        texts.append(f"{about(here)}\n\n{markdown(lines)}")
    return "\n\n".join(texts)


def about(here: list[dict]) -> str:
    """Return in words what a step's policies are, and what the critics know there."""
    knows = "; ".join(f"{name} " + ", ".join("{:.2f}/{:.2f}".format(*row["knows"][name]) for row in here)
                      for name in here[0]["knows"])
    return (f"After {here[0]['step']} updates: seeds {', '.join(str(row['seed']) for row in here)}, "
            f"{here[0]['batches']} batches each, reward {', '.join(str(row['reward']) for row in here)}. Explained "
            f"variance/AUC of right so far, of fresh responses before the fit: {knows}.")


SHOWN = (  # against λ 1 and GRPO
    "nothing, λ 1", "nothing, λ 0.8", "nothing, λ 0.5", GRPO, "GRPO, no deviation", "GRPO, no deviation, whitened",
    "one, before, λ 0.95", "one, before, λ 0.8", "one, before, λ 0.5", "one, before, λ 0", "one, after, λ 1",
    "one, after, λ 0.8", "one, frozen, before, λ 0.8", "one, lasting, before, λ 0.8", "one, lasting, before, λ 0",
    "one of two, before, λ 0.8", "two, before, λ 0.8", "two, after, λ 1", "two, after, λ 0.8",
    "two, lasting, before, λ 0.8", "two, crossfit, λ 0.8", "one of four, before, λ 0.8", "four, before, λ 0.8",
    "four, before, λ 0", "two, after, λ 1, mask σ", "two, after, λ 1, mask random",
    "can add, λ 1", "can add, λ 0.8", "can add, λ 0")
PAIRED = (  # against their partners
    "nothing, λ 1, less the batch's mean", "one, before, λ 1", "one, before, λ 0.8", "one, before, λ 0.5",
    "one, after, λ 1", "one, after, λ 0.8", "one, after, λ 0.5", "one, after, λ 0", "one, frozen, before, λ 0.8",
    "one, lasting, before, λ 0.8", "one of two, before, λ 0.8", "two, before, λ 0.8", "two, before, λ 0",
    "two, after, λ 1", "two, after, λ 0.8", "two, same data, after, λ 0.8", "two, lasting, before, λ 0.8",
    "two, crossfit, λ 1", "two, crossfit, λ 0.8", "one of four, before, λ 0.8", "four, before, λ 0.8",
    "four, before, λ 0", "two, after, λ 1, mask σ", "two, after, λ 1, mask centred σ",
    "two, after, λ 1, mask highest σ", "two, after, λ 1, mask random", "two, after, λ 1, mask entropy",
    "two, after, λ 1, mask |A|", "two, after, λ 0.8, mask σ", "two, after, λ 0.8, mask random",
    "GRPO, no deviation", "GRPO, no deviation, whitened", "one, before, λ 1, not whitened",
    "one, before, λ 0.8, not whitened", "one, before, λ 0, not whitened", "one, before, λ 1, mean over tokens",
    "one, before, λ 1, less each prompt's mean", "can add, λ 1", "can add, λ 0.8", "can add, λ 0")


def table(rows: list[dict]) -> str:
    """Return the chosen rows as markdown: times λ 1, times GRPO, times the partner, a column for each policy."""
    steps = sorted({row["step"] for row in rows})
    partners = {name: partner for row in rows for name, partner in row["partners"].items() if partner}
    found, texts = {step: pooled(rows, step) for step in steps}, []
    for metric in ("", "adam: "):
        for versus in VERSUS:
            paired = versus == "partner"
            lines = [("estimator", *(["partner"] if paired else []), *(f"after {step}" for step in steps))]
            for name in PAIRED if paired else SHOWN:
                cells = [times(*found[step][name][f"{metric}times {versus}"]) if name in found[step] else "–"
                         for step in steps]
                lines.append((name, *([partners.get(name, "–")] if paired else []), *cells))
            texts.append(f"**{metric}times {versus}**\n\n{markdown(lines)}")
    return "\n\n".join([*(about([row for row in rows if row["step"] == step]) for step in steps), *texts])


def draw_figure(rows: list[dict], path: Path) -> None:
    """Draw how many times as large the batch seems, against one critic at λ 1, at each policy."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from experiments.claims.figures import GREY

    plt.style.use(HERE.parent / "style.mplstyle")
    steps = sorted({row["step"] for row in rows})
    figure, axes = plt.subplots(1, len(steps), figsize=(4 + 3 * len(steps), 6.6), sharey=True)
    for ax, step in zip(np.atleast_1d(axes), steps):
        found = pooled(rows, step)
        for metric, mark, shift in (("", "o", -0.15), ("adam: ", "^", 0.15)):
            each = [found.get(name, {}).get(f"{metric}times λ 1", (np.nan, np.nan)) for name in SHOWN]
            middles, halves = np.array(each).T
            ends = np.exp([middles - halves, middles, middles + halves])
            ax.errorbar(ends[1], np.arange(len(SHOWN)) + shift, xerr=[ends[1] - ends[0], ends[2] - ends[1]],
                        fmt=mark, markersize=4, capsize=2, label="Adam's step" if metric else "the gradient")
        ax.axvline(1, color=GREY, linewidth=0.8)
        ax.set(xscale="log", title=f"after {step} updates", xlabel="times as many responses", xlim=(0.2, 6))
        ax.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
        ax.minorticks_off()
    first = np.atleast_1d(axes)[0]
    first.set_yticks(range(len(SHOWN)), SHOWN)
    first.set_ylim(len(SHOWN) - 0.4, -0.6)
    first.legend(loc="lower left")
    figure.savefig(path)


def measure_all(seeds: int, steps: list[int], fits: Path, n: int, results: Path, flags: tuple[str, ...]) -> None:
    world, done = start("cpu"), {(row["seed"], row["step"]) for row in whole_rows(results)}
    for seed in range(seeds):
        missing = [step for step in steps if (seed, step) not in done]
        if missing:
            make_policies(seed, fits, 1000 + seed % 4, missing, n, results, world, flags=flags)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--fits", type=Path, help="folder of the fitted critics (fits.py)")
    add("--seeds", type=COUNT, default=2, help="seeds 0 … N − 1 of the policies")
    add("--steps", type=COUNT_OR_0, nargs="+", default=STEPS, help="updates before a policy is measured")
    add("--flags", type=str.split, default=(), help="more flags of the run that gives the policies")
    add("--batches", type=COUNT, default=64, help="batches of 32 responses at each policy")
    add("--results", type=Path, default=RESULTS, help="one line for each policy")
    add("--table", action="store_true", help="print the results as markdown")
    add("--all", action="store_true", help="print all estimators, one table for each policy")
    add("--figure", action="store_true", help="draw snr.png beside the results")
    args = parser.parse_args(argv)
    if args.table:
        print(table(whole_rows(args.results)))
    if args.all:
        print(full_tables(whole_rows(args.results)))
    if args.figure:
        draw_figure(whole_rows(args.results), args.results.with_suffix(".png"))
    if args.table or args.all or args.figure:
        return 0
    if not args.fits:
        parser.error("give --fits, the folder of the fitted critics.")
    return exit_code("snr.py", lambda: measure_all(
        args.seeds, args.steps, args.fits, args.batches, args.results, tuple(args.flags)))


if __name__ == "__main__":
    sys.exit(main())
