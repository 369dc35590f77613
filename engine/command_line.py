"""The command line of train.py and evaluate.py: number types, shared flags, exit codes."""

import argparse
import math
import os
import sys
import time
from typing import Callable

import torch

from engine.distributed import stop
from engine.errors import RunError, UserError


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default not in (None, []) else action.help


class Parser(argparse.ArgumentParser):
    """An argument parser that prints a mistake once, however many processes there are."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message: str):
        sys.exit(report(self.prog, UserError(message)))


def number(kind: type, wanted: str, ok: Callable[[float], bool]) -> Callable[[str], float]:
    """Return a type for argparse: an int or float for which ok is true; wanted describes it."""

    def parse(text: str) -> float:
        try:
            x = kind(text)
        except ValueError:
            x = math.nan
        if not (ok(x) and abs(x) <= 2**31):  # NaN fails every comparison
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text[:40]}")
        return x

    return parse


COUNT = number(int, "an integer of at least 1", lambda x: x >= 1)
COUNT_OR_0 = number(int, "an integer of at least 0", lambda x: x >= 0)
POSITIVE = number(float, "a number above 0", lambda x: x > 0)
AT_LEAST_0 = number(float, "a number of at least 0", lambda x: x >= 0)
SHARE = number(float, "a number from 0 to 1", lambda x: 0 <= x <= 1)


def GPUS(text: str) -> tuple[int, float]:
    count, _, gib = text.partition("x")
    try:
        return COUNT(count), POSITIVE(gib)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be GPUs x GiB each, such as 8x80, not {text[:40]}") from None


def add_response_flags(parser: argparse.ArgumentParser, temperature: Callable, temperature_help: str) -> None:
    """Add the flags for prompts and responses."""
    add = parser.add_argument_group("prompts and responses").add_argument
    add("--template", help="prompt: text or file with {problem} in it; default: the tokenizer's chat template")
    add("--extract", choices=("boxed", "last_number"), default="boxed", help="where a response's answer stands")
    add("--verifier", choices=("strict", "math-verify"), default="strict", help="how answers are compared with golds")
    add("--max-new-tokens", type=COUNT, default=8192, help="longer responses are truncated")
    add("--temperature", type=temperature, default=1.0, help=temperature_help)
    add("--stop", type=stop_string, nargs="+", default=[], help="strings that end a response; \\n is a newline")
    add("--generate-batch", type=lambda text: text if text == "auto" else COUNT(text), default="auto",
        help="responses in flight on a process; auto: as many as the GPU's memory holds, 16 on a CPU")
    add("--decode", choices=("eager", "graph"), default="eager",
        help="graph: compile a token's forward pass, and replay it as a CUDA graph on a GPU")


def stop_string(flag: str) -> str:
    if not flag:
        raise argparse.ArgumentTypeError("'' would end every response at once; leave it out or name a string")
    return flag.replace("\\n", "\n")  # shells pass \n on as two characters


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for compute type and sharding."""
    add = parser.add_argument_group("processes").add_argument
    add("--dtype", choices=("auto", "fp32", "bf16"), default="auto", help="compute type; auto: bf16 on GPU, else fp32")
    add("--ranks-per-copy", type=COUNT,
        help="processes that shard one copy of the weights; default: a machine's if its GPUs can hold one, else all")


def replace_unencodable() -> None:
    """Print ? where the terminal's encoding lacks a character such as σ, instead of ending the run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's stream may lack it
            stream.reconfigure(errors="replace")


def report(script: str, error: UserError) -> int:
    """Print a mistake once and return its exit code."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(10)  # torchrun kills all ranks once one has exited: let rank 0 speak first
    print(f"{script}: error: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def exit_code(script: str, work: Callable[[], int | None]) -> int:
    """Run work and return the script's exit code; print a mistake as a sentence."""
    replace_unencodable()
    try:
        code = work() or 0
    except UserError as error:
        code = report(script, error)
    except torch.OutOfMemoryError as error:
        code = report(script, RunError(
            f"the GPU is out of memory ({str(error)[:200]}); continue with --resume and a smaller "
            "--generate-batch, in training also a smaller --token-budget or a stronger --offload."))
    stop()  # only now: the models are freed
    return code
