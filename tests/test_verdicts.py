r"""What is right: rows of (gold, response, expected) that go train.py's way, from the response's text to its score.

Where a row shows no box, its text stands in the box of a sentence. The golds are written in the style of MATH, Minerva
and OlympiadBench.
"""

import pytest

from verifier import Verifier, extract_answer


@pytest.fixture(scope="module")
def verifier():
    with Verifier(n_workers=2, deadline=30.0) as verifier:
        yield verifier


def scores(verifier: Verifier, rows: list[tuple], how: str = "boxed") -> list[tuple]:
    """The rows with their scores in place of what was expected."""
    texts = [
        f"Adding both sides, we find that the answer is $\\boxed{{{text}}}$. I hope it is correct."
        if how == "boxed" and "box" not in text else text
        for _, text, _ in rows
    ]
    rewards = verifier.score([extract_answer(text, how) for text in texts], [gold for gold, _, _ in rows])
    return [(gold, text, reward) for (gold, text, _), reward in zip(rows, rewards)]


VERDICTS = {
    "integers": [
        ("42", "42", 1), ("42", "042", 1), ("42", "+42", 1), ("42", "-42", 0), ("42", "43", 0), ("42", "", 0),
        ("1000", "1,000", 1), (r"10,\!080", "10080", 1), ("10080", r"10\,080", 1), (r"24{,}000", "24000", 1),
        ("1000", "1", 0), ("13", "1 3", 0), ("1000", "(1,000)", 0), ("1", "1.0000001", 0), ("2", "1.9999999", 0),
        ("18", r"\$18", 1), ("18.90", "$18.9", 1), ("7", "7.", 1), ("2000", "210^{3}", 0), ("6", r"2 \cdot 3", 1),
        ("42", "42.0", 1), ("1000", "10^3", 1), ("120", "5!", 1), ("5", "5!", 0), ("0", "-0", 1), ("5", "|-5|", 1),
        ("1234", "1.234", 0), ("1234", "12,34", 0), ("12", "1,2", 0), ("42", "4 2", 0), ("42", "42.5", 0),
        ("42", "42x", 0), ("42", "42^{0}", 0), ("42", "42-", 0), ("42", r"\pm 42", 0), ("42", r"\neq 42", 0),
        ("42", "x>42", 0), ("42", r"\lfloor 42.7\rfloor", 1), ("42", r"\lceil 42.7\rceil", 0), ("42", "f(42)", 0),
        ("42", "x_{42}", 0), ("42", r"42\ldots", 0), ("42", r"42 \pmod 5", 0), ("42", r"\infty", 0), ("42", "NaN", 0),
        ("0", r"\emptyset", 0), ("0", r"\{\}", 0), ("0", "x", 0), ("0", r"0.\overline{6}", 0), ("5", "5'", 0),
    ],
    "lists where one number is asked for": [
        ("42", "42, 43", 0), ("42", "42 or 43", 0), ("42", r"42 \text{ or } 43", 0), ("42", "42;43", 0), ("42", "42 43", 0),
        ("42", "42\n43", 0), ("43", r"42 \Rightarrow 43", 0), ("42", "a=42, b=43", 0), ("42", "a=41, b=42", 0),
        ("42", r"x=42 \text{ or } x=43", 0), ("5", "1,2,3,4,5", 0), ("42", "42, 42", 1),
    ],
    "decimals": [
        ("1/3", "0.333333", 1), ("1/3", "0.33", 0), ("1/3", "0.3333", 0), (r"\frac16", "0.166667", 1),
        ("0.5", r"\frac12", 1), (r"\sqrt{2}", "1.41421", 1), (r"\sqrt{2}", "1.4142", 0),
        ("-1./3", r"-\frac{1}{3}", 1), ("-3./2", "-1.5", 1),
        (".35625", "0.35625", 1), ("0.49", "0.48", 0), ("123456.78", "123456.79", 0),
        (r"\begin{pmatrix} 0.333333 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1/3 \\ 2 \end{pmatrix}", 1),
        (r"\frac{2}{3}", r"0.\overline{6}", 1), (r"\frac{2}{3}", r"0.\overline{3}", 0), (r"\frac{2}{3}", "0.666...", 0),
        (r"-\frac{13}{6}", r"-2.1\overline{6}", 1), (r"\frac{13}{6}", r"2.\overline{16}", 0), ("1", r"0.\bar{9}", 1),
        (r"\pi", "3.14159", 1), (r"\pi", "3.14", 0), (r"\pi", r"\frac{22}{7}", 0), ("3.14", r"\pi", 0), ("3", "3.14", 0),
    ],
    "scientific notation (58 golds of Minerva)": [
        ("4.5e33", r"4.5 \times 10^{33}", 1), ("4.5e33", r"4.5 \cdot 10^{33}", 1), ("4.5e33", "4.5E+33", 1),
        ("4.5e33", r"x = 4.5 \times 10^{33} \text{ erg}", 1), ("4.5e33", r"4.5 \times 10^{32}", 0),
        ("1e-5", "0.00001", 1),
        ("1e-5", r"10^{-5}", 1), ("1e-5", "10⁻⁵", 1), ("-2.0E+3", "-2000", 1), ("4.5e33", "4.5", 0),
        ("8.7e8", "870000000", 1),
        ("1.5e10", r"15\times 10^{9}", 1), ("1.5e10", r"1.5\times 10^{-10}", 0), ("1.5e10", r"1.5 \cdot 10^{9}", 0),
        ("1e-3", "1000", 0), ("1e-3", "-0.001", 0), ("2e5", "2e^5", 0), ("2e^5", "2e5", 0), ("7.3e4", "73,000", 1),
        (r"6.02 \times 10^{23}", "6.02e23", 1), (r"6.02 \times 10^{23}", "6.022e23", 0), (r"6.02 \times 10^{23}", "23", 0),
        (r"3 \times 10^{8} \mathrm{~m/s}", "3e8", 1), ("3e8", r"3 \times 10^{7} \mathrm{~m/s}", 0), ("3e8", "10^{8}", 0),
    ],
    "small differences count (Math-Verify#14)": [
        ("1e-21", "1e-20", 0), (r"10^{-21}", r"10^{-20}", 0), (r"(1, 10^{-21})", r"(1, 10^{-20})", 0),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}", 0), (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", 0),
        (r"\frac{1}{2^{99}}", r"2^{-99}", 1), ("0", r"10^{-20}", 0), ("x", r"x+10^{-20}", 0),
        ("y=x^2", "y=x^2+10^{-9}", 0),
    ],
    "percent": [
        ("18", r"18\%", 1), (r"18\%", "18", 1), ("62.5%", "62.5", 1), ("62.5%", r"\frac{5}{8}", 1),
        ("0.18", r"18\%", 1),
        ("50", "0.5", 0), (r"18\%", "19", 0),
        ("12.5%", "12.5 percent", 1), (r"12.5\%", r"12.5\text{ percent}", 1), (r"12.5\%", r"12.4\%", 0),
        ("25%", "2.5", 0), ("25%", "2500", 0), ("25", "0.25%", 0), ("2500", "25%", 0), ("100", "1", 0), ("5%", "5x%", 0),
        (r"33\frac{1}{3}\%", "33", 0),
    ],
    "Unicode": [
        ("12", "１２", 1), ("12", "١٢", 1), ("-7", "−7", 1), ("x^2", "x²", 1), ("x^2", "x2", 0), ("x^{12}", "x¹²", 1),
        (r"\frac{\pi}{2}", "π/2", 1), (r"2\sqrt{3}", "2√3", 1), ("90", "90°", 1), ("(1,2)", "（１，２）", 1),
        ("12", "１３", 0), ("12", "٢١", 0), ("7", "−7", 0), ("f'(0)", "f′(0)", 1), ("12", "十二", 0), ("42", "4²", 0),
    ],
    "text": [
        (r"\text{Evelyn}", "Evelyn", 1), (r"\text{Evelyn}", r"\text{Navin}", 0), (r"\text{even}", "odd", 0),
        (r"\text{even}", "neve", 0), (r"\text{(C)}", "C", 1), (r"\text{(C)}", "D", 0), ("B", r"\text{(B)}", 1),
        ("Yes", r"\text{yes}", 1), ("Yes", "No", 0), ("True", "False", 0),
        (r"\text{Monday}", r"\text{monday}", 1), (r"\text{Monday}", "Mon", 0), (r"\text{Monday}", "not Monday", 0),
        (r"\text{Monday}", "Monday or Tuesday", 0), (r"\text{A}", r"\textbf{(A)}", 1), (r"\text{A}", "A, B", 0),
        ("A", "A+B", 0), ("B,C", "C,B", 1), ("B,C", "B", 0), ("No", "Yes", 0), ("Yes", "yes, no", 0),
        (r"\text{June 20}", "June 21", 0), (r"\text{June 20}", "20", 0), ("3:30", "3:30", 1), ("3:30", "3:31", 0),
        ("42", "forty-two", 0), ("42", r"\text{not } 42", 0),
    ],
    "units": [
        ("5", r"5\text{ cm}", 1), ("5", "5 cm", 1), (r"5.4 \text{ cents}", "5.4", 1),
        (r"864 \mbox{ inches}^2", "864", 1),
        (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}", 1), (r"90^\circ", "90", 1), ("5", r"5 \text{ or } 6", 0),
        ("5", r"5\text{ or more}", 0), ("2n", "2", 0), ("2", "2d", 0), (r"\frac{1}{m} t", r"\frac{1}{m}", 0),
        ("7", "7i", 0),
        ("5", r"5\text{ apples}", 1), ("5", r"5 \mathrm{~km/h}", 1), ("5", r"5\text{ cm}^2", 1), ("5.5", "$5.50", 1),
        (r"5\text{ cm}", r"6\text{ cm}", 0), ("5", "5 m", 0), ("5", "5k", 0), ("5", "5^2", 0), ("5.5", r"\$5.05", 0),
        ("5", r"5\text{ thousand}", 0), ("5000", r"5\text{ thousand}", 0), ("5", r"5\text{ million dollars}", 0),
        (r"\$5 \text{ billion}", "5", 0), ("5", r"5\text{ dozen}", 0), ("5", r"5\text{ minus one}", 0),
        ("5", r"5\text{ to }6", 0), (r"9\text{ a.m.}", r"9\text{ p.m.}", 0), (r"9\text{ a.m.}", r"9\,\text{a.m.}", 1),
        (r"45^\circ", r"\frac{\pi}{4}", 0), (r"45^\circ", r"54^\circ", 0), ("30", "30'", 0),
    ],
    "fractions": [
        (r"\frac43", r"\dfrac{4}{3}", 1), (r"137 \frac{1}{2}", "137.5", 1), ("2.5", "2 1/2", 1), ("21/2", "2 1/2", 0),
        (r"\frac{1}{2}", r"\frac{-1}{-2}", 1), (r"\frac{1}{2}", r"\frac{2}{4}", 1), (r"-\frac{1}{2}", r"\frac{1}{-2}", 1),
        (r"\frac{1}{2}", "2/1", 0), (r"\frac{1}{2}", r"-\frac{1}{2}", 0), (r"\frac{1}{2}", r"1\frac{1}{2}", 0),
        (r"1\frac{1}{2}", r"\frac{1}{2}", 0), (r"\frac{11}{2}", r"1\frac{1}{2}", 0), (r"\frac{35}{3}", "353", 0),
        (r"\frac{1}{2}", r"\frac{1}{2}x", 0), (r"\frac{a}{b}", "b/a", 0), ("42", r"\frac{42}", 0), ("42", "42/", 0),
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", 1), (r"\frac{1}{\sqrt{2}}", r"\frac{1}{2}", 0),
    ],
    "expressions": [
        ("(a+5)(b+2)", "ab+2a+5b+10", 1), (r"\binom{2n}{n}", r"\frac{(2n)!}{n!n!}", 1), ("6-5i", "6+5i", 0),
        (r"\sin(2x)", r"2\sin x\cos x", 1), (r"1-\frac1e", r"1+\frac1e", 0), ("C_1 e^t", "C_2 e^t", 0),
        (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", r"\frac{E_1+2E_2}{3}", 1), ("np.arcsin(10/13)", "10/13", 0),
        ("x^2+2x+1", "(x+1)^2", 1), ("x^2+2x+1", "(x-1)^2", 0), ("x^2+2x+1", "x^2+1", 0), ("2x", "2y", 0),
        ("x-1", "1-x", 0), (r"\sqrt{8}", r"2\sqrt{2}", 1), (r"\sqrt{2}", r"\sqrt[3]{2}", 0), (r"\sqrt{2}", r"-\sqrt{2}", 0),
        ("2^{10}", "1024", 1), (r"\log_2 3", r"\frac{\ln 3}{\ln 2}", 1), (r"\log_2 3", r"\log_3 2", 0),
        ("n(n+1)/2", r"\frac{n^2+n}{2}", 1), ("n(n+1)/2", r"\frac{n(n-1)}{2}", 0), ("|x|", "x", 0),
        ("x^2-y^2", "(x-y)^2", 0), ("a+b", "ab", 0), ("3+4i", "5", 0), (r"2\pi r", r"\pi r^2", 0), ("n!", "n", 0),
        ("x_1", "x", 0), (r"\alpha", r"\beta", 0), ("R^2-r^2", "0", 0), ("mM", "m^2", 0), ("m+M", "2m", 0),
        ("f(x)", "f'(x)", 0), ("-2f'(0)", r"-2f^{\prime}(0)", 1), ("-2f'(0)", "-2f(0)", 0), ("f''(0)", "f'(0)", 0),
        ("y'+y", "2y", 0),
    ],
    "equations": [
        ("42", "41=42", 0), ("42", "x=42", 1), ("42", "x=41=42", 0), ("42", r"x=6 \cdot 7=42", 1), ("42", "2x=42", 0),
        ("5", "AE=5", 1), ("5", "f(3)=5", 1), ("x=5", "5", 1), ("x=5", "y=5", 0), ("x=5", "x=6", 0),
        ("1,2", "1=1, 41=2", 0),
        ("y=2x+3", "4x-2y+6=0", 1), ("y=2x+3", "y=2x+4", 0), ("f(x)=2x", "2x", 1), ("5x-7y+4=0", "0", 0),
        ("MR=SRMC", "SRMC=MR", 1), ("MR=SRMC", "SRMC", 0), ("x^2=-1", "x^2=-2", 0),
        (r"\frac{dx}{dt}=kx-a", r"\frac{dx}{dt}+a=kx", 1), (r"\frac{dx}{dt}=kx-a", r"-\frac{dx}{dt}=kx-a", 0),
        ("AB=5", "5", 1), ("x+y=5", "5", 0), ("x+y=5", "x+y", 0), ("x + y + z = 0", "0", 0), ("x+y=5", "y+x=5", 1),
        ("x=3", "x=-3", 0), ("x=3", "x>3", 0), ("x=3", r"x\neq 3", 0), ("y=2x+1", "x=2y+1", 0),
        ("x^2+y^2=1", "x^2+y^2-1=0", 1), ("x^2+y^2=1", "x^2-y^2=1", 0), ("x^2+y^2=1", "1", 0), ("E=mc^2", "E=mc", 0),
        ("AB=9, CD=4", "CD=4, AB=9", 1), ("AB=9, CD=4", "AB=4, CD=9", 0), ("AB=9, CD=4", "4, 9", 0),
        ("x=3,y=4", "(4,3)", 0), (r"x=1\text{ or }x=2", "1,2", 1), (r"x=1\text{ or }x=2", "x=2", 0),
        ("x=6 \\cdot 7=42", "42", 1),
    ],
    "tuples": [
        ("1,2", "2,1", 1), ("(1,2)", "(2,1)", 0), ("(1,2)", "[1,2]", 0), ("(1,2),(3,4)", "(3,4),(1,2)", 1),
        ("(1,2)", "(1.0,2.0)", 1), ("(1,2)", "(1,-2)", 0), ("(1,2)", "(1,2,3)", 0), ("(1,2,3)", "(1,2)", 0),
        ("(1,2)", "(x,y)=(1,2)", 1), ("(1,2)", "(x,y)=(2,1)", 0), ("(1,2)", "(12)", 0), ("(1,2)", "1.2", 0),
        ("(1,2)", "2,1", 0), ("(0,0)", "0", 0), ("(3,4)", "5", 0), ("(1,2),(3,4)", "(1,2)", 0),
        ("(1,2),(3,4)", "(1,4),(3,2)", 0), ("(1,2),(3,4)", "(1,2,3,4)", 0), (r"(\frac12,3)", "(0.5,3)", 1),
        (r"(\frac12,3)", "(0.5,3.01)", 0), (r"1,2,\ldots,n", r"1,2,4,\ldots,n", 0), ("n=2,3,4", "n=1,2,3", 0),
    ],
    "sets": [
        (r"\{1,2\}", "1,2", 1), (r"\{1,2\}", r"\{1,2,3\}", 0), (r"3\pm\sqrt2", r"3-\sqrt2, 3+\sqrt2", 1),
        (r"3\pm\sqrt2", r"3+\sqrt2", 0), (r"\{1,2,3\}", r"\{3,2,1\}", 1), (r"\{1,2,3\}", r"\{1,2\}", 0),
        (r"\{1,2,3\}", "[1,3]", 0), (r"\{1,2\}", r"1 \text{ and } 2", 1), (r"\{1,2\}", r"x\in\{1,2\}", 1),
        (r"\{1,2\}", r"x\notin\{1,2\}", 0), (r"\{1,2\}", "12", 0), (r"\{-1,1\}", r"\pm 1", 1), (r"\{-1,1\}", "1", 0),
        (r"\emptyset", r"\{\}", 1), (r"\emptyset", r"\{0\}", 0), (r"\emptyset", "0", 0), (r"\mathbb{R}", r"\mathbb{Q}", 0),
    ],
    "intervals": [
        (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2]\cup(3,\infty)", 0), (r"x \in [-2,7]", "[-2,7]", 1),
        ("x>2", r"(2,\infty)", 1), ("x>2", "x<2", 0), ("(1,2)", "(1,2]", 0), ("[1,2]", "[1,2)", 0), ("[1,2]", "[2,1]", 0),
        ("(1,2)", "(1,3)", 0), (r"(0,\infty)", r"[0,\infty)", 0), (r"(0,\infty)", r"x\ge 0", 0), ("[1,2]", r"\{1,2\}", 0),
        ("[1,2]", "1,2", 0), (r"[1,2)\cup(2,3]", "[1,3]", 0), (r"[1,2)\cup(2,3]", r"(2,3]\cup[1,2)", 1),
        (r"[1,2)\cup(2,3]", r"[1,2)\cap(2,3]", 0), ("x>2", "2<x", 1), ("x>2", r"x \geq 2", 0), ("x>2", "y>2", 0),
        ("x>2", "2", 0), ("[0.5,1]", r"[\frac12,1]", 1), ("1<x<2", "(1,2)", 1), ("1<x<2", "(2,1)", 0),
        (r"\mathbb{R}", r"(-\infty,\infty)", 1), (r"(-\infty,\infty)", r"(-\infty,0)\cup(0,\infty)", 0),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", 1),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", 0),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{array}{c} 1 \\ 2 \end{array}", 1),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \\ 3 \end{pmatrix}", 0),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}", 0),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1,2)", 0),
        (r"\begin{pmatrix} 2 & 4 \\ 6 & 8 \end{pmatrix}", r"2\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", 1),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", 0),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", 0),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 \end{pmatrix}", 0),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "1,2,3,4", 0),
        (r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}", "1", 0), (r"\begin{pmatrix} 0 \\ 0 \end{pmatrix}", "0", 0),
        ("-2", r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", 1), ("2", r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", 0),
    ],
    "bases": [("52_8", "52_{8}", 1), ("52_8", "52", 1), ("52_8", "52_7", 0), ("52", "52_8", 0), ("52_8", "25_8", 0)],
    "malformed": [
        ("5", "5)", 0), ("5", r"\boxed{5\}}", 0), ("5", "\\", 0), ("42", "The answer is 42", 0), ("5", "\ud800", 0),
        ("5", "5\x00", 0), ("42", "**42**", 1),
    ],
    "several boxes: the last complete one counts": [
        ("5", r"First \boxed{4}, but no: \boxed{5}.", 1), ("4", r"First \boxed{4}, but no: \boxed{5}.", 0),
        ("1,2", r"\boxed{1} and \boxed{2}", 0), ("2", r"\boxed{1} and \boxed{2}", 1), ("1", r"\boxed{1} and \boxed{2}", 0),
        ("5", r"\boxed{5}, \boxed{5}, \boxed{6}", 0), ("5", r"\boxed{x=\boxed{5}}", 1), ("6", r"\boxed{\boxed{5}+1}", 0),
        ("6", r"\boxed{5} + 1 = \fbox{6}", 1), ("5", r"\boxed{5} and then \boxed{6", 1), ("5", r"\boxed{5} and \boxed{}", 1),
        ("5", r"<think>Perhaps \boxed{4}?</think> The answer is $\boxed{5}$.", 1),
        ("4", r"<think>Perhaps \boxed{4}?</think> The answer is $\boxed{5}$.", 0),
        ("5", r"\boxed{4} " * 1000 + r"\boxed{5}", 1), ("5", r"\boxed{5} " * 1000 + r"\boxed{4}", 0),
        ("7", " ".join(rf"\boxed{{{i}}}" for i in range(10)), 0),
    ],
    "whole responses": [
        ("5", r"so the answer is 5, in a \boxed", 0), ("5", r"\boxed{5", 0), ("5", r"boxed{5}", 0), ("5", r"\boxed 5", 1),
        ("5", "```python\nprint(2 + 3)\n```\nprints $\\boxed{5}$.", 1), ("5", "```python\nbox = 5\nprint(box)\n```", 0),
        ("5", "print('\\\\boxed{5}')", 1), ("5", "因此答案是 $\\boxed{5}$。", 1), ("5", "因此答案是 $\\boxed{六}$。", 0),
        ("5", "Итак, ответ: $\\boxed{5}$.", 1), ("5", "إذن الجواب هو $\\boxed{٥}$", 1), ("5", "उत्तर $\\boxed{५}$ है", 1),
        ("5", "उत्तर $\\boxed{६}$ है", 0), ("5", "\\[\n\\boxed{\n  5\n}\n\\]", 1), ("5", r"$$\boxed{\textbf{5}}$$ 🎉", 1),
        ("5", r"\boxed{5 🎉}", 0), ("5", r"\begin{aligned} x &= 2+3 \\ &= \boxed{5} \end{aligned}", 1),
        ("5", r"\boxed{\text{The answer is } 5}", 0), ("5", r"\boxed{\text{answer}}", 0), ("5", r"\boxed{?}", 0),
    ],
}


@pytest.mark.parametrize("category", VERDICTS)
def test_verdicts(verifier, category):
    rows = VERDICTS[category]
    assert scores(verifier, rows) == [(gold, text, float(expected)) for gold, text, expected in rows]
    assert verifier.failures == 0


def test_verdicts_on_the_last_number_of_a_response(verifier):
    rows = [
        ("18", "She makes 9 * 2 = $18 a day.", 1), ("18", "18 eggs less one is 17.", 0), ("18", "#### 18", 1),
        ("1000", "That makes 1,000.", 1), ("1000", "That makes 1, 000.", 0), ("-7", "x = -7", 1), ("7", "x = -7", 0),
        ("18", "The answer is 18.0", 1), ("18", "The answer is 18.5", 0), ("18", "eighteen", 0), ("18", "", 0),
        ("18", "18 because 3 * 6 = 18", 1), ("0.5", "half, .5", 1), ("5", "half, .5", 0), ("18", "18%", 1),
    ]  # fmt: skip
    assert scores(verifier, rows, "last_number") == [(gold, text, float(expected)) for gold, text, expected in rows]


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
