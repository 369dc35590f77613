"""Extraction, and that no answer can hang or kill the parent."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from verifier import MAX_LENGTH, Verifier, extract_answer, last_boxed, workers
from verifier.extract import last_number
from verifier.notation import verdict_of_texts

ROOT = Path(__file__).parent.parent
HANGS = r"\sum_{k=1}^{1000}\zeta(k+\sqrt{2})"


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
    (r"\boxed{5}. I put it in \boxed as asked.", "5"),
    (r"\boxed{5} by the \boxed command", "5"),
    (r"\boxed{5} in the \boxed{} format", "5"),
    (r"\boxed{5}, that is \boxed{\text{answer}}", "5"),
    (r"\boxed{5}, in \boxed{your answer here}", "5"),
    (r"\boxed{5}, as \boxed{...} or \boxed{\ldots}", "5"),
    (r"Put it in a \boxed environment. \boxed{5}", "5"),
    (r"\boxed{5}, or rather \boxed x$", "x"),
    (r"\boxed{5}, or rather \boxed{\text{no answer}}", r"\text{no answer}"),
    (r"in a \boxed", None),
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
    ("it is 1,234.5", "1234.5"), ("x = -7", "-7"), ("costs $18.", "18"), ("-$18", "-18"), ("10-7", "7"),
    ("(-3)", "-3"), ("3 apples, 5 pears", "5"), ("1,234,567", "1234567"), ("1,2,3", "3"), ("1, 2,", "2"),
    (".5", ".5"), ("50%", "50"),
    ("4.5e33", "4.5e33"), ("−７", "-7"), ("٣٤", "34"), ("2 or 3?", "3"), ("none", None), ("", None),
])
def test_last_number_is_plain_and_signed(text, expected):
    assert last_number(text) == expected
    assert extract_answer(text, "last_number") == expected


@pytest.mark.slow
def test_extraction_takes_linear_time():
    """A megabyte takes about 0.5 s at most; a scan per box or per number would take hours."""
    start = time.monotonic()
    for piece in (r"\boxed{", r"\boxed ", "{", "}", "\\", "\\boxed{5}", "111,", "1.", "-", "1e", " ", "１"):
        text = piece * (1_000_000 // len(piece))
        last_boxed(text), last_number(text)
    assert time.monotonic() - start < 60


def test_what_needs_no_algebra_takes_little_time():
    """The parent judges the longest answers in some milliseconds; it cannot be interrupted like a worker."""
    start = time.monotonic()
    pieces = ("~", r"\,", r"\text{m} ", "k ", r"\frac ", ", ", "{ ", "(", r"\sqrt(", "€", "or ", "1 000 ")
    for piece in pieces:
        verdict_of_texts("5", piece * (MAX_LENGTH // len(piece)))
        verdict_of_texts("Yes", piece * (MAX_LENGTH // len(piece)))
    assert time.monotonic() - start < 10


def test_a_missing_or_overlong_answer_is_wrong_at_once():
    with Verifier() as verifier:
        hostile = [None, "1" * (MAX_LENGTH + 1), r"\(" * 50_000, "x" * 1_000_000]
        assert verifier.score(hostile, ["1"] * 4) == [0.0] * 4
        assert verifier.failures == 0 and not verifier.idle and not verifier.busy


@pytest.fixture(scope="module")
def verifier():
    with Verifier(n_workers=2, deadline=2.0) as verifier:
        yield verifier


def test_megabyte_responses_leave_no_memory_behind(verifier):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    for i in range(41):
        answer = extract_answer(f"\\boxed{{{i}" + "x" * 1_000_000 + "}", "boxed")
        assert len(answer) > 1_000_000 and verifier.score([answer], ["42"]) == [0.0]
        if i == 0:
            before = resident()
    assert resident() - before < 20e6  # bytes; the texts have 40e6


@pytest.mark.slow
def test_hostile_answers_end_at_the_deadline_are_counted_and_the_next_is_judged(verifier):
    hostile = [HANGS, "1+" + HANGS, "2+" + HANGS, "1000000!", r"10^{10^{10}}", r"9^{9^{9^9}}",
               r"\binom{10^{10}}{5\cdot10^9}", r"\frac{1}{" * 100 + "2" + "}" * 100]
    assert verifier.score([r"\sqrt{4}"], ["2"]) == [1.0]
    start = time.monotonic()
    scores = verifier.score([*hostile, HANGS, r"\sqrt{4}"], ["42"] * 9 + ["2"])
    assert time.monotonic() - start < 60
    assert scores == [0.0] * 9 + [1.0]
    assert verifier.failures == 3  # the repeated one counts once; numbers of a million digits are no values
    assert verifier.score([r"\sqrt{9}", HANGS], ["3", HANGS]) == [1.0, 1.0]


def test_rewards_are_those_of_the_extracted_answers(verifier):
    texts = [r"so \boxed{4} it is, or 5", "no box, 4", r"\boxed{5}"]
    assert verifier.reward(texts, ["4"] * 3) == [1.0, 0.0, 0.0]
    with Verifier("last_number") as by_number:
        assert by_number.reward(texts, ["4"] * 3) == [0.0, 1.0, 0.0]


def test_the_workers_share_the_cores_with_the_other_ranks(monkeypatch):
    for cores, ranks, expected in ((2, 1, 2), (2, 2, 1), (2, 8, 1), (64, 4, 8), (32, 8, 4), (1, 1, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        assert Verifier().n_workers == expected
    assert Verifier(n_workers=3).n_workers == 3


def test_a_killed_worker_is_replaced(verifier):
    assert verifier.score([r"\sqrt{4}"], ["2"]) == [1.0]
    killed = list(verifier.idle)
    for worker in killed:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    failures = verifier.failures
    assert verifier.score([r"\sqrt{9}"], ["3"]) == [1.0]
    assert verifier.failures == failures  # the answer is not to blame
    assert not set(killed) & set(verifier.idle)
    assert {worker.returncode for worker in killed} == {-signal.SIGKILL}


def test_a_worker_that_dies_over_an_answer_is_replaced_and_the_answer_counted_as_wrong(verifier):
    def kill_the_comparing():
        for worker, (pair, *_) in list(verifier.busy.items()):
            if pair:
                os.kill(worker.pid, signal.SIGKILL)

    assert verifier.score([r"\sqrt{4}"], ["2"]) == [1.0]
    failures, verifier.deadline = verifier.failures, 60.0
    killer = threading.Timer(0.3, kill_the_comparing)
    killer.start()
    start = time.monotonic()
    assert verifier.score([HANGS], ["42"]) == [0.0]
    killer.join()
    assert time.monotonic() - start < 60.0 and verifier.failures == failures + 1
    assert verifier.score([r"\sqrt{9}"], ["3"]) == [1.0]
    verifier.deadline = 2.0


def test_a_worker_that_has_no_memory_left_ends():
    """A fresh one is safer; the parent counts the answer as a failure."""
    program = """if True:
        import resource
        from verifier.judge import judge
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        judge(lambda gold, answer: bytearray(2**40), "2", "2")
        print("alive")"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr


@pytest.mark.slow
def test_the_time_in_which_the_job_is_stopped_does_not_count(verifier):
    """SIGSTOP and SIGCONT, as a cluster suspends a job: the answer under way keeps its deadline."""
    assert verifier.score([r"\sqrt{4}"], ["2"]) == [1.0]
    failures, deadline, verifier.deadline = verifier.failures, verifier.deadline, 1.0
    stopped = list(verifier.idle)
    for worker in stopped:
        worker.send_signal(signal.SIGSTOP)
    go_on = threading.Timer(3.0, lambda: [worker.send_signal(signal.SIGCONT) for worker in stopped])
    go_on.start()
    start = time.monotonic()
    assert verifier.score([r"\sqrt{25}"], ["5"]) == [1.0]
    assert time.monotonic() - start > 2.0 and verifier.failures == failures
    go_on.join()
    verifier.deadline = deadline


@pytest.mark.slow
def test_a_worker_that_does_not_go_on_is_ended_at_last(verifier, monkeypatch):
    monkeypatch.setattr(workers, "STUCK", 2)
    assert verifier.score([r"\sqrt{4}"], ["2"]) == [1.0]
    failures, deadline, verifier.deadline = verifier.failures, verifier.deadline, 1.0
    stopped = list(verifier.idle)
    for worker in stopped:
        worker.send_signal(signal.SIGSTOP)
    assert verifier.score([r"\sqrt{16}"], ["4"]) == [0.0]
    assert verifier.failures == failures + 1
    for worker in stopped:
        worker.send_signal(signal.SIGCONT)
    verifier.deadline = deadline
    assert verifier.score([r"\sqrt{9}"], ["3"]) == [1.0]


def test_a_gold_written_as_a_json_list_is_its_members(verifier):
    golds = [r'["10\\%"]', r'["10\%"]', r'["\\frac{1}{2}"]', r'["\frac{1}{2}"]', '["3", "4"]', '["x"]',
             "[1, 2]"]
    answers = ["0.1", r"10\%", "0.5", r"\frac12", "4,3", "x", r"1\le x\le2"]
    assert dict(zip(golds, verifier.score(answers, golds))) == dict.fromkeys(golds, 1.0)
    assert verifier.score(["1", "3", "1,2"], ['["10\\%"]', '["3", "4"]', "[1, 2]"]) == [0.0] * 3


def test_golds_that_only_their_own_text_can_match_are_named_without_a_worker():
    golds = ["42", r"\frac12", "Yes", r"\text{Monday}", "(B)", "B", "x=5", r"dx\wedge dy", "8:30",
             r"5\text{ red}", r"x\equiv1\pmod3", "52_8", "HHT", r'["10\\%"]', r'["p\\land q"]',
             "1" * (MAX_LENGTH + 1)]
    with Verifier() as verifier:
        assert [golds[i] for i in verifier.unparsable(golds)] == golds[7:11] + golds[14:]
        assert not verifier.idle and not verifier.busy


def test_another_method_is_math_verify_on_the_same_extracted_answers():
    with Verifier(n_workers=1, method="math-verify") as verifier:
        texts = [r"$\boxed{\frac{2}{4}}$", r"$\boxed{4}$", r"so $\boxed{y\cdot x\cdot w}$", "no box, 0.5"]
        assert verifier.reward(texts, ["0.5", "5", "wxy", "0.5"]) == [1.0, 0.0, 1.0, 0.0]
        assert verifier.unparsable(["42", "x^2"]) == []
    with pytest.raises(ValueError, match="strict"):
        Verifier(method="mathverify")


def test_workers_start_when_needed_and_none_outlives_close():
    verifier = Verifier(n_workers=2)
    assert verifier.score(["42", "1,000", "p - q"], ["42", "1000", "p-q"]) == [1.0] * 3
    assert not verifier.idle and not verifier.busy
    assert verifier.score([r"\sqrt{4}", r"\sqrt{9}"], ["2", "3"]) == [1.0, 1.0]
    while verifier.busy:  # one may have judged both pairs while the other was starting
        verifier._receive({})
    pids = [worker.pid for worker in verifier.idle]
    assert len(pids) == 2
    promised = (2 * 2**30,) * 2  # 2 GiB
    assert all(resource.prlimit(pid, resource.RLIMIT_AS) == promised for pid in pids)
    verifier.close()
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.slow
def test_no_worker_outlives_a_killed_parent():
    program = """if True:
        import sys, time
        from verifier import Verifier
        verifier = Verifier(n_workers=1, deadline=1.0)
        verifier.score([r"\\sqrt{4}"], ["2"])
        print(verifier.idle[0].pid, flush=True)
        sys.stdin.readline()
        verifier.deadline = 3.0  # of CPU time; the worker has to end by itself
        verifier.score(sys.argv[1:], ["2"])
        time.sleep(60)"""
    parents = [  # one with an idle worker, one with a worker that does not look for the end of its input
        subprocess.Popen([sys.executable, "-c", program, answer], cwd=ROOT, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for answer in (r"\sqrt{4}", HANGS)
    ]
    pids = [int(parent.stdout.readline()) for parent in parents]
    for parent in parents:
        parent.stdin.write("compare\n")
        parent.stdin.flush()
    time.sleep(0.3)  # into the comparison
    for parent, pid in zip(parents, pids):
        assert is_alive(pid)
        parent.kill()
        parent.communicate()
    limit = time.monotonic() + 60
    while any(map(is_alive, pids)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(map(is_alive, pids))


def test_a_worker_that_cannot_start_is_an_error_not_a_hang(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with Verifier(n_workers=1) as verifier, pytest.raises(RuntimeError, match="did not start"):
        verifier.score([r"\sqrt{4}"], ["2"])


def test_the_parent_imports_neither_torch_nor_a_library_for_mathematics():
    program = "import sys, verifier; assert not {'torch', 'sympy', 'mpmath', 'math_verify'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def is_alive(pid: int) -> bool:
    """Running, and not a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_signals_to_the_parents_group_do_not_reach_the_workers(tmp_path):
    """torchrun and Ctrl-C signal process groups; a worker that died of it would make right answers wrong."""
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
        "    for delay in (0.3, 0.2):\n"  # while the workers start, while they work
        "        timer = threading.Timer(delay, interrupt)\n"
        "        timer.start()\n"
        "        while timer.is_alive():\n"
        "            assert verifier.score(answers, golds) == [1.0] * len(golds)\n"
        "    assert verifier.score(answers, golds) == [1.0] * len(golds)\n"
        "print('failures', verifier.failures)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0 and "failures 0" in done.stdout, done.stderr
