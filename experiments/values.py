"""Values against the truth: what a run's critics say of states, beside what its policy earns from there.

    python experiments/values.py runs/NAME                      # a table
    pip install -r experiments/requirements.txt
    python experiments/values.py runs/NAME --out values.png     # and a picture with calibration

The truth of a state is its Monte-Carlo value: the mean reward of K continuations by the same policy (its
standard error is at most 0.5/√K; its mean square is taken off the errors printed). States are the beginnings
of lines of sampled responses, or with --every every n-th token. SP3O (2026) measures critics so: they tell
responses apart more easily than the states within one.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import distributed
from critics import ensemble_values
from distributed import number, reading, replace_text
from generation import generate_responses, sampling_of, stop_token_ids
from models import load_actor, load_critic, load_tokenizer
from rollout import Response, load_problems, make_rollout, prompt_tokens, read_template, verify
from verifier import Verifier


def state_positions(tokens: list[int], every: int | None, tokenizer) -> list[int]:
    """Which states of a response are looked at: t is the state before token t; the prompt alone always."""
    if every:
        return list(range(0, len(tokens), every))
    return [0] + [t for t in range(1, len(tokens)) if tokenizer.decode([tokens[t - 1]]).endswith("\n")]


def measure(run: Path, args: argparse.Namespace, world: distributed.World) -> tuple[np.ndarray, ...]:
    """-> Monte-Carlo values [S], every critic's values [M, S], the response that each state is of [S]"""
    with reading(f"{run}: not a finished run", KeyError):
        settings = argparse.Namespace(**json.loads((run / "config.json").read_text())["settings"])
    tokenizer = load_tokenizer(str(run / "model"), "RUN")
    template = read_template(settings.template, tokenizer, str(run / "model"))
    actor = load_actor(str(run / "model"), world, torch.float32, temperature=settings.temperature)
    critics = [load_critic(str(path), world, torch.float32) for path in sorted(run.glob("critic*"))]
    problems = load_problems(settings.eval_data or settings.data, args.problems, args.seed, flag="RUN's data")
    sampling = sampling_of(settings, stop_token_ids(actor, tokenizer, template))
    prompts = [prompt_tokens(p.problem, template, tokenizer) for p in problems]
    golds = [p.answer for p in problems]

    responses = generate_responses(actor, tokenizer, prompts, sampling, world, args.seed, "responses")
    states = [
        (b, t) for b, r in enumerate(responses) for t in state_positions(r.tokens, args.every, tokenizer)
    ]
    begun = [prompts[b] + responses[b].tokens[:t] for b, t in states for _ in range(args.continuations)]
    ends = generate_responses(actor, tokenizer, begun, sampling, world, args.seed + 1, "continuations")
    # no longer than a response of training, or the truth would know what the critics could not
    whole = [
        Response(prompts[b], (responses[b].tokens[:t] + end.tokens)[: settings.max_new_tokens], end.truncated)
        for (b, t), end in zip([state for state in states for _ in range(args.continuations)], ends)
    ]
    with Verifier(settings.extract) as verifier:
        whole_golds = [golds[b] for b, _ in states for _ in range(args.continuations)]
        _, rewards = verify(whole, whole_golds, settings.extract, verifier.reward, tokenizer, world)
    truth_S = np.reshape(rewards, (len(states), args.continuations)).mean(1)

    rollout = make_rollout(responses, golds, [None] * len(golds), [0.0] * len(golds), 1)
    values_MBT = ensemble_values(critics, rollout, settings.token_budget, world)
    values_MS = np.array([[values_BT[b, t].item() for b, t in states] for values_BT in values_MBT])
    return truth_S, values_MS, np.array([b for b, _ in states])


def within(x_S: np.ndarray, response_S: np.ndarray) -> np.ndarray:
    """Changes from one state to the next of the same response."""
    return np.diff(x_S)[response_S[1:] == response_S[:-1]]


def errors(truth_S: np.ndarray, values_MS: np.ndarray, response_S: np.ndarray, n: int) -> dict[str, list]:
    """A constant, every critic, their mean -> mean squared error less the noise of n continuations,
    correlation with the truth, and that of changes within a response (None: one of them does not change)."""
    noise = (truth_S * (1 - truth_S) / (n - 1)).mean()
    rows = {"a constant": np.full_like(truth_S, truth_S.mean())}
    rows |= {f"critic {m}": values_S for m, values_S in enumerate(values_MS)}
    rows["their mean"] = values_MS.mean(0)
    found = {}
    for name, values_S in rows.items():
        found[name] = [float(((values_S - truth_S) ** 2).mean() - noise)]
        for x, y in ((values_S, truth_S), (within(values_S, response_S), within(truth_S, response_S))):
            both = len(x) and np.ptp(x) and np.ptp(y)
            found[name].append(float(np.corrcoef(x, y)[0, 1]) if both else None)
    return found


def table(found: dict[str, list]) -> str:
    lines = [f"{'':<12}{'mean squared error':>20}{'correlation':>14}{'of changes within':>20}"]
    for name, (error, *correlations) in found.items():
        cells = ["–" if x is None else f"{x:.2f}" for x in correlations]
        lines.append(f"{name:<12}{error:>20.4f}{cells[0]:>14}{cells[1]:>20}")
    return "\n".join(lines)


def draw(truth_S: np.ndarray, values_MS: np.ndarray, response_S: np.ndarray, out: Path) -> None:
    """Calibration in ten equal parts by value, and the response with the most states."""
    import matplotlib.pyplot as plt

    plt.style.use(Path(__file__).with_name("style.mplstyle"))
    figure, (calibration, example) = plt.subplots(1, 2, figsize=(10, 4))
    mean_S = values_MS.mean(0)
    lines = {f"critic {m}": (values_S, ":") for m, values_S in enumerate(values_MS)}
    lines["mean"] = (mean_S, "o-")
    for name, (values_S, style) in lines.items():
        parts = np.array_split(np.argsort(values_S), 10)
        x, y = ([each_S[part].mean() for part in parts] for each_S in (values_S, truth_S))
        calibration.plot(x, y, style, label=name)
    calibration.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    calibration.set(title="Calibration, tenths of the states", xlabel="value", ylabel="Monte-Carlo value")
    chosen = response_S == np.bincount(response_S).argmax()
    example.step(range(chosen.sum()), truth_S[chosen], where="mid", label="Monte-Carlo")
    for m, values_S in enumerate(values_MS):
        example.plot(values_S[chosen], ":", label=f"critic {m}")
    example.plot(mean_S[chosen], "o-", label="mean")
    example.set(title="The response with the most states", xlabel="state", ylabel="value")
    for axes in (calibration, example):
        axes.legend()
    figure.savefig(out)


def main() -> None:
    parser = distributed.Parser(__doc__)
    add = parser.add_argument
    add("run", type=Path, help="folder of a finished run")
    add("--problems", type=number(int, 1), default=64, help="responses that are looked at, one to each problem")
    add("--continuations", type=number(int, 2), default=64, help="K, for every state")
    add("--every", type=number(int, 1), help="look at every n-th state; default: at the beginnings of lines")
    add("--seed", type=int, default=0, help="of problems, responses and continuations")
    add("--out", type=Path, help="image to write")
    add("--json", type=Path, help="write the table's numbers here too")
    args = parser.parse_args()
    try:
        if args.out:
            import matplotlib  # missing, it must not be missed only when all is measured

            matplotlib.use("Agg")
        world = distributed.start("auto")
        truth_S, values_MS, response_S = measure(args.run, args, world)
        print(f"{len(truth_S)} states of {args.problems} responses, {args.continuations} continuations each")
        found = errors(truth_S, values_MS, response_S, args.continuations)
        print(table(found))
        if args.json:
            replace_text(args.json, json.dumps(found) + "\n")
        if args.out:
            draw(truth_S, values_MS, response_S, args.out)
    except distributed.UserError as error:
        sys.exit(f"values.py: error: {error}")
    distributed.stop()


if __name__ == "__main__":
    main()
