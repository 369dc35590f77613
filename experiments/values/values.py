"""Compare a finished run's critics with Monte-Carlo values of its policy.

    python experiments/values/values.py runs/NAME                      # a table
    pip install -r experiments/requirements.txt
    python experiments/values/values.py runs/NAME --out values.png     # and a picture with calibration

The Monte-Carlo value of a state is the mean reward of K continuations by the same policy. Its standard error
is at most 0.5/√K; the mean square of that noise is subtracted from the printed errors. States are the
beginnings of lines of sampled responses, or with --every N every N-th token. SP3O (arXiv 2609.18708) measures
critics in the same way and finds them nearly constant within a response.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from critics import ensemble_values
from engine.batch import Response, make_rollout
from engine.command_line import COUNT, Parser, exit_code, number
from engine.distributed import World, start
from engine.errors import user_error
from engine.files import replace_text
from engine.generation import SamplingConfig, generate_responses
from engine.models import load_actor, load_critic, load_tokenizer
from rollout import load_problems, prompt_tokens, read_template, stop_token_ids, verify
from verifier import Verifier


def state_positions(tokens: list[int], every: int | None, tokenizer) -> list[int]:
    """Return the states of a response to measure; t is the state before token t, 0 the prompt alone."""
    if every:
        return list(range(0, len(tokens), every))
    return [0] + [t for t in range(1, len(tokens)) if tokenizer.decode([tokens[t - 1]]).endswith("\n")]


def measure(run: Path, args: argparse.Namespace, world: World) -> tuple[np.ndarray, ...]:
    """Return Monte-Carlo values [S], every critic's values [M, S] and each state's response [S]."""
    with user_error(f"{run}: not a finished run", KeyError):
        settings = argparse.Namespace(**json.loads((run / "config.json").read_text())["settings"])
    tokenizer = load_tokenizer(str(run / "model"), "RUN")
    template = read_template(settings.template, tokenizer, str(run / "model"))
    actor = load_actor(str(run / "model"), world, torch.float32, temperature=settings.temperature)
    critics = [load_critic(str(path), world, torch.float32) for path in sorted(run.glob("critic*"))]
    problems = load_problems(settings.eval_data or settings.data, args.problems, args.seed, flag="RUN's data")
    stops = frozenset(stop_token_ids(actor, tokenizer, template))
    sampling = SamplingConfig(settings.max_new_tokens, settings.temperature, stops, tuple(settings.stop),
                              settings.generate_batch)
    prompts = [prompt_tokens(p.problem, template, tokenizer) for p in problems]
    golds = [p.answer for p in problems]

    responses = generate_responses(actor, tokenizer, prompts, sampling, world, args.seed, "responses")
    states = [
        (b, t) for b, r in enumerate(responses) for t in state_positions(r.tokens, args.every, tokenizer)
    ]
    begun = [prompts[b] + responses[b].tokens[:t] for b, t in states for _ in range(args.continuations)]
    ends = generate_responses(actor, tokenizer, begun, sampling, world, args.seed + 1, "continuations")
    # cut at the length limit of training, for which the critics were fitted
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
    """Return the changes from one state to the next of the same response."""
    return np.diff(x_S)[response_S[1:] == response_S[:-1]]


def errors(truth_S: np.ndarray, values_MS: np.ndarray, response_S: np.ndarray, n: int) -> dict[str, list]:
    """Return for a constant, every critic and their mean: mean squared error less the noise of n
    continuations, correlation with the truth, correlation of the changes within a response.

    A correlation is None where one side does not change.
    """
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
    """Draw calibration in ten equal parts by value, and the response with the most states."""
    import matplotlib.pyplot as plt

    plt.style.use(Path(__file__).parents[1] / "style.mplstyle")
    figure, (calibration, example) = plt.subplots(1, 2, figsize=(10, 4))
    mean_S = values_MS.mean(0)
    lines = {f"critic {m}": (values_S, ":") for m, values_S in enumerate(values_MS)}
    lines["mean"] = (mean_S, "o-")
    for name, (values_S, style) in lines.items():
        parts = np.array_split(np.argsort(values_S), 10)
        x, y = ([each_S[part].mean() for part in parts] for each_S in (values_S, truth_S))
        calibration.plot(x, y, style, label=name)
    calibration.plot([0, 1], [0, 1], color="#7d8187", linewidth=0.8, label="perfect")
    calibration.set(title="Calibration (each mark a tenth of the states)", xlabel="critic's value",
                    ylabel="Monte-Carlo value (mean reward)")
    chosen = response_S == np.bincount(response_S).argmax()
    example.step(range(chosen.sum()), truth_S[chosen], where="mid", label="Monte-Carlo")
    for m, values_S in enumerate(values_MS):
        example.plot(values_S[chosen], ":", label=f"critic {m}")
    example.plot(mean_S[chosen], "o-", label="mean")
    example.set(title="The response with the most states", xlabel="state", ylabel="value")
    for axes in (calibration, example):
        axes.legend()
    figure.savefig(out)


def run(args: argparse.Namespace) -> None:
    if args.out:
        import matplotlib  # first, so that a missing package costs no measurement

        matplotlib.use("Agg")
    truth_S, values_MS, response_S = measure(args.run, args, start())
    print(f"{len(truth_S)} states of {args.problems} responses, {args.continuations} continuations each")
    found = errors(truth_S, values_MS, response_S, args.continuations)
    print(table(found))
    if args.json:
        replace_text(args.json, json.dumps(found) + "\n")
    if args.out:
        draw(truth_S, values_MS, response_S, args.out)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("run", type=Path, help="folder of a finished run")
    add("--problems", type=COUNT, default=64, help="problems, one response each")
    add("--continuations", type=number(int, "an integer of at least 2", lambda x: x >= 2), default=64,
        help="K, continuations of every state")
    add("--every", type=COUNT, help="measure every N-th state; default: the beginnings of lines")
    add("--seed", type=int, default=0, help="seed of problems, responses and continuations")
    add("--out", type=Path, help="image to write")
    add("--json", type=Path, help="JSON file for the table's numbers")
    args = parser.parse_args(argv)
    return exit_code("values.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
