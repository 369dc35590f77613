r"""Whatever a model writes, from response to score: an end, 0.0 for what has nothing to do with the gold, and
a verifier that still works afterwards. What no type knows is equal to its own text only.

The examples are the same in every run. More: FUZZ=100 python -m pytest tests/test_verifier_properties.py
"""

import os
import random
import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verifier import Verifier, canonical, extract_answer
from verifier.equality import answers_equal
from verifier.judge import judge
from verifier.notation import verdict_of_texts
from verifier.workers import is_only_text

pytestmark = pytest.mark.slow

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
def verifier():
    with Verifier(n_workers=2, deadline=DEADLINE) as verifier:
        yield verifier


@pytest.mark.parametrize("kind", RESPONSES)
def test_nothing_written_by_chance_is_right_or_breaks_the_verifier(verifier, kind):
    strategy, examples = RESPONSES[kind]

    @reproducible(examples)
    @given(strategy, st.sampled_from(GOLDS), st.sampled_from(["boxed", "last_number"]))
    def check(response, gold, how):
        start = time.monotonic()
        assert verifier.score([extract_answer(response, how)], [gold]) == [0.0]
        assert time.monotonic() - start < DEADLINE + SLACK

    verifier.deadline = DEADLINE
    check()
    verifier.deadline = SLACK  # right stays right on a busy machine
    assert verifier.score([r"\sqrt{9}", r"\sqrt{9}"], ["3", "4"]) == [1.0, 0.0]


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


def test_formulas_of_numbers_are_right_if_and_only_if_their_values_are_equal(verifier):
    rng, golds, answers, expected = random.Random(0), [], [], []
    while len(golds) < 200:
        (text, value), off = sum_of(rng, rng.randint(1, 3)), rng.choice([0, 0, 1, Fraction(1, 10**9)])
        golds.append(text)
        answers.append(rf"\frac{{{(value + off).numerator}}}{{{(value + off).denominator}}}")
        expected.append(float(off == 0))
    verifier.deadline = SLACK
    assert verifier.score(answers, golds) == expected
    assert verifier.score(golds, answers) == expected
