"""Verdicts for a batch: by text comparison here, by algebra in worker processes that can be killed.

Some inputs, such as `9^{9^{9^9}}`, cannot be interrupted from within (Math-Verify#63), and timeouts by
signals work in the main thread only (Math-Verify#50), so a worker that exceeds its deadline is ended.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from multiprocessing.connection import wait
from pathlib import Path
from typing import Self

from verifier.answers import read
from verifier.extract import extract_answer
from verifier.notation import is_words, verdict_of_texts

MAX_LENGTH = 1000  # characters; the longest gold of the usual data sets has about 250
JUDGE = Path(__file__).with_name("judge.py")
STARTUP_LIMIT = 300.0  # seconds for a worker to import what it needs, on the busiest machine
STUCK = 60  # deadlines of wall time after which a worker that does not compute is ended
TICK = 1.0  # seconds between two looks at the workers, at most


def gold_text(gold: str) -> str:
    r"""A gold that is a JSON list of texts, ["10\\%"], as its members, also where \ is not doubled."""
    if not re.fullmatch(r'\s*\[\s*"(?:[^"\\]|\\.)*"(?:\s*,\s*"(?:[^"\\]|\\.)*")*\s*\]\s*', gold):
        return gold
    members = re.findall(r'"((?:[^"\\]|\\.)*)"', gold)
    return ", ".join(member.replace("\\\\", "\\").replace('\\"', '"') for member in members)


def is_only_text(gold: str) -> bool:
    """Whether only the same text can match a gold that is no word."""
    if is_words(gold):
        return False
    try:
        return len(gold) > MAX_LENGTH or not read(gold)
    except Exception:  # noqa: BLE001  Unknown, or deeper than Python's stack
        return True


class Verifier:
    """Up to `n_workers` processes; an item gets `deadline` CPU seconds, a process `memory_gb` GiB.

    `method` is "strict", the rules of README.md, or "math-verify", that library alone on the same extracted
    answers. Unless given, the workers share the cores with those of this machine's other ranks: cores /
    ranks, 1 to 8. An answer that hangs costs deadline / n_workers seconds. With two workers, 1,024 such answers
    take 43 minutes.
    """

    def __init__(self, extract: str = "boxed", n_workers: int | None = None, deadline: float = 5.0,
                 memory_gb: float = 2.0, method: str = "strict"):
        if method not in ("strict", "math-verify"):
            raise ValueError(f'method is "strict" or "math-verify", not {method!r}')
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
        self.n_workers = n_workers or max(1, min(8, len(os.sched_getaffinity(0)) // ranks))
        self.extract, self.deadline, self.memory_gb, self.method = extract, deadline, memory_gb, method
        self.failures = 0  # comparisons that the deadline, a worker's death or its memory ended, scored 0.0
        self.failed_starts = 0  # in a row
        self.idle = []  # worker processes
        self.busy = {}  # worker -> its (gold, answer), or None while it starts; the limit of its awake time
        self.awake, self.looked = 0.0, time.monotonic()  # wall seconds in which the job was not stopped

    def reward(self, texts: list[str], golds: list[str]) -> list[float]:
        """The rewards of whole responses; a fork's reward is any callable of this form."""
        return self.score([extract_answer(text, self.extract) for text in texts], golds)

    def score(self, answers: list[str | None], golds: list[str]) -> list[float]:
        """1.0 where the extracted answer is right, else 0.0; a pair that occurs twice is judged once."""
        pairs = list(zip(map(gold_text, golds), answers, strict=True))
        verdicts = {pair: self._without_worker(*pair) for pair in dict.fromkeys(pairs)}
        self._settle(verdicts)
        return [float(verdicts[pair]) for pair in pairs]

    def _without_worker(self, gold: str, answer: str | None) -> bool | None:
        if answer is None or max(len(gold), len(answer)) > MAX_LENGTH:
            return answer == gold
        return None if self.method == "math-verify" else verdict_of_texts(gold, answer)

    def unparsable(self, golds: list[str]) -> list[int]:
        """Which golds only the same text can match, although they are not words."""
        return [i for i, gold in enumerate(golds) if is_only_text(gold_text(gold))]

    def _settle(self, verdicts: dict) -> None:
        """Have the workers judge the pairs whose verdict is None."""
        queue = deque(pair for pair, verdict in verdicts.items() if verdict is None)
        while queue or any(pair for pair, *_ in self.busy.values()):
            while len(self.idle) + len(self.busy) < min(self.n_workers, len(queue) + len(self.busy)):
                self._start_worker()
            while queue and self.idle:
                self._send(queue)
            self._receive(verdicts)

    def _start_worker(self) -> None:
        # not a fork: the parent has threads and CUDA; a fixed hash seed: math-verify depends on it
        command = [sys.executable, JUDGE, self.method, str(self.memory_gb)]
        # a session of its own, so that Ctrl-C and torchrun's signals to the parent's group do not reach it
        worker = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  start_new_session=True, env={**os.environ, "PYTHONHASHSEED": "0"})
        self.busy[worker] = None, self.awake + STARTUP_LIMIT

    def _send(self, queue: deque) -> None:
        worker = self.idle.pop()
        try:
            # far below a pipe's 64 kB: never blocks
            worker.stdin.write(json.dumps([*queue[0], self.deadline]).encode() + b"\n")
            self.busy[worker] = queue.popleft(), self.awake + STUCK * self.deadline
        except BrokenPipeError:  # it died while idle, so the item is not to blame
            end(worker)

    def _receive(self, verdicts: dict) -> None:
        readable = wait([worker.stdout for worker in self.busy], TICK)
        now = time.monotonic()
        self.awake, self.looked = self.awake + min(now - self.looked, 2 * TICK), now
        for worker, (pair, limit) in list(self.busy.items()):
            # a reply is one write of a few bytes, so it is read whole; b"" is the end of a dead worker
            reply = os.read(worker.stdout.fileno(), 64) if worker.stdout in readable else None
            if reply is None and self.awake < limit:
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
                    raise RuntimeError("Three verifier workers in a row died before they were ready. Their errors are "
                                       "on stderr; check that mpmath and math-verify are installed.")
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
