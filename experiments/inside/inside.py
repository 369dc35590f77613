"""Write one HTML page with a run's saved responses, token by token. The page needs no network.

    python experiments/inside/inside.py runs/NAME --out page.html              # all saved steps, at most 2 MB
    python experiments/inside/inside.py runs/NAME --step 100 --out page.html   # one step

train.py saves the first four groups every --eval-every steps (inside/step-N.npz, about 30 bytes per token
with two critics). Tokens are coloured by σ, advantage (as used by the policy update), values, entropy or
probability ratio. The ratio is π after the step's last update over π that drew the response. Numbers are
rounded to four digits. inside.html is the page's template.
"""

import argparse
import base64
import gzip
import json
import math
import sys
import zipfile
from pathlib import Path
from typing import Iterable

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import asyppo
from engine.command_line import COUNT, Parser, exit_code
from engine.errors import require, user_error
from engine.models import load_tokenizer

LIMIT = 2_000_000  # bytes of a page


def token_texts(tokens: list[int], first: int, tokenizer) -> list[str]:
    """Return the text that each of tokens[first:] adds; joined, the texts are the response.

    Of several tokens that make one character, the last one adds it and the others add nothing.
    """
    texts, start, end = [], max(0, first - 1), first
    before = tokenizer.decode(tokens[start:end])  # tokens[start:end] decode to whole characters
    for i in range(first + 1, len(tokens) + 1):
        text = tokenizer.decode(tokens[start:i])
        if text.endswith("\N{REPLACEMENT CHARACTER}") and i < len(tokens):
            texts.append("")
            continue
        texts.append(text[len(before) :])
        start, end = end, i
        before = tokenizer.decode(tokens[start:end])
    return texts


def short(x: list | float) -> list | float | None:
    """Return x rounded to four digits, None for infinity and NaN (JSON has neither)."""
    if isinstance(x, list):
        return [short(y) for y in x]
    return float(f"{x:.4g}") if math.isfinite(x) else None


def read_step(path: Path, tokenizer) -> list[dict]:
    """Return the responses that a run saved in one step, with the numbers of their tokens."""
    with user_error(f"{path}: not what train.py saves", zipfile.BadZipFile, KeyError):
        saved = {name: x for name, x in np.load(path).items()}
        known = {"advantage": saved["advantage"], "entropy": saved["old_entropy_BT"]}
        known["ratio"] = np.exp(saved["new_logp_BT"] - saved["old_logp_BT"])
        if "values_MBT" in saved:
            known["value"] = saved["values_MBT"]
            if len(saved["values_MBT"]) > 1:
                known["sigma"] = asyppo.disagreement(torch.tensor(saved["values_MBT"])).numpy()
        marks = {"masked": ~saved["advantage_mask"], "filtered": ~saved["entropy_filter"]}
        responses = []
        for b, tokens_S in enumerate(saved["tokens_BS"].tolist()):
            first, length = int(saved["prompt_len_B"][b]), int(saved["response_len_B"][b])
            response = dict(
                group=int(saved["group_B"][b]), reward=float(saved["rewards_B"][b]),
                truncated=bool(saved["truncated_B"][b]), prompt=tokenizer.decode(tokens_S[:first]),
                gold=str(saved["golds"][b]), answer=str(saved["answers"][b]),
                tokens=token_texts(tokens_S[: first + length], first, tokenizer),
            )
            if "shards_MB" in saved:
                response["fitted"] = np.flatnonzero(saved["shards_MB"][:, b]).tolist()
            response |= {name: short(x[..., b, :length].tolist()) for name, x in known.items()}
            response |= {name: x_BT[b, :length].astype(int).tolist() for name, x_BT in marks.items()}
            responses.append(response)
    return responses


def page(run: Path, settings: dict, steps: dict[int, list[dict]], note: str) -> str:
    shown = ("algo", "gamma")
    data = {"run": run.resolve().name, "note": note, "steps": steps}
    data["settings"] = {key: settings[key] for key in shown}
    packed = base64.b64encode(gzip.compress(json.dumps(data).encode(), mtime=0)).decode()
    return (HERE / "inside.html").read_text().replace("{{DATA}}", packed)


def every_second(steps: Iterable[int]) -> list[int]:
    """Return half of the steps, the last one included."""
    return sorted(steps, reverse=True)[::2][::-1]


def fitting_page(run: Path, settings: dict, steps: dict[int, list[dict]], n_saved: int) -> tuple[str, str]:
    """Return a page of at most 2 MB, and a note on its content.

    A larger page loses every second step (never the last one), then the second half of the responses of the
    step that is left, as often as needed.
    """
    note = f"{len(steps)} of {n_saved} saved steps"
    while len(html := page(run, settings, steps, note)) > LIMIT:
        if len(steps) > 1:
            steps = {n: steps[n] for n in every_second(steps)}
            note = f"{len(steps)} of {n_saved} saved steps"
        else:
            ((step, responses),) = steps.items()
            require(len(responses) > 1, f"step {step}: a single response is larger than a page may be.")
            steps = {step: responses[: len(responses) // 2]}
            note = f"{len(steps[step])} responses of step {step}, one of {n_saved} saved steps"
    return html, note


def write_page(args: argparse.Namespace) -> None:
    with user_error(f"{args.run}: no run is there", KeyError):
        settings = json.loads((args.run / "config.json").read_text())["settings"]
    files = {int(path.stem[5:]): path for path in args.run.glob("inside/step-*[0-9].npz")}
    require(files, f"{args.run} has no saved responses yet; train.py saves some every --eval-every steps.")
    known = ", ".join(map(str, sorted(files)))
    require(not args.step or args.step in files, f"--step {args.step} was not saved; these were: {known}.")
    model = args.run / "model" if (args.run / "model").exists() else settings["model"]
    tokenizer = load_tokenizer(args.model or str(model), "--model")
    wanted = [args.step] if args.step else sorted(files)
    # a page is about as large as its files: do not read many more
    while len(wanted) > 1 and sum(files[n].stat().st_size for n in wanted) > 2 * LIMIT:
        wanted = every_second(wanted)
    steps = {n: read_step(files[n], tokenizer) for n in wanted}
    html, note = fitting_page(args.run, settings, steps, len(files))
    with user_error(f"--out {args.out}: it could not be written"):
        args.out.write_text(html, encoding="utf-8")
    print(f"{args.out}: {len(html) / 1e6:.2f} MB, {note} ({known}); --step N shows one alone")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("run", type=Path, help="folder of a run, finished or not")
    add("--step", type=COUNT, help="only this saved step; default: all")
    add("--model", help="model with the tokenizer; default: RUN/model, or what the run started from")
    add("--out", type=Path, required=True, help="page to write")
    args = parser.parse_args(argv)
    return exit_code("inside.py", lambda: write_page(args))


if __name__ == "__main__":
    sys.exit(main())
