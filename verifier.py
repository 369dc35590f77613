r"""Is this answer right?  1.0 or 0.0 for an extracted answer and the dataset's gold answer.

Answers are judged by math-verify, gold first, in worker processes that the parent kills when an item exceeds
its deadline (judge.py): math-verify's own timeouts are SIGALRM in the main thread only (Math-Verify#50), and some
inputs, such as `9^{9^{9^9}}`, cannot be interrupted from within (Math-Verify#63).  A wrong 1.0 does more harm than
a missed one, so where math-verify is generous we are stricter:

- Written numbers (integers, decimals, scientific notation such as `4.5e33`) must be equal.  A decimal against
  another number (1/3, \sqrt{2}) must agree to 5e-6 relative, six significant digits: 0.333333 is right for 1/3,
  0.33 is not.  Other numbers must be equal.  (math-verify rounds to six places after the point, which accepts
  1e-20 for 1e-21, and drops small differences, Math-Verify#14.)  `18\%` is right for 18 and for 0.18.
- `x=42` is right for 42; `41=42` and `2x=42` are not: what an answer equates must be a name or be equal.
- `52_7` is wrong for `52_8`, `m` for `M`, `5\text{ million}` for 5; words and lists with an ellipsis are compared
  as text only.
- Answers over MAX_LENGTH characters are wrong.  Units and degree signs are ignored.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from fractions import Fraction
from multiprocessing.connection import wait
from pathlib import Path
from typing import Self

MAX_LENGTH = 1000  # characters; the longest gold of the usual data sets has about 250
JUDGE = Path(__file__).with_name("judge.py")  # only a worker pays for importing sympy
STARTUP_LIMIT = 300.0  # seconds for a worker to import sympy, on the busiest machine

# ---- from a response to its answer -------------------------------------------------------------------------

BOX_OR_BRACE = re.compile(r"\\\\?(?:boxed|fbox)(?![a-zA-Z])\s*(\{?)|\\.|[{}]", re.DOTALL)
UNBRACED = re.compile(r"[^\s$]*")
NUMBER_RUN = re.compile(
    r"(?:(?<![\w)}\].])-\$?)?(?:(?<![\d.])\.\d+|\d[\d,]*(?:\.\d+)?)(?:[eE][+-]?\d+(?!\w))?"
)


def last_boxed(text: str) -> str | None:
    r"""Content of the last complete \boxed{...} or \fbox{...}, also of "\boxed 5"; None if there is none.

    One pass with a stack of open braces, because a scan per box is quadratic in "\boxed{\boxed{...".
    """
    open_braces, last_start, content = [], -1, None
    for token in BOX_OR_BRACE.finditer(text):
        is_box = len(token[0]) > 2
        if token[0] == "{" or is_box and token[1]:
            open_braces.append((is_box, token.end()))
        elif is_box and (unbraced := UNBRACED.match(text, token.end())[0].rstrip(".,;")):
            last_start, content = token.end(), unbraced
        elif token[0] == "}" and open_braces:
            is_box, start = open_braces.pop()
            if (
                is_box and start > last_start
            ):  # an outer box ends after the inner one, but does not begin after it
                last_start, content = start, text[start : token.start()]
    return content


def last_number(text: str) -> str | None:
    """Last number in the text, without thousands commas ("1,234.5" -> "1234.5"); None if there is none."""
    last = deque(NUMBER_RUN.finditer(to_ascii(text)), maxlen=1)
    if not last:
        return None
    number = last[0][0].replace("$", "").rstrip(",")
    is_one_number = re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?([eE][+-]?\d+)?", number)
    return number.replace(",", "") if is_one_number else number.rsplit(",", 1)[-1]  # "1,2,3" is a list


def extract_answer(text: str, how: str) -> str | None:
    """The answer of a response; `how` is "boxed" or "last_number"."""
    return {"boxed": last_boxed, "last_number": last_number}[how](text)


# ---- from an answer to its canonical text, and the verdicts that need no algebra ---------------------------

ASCII = str.maketrans(
    {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}  # full-width forms
    | dict.fromkeys("−–‐‑", "-")
    | dict.fromkeys("′’", "'")
    | dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " ")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff")
    | {
        "×": r"\times ",
        "·": r"\cdot ",
        "÷": r"\div ",
        "π": r"\pi ",
        "∞": r"\infty ",
        "°": r"^{\circ}",
        "√": r"\sqrt ",
        "±": r"\pm ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "∈": r"\in ",
    }
)
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
TEXT = r"\\(?:text|mbox|mathrm|textrm|textbf|mathbf)\s*\{"
UNIT_WORDS = (
    "(?:square |cubic )?(?:[ckm]m|kg|(?:centi|kilo)?met(?:er|re)s?|miles?|inch(?:es)?|feet|foot|units?|"
    "degrees?|grams?|pounds?|seconds?|minutes?|hours?|days?|weeks?|months?|years?|mph|dollars?|cents?|ways?)"
)
NO_UNITS = r"or|and|if|for|not|mod|is|plus|minus|pi|dozen|hundreds?|thousands?|[mbtr]+illions?|[ap]\.?m"
NOT_A_UNIT = rf"(?!\s*(?i:{NO_UNITS})\b|\s*[abcdefijklnopqrtuvwxyz]\s*\}})"  # \text{ or more}, \mathrm{e}
REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(?<!\\)\\!\s*|(?<!\\)\\[()\[\]]|\\?\$|\\(?:left|right|displaystyle)(?![a-zA-Z])\.?", ""),
        (r"(?<=\d)\\,(?=\d{3})", ""),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])|\s+", " "),
        (r"\{\s*,\s*\}", ","),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\%|(?<=\d)\s*percent$", "%"),
        (r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree(?![a-zA-Z])", ""),
        (rf"^\s*{TEXT}([^{{}}]*)\}}[\s.]*$", r"\1"),
        (rf"(?<=[\w}}).])\s*{TEXT}{NOT_A_UNIT}[a-zA-Z ./^-]+\}}\s*(?:\^\s*\{{?\d\}}?)?[\s.]*$", ""),
        (rf"(?<=\d)\s*{UNIT_WORDS}(?:\^\{{?\d\}}?)?[\s.]*$", ""),
        (r"'+", lambda primes: r"^{" + r"\prime" * len(primes[0]) + "}"),  # math-verify drops them
        (r"(\d*)\.(\d*)\\(?:overline|bar)\{(\d+)\}", lambda match: repeating_decimal(*match.groups())),
        (r"[\s.,;]+$|(?<=\d)\.(?![\d.])", ""),
        (r"(?<![a-zA-Z\\])E(?=_)", r"\\mathcal{E}"),  # an energy E_1; math-verify always takes E for 2.718
        (r"(?<=[\d.])[eE]([+-]?\d+)", r"\\times10^{\1}"),  # math-verify reads 4.5e33 as 4.5 * e * 33
        (r"(?<![\w.^])(\d+)\s+(\d+)\s*/\s*(\d+)(?!\w)", r"\1\\frac{\2}{\3}"),
        (r"(?<![0-9a-zA-Z])\s+|\s+(?![0-9a-zA-Z])", ""),  # the others stay: "1 3" is not 13
    ]
]
NUMBER = re.compile(
    r"([+-]?)([1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d*)(\.\d+)?(?<=\d)"
    r"(?:(?:\\times|\\cdot|\*) ?10\^(?:\{\+?(-?\d{1,3})\}|(-?\d{1,3})))?(%?)"
)
BASED = re.compile(r"(\d[0-9A-Fa-f]*)_\{?(\d+)\}?")


def to_ascii(text: str) -> str:
    """Unicode digits, full-width forms, common symbols in ASCII; x² becomes x^{2}, where NFKC gives x2."""
    if text.isascii():
        return text
    text = text.translate(ASCII)
    text = re.sub("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda run: "^{" + run[0].translate(SUPERSCRIPTS) + "}", text)
    return re.sub(r"(?![0-9])\d", lambda digit: str(int(digit[0])), text)


def repeating_decimal(integer: str, decimals: str, period: str) -> str:
    nines = (10 ** len(period) - 1) * 10 ** len(decimals)
    return rf"\frac{{{int(integer + decimals + period) - int('0' + integer + decimals)}}}{{{nines}}}"


def canonical(text: str) -> str:
    """The answer without dressing (dollars, units, spaces), for comparing and for parsing."""
    text = to_ascii(text)
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    return text


def written_number(text: str) -> tuple[Fraction, bool] | None:
    """Value of a canonical integer, decimal or scientific notation, and whether % follows; else None."""
    match = NUMBER.fullmatch(re.sub(r"^([+-]?)10\^", r"\g<1>1\\times10^", text))
    if match is None:
        return None
    sign, integer, decimals, braced, bare, percent = match.groups()
    mantissa = Fraction((integer.replace(",", "") or "0") + (decimals or ""))
    return (-1 if sign == "-" else 1) * mantissa * Fraction(10) ** int(braced or bare or 0), bool(percent)


def is_words(gold: str) -> bool:
    return bool(re.fullmatch(rf"\s*(?:{TEXT}[^{{}}0-9]*\}}[\s.]*|(?i:yes|no|true|false))", gold))


def quick_verdict(gold: str, answer: str | None) -> bool | None:
    """Right, wrong, or None where only math-verify can tell."""
    if answer is None or len(answer) > MAX_LENGTH:
        return False
    gold_is_text = is_words(gold)
    gold, answer = canonical(gold), canonical(answer)
    if gold_is_text:
        gold, answer = (re.sub(r"[()]", "", text).lower() for text in (gold, answer))
    if gold == answer or not answer:
        return gold == answer != ""
    gold_based, based = BASED.fullmatch(gold), BASED.fullmatch(answer)
    if gold_based or based:  # the question names the base, so the answer may leave it out
        return gold_based is not None and (
            based.groups() == gold_based.groups() if based else answer == gold_based[1]
        )
    gold_number, number = written_number(gold), written_number(answer)
    if gold_number and number:
        (gold_value, gold_percent), (value, percent) = gold_number, number
        return (
            gold_value == value
            or percent != gold_percent
            and (gold_value * 100 == value if percent else gold_value == value * 100)
        )
    return False if gold_is_text or "dots" in gold + answer or len(gold) > MAX_LENGTH else None


# ---- in the parent -----------------------------------------------------------------------------------------


class Verifier:
    """Up to `n_workers` processes; an item gets `deadline` seconds, a process `memory_gb` GiB of addresses.

    Unless given, the workers share the cores with those of this machine's other ranks: cores / ranks, 1 to 8.
    """

    def __init__(
        self,
        extract: str = "boxed",
        n_workers: int | None = None,
        deadline: float = 5.0,
        memory_gb: float = 2.0,
    ):
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
        self.n_workers = n_workers or max(1, min(8, len(os.sched_getaffinity(0)) // ranks))
        self.extract, self.deadline, self.memory_gb = extract, deadline, memory_gb
        self.failures = (
            0  # comparisons ended by the deadline, the worker's death or its memory limit, scored 0.0
        )
        self.failed_starts = 0  # in a row
        self.idle = []  # worker processes
        self.busy = {}  # worker -> its (gold, answer), None while it starts, and its limit in monotonic seconds

    def reward(self, texts: list[str], golds: list[str]) -> list[float]:
        """The rewards of whole responses; a fork's reward is any callable of this form."""
        return self.score([extract_answer(text, self.extract) for text in texts], golds)

    def score(self, answers: list[str | None], golds: list[str]) -> list[float]:
        """1.0 where the extracted answer is right, else 0.0; a pair that occurs twice is judged once."""
        pairs = list(zip(golds, answers, strict=True))
        verdicts = {pair: quick_verdict(*pair) for pair in dict.fromkeys(pairs)}
        self._settle(verdicts)
        return [float(verdicts[pair]) for pair in pairs]

    def unparsable(self, golds: list[str]) -> list[int]:
        """Which golds only the same text can match, although they are not words."""
        algebra = {gold: quick_verdict(gold, r"\alpha_{99}") is None for gold in golds}
        by_text = {gold: is_words(gold) or bool(BASED.fullmatch(canonical(gold))) for gold in golds}
        verdicts = {
            (gold, None): None if algebra[gold] and not by_text[gold] else by_text[gold] for gold in golds
        }
        self._settle(verdicts)
        return [i for i, gold in enumerate(golds) if not verdicts[gold, None]]

    def _settle(self, verdicts: dict) -> None:
        """Have the workers judge the pairs whose verdict is None."""
        queue = deque(pair for pair, verdict in verdicts.items() if verdict is None)
        while queue or any(pair for pair, _ in self.busy.values()):
            while len(self.idle) + len(self.busy) < min(self.n_workers, len(queue) + len(self.busy)):
                self._start_worker()
            while queue and self.idle:
                self._send(queue)
            self._receive(verdicts)

    def _start_worker(self) -> None:
        # not a fork: the parent has threads and CUDA; a fixed hash seed: sympy depends on the order of its sets
        command = [sys.executable, JUDGE, str(self.memory_gb), str(self.deadline)]
        # a session of its own, so that Ctrl-C and torchrun's signals to the parent's group do not reach it
        worker = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        self.busy[worker] = None, time.monotonic() + STARTUP_LIMIT

    def _send(self, queue: deque) -> None:
        worker = self.idle.pop()
        try:
            worker.stdin.write(
                json.dumps(queue[0]).encode() + b"\n"
            )  # far below a pipe's 64 kB: never blocks
            self.busy[worker] = queue.popleft(), time.monotonic() + self.deadline
        except BrokenPipeError:  # it died while idle, so the item is not to blame
            end(worker)

    def _receive(self, verdicts: dict) -> None:
        next_limit = min((limit for _, limit in self.busy.values()), default=0.0)
        readable = wait([worker.stdout for worker in self.busy], max(0.0, next_limit - time.monotonic()))
        for worker, (pair, limit) in list(self.busy.items()):
            # a reply is one write of a few bytes, so it is read whole; b"" is the end of a dead worker
            reply = os.read(worker.stdout.fileno(), 64) if worker.stdout in readable else None
            if reply is None and time.monotonic() < limit:
                continue
            del self.busy[worker]
            if reply:
                self.idle.append(worker)
                self.failed_starts = 0
            else:
                end(worker)
                self.failures += pair is not None
                self.failed_starts += pair is None
                if self.failed_starts == 3:
                    raise RuntimeError(
                        "verifier workers did not start, three in a row; they said why on stderr"
                    )
            if pair:
                verdicts[pair] = bool(reply) and json.loads(reply)

    def close(self) -> None:
        for worker in [*self.idle, *self.busy]:
            end(worker)
        self.idle, self.busy = [], {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def end(worker: subprocess.Popen) -> None:
    worker.kill()
    worker.stdin.close()
    worker.stdout.close()
    worker.wait()
