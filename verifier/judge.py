"""The script of a worker: judge one answer after another against its gold, by equality.py or by math-verify.

Run as a script, so that only a worker pays for importing mpmath or the library.
"""

import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path


def math_verify() -> Callable[[str, str], bool]:
    """The library alone, with the settings that its authors use for rewards."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    normalization = NormalizationConfig(nits=False, malformed_operators=False, basic_latex=True, boxed="all",
                                        units=True)
    config = LatexExtractionConfig(normalization_config=normalization, boxed_match_priority=0,
                                   try_extract_without_anchor=False)
    # its own limits are signals, by the clock; the parent's deadline is enough
    parse_gold = lru_cache(maxsize=None)(lambda gold: parse(f"${gold}$", parsing_timeout=None))

    def right(gold: str, answer: str) -> bool:
        found = parse(f"\\boxed{{{answer}}}", [config], extraction_mode="first_match", parsing_timeout=None)
        return bool(verify(parse_gold(gold), found, timeout_seconds=None))

    return right


def judge(right: Callable[[str, str], bool], gold: str, answer: str) -> bool:
    try:
        return right(gold, answer)
    except MemoryError:
        os._exit(1)  # a fresh process is safer; the parent counts the failure
    except Exception:  # noqa: BLE001  sympy and antlr raise anything
        return False


def serve(method: str, memory_gb: str) -> None:
    """Answer each line [gold, answer, CPU seconds] from stdin with true or false, until stdin closes."""
    replies = os.dup(1)
    os.dup2(2, 1)  # a stray print must not look like a reply
    resource.setrlimit(resource.RLIMIT_AS, (int(float(memory_gb) * 2**30),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    if method == "math-verify":
        right = math_verify()
    else:
        from verifier.equality import answers_equal as right
    judge(right, r"\frac{1}{2}", r"\sqrt{2}")  # the first one builds tables
    os.write(replies, b"ready\n")
    for line in sys.stdin:
        gold, answer, deadline = json.loads(line)
        # SIGPROF ends this process when it has used so much CPU time, whatever it is doing
        signal.setitimer(signal.ITIMER_PROF, deadline)
        verdict = judge(right, gold, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(replies, json.dumps(verdict).encode() + b"\n")


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    serve(*sys.argv[1:])
