"""Kill a run with SIGKILL at random moments and resume it, again and again; print what was hit.

python tests/kills.py OUT N_KILLS SEED

The runs are forks of a process that has imported everything, so a start takes tenths of a second.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from transformers import Qwen3ForCausalLM  # noqa: F401  transformers imports a model when it is first used

import rollout
import train

PHASES = {
    "starting": (train, "load_critic"),
    "generating": (rollout, "generate_responses"),
    "fitting": (train, "fit_critics"),
    "updating": (train, "update_policy"),
    "saving": (train, "save_checkpoint"),
    "ending": (train, "save_models"),
}
STEPS = 14
FLAGS = (
    "--prompts-per-step 2 --group-size 4 --n-problems 50 --max-new-tokens 24 --epochs 2 --critic-epochs 1 "
    f"--eval-every 5 --save-every 1 --keep 2 --steps {STEPS}"
).split()


def fork(out: Path, flags: list[str], enter: dict) -> int:
    """Start a run; enter: phase -> a function to call with its name when the run enters and leaves it."""
    pid = os.fork()
    if pid:
        return pid
    log = os.open(out.with_suffix(".log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for phase, notice in enter.items():
        module, name = PHASES[phase]

        def noticed(*args, real=getattr(module, name), phase=phase, notice=notice, **kwargs):
            notice(phase)
            result = real(*args, **kwargs)
            notice(phase)
            return result

        setattr(module, name, noticed)
    files = ["--eval-data", str(out.parent / "test.jsonl"), "--out", str(out)]
    os._exit(train.main([*FLAGS, *files, *flags]))


def undisturbed(out: Path) -> dict[str, float]:
    """Run without a kill. -> mean seconds that each phase takes"""
    moments = out.with_suffix(".moments")

    def note(phase):
        with moments.open("a") as file:
            file.write(f"{phase} {time.monotonic()}\n")

    _, status = os.waitpid(fork(out, [], dict.fromkeys(PHASES, note)), 0)
    assert status == 0, out.with_suffix(".log").read_text()
    at = {}
    for line in moments.read_text().splitlines():
        at.setdefault(line.split()[0], []).append(float(line.split()[1]))
    spans = {phase: [b - a for a, b in zip(times[::2], times[1::2])] for phase, times in at.items()}
    return {phase: sum(span) / len(span) for phase, span in spans.items()}


def main(folder: Path, n_kills: int, seed: int) -> None:
    random.seed(seed)
    (folder / "test.jsonl").write_text('{"problem": "1+2+3", "answer": "6"}\n' * 2)
    seconds = undisturbed(folder / "whole")
    out, hits = folder / "killed", dict.fromkeys(PHASES, 0)
    while sum(hits.values()) < n_kills:
        n = sum(hits.values())
        phase = "ending" if n == n_kills - 1 else list(PHASES)[n % (len(PHASES) - 1)]
        reader, writer = os.pipe()
        flags = ["--resume"] if (out / "config.json").exists() else []
        pid = fork(out, flags, {phase: lambda phase: os.write(writer, b".")})
        os.close(writer)
        # a phase writes when it is entered and when it is left; this waits for its first or its second time
        for _ in range(1 if phase in ("starting", "ending") else random.choice((1, 3))):
            os.read(reader, 1)
        time.sleep(random.uniform(0, seconds[phase]))
        os.kill(pid, signal.SIGKILL)
        os.close(reader)
        _, status = os.waitpid(pid, 0)
        log = out.with_suffix(".log").read_text()
        assert os.WIFSIGNALED(status), f"it ended before the kill while {phase}: {log}"
        hits[phase] += 1
    _, status = os.waitpid(fork(out, ["--resume"], {}), 0)
    assert status == 0, out.with_suffix(".log").read_text()
    print(json.dumps(hits))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
