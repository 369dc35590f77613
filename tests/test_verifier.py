r"""verifier.py: extraction, verdicts, and that no answer can hang or kill the parent.

The rows are written in the style of MATH, Minerva and OlympiadBench golds.
"""

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


@pytest.fixture(scope="module")
def verifier():
    with Verifier(n_workers=2, deadline=30.0) as verifier:
        yield verifier


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


GOLDS = [
    "204", "-50", r"\left( 3, \frac{\pi}{2} \right)", "p - q", r"\text{Evelyn}", r"90^\circ", "x=5", "1,-2", "52_8",
    r"11\sqrt2", r"\frac{270}7\text{ degrees}", ".0000672", r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}",
    r"11,\! 111,\! 111,\! 100", r"\text{(C)}", r"\$32,\!348", r"864 \mbox{ inches}^2", r"1\frac{4}{5}",
    r"3 \pm 2 \sqrt{2}", r"x \in [-2,7]", r"\{1\pm\sqrt{5},-2\}", r"(2,12) \cup (12,102)", "4.5e33",
    "np.arcsin(10/13)", "-1./3", "1e-5",
    r"\frac{dM}{dt}=\frac{10^{5} L_{\odot}}{0.007 c^{2} M_{\odot}^{6}} M^{6}", r"x_{0} \cos (\omega t)+$ $\dot{x}_{0}",
    "I(0)", r"y^{\prime}+r y-r x(t)=0", "MR=SRMC", r"E_{1},E_{2}", r"\hbar \omega(v+1 / 2)", "+2", "(1,8,19), (2,7,13)",
    r"m n-\lfloor m / 2\rfloor", "f(n)=n, g(n)=1", r"m_{\max }=n^{2}-n-1", r"\frac{100!}{2^{50}}", "t(0,4]", "62.5%",
    r"k \geqslant 2", "Yes", r"\text{even}", r"7\text{ hours}.", r"19 \text{ and }43", r"24{,}000", r"\infty",
]


def test_every_gold_is_right_for_itself_even_where_it_cannot_be_parsed(verifier):
    answers = [extract_answer(f"So the answer is $\\boxed{{{gold}}}$.", "boxed") for gold in GOLDS]
    assert dict(zip(GOLDS, verifier.score(answers, GOLDS))) == dict.fromkeys(GOLDS, 1.0)


def test_no_gold_is_right_for_another_gold(verifier):
    wrong = [GOLDS[i - 1] for i in range(len(GOLDS))]
    assert dict(zip(GOLDS, verifier.score(wrong, GOLDS))) == dict.fromkeys(GOLDS, 0.0)


VERDICTS = {
    "integers": [
        ("42", "42", 1), ("42", "042", 1), ("42", "+42", 1), ("42", "-42", 0), ("42", "43", 0), ("42", "", 0),
        ("1000", "1,000", 1), (r"10,\!080", "10080", 1), ("10080", r"10\,080", 1), (r"24{,}000", "24000", 1),
        ("1000", "1", 0), ("13", "1 3", 0), ("1000", "(1,000)", 0), ("1", "1.0000001", 0), ("2", "1.9999999", 0),
        ("18", r"\$18", 1), ("18.90", "$18.9", 1), ("7", "7.", 1), ("2000", "210^{3}", 0), ("6", r"2 \cdot 3", 1),
    ],
    "decimals": [
        ("1/3", "0.333333", 1), ("1/3", "0.33", 0), ("1/3", "0.3333", 0), (r"\frac16", "0.166667", 1),
        ("0.5", r"\frac12", 1), (r"\sqrt{2}", "1.41421", 1), (r"\sqrt{2}", "1.4142", 0),
        ("-1./3", r"-\frac{1}{3}", 1), ("-3./2", "-1.5", 1),
        (".35625", "0.35625", 1), ("0.49", "0.48", 0), ("123456.78", "123456.79", 0),
        (r"\begin{pmatrix} 0.333333 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1/3 \\ 2 \end{pmatrix}", 1),
    ],
    "scientific notation (58 golds of Minerva)": [
        ("4.5e33", r"4.5 \times 10^{33}", 1), ("4.5e33", r"4.5 \cdot 10^{33}", 1), ("4.5e33", "4.5E+33", 1),
        ("4.5e33", r"x = 4.5 \times 10^{33} \text{ erg}", 1), ("4.5e33", r"4.5 \times 10^{32}", 0),
        ("1e-5", "0.00001", 1),
        ("1e-5", r"10^{-5}", 1), ("1e-5", "10⁻⁵", 1), ("-2.0E+3", "-2000", 1), ("4.5e33", "4.5", 0),
        ("8.7e8", "870000000", 1),
    ],
    "small differences count (Math-Verify#14)": [
        ("1e-21", "1e-20", 0), (r"10^{-21}", r"10^{-20}", 0), (r"(1, 10^{-21})", r"(1, 10^{-20})", 0),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}", 0), (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", 0),
        (r"\frac{1}{2^{99}}", r"2^{-99}", 1), ("0", r"10^{-20}", 0), ("x", r"x+10^{-20}", 0),
    ],
    "percent": [
        ("18", r"18\%", 1), (r"18\%", "18", 1), ("62.5%", "62.5", 1), ("62.5%", r"\frac{5}{8}", 1),
        ("0.18", r"18\%", 1),
        ("50", "0.5", 0), (r"18\%", "19", 0),
    ],
    "Unicode": [
        ("12", "１２", 1), ("12", "١٢", 1), ("-7", "−7", 1), ("x^2", "x²", 1), ("x^2", "x2", 0), ("x^{12}", "x¹²", 1),
        (r"\frac{\pi}{2}", "π/2", 1), (r"2\sqrt{3}", "2√3", 1), ("90", "90°", 1), ("(1,2)", "（１，２）", 1),
    ],
    "text": [
        (r"\text{Evelyn}", "Evelyn", 1), (r"\text{Evelyn}", r"\text{Navin}", 0), (r"\text{even}", "odd", 0),
        (r"\text{even}", "neve", 0), (r"\text{(C)}", "C", 1), (r"\text{(C)}", "D", 0), ("B", r"\text{(B)}", 1),
        ("Yes", r"\text{yes}", 1), ("Yes", "No", 0), ("True", "False", 0),
    ],
    "units": [
        ("5", r"5\text{ cm}", 1), ("5", "5 cm", 1), (r"5.4 \text{ cents}", "5.4", 1),
        (r"864 \mbox{ inches}^2", "864", 1),
        (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}", 1), (r"90^\circ", "90", 1), ("5", r"5 \text{ or } 6", 0),
        ("5", r"5\text{ or more}", 0), ("2n", "2", 0), ("2", "2d", 0), (r"\frac{1}{m} t", r"\frac{1}{m}", 0),
        ("7", "7i", 0),
    ],
    "expressions": [
        (r"\frac43", r"\dfrac{4}{3}", 1), (r"137 \frac{1}{2}", "137.5", 1), ("2.5", "2 1/2", 1), ("21/2", "2 1/2", 0),
        ("(a+5)(b+2)", "ab+2a+5b+10", 1), (r"\binom{2n}{n}", r"\frac{(2n)!}{n!n!}", 1), ("6-5i", "6+5i", 0),
        (r"\sin(2x)", r"2\sin x\cos x", 1), (r"1-\frac1e", r"1+\frac1e", 0), ("C_1 e^t", "C_2 e^t", 0),
        (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", r"\frac{E_1+2E_2}{3}", 1), ("np.arcsin(10/13)", "10/13", 0),
    ],
    "equations": [
        ("42", "41=42", 0), ("42", "x=42", 1), ("42", "x=41=42", 0), ("42", r"x=6 \cdot 7=42", 1), ("42", "2x=42", 0),
        ("5", "AE=5", 1), ("5", "f(3)=5", 1), ("x=5", "5", 1), ("x=5", "y=5", 0), ("x=5", "x=6", 0),
        ("1,2", "1=1, 41=2", 0),
        ("y=2x+3", "4x-2y+6=0", 1), ("y=2x+3", "y=2x+4", 0), ("f(x)=2x", "2x", 1), ("5x-7y+4=0", "0", 0),
        ("MR=SRMC", "SRMC=MR", 1), ("MR=SRMC", "SRMC", 0), ("x^2=-1", "x^2=-2", 0),
        (r"\frac{dx}{dt}=kx-a", r"\frac{dx}{dt}+a=kx", 1), (r"\frac{dx}{dt}=kx-a", r"-\frac{dx}{dt}=kx-a", 0),
    ],
    "tuples, sets, intervals, matrices": [
        ("1,2", "2,1", 1), ("(1,2)", "(2,1)", 0), ("(1,2)", "[1,2]", 0), ("(1,2),(3,4)", "(3,4),(1,2)", 1),
        (r"\{1,2\}", "1,2", 1), (r"\{1,2\}", r"\{1,2,3\}", 0), (r"3\pm\sqrt2", r"3-\sqrt2, 3+\sqrt2", 1),
        (r"3\pm\sqrt2", r"3+\sqrt2", 0), (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2]\cup(3,\infty)", 0),
        (r"x \in [-2,7]", "[-2,7]", 1), ("x>2", r"(2,\infty)", 1), ("x>2", "x<2", 0), ("n=2,3,4", "n=1,2,3", 0),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", 1),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", 0),
        (r"1,2,\ldots,n", r"1,2,4,\ldots,n", 0),
    ],
    "bases": [("52_8", "52_{8}", 1), ("52_8", "52", 1), ("52_8", "52_7", 0), ("52", "52_8", 0)],
    "malformed": [("5", "5)", 0), ("5", "5 }", 0), ("5", "\\", 0), ("42", "The answer is 42", 0), ("5", "\ud800", 0)],
}


@pytest.mark.parametrize("category", VERDICTS)
def test_verdicts(verifier, category):
    rows = VERDICTS[category]
    scores = verifier.score([answer for _, answer, _ in rows], [gold for gold, _, _ in rows])
    assert [(*row[:2], score) for row, score in zip(rows, scores)] == [(*row[:2], float(row[2])) for row in rows]
    assert verifier.failures == 0


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
