"""verifier.py: extraction, and that no answer can hang or kill the parent."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verifier import MAX_LENGTH, Verifier, extract_answer, last_boxed, last_number

ROOT = Path(__file__).parent.parent
HANGS = r"9^{9^{9^9}}"


@pytest.mark.parametrize("text, expected", [
    (r"so $\boxed{42}$.", "42"),
    (r"\boxed{1} and then \boxed{2}", "2"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
    (r"\boxed{5} but \boxed{6", "5"),
    (r"\boxed{6 but \boxed{5}", "5"),
    (r"\boxed{x = \boxed{5}}", "5"),
    (r"\boxed 5$ holds", "5"),
    (r"$\boxed \frac{1}{2}$", r"\frac{1}{2}"),
    (r"\boxed{5}, which I put in \boxed.", "5"),
    (r"\fbox{7}", "7"),
    (r"\\boxed{7}", "7"),
    (r"an open { before \boxed{3}", "3"),
    (r"closed } twice } before \boxed{3}", "3"),
    ("\\boxed{\n 8 \n}", "\n 8 \n"),
    (r"\boxed{}", ""),
    (r"\boxedfoo{3}", None),
    (r"\boxed{3", None),
    ("no box", None),
    ("", None),
])
def test_last_boxed_is_the_last_complete_box(text, expected):
    assert last_boxed(text) == expected
    assert extract_answer(text, "boxed") == expected


@pytest.mark.parametrize("text, expected", [
    ("it is 1,234.5", "1234.5"), ("x = -7", "-7"), ("costs $18.", "18"), ("-$18", "-18"), ("10-7", "7"), ("(-3)", "-3"),
    ("3 apples, 5 pears", "5"), ("1,234,567", "1234567"), ("1,2,3", "3"), ("1, 2,", "2"), (".5", ".5"), ("50%", "50"),
    ("4.5e33", "4.5e33"), ("−７", "-7"), ("٣٤", "34"), ("2 or 3?", "3"), ("none", None), ("", None),
])
def test_last_number_is_plain_and_signed(text, expected):
    assert last_number(text) == expected
    assert extract_answer(text, "last_number") == expected


def test_extraction_takes_linear_time():
    """A megabyte takes about 0.5 s at most; a scan per box or per number would take hours."""
    start = time.monotonic()
    for piece in (r"\boxed{", r"\boxed ", "{", "}", "\\", "\\boxed{5}", "111,", "1.", "-", "1e", " ", "１"):
        text = piece * (1_000_000 // len(piece))
        last_boxed(text), last_number(text)
    assert time.monotonic() - start < 60


def test_a_missing_or_overlong_answer_is_wrong_at_once():
    with Verifier() as verifier:
        hostile = [None, "1" * (MAX_LENGTH + 1), r"\(" * 50_000, "x" * 1_000_000]
        assert verifier.score(hostile, ["1"] * 4) == [0.0] * 4
        assert verifier.failures == 0 and not verifier.idle and not verifier.busy


def test_hostile_answers_end_at_the_deadline_are_counted_and_the_next_is_judged():
    hostile = [HANGS, "1000000!", r"10^{10^{10}}", r"\frac{1}{" * 100 + "2" + "}" * 100]
    with Verifier(n_workers=2, deadline=1.0) as verifier:
        assert verifier.score([r"\sqrt{4}"], ["2"]) == [1.0]
        start = time.monotonic()
        scores = verifier.score([*hostile, HANGS, r"\sqrt{4}"], ["42"] * 5 + ["2"])
        assert time.monotonic() - start < 60
        assert scores == [0.0] * 5 + [1.0]
        assert 3 <= verifier.failures <= 4  # the repeated one counts once; the fractions may parse in time
        assert verifier.score([r"\sqrt{9}", HANGS], ["3", HANGS]) == [1.0, 1.0]


def test_running_out_of_memory_is_a_failure_of_the_item_only():
    with Verifier(n_workers=1, deadline=60.0, memory_gb=0.25) as verifier:
        assert verifier.score([r"\sqrt{4}"], ["2"]) == [1.0]
        start = time.monotonic()
        assert verifier.score([r"2^{2^{36}}"], ["42"]) == [0.0]
        assert verifier.failures == 1 and time.monotonic() - start < 60.0
        assert verifier.score([r"\sqrt{9}"], ["3"]) == [1.0]


def test_a_killed_worker_is_replaced():
    with Verifier(n_workers=1) as verifier:
        assert verifier.score([r"\sqrt{4}"], ["2"]) == [1.0]
        (killed,) = verifier.idle
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert verifier.score([r"\sqrt{9}"], ["3"]) == [1.0]
        assert verifier.idle[0].pid != killed.pid and killed.returncode == -signal.SIGKILL


def test_workers_start_when_needed_and_none_outlives_close():
    verifier = Verifier(n_workers=2)
    assert verifier.score(["42", "1,000", "p - q"], ["42", "1000", "p-q"]) == [1.0] * 3
    assert not verifier.idle and not verifier.busy
    assert verifier.score([r"\sqrt{4}", r"\sqrt{9}"], ["2", "3"]) == [1.0, 1.0]
    pids = [worker.pid for worker in [*verifier.idle, *verifier.busy]]
    assert len(pids) == 2
    verifier.close()
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("answer", [r"\sqrt{4}", HANGS])
def test_no_worker_outlives_a_killed_parent(answer):
    program = """if True:
        import sys, time
        from verifier import Verifier
        verifier = Verifier(n_workers=1, deadline=2.0)
        verifier.score([r"\\sqrt{4}"], ["2"])
        print(verifier.idle[0].pid, flush=True)
        verifier.score(sys.argv[1:], ["2"])
        time.sleep(60)"""
    parent = subprocess.Popen([sys.executable, "-c", program, answer], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    time.sleep(0.5)  # into the comparison
    assert is_alive(pid)
    parent.kill()
    parent.communicate()
    limit = time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not is_alive(pid)


def test_a_worker_that_cannot_start_is_an_error_not_a_hang(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with Verifier(n_workers=1) as verifier, pytest.raises(RuntimeError, match="did not start"):
        verifier.score([r"\sqrt{4}"], ["2"])


def test_the_parent_imports_neither_torch_nor_sympy():
    program = "import sys, verifier; assert not {'torch', 'sympy', 'math_verify'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def is_alive(pid: int) -> bool:
    """Running, and not a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_signals_to_the_parents_group_do_not_reach_the_workers(tmp_path):
    """torchrun and Ctrl-C signal whole process groups; a worker that died of it would turn right answers into wrong ones."""
    script = tmp_path / "group.py"
    script.write_text(
        "import os, signal, threading\n"
        "from verifier import Verifier\n"
        "for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, lambda *_: None)\n"
        "answers = [rf'\\frac{{{i}}}{{{2 * i + 1}}}' for i in range(1, 60)]\n"
        "golds = [rf'\\frac{{{2 * i}}}{{{4 * i + 2}}}' for i in range(1, 60)]\n"
        "def interrupt():\n"
        "    os.killpg(0, signal.SIGTERM), os.killpg(0, signal.SIGINT)\n"
        "with Verifier() as verifier:\n"
        "    for delay in (0.3, 4.0):\n"
        "        threading.Timer(delay, interrupt).start()\n"
        "    for _ in range(30):\n"
        "        assert verifier.score(answers, golds) == [1.0] * len(golds)\n"
        "print('failures', verifier.failures)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0 and "failures 0" in done.stdout, done.stderr
