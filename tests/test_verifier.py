"""The verifier: extraction, workers and their deadlines, and properties that hold for every answer."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from verifier import MAX_LENGTH, Verifier, canonical, extract_answer, last_boxed, workers
from verifier.equality import answers_equal
from verifier.extract import last_number
from verifier.judge import judge
from verifier.notation import verdict_of_texts
from verifier.workers import is_only_text

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
        long = "1" * 4301  # Python reads no longer numbers
        assert verifier.score(["5", long], [long, long]) == [0.0, 1.0]
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
    with Verifier(n_workers=1) as verifier, pytest.raises(RuntimeError, match="before they were ready"):
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


# -- properties ----------------------------------------------------------------------------------------------------
DEADLINE = 1.0  # seconds an answer
SLACK = 60.0  # seconds, for a busy machine and for starting workers in place of killed ones

GOLDS = [  # which no other text gives by chance
    "87178291199",
    r"\frac{524287}{131071}",
    "x^{17}-31y^{13}+q_{77}",
    r"\begin{pmatrix} 17/19 \\ 23/29 \end{pmatrix}",
    r"\{1999, 2003, 2011\}",
    r"(-41,\sqrt{43}]",
    "y=47x^3-53",
    r"\text{Evelyn Boyd Granville}",
]

LATEX = r"""
    \frac \dfrac \sqrt \sqrt[3] \binom \left( \right) \left\{ \right. \{ \} { } ( ) [ ] | \| ^ _ ^{ _{ & \\ ,
    ; : . ' ! = < > + - * / \le \neq \in \cup \cap \setminus \emptyset \infty \pi \pm \times \cdot \div \sin
    \log \ln \exp \lim_{x\to0} dx \int_0^1 \sum_{n=1}^{9} \prod_{k=1}^{7} \begin{pmatrix} \end{pmatrix}
    \begin{cases} \end{cases} \begin{array}{c} \text{ \end{array} \mathrm{ \mathbb{R} \ldots \overline{3}
    \lfloor \rfloor \lceil \rceil \mod \pmod{7} \circ \% \$ \! \, \; \quad $ % ~ # @ ` " 0 1 2 3 10 99 0.5 1e5
    52_8 x y n e i E f(x) x^2 x_1 x' \alpha \theta \hbar or and cm \gcd(4,6) \det \operatorname{rank}
    \tan^{-1} \cancel{2} \boxed{ \fbox{
""".split()

CODE = [
    "import os",
    "while True: pass",
    "os._exit(1)",
    "__import__('os').abort()",
    "print('\\\\boxed{3}')",
    "exit()",
    "true",
    "[0] * 10**12",
    "{'a': [1, 2]}",
    "(lambda f: f(f))(lambda f: f(f))",
    "#include <stdio.h>",
    "int main() { return 0; }",
    "x ** y",
    "//",
    "\n```\n",
    "[[1, 2], null]",
    "\\n",
    "</think>",
    "\\input{/etc/passwd}",
    "\\def\\a{\\a\\a}\\a",
    "%s%n{0}",
]

WORDS = """
    因此 答案 是 所以 十二 ответ равен двенадцать الجواب هو اثنا عشر उत्तर है बारह 答えは 정답은 열둘
    η απάντηση είναι התשובה 🎉 ∑ ∫ √ ½ ⅓ ≈
""".split()

DIGITS = "0123456789٠١٢٣٤٥٦٧٨٩०१२३४५६७८९０１２３４５６７８９²³¹⁰⁵½Ⅷ一二三①𝟗"


def boxed(content):
    return content.map(lambda content: f"Hence the answer is $\\boxed{{{content}}}$.")


def bare_or_boxed(content):
    return content | boxed(content)


def joined(items, most: int):
    return st.builds(
        lambda parts, space: space.join(parts),
        st.lists(items, max_size=most),
        st.sampled_from(["", " ", ", "]),
    )


def nested(opening: str, closing: str):
    return bare_or_boxed(st.integers(1, 400).map(lambda depth: opening * depth + "2" + closing * depth))


number = (
    st.integers(-(10**6), 10**12).map(str)
    | st.floats().map(str)
    | st.text("0123456789.,eE+-%", min_size=1, max_size=12)
)
big = st.integers(9, 10**12).map(str)
latex = st.sampled_from(LATEX)
megabyte = st.builds(
    lambda piece, opening, closing: opening + piece * (1_000_000 // len(piece)) + closing,
    st.text(min_size=1, max_size=12) | st.lists(latex, min_size=1, max_size=4).map("".join),
    st.sampled_from(["", r"\boxed{"]),
    st.sampled_from(["", "}", r"\boxed{", r"\boxed{41}"]),
)
braces = [
    ("{", "}"),
    ("(", ")"),
    (r"\{", r"\}"),
    (r"\frac{1}{", "}"),
    (r"\sqrt{", "}"),
    ("x^{", "}"),
    (r"\text{", "}"),
    (r"\left(", ""),
    (r"\boxed{", "}"),
    (r"\boxed{", ""),
    ("", "}"),
]
letters_of_the_world = st.characters(categories=["Lo", "Mn", "Nd", "Nl", "No", "Sm", "Zs", "Cf"])

RESPONSES = {  # kind: how it is written, and how many examples
    "random characters": (bare_or_boxed(st.text(max_size=100)), 60),
    "random bytes, read as UTF-8": (
        bare_or_boxed(st.binary(max_size=100).map(lambda raw: raw.decode("utf-8", "replace"))),
        30,
    ),
    "random bytes, one character each": (
        bare_or_boxed(st.binary(max_size=100).map(lambda raw: raw.decode("latin-1"))),
        30,
    ),
    "numbers": (bare_or_boxed(joined(number, 9)), 60),
    "Unicode digits": (
        boxed(st.text(DIGITS, min_size=1, max_size=20) | st.text(DIGITS + r"+-/^_.,{}\ ", max_size=20)),
        60,
    ),
    "LaTeX without sense": (boxed(joined(latex, 12)), 120),
    "a megabyte": (megabyte, 8),
    "nested braces": (st.one_of([nested(opening, closing) for opening, closing in braces]), 20),
    "towers of powers": (
        boxed(st.lists(big, min_size=2, max_size=5).map(lambda n: "^{".join(n) + "}" * (len(n) - 1))),
        4,
    ),
    "factorials": (boxed(st.builds(lambda n, factorials: n + "!" * factorials, big, st.integers(1, 3))), 4),
    "boxes without end": (st.text(max_size=60).map(lambda text: text + r"\boxed{" + text), 20),
    "many boxes": (joined((number | latex).map(lambda content: rf"\boxed{{{content}}}"), 60), 40),
    "code": (bare_or_boxed(st.lists(st.sampled_from(CODE), max_size=6).map("; ".join)), 40),
    "other languages": (
        bare_or_boxed(joined(st.sampled_from(WORDS), 9) | st.text(letters_of_the_world, max_size=30)),
        40,
    ),
}


def reproducible(examples: int):
    """The same examples in every run; FUZZ times as many."""
    return settings(
        max_examples=examples * int(os.environ.get("FUZZ", "1")),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def impatient():
    """A verifier with a short deadline."""
    with Verifier(n_workers=2, deadline=DEADLINE) as verifier:
        yield verifier


@pytest.mark.slow
@pytest.mark.parametrize("kind", RESPONSES)
def test_nothing_written_by_chance_is_right_or_breaks_the_verifier(impatient, kind):
    strategy, examples = RESPONSES[kind]

    @reproducible(examples)
    @given(strategy, st.sampled_from(GOLDS), st.sampled_from(["boxed", "last_number"]))
    def check(response, gold, how):
        start = time.monotonic()
        assert impatient.score([extract_answer(response, how)], [gold]) == [0.0]
        assert time.monotonic() - start < DEADLINE + SLACK

    impatient.deadline = DEADLINE
    check()
    impatient.deadline = SLACK  # right stays right on a busy machine
    assert impatient.score([r"\sqrt{9}", r"\sqrt{9}"], ["3", "4"]) == [1.0, 0.0]


@pytest.mark.slow
@reproducible(100)
@given(st.one_of([strategy for kind, (strategy, _) in RESPONSES.items() if kind != "a megabyte"]))
def test_whatever_stands_before_it_the_last_answer_is_found(response):
    assert extract_answer(response + r" so it is $\boxed{\frac{1}{2}}$.", "boxed") == r"\frac{1}{2}"
    assert extract_answer(response + " so it is -42.", "last_number") == "-42"


UNKNOWN = r"""
    \wedge \nabla \otimes \oplus \star \ast \circ \rtimes \to \mapsto \Rightarrow \iff \equiv \cong \sim
    \approx \propto \perp \parallel \subset \subseteq \mid \nmid \neg \forall \exists \int \oint \lim
    \partial \dagger \top \hat{x} \vec{v} \mathcal{L} \mathfrak{g} \mathbb{F}_2 \text{remainder} \text{out}
    \text{am} \text{mod} \foo !! ... \dots @ # & \|v\| \bmod \pmod{7} \notin \Box \uparrow ? \aleph_0
    \operatorname{tr} \ker \dim \det
""".split()
FAMILIAR = "2 3 17 x y n a b A B f + - \\cdot / ^2 ^n _1 ( ) , = < \\frac12 \\sqrt2 \\pi e i ! |".split()


@pytest.mark.slow
def test_two_answers_that_differ_in_an_unknown_token_are_never_equal():
    """What no type knows never reaches algebra."""

    @reproducible(400)
    @given(st.lists(st.sampled_from(FAMILIAR), max_size=6), st.sampled_from(UNKNOWN),
           st.sampled_from(UNKNOWN), st.integers(0, 6), st.randoms(use_true_random=False))
    def check(tokens, unknown, other, at, rng):
        gold = " ".join([*tokens[:at], unknown, *tokens[at:]])
        shuffled = [*tokens, unknown]
        rng.shuffle(shuffled)
        for answer in (" ".join([*tokens[:at], other, *tokens[at:]]), " ".join(tokens), " ".join(shuffled)):
            if canonical(answer) != canonical(gold):
                found = verdict_of_texts(gold, answer)
                assert not (judge(answers_equal, gold, answer) if found is None else found), (gold, answer)

    check()


@pytest.mark.slow
def test_no_unknown_token_is_known():
    assert [token for token in UNKNOWN for text in (f"x {token} y", f"{token} 2") if not is_only_text(text)] == []


def sum_of(rng: random.Random, depth: int) -> tuple[str, Fraction]:
    """A formula of numbers in TeX, and its value by Python's fractions."""
    if depth == 0:
        n = rng.randint(1, 30)
        return rng.choice([(f"{n}", Fraction(n)), (rf"\frac{{{n}}}{{7}}", Fraction(n, 7)),
                           (f"{n}.5", n + Fraction(1, 2))])
    (left, a), (right, b) = sum_of(rng, depth - 1), sum_of(rng, depth - 1)
    forms = [(f"{left}+{right}", a + b), (f"{left}-({right})", a - b), (rf"({left})\cdot({right})", a * b),
             (rf"\left({left}\right)^{{2}}", a * a)]
    return rng.choice(forms + [(rf"\frac{{{left}}}{{{right}}}", a / b)] * (b != 0))


@pytest.mark.slow
def test_formulas_of_numbers_are_right_if_and_only_if_their_values_are_equal(impatient):
    rng, golds, answers, expected = random.Random(0), [], [], []
    while len(golds) < 200:
        (text, value), off = sum_of(rng, rng.randint(1, 3)), rng.choice([0, 0, 1, Fraction(1, 10**9)])
        golds.append(text)
        answers.append(rf"\frac{{{(value + off).numerator}}}{{{(value + off).denominator}}}")
        expected.append(float(off == 0))
    impatient.deadline = SLACK
    assert impatient.score(answers, golds) == expected
    assert impatient.score(golds, answers) == expected
