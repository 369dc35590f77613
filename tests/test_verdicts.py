r"""What is right: rows of gold, response and what is expected, that go train.py's way from response to score.

Where a row shows no box, its text stands in the box of a sentence. The golds are written in the style of
MATH, Minerva and OlympiadBench.
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
        ("42", "42", 1), ("42", "042", 1), ("042", "42", 1), ("001", "x=1", 1),
        ("42", "+42", 1), ("42", "-42", 0), ("42", "43", 0), ("42", "", 0),
        ("1000", "1,000", 1), (r"10,\!080", "10080", 1), ("10080", r"10\,080", 1), (r"24{,}000", "24000", 1),
        ("1000", "1", 0), ("13", "1 3", 0), ("1000", "(1,000)", 0), ("1", "1.0000001", 0),
        ("2", "1.9999999", 0), ("18", r"\$18", 1), ("18.90", "$18.9", 1), ("7", "7.", 1),
        ("2000", "210^{3}", 0), ("6", r"2 \cdot 3", 1), ("42", "42.0", 1), ("1000", "10^3", 1),
        ("120", "5!", 1), ("5", "5!", 0), ("0", "-0", 1), ("5", "|-5|", 1), ("1234", "1.234", 0),
        ("1234", "12,34", 0), ("12", "1,2", 0), ("42", "4 2", 0), ("42", "42.5", 0), ("42", "42x", 0),
        ("42", "42^{0}", 0), ("42", "42-", 0), ("42", r"\pm 42", 0), ("42", r"\neq 42", 0), ("42", "x>42", 0),
        ("42", r"\lfloor 42.7\rfloor", 1), ("42", r"\lceil 42.7\rceil", 0), ("42", "f(42)", 0),
        ("42", "x_{42}", 0), ("42", r"42\ldots", 0), ("42", r"42 \pmod 5", 0), ("42", r"\infty", 0),
        ("42", "NaN", 0), ("0", r"\emptyset", 0), ("0", r"\{\}", 0), ("0", "x", 0),
        ("0", r"0.\overline{6}", 0), ("5", "5'", 0),
    ],
    "lists where one number is asked for": [
        ("42", "42, 43", 0), ("42", "42 or 43", 0), ("42", r"42 \text{ or } 43", 0), ("42", "42;43", 0),
        ("42", "42 43", 0), ("42", "42\n43", 0), ("43", r"42 \Rightarrow 43", 0), ("42", "a=42, b=43", 0),
        ("42", "a=41, b=42", 0), ("42", r"x=42 \text{ or } x=43", 0), ("5", "1,2,3,4,5", 0),
    ],
    "decimals": [
        ("1/3", "0.33", 0), ("1/3", "0.3333", 0),
        ("0.5", r"\frac12", 1), (r"\sqrt{2}", "1.4142", 0),
        ("-1./3", r"-\frac{1}{3}", 1), ("-3./2", "-1.5", 1), (".35625", "0.35625", 1), ("0.49", "0.48", 0),
        ("123456.78", "123456.79", 0),
        (r"\frac{2}{3}", r"0.\overline{6}", 1), (r"\frac{2}{3}", r"0.\overline{3}", 0),
        (r"\frac{2}{3}", "0.666...", 0), (r"-\frac{13}{6}", r"-2.1\overline{6}", 1),
        (r"\frac{13}{6}", r"2.\overline{16}", 0), ("1", r"0.\bar{9}", 1),
        (r"\pi", "3.14", 0), (r"\pi", r"\frac{22}{7}", 0), ("3.14", r"\pi", 0), ("3", "3.14", 0),
    ],
    "scientific notation (58 golds of Minerva)": [
        ("4.5e33", r"4.5 \times 10^{33}", 1), ("4.5e33", r"4.5 \cdot 10^{33}", 1), ("4.5e33", "4.5E+33", 1),
        ("4.5e33", r"x = 4.5 \times 10^{33} \text{ erg}", 1), ("4.5e33", r"4.5 \times 10^{32}", 0),
        ("1e-5", "0.00001", 1), ("1e-5", r"10^{-5}", 1), ("1e-5", "10⁻⁵", 1), ("-2.0E+3", "-2000", 1),
        ("4.5e33", "4.5", 0), ("8.7e8", "870000000", 1), ("1.5e10", r"15\times 10^{9}", 1),
        ("1.5e10", r"1.5\times 10^{-10}", 0), ("1.5e10", r"1.5 \cdot 10^{9}", 0), ("1e-3", "1000", 0),
        ("1e-3", "-0.001", 0), ("2e5", "2e^5", 0), ("2e^5", "2e5", 0), ("7.3e4", "73,000", 1),
        (r"6.02 \times 10^{23}", "6.02e23", 1), (r"6.02 \times 10^{23}", "6.022e23", 0),
        (r"6.02 \times 10^{23}", "23", 0), (r"3 \times 10^{8} \mathrm{~m/s}", "3e8", 1),
        ("3e8", r"3 \times 10^{7} \mathrm{~m/s}", 0), ("3e8", "10^{8}", 0),
    ],
    "small differences count (Math-Verify#14)": [
        ("1e-21", "1e-20", 0), (r"10^{-21}", r"10^{-20}", 0), (r"(1, 10^{-21})", r"(1, 10^{-20})", 0),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}", 0), (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", 0),
        (r"\frac{1}{2^{99}}", r"2^{-99}", 1), ("0", r"10^{-20}", 0), ("x", r"x+10^{-20}", 0),
        ("y=x^2", "y=x^2+10^{-9}", 0),
    ],
    "percent": [
        ("18", r"18\%", 1), (r"18\%", "18", 1), ("62.5%", "62.5", 1), ("62.5%", r"\frac{5}{8}", 1),
        ("0.18", r"18\%", 1), ("50", "0.5", 0), (r"18\%", "19", 0), ("12.5%", "12.5 percent", 1),
        (r"12.5\%", r"12.5\text{ percent}", 1), (r"12.5\%", r"12.4\%", 0), ("25%", "2.5", 0),
        ("25%", "2500", 0), ("25", "0.25%", 0), ("2500", "25%", 0), ("100", "1", 0), ("5%", "5x%", 0),
        (r"33\frac{1}{3}\%", "33", 0),
    ],
    "Unicode": [
        ("12", "１２", 1), ("12", "١٢", 1), ("-7", "−7", 1), ("x^2", "x²", 1), ("x^2", "x2", 0),
        ("x^{12}", "x¹²", 1), (r"\frac{\pi}{2}", "π/2", 1), (r"2\sqrt{3}", "2√3", 1), ("90", "90°", 1),
        ("(1,2)", "（１，２）", 1), ("12", "１３", 0), ("12", "٢١", 0), ("7", "−7", 0), ("f'(0)", "f′(0)", 1),
        ("12", "十二", 0), ("42", "4²", 0),
    ],
    "text": [
        (r"\text{Evelyn}", "Evelyn", 1), (r"\text{Evelyn}", r"\text{Navin}", 0), (r"\text{even}", "odd", 0),
        (r"\text{even}", "neve", 0), (r"\text{(C)}", "C", 1), (r"\text{(C)}", "D", 0),
        ("B", r"\text{(B)}", 1), ("Yes", r"\text{yes}", 1), ("Yes", "No", 0), ("True", "False", 0),
        (r"\text{Monday}", r"\text{monday}", 1), (r"\text{Monday}", "Mon", 0),
        (r"\text{Monday}", "not Monday", 0), (r"\text{Monday}", "Monday or Tuesday", 0),
        (r"\text{A}", r"\textbf{(A)}", 1), (r"\text{A}", "A, B", 0), ("A", "A+B", 0), ("B,C", "C,B", 1),
        ("B,C", "B", 0), ("No", "Yes", 0), ("Yes", "yes, no", 0), (r"\text{June 20}", "June 21", 0),
        (r"\text{June 20}", "20", 0), ("3:30", "3:30", 1), ("3:30", "3:31", 0), ("42", "forty-two", 0),
        ("42", r"\text{not } 42", 0),
    ],
    "units": [
        ("5", r"5\text{ cm}", 1), ("5", "5 cm", 1), (r"5.4 \text{ cents}", "5.4", 1),
        (r"864 \mbox{ inches}^2", "864", 1), (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}", 1),
        (r"90^\circ", "90", 1), ("5", r"5 \text{ or } 6", 0), ("5", r"5\text{ or more}", 0), ("2n", "2", 0),
        ("2", "2d", 0), (r"\frac{1}{m} t", r"\frac{1}{m}", 0), ("7", "7i", 0), ("5", r"5\text{ apples}", 1),
        ("5", r"5 \mathrm{~km/h}", 1), ("5", r"5\text{ cm}^2", 1), ("5.5", "$5.50", 1),
        (r"5\text{ cm}", r"6\text{ cm}", 0), ("5", "5 m", 0), ("5", "5k", 0), ("5", "5^2", 0),
        ("5.5", r"\$5.05", 0), ("5", r"5\text{ thousand}", 0), ("5000", r"5\text{ thousand}", 0),
        ("5", r"5\text{ million dollars}", 0), (r"\$5 \text{ billion}", "5", 0), ("5", r"5\text{ dozen}", 0),
        ("5", r"5\text{ minus one}", 0), ("5", r"5\text{ to }6", 0), (r"9\text{ a.m.}", r"9\text{ p.m.}", 0),
        (r"9\text{ a.m.}", r"9\,\text{a.m.}", 1), (r"45^\circ", r"\frac{\pi}{4}", 0),
        (r"45^\circ", r"54^\circ", 0), ("30", "30'", 0),
    ],
    "fractions": [
        (r"\frac43", r"\dfrac{4}{3}", 1), (r"137 \frac{1}{2}", "137.5", 1), ("2.5", "2 1/2", 1),
        ("21/2", "2 1/2", 0), (r"\frac{1}{2}", r"\frac{-1}{-2}", 1), (r"\frac{1}{2}", r"\frac{2}{4}", 1),
        (r"-\frac{1}{2}", r"\frac{1}{-2}", 1), (r"\frac{1}{2}", "2/1", 0),
        (r"\frac{1}{2}", r"-\frac{1}{2}", 0), (r"\frac{1}{2}", r"1\frac{1}{2}", 0),
        (r"1\frac{1}{2}", r"\frac{1}{2}", 0), (r"\frac{11}{2}", r"1\frac{1}{2}", 0),
        (r"\frac{35}{3}", "353", 0), (r"\frac{1}{2}", r"\frac{1}{2}x", 0), (r"\frac{a}{b}", "b/a", 0),
        ("42", r"\frac{42}", 0), ("42", "42/", 0), (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", 1),
        (r"\frac{1}{\sqrt{2}}", r"\frac{1}{2}", 0),
    ],
    "expressions": [
        ("(a+5)(b+2)", "ab+2a+5b+10", 1), (r"\binom{2n}{n}", r"\frac{(2n)!}{n!n!}", 1), ("6-5i", "6+5i", 0),
        (r"\sin(2x)", r"2\sin x\cos x", 1), (r"1-\frac1e", r"1+\frac1e", 0), ("C_1 e^t", "C_2 e^t", 0),
        (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", r"\frac{E_1+2E_2}{3}", 1), ("np.arcsin(10/13)", "10/13", 0),
        ("x^2+2x+1", "(x+1)^2", 1), ("x^2+2x+1", "(x-1)^2", 0), ("x^2+2x+1", "x^2+1", 0), ("2x", "2y", 0),
        ("x-1", "1-x", 0), (r"\sqrt{8}", r"2\sqrt{2}", 1), (r"\sqrt{2}", r"\sqrt[3]{2}", 0),
        (r"\sqrt{2}", r"-\sqrt{2}", 0), ("2^{10}", "1024", 1), (r"\log_2 3", r"\frac{\ln 3}{\ln 2}", 1),
        (r"\log_2 3", r"\log_3 2", 0), ("n(n+1)/2", r"\frac{n^2+n}{2}", 1),
        ("n(n+1)/2", r"\frac{n(n-1)}{2}", 0), ("|x|", "x", 0), ("x^2-y^2", "(x-y)^2", 0), ("a+b", "ab", 0),
        ("3+4i", "5", 0), (r"2\pi r", r"\pi r^2", 0), ("n!", "n", 0), ("x_1", "x", 0),
        (r"\alpha", r"\beta", 0), ("R^2-r^2", "0", 0), ("mM", "m^2", 0), ("m+M", "2m", 0),
        ("f(x)", "f'(x)", 0), ("-2f'(0)", r"-2f^{\prime}(0)", 1), ("-2f'(0)", "-2f(0)", 0),
        ("f''(0)", "f'(0)", 0), ("y'+y", "2y", 0),
    ],
    "equations": [
        ("42", "41=42", 0), ("42", "x=42", 1), ("42", "x=41=42", 0), ("42", r"x=6 \cdot 7=42", 1),
        ("42", "2x=42", 0), ("5", "AE=5", 1), ("5", "f(3)=5", 1), ("x=5", "5", 1), ("x=5", "y=5", 0),
        ("x=5", "x=6", 0), ("1,2", "1=1, 41=2", 0), ("y=2x+3", "4x-2y+6=0", 1), ("y=2x+3", "y=2x+4", 0),
        ("f(x)=2x", "2x", 1), ("5x-7y+4=0", "0", 0), ("MR=SRMC", "SRMC=MR", 1), ("MR=SRMC", "SRMC", 0),
        ("x^2=-1", "x^2=-2", 0),
        (r"\frac{dx}{dt}=kx-a", r"-\frac{dx}{dt}=kx-a", 0), ("AB=5", "5", 1), ("x+y=5", "5", 0),
        ("x+y=5", "x+y", 0), ("x + y + z = 0", "0", 0), ("x+y=5", "y+x=5", 1), ("x=3", "x=-3", 0),
        ("x=3", "x>3", 0), ("x=3", r"x\neq 3", 0), ("y=2x+1", "x=2y+1", 0), ("x^2+y^2=1", "x^2+y^2-1=0", 1),
        ("x^2+y^2=1", "x^2-y^2=1", 0), ("x^2+y^2=1", "1", 0), ("E=mc^2", "E=mc", 0),
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
        (r"\{1,2\}", r"x\notin\{1,2\}", 0), (r"\{1,2\}", "12", 0), (r"\{-1,1\}", r"\pm 1", 1),
        (r"\{-1,1\}", "1", 0), (r"\emptyset", r"\{\}", 1), (r"\emptyset", r"\{0\}", 0),
        (r"\emptyset", "0", 0), (r"\mathbb{R}", r"\mathbb{Q}", 0),
    ],
    "intervals": [
        (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2]\cup(3,\infty)", 0), (r"x \in [-2,7]", "[-2,7]", 1),
        ("x>2", r"(2,\infty)", 1), ("x>2", "x<2", 0), ("(1,2)", "(1,2]", 0), ("[1,2]", "[1,2)", 0),
        ("[1,2]", "[2,1]", 0), ("(1,2)", "(1,3)", 0), (r"(0,\infty)", r"[0,\infty)", 0),
        (r"(0,\infty)", r"x\ge 0", 0), ("[1,2]", r"\{1,2\}", 0), ("[1,2]", "1,2", 0),
        (r"[1,2)\cup(2,3]", "[1,3]", 0), (r"[1,2)\cup(2,3]", r"(2,3]\cup[1,2)", 1),
        (r"[1,2)\cup(2,3]", r"[1,2)\cap(2,3]", 0), ("x>2", "2<x", 1), ("x>2", r"x \geq 2", 0),
        ("x>2", "y>2", 0), ("x>2", "2", 0), ("[0.5,1]", r"[\frac12,1]", 1), ("1<x<2", "(1,2)", 1),
        ("1<x<2", "(2,1)", 0), (r"\mathbb{R}", r"(-\infty,\infty)", 1),
        (r"(-\infty,\infty)", r"(-\infty,0)\cup(0,\infty)", 0),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", 1),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", 0),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{array}{c} 1 \\ 2 \end{array}", 1),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \\ 3 \end{pmatrix}", 0),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}", 0),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1,2)", 0),
        (r"\begin{pmatrix} 2 & 4 \\ 6 & 8 \end{pmatrix}", r"2\begin{pmatrix} 1&2 \\ 3&4 \end{pmatrix}", 1),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", 0),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", 0),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 \end{pmatrix}", 0),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "1,2,3,4", 0),
        (r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}", "1", 0),
        (r"\begin{pmatrix} 0 \\ 0 \end{pmatrix}", "0", 0),
        ("2", r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", 0),
    ],
    "bases": [
        ("52_8", "52_{8}", 1), ("52_8", "52", 1), ("52_8", "52_7", 0), ("52", "52_8", 0), ("52_8", "25_8", 0),
        ("-21_3", "-21_4", 0), ("0.11_2", "0.11_3", 0), ("12_3, 2_3", "12_4, 2_4", 0),
        ("12_3, 2_3", "2_3, 12_3", 1),
    ],
    "names and order": [
        ("x=1,y=2", "y=2,x=1", 1), ("x=1,y=2", "(y,x)=(2,1)", 1), ("x=1,y=2", "(y,x)=(1,2)", 0),
        ("x=1,y=2", "(1,2)", 1), ("x=1,y=2", "(2,1)", 0), ("x=1,y=2", "1,2", 0), ("x=1,y=2", "y=1,x=2", 0),
        ("x=1,y=2", "x=1", 0), ("x=1,y=2", "x=1,y=2,z=3", 0), ("x=1,y=2", "(x,y)=(1,2)", 1),
        ("(1,2)", "x=1,y=2", 1), ("(1,2)", "x=2,y=1", 0), ("(1,2)", "y=1,x=2", 0), ("(1,2)", "y=2,x=1", 0),
        ("(1,2)", "(y,x)=(1,2)", 0), ("(x,y)=(1,2)", "(2,1)", 0), ("(x,y)=(1,2)", "(1,2)", 1),
        ("(x,y)=(1,2)", r"x=1 \text{ and } y=2", 1), ("(x,y)=(1,2)", r"x=2 \text{ and } y=1", 0),
        ("(a,b,c)=(1,2,3)", "(a,b,c)=(3,2,1)", 0), ("(a,b,c)=(1,2,3)", "a=1,c=3,b=2", 1),
        ("a=2,b=3", "(a,b)=(3,2)", 0), ("a=2,b=3", r"\{2,3\}", 0), ("A=1,B=2", "B=1,A=2", 0),
        ("1,2", "x=1, x=2", 1), ("1,2", "x=2,y=1", 0), (r"\{1,2\}", "(x,y)=(2,1)", 0),
        (r"r=2,\theta=\frac{\pi}{3}", r"(r,\theta)=(2,\frac{\pi}{3})", 1),
        (r"(2,\frac{\pi}{3})", r"(r,\theta)=(\frac{\pi}{3},2)", 0), ("x_1=1,x_2=2", "x_1=2,x_2=1", 0),
        ("x_1=1,x_2=2", "(x_1,x_2)=(1,2)", 1), ("f(1)=2,f(2)=1", "f(1)=1,f(2)=2", 0),
        ("p=3,q=5", "p=5,q=3", 0), ("x=1,y=2", "x=1;y=2", 1), ("x=1,y=2", r"\{x=1,y=2\}", 1),
        ("x=1,y=2", r"(x,y)=(1,2)\text{ or }(2,1)", 0), ("(1,2),(3,4)", "(x,y)=(1,2),(3,4)", 1),
        ("(1,2),(2,1)", "(x,y)=(1,2),(2,1)", 1), ("(1,2),(3,4)", "(x,y)=(2,1),(4,3)", 0),
        (r"\{1,2\}", "(1,2)", 0), ("(1,2)", r"\{1,2\}", 0), ("16,3,1,1", "16,3,1,16", 0),
        ("16,3,1,1", "1,16,3,1", 1), ("16,3,1,1", "16,3,1", 0),
    ],
    "letters in a row": [
        ("BAC", "CAB", 0), ("MISSISSIPPI", "IMSSISSIPPI", 0), ("listen", "silent", 0), ("even", "neve", 0),
        ("XIV", "XVI", 0), ("iv", "vi", 0), ("iv", "iv", 1), (r"\triangle ABC", r"\triangle BCA", 0),
        (r"\angle ABC", r"\angle CBA", 0),
        (r"\angle ABC", r"\angle ABC", 1), (r"\angle ABC=30", r"\angle ACB=30", 0),
        (r"m\angle ABC=30", r"m\angle BAC=30", 0), (r"\overline{AB}", r"\overline{AC}", 0), ("AB", "BA", 0),
        (r"\{HHT,THH,HTH\}", r"\{HHT\}", 0), (r"\{HHT,THH,HTH\}", r"\{THH, HTH, HHT\}", 1),
        ("HHT, THH", "HHT, HTH", 0), ("(AB,CD)", "(BA,DC)", 0), ("SSA", r"\text{SAS}", 0),
        ("SSA", r"\text{SSA}", 1), ("SSA", r"\mathrm{SSA}", 1), ("ABCD", "A B C D", 1),
        ("ABCD", "A, B, C, D", 0), ("Infinite", "infinite", 1), ("infinite", "Finite", 0),
        ("Blue", "blue", 1), ("blue", r"\textbf{Blue}", 1), ("even", "Even", 1), ("AaBb", "aabb", 0),
        ("AaBb", "aABb", 0),
        ("mgh", "mg h", 1), ("xy", "yx", 1), ("xy", r"x \cdot y", 1), ("DNA", "AND", 0), ("LQSX", "SLQX", 0),
        ("CD", "DC", 0), ("AB+BC", "BC+AB", 1), ("ACF", r"\text{AFC}", 0), ("ABC", "ABCC", 0),
        ("nRT", "n R T", 1), (r"\frac{GMm}{r^2}", r"\frac{GmM}{r^2}", 1), ("2ab", "2ba", 1),
        ("PQ=5", "QP=5", 0), ("AB=9", "9", 1), ("Tuesday", "tuesday", 1), ("Alice, Bob", "Bob, Alice", 1),
        ("M", "m", 0), ("quadratic", r"\text{quadratic}", 1), ("H_2O", "OH_2", 0),
        ("C_6H_{12}O_6", "H_{12}C_6O_6", 0), ("A-B-C", "A-C-B", 0), ("1:2:3", "1:3:2", 0),
        ("(1 2 3)", "(1 3 2)", 0), ("1 2 3", "3 2 1", 0), ("I, III", "I, II", 0),
        ("I and III", "I, III", 1), ("II", r"\text{II}", 1), (r"f \circ g", r"g \circ f", 0),
        ("A>B>C", "A>C>B", 0),
    ],
    "words behind a number that are not on the list of units": [
        ("5", r"5\text{ cubed}", 0), ("5", r"5\text{ halves}", 0), ("5", r"5\text{ lakh}", 0),
        ("5", r"5\text{ K}", 0), ("5", r"5\mathrm{K}", 0), ("5", r"5\text{ k}", 0),
        ("5", r"5\text{ or less}", 0), ("5", r"5\text{ at least}", 0), ("5", r"\text{at least }5", 0),
        ("5", r"5\text{ mod }7", 0), ("5", r"5\text{ percent}", 1), ("5", r"5\text{ hundred}", 0),
        ("5", r"5\text{ quarters}", 0), ("5", r"5\text{ tenths}", 0), ("5", r"5\text{ bn}", 0),
        ("5", r"5\text{ mil}", 0), ("5", r"5\text{ times }3", 0), ("5", r"5\text{ less than }x", 0),
        ("5", r"5\text{ is impossible}", 0), ("5", r"5\text{ no solution}", 0), ("5", r"5\text{ pi}", 0),
        ("5", r"5\text{ e}", 0), ("5", r"5\text{ i}", 0), ("5", r"5\text{ x}", 0),
        ("5", r"5\text{ negative}", 0), ("5", r"5\text{ remainder }2", 0), ("5", r"5\text{ R }2", 0),
        ("5", r"5\text{ R2}", 0), ("5", r"5\text{ score}", 0), ("5", r"5\text{ dozen eggs}", 0),
        ("5", r"5\text{ inverse}", 0), ("5", r"5\text{ root}", 0), ("5", "5 million", 0),
        ("5", "5 thousand dollars", 0), ("5", "5 squared", 0), ("5", r"5\text{ B}", 0),
        ("5", r"5\text{ T}", 0), ("5", r"5\,\mathrm{M}", 0), ("5", r"5\text{ approx}", 0),
        ("5", r"5\text{th}", 0), ("5", r"5^{\text{th}}", 0), ("5", r"5\text{ base }6", 0),
        ("5", r"5\text{ minus}", 0), ("5", r"5\text{ wan}", 0), ("5", r"5\text{万}", 0),
        ("5", r"5\text{亿}", 0), ("5", r"5\text{ below}", 0), ("5", r"5\text{ more}", 0),
        ("5", r"5\text{ or }", 0), ("x", r"x\text{ squared}", 0), (r"\frac{1}{2}", r"\frac12\text{ of }x", 0),
        ("0", r"0\text{ squared}", 0), ("0", r"0\text{ does not exist}", 0), ("0", r"0\text{ million}", 0),
        (r"\{0\}", r"\{0\}\text{ squared}", 0), ("0", r"0\text{ cm}", 1),
    ],
    "opposite words, other units": [
        (r"40^\circ\text{ N}", r"40^\circ\text{ E}", 0), (r"40^\circ", r"40^\circ\text{ N}", 0),
        (r"5\text{ above zero}", r"5\text{ below zero}", 0),
        (r"5\text{ degrees above zero}", r"5\text{ degrees below zero}", 0),
        (r"8\text{ in the morning}", r"8\text{ in the evening}", 0),
        (r"8\text{ morning}", r"8\text{ evening}", 0), (r"8\text{ AM}", r"8\text{ PM}", 0),
        (r"8\text{ am}", r"8\text{ pm}", 0), ("8", r"8\text{ pm}", 0),
        (r"6\text{ boys}", r"6\text{ girls}", 0), (r"6\text{ boys}", "6", 1),
        (r"5\text{ left}", r"5\text{ right}", 0), (r"5\text{ km east}", r"5\text{ km west}", 0),
        (r"20^\circ\text{C}", r"20^\circ\text{F}", 0), (r"5\text{ cm}", r"5\text{ m}", 0),
        (r"5\text{ cm}", r"5\text{ centimeters}", 1), (r"5\text{ cm}^2", r"5\text{ cm}^3", 0),
        (r"5\text{ square inches}", r"5\text{ in}^2", 1), (r"5\text{ dollars}", r"5\text{ cents}", 0),
        (r"\$5", r"5\text{ dollars}", 1), (r"\$5", "€5", 0), (r"5\text{ up}", r"5\text{ down}", 0),
        (r"5\text{ gain}", r"5\text{ loss}", 0), (r"5\text{ profit}", r"5\text{ loss}", 0),
        (r"2\text{ CE}", r"2\text{ BCE}", 0), (r"6\text{ red}", r"6\text{ blue}", 0),
        (r"5\text{ hours}", r"5\text{ minutes}", 0), (r"5\text{ true}", r"5\text{ false}", 0),
    ],
    "degrees inside a function": [
        (r"\cos60^\circ", r"\frac12", 1), (r"\cos(60^\circ)", r"\frac12", 1), (r"\cos 60", r"\frac12", 0),
        (r"\tan 45^{\circ}", "1", 1), (r"\tan 45", "1", 0), (r"2\cos 15^{\circ}", r"2\cos 15", 0),
        (r"2\cos 15^{\circ}", r"2\cos 15°", 1), (r"2\cos 15^{\circ}", r"2\cos \frac{\pi}{12}", 1),
        (r"2\cos 15^{\circ}", r"\frac{\sqrt6+\sqrt2}{2}", 1), (r"\sin^2 30^\circ", r"\frac14", 1),
        (r"\sin 30^\circ+\cos 60^\circ", "1", 1), (r"\sin\frac{60^\circ}{2}", r"\frac12", 1),
        (r"\sin\left(30^\circ\right)", r"\sin(30)", 0), (r"\theta=30^\circ", "30", 1),
        (r"\arcsin\frac12", r"30^\circ", 0),
        (r"\sin x", r"\sin x^\circ", 0),
    ],
    "percent of anything": [
        (r"33\frac{1}{3}\%", r"\frac13", 1),
        (r"33\frac{1}{3}\%", r"33\%", 0), (r"\frac{1}{2}\%", r"0.5\%", 1), (r"\frac{1}{2}\%", "0.5", 1),
        (r"\frac{1}{2}\%", "0.005", 1), (r"\frac{1}{2}\%", "50", 0), (r"20\%, 30\%", "0.2, 0.3", 1),
        (r"20\%, 30\%", "20, 30", 1), (r"20\%, 30\%", "20, 0.3", 0), (r"(50\%,25\%)", "(0.5,0.25)", 1),
        (r"(50\%,25\%)", r"(25\%,50\%)", 0), (r"x=20\%", r"20\%", 1), (r"\frac{2}{3}", r"66\frac23\%", 1),
        (r"\frac{2}{3}", r"\frac{200}{3}\%", 1), (r"\frac{2}{3}", r"66\%", 0), (r"62.5\%", r"\frac{5}{8}", 1),
        (r"62.5\%", r"62\frac12\text{ percent}", 1), (r"100\pi\%", r"\pi", 1), (r"25\%", r"\frac{1}{4}\%", 0),
        (r"12\frac12\%", r"\frac{25}{2}", 1),
    ],
    "words and choices in any dress": [
        ("Yes", "**Yes**", 1), ("Yes", r"\text{Yes}.", 1), ("Yes", r"\textbf{YES}", 1),
        ("Yes", r"\mathrm{Yes}", 1), ("Yes", r'"Yes"', 1),
        ("Yes", "Yes and no", 0), ("Yes", "Yes, no", 0),
        ("Yes", r"\text{The answer is no}", 0),
        ("Yes", "not yes", 0), ("Yes", "Not necessarily", 0), ("Yes", "Yess", 0), ("Yes", "maybe", 0),
        ("Yes", "Yes/No", 0), ("Yes", "Yes or No", 0), ("Yes", r"\text{Yes or no}", 0),
        ("No", r"\text{No}", 1), ("No", r"\text{No, but yes}", 0),
        ("No", "nO", 0), ("No", "Not", 0), ("No", "None", 0),
        ("True", r"\text{The statement is not true}", 0),
        ("True", r"\text{The statement is false}", 0),
        ("False", "not false", 0),
        ("True", r"\boldsymbol{True}", 1), ("True", r"{\rm True}", 1), ("True", r"\mathbf{True}", 1),
        ("True", "`True`", 1), ("True", "T", 0), ("True", "True or False", 0),
        ("True", r"\text{True}\checkmark", 0),
        ("True", "It is not the case that this is true", 0), ("B", r"\text{(B)}", 1), ("B", "(B)", 1),
        ("B", "B.", 1), ("B", "B)", 1), ("B", r"\textbf{(B)}", 1), ("B", r"\textbf{(B) } 42", 1),
        ("B", r"\mathbf{B}", 1),
        ("B", "(C)", 0), ("B", "(B) or (C)", 0), ("B", "B, C", 0), ("B", r"\text{not B}", 0), ("B", "BC", 0),
        ("B", r"\text{B and C}", 0), (r"\text{(B)}", r"\mathrm{B}", 1), (r"\text{(B)}", "b", 0),
        (r"\textbf{(B)}", "B", 1), (r"\text{Monday}", "**Monday**", 1),
        (r"\text{Monday}", r"\textit{Monday}.", 1), (r"\text{even}", r"{\bf even}", 1),
        (r"\text{even}", r"\text{not even}", 0), (r"\text{even}", r"\text{neither}", 0),
        ("neither", r"\text{neither}", 1),
    ],
    "plus or minus": [
        (r"1\pm\sqrt2", r"1+\sqrt2,1-\sqrt2", 1),
        (r"\frac{1\pm i\sqrt3}{2}", r"\frac{1+i\sqrt3}{2},\frac{1-i\sqrt3}{2}", 1),
        (r"x=\frac{-1\pm\sqrt5}{2}", r"x=\frac{-1+\sqrt5}{2}\text{ or }x=\frac{-1-\sqrt5}{2}", 1),
        (r"\frac{-1+\sqrt5}{2},\frac{-1-\sqrt5}{2}", r"\frac{-1\pm\sqrt5}{2}", 1),
        (r"\frac{-1\pm\sqrt5}{2}", r"\frac{1\pm\sqrt5}{2}", 0),
        (r"\frac{-1\pm\sqrt5}{2}", r"\frac{-1+\sqrt5}{2}", 0),
        (r"\pm1\pm\sqrt2", r"1+\sqrt2,1-\sqrt2,-1+\sqrt2,-1-\sqrt2", 1),
        (r"\pm1\pm\sqrt2", r"1+\sqrt2,-1-\sqrt2", 0), (r"\pm2,\pm3", "2,-2,3,-3", 1),
        (r"\pm2,\pm3", "2,3", 0), (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1+\sqrt5,1-\sqrt5\}", 1),
        (r"\pm\sqrt{2\pm\sqrt2}", r"\sqrt{2+\sqrt2},-\sqrt{2+\sqrt2},\sqrt{2-\sqrt2},-\sqrt{2-\sqrt2}", 1),
        ("(1,2),(1,-2)", r"(1,\pm2)", 1), ("(1,2)", r"(1,\pm2)", 0), (r"\pm\sqrt{3}", r"\pm\sqrt{2}", 0),
        (r"y=\pm x", "y=x,y=-x", 1), ("2", r"\pm2", 0), (r"\pm 2", "2", 0),
    ],
    "the same text with other spaces or braces": [
        (r"\frac{1}{2}n\equiv1\pmod3", r"\frac12 n \equiv 1 \pmod{3}", 1),
        (r"x\equiv 3\pmod{7}", r"x \equiv 3 \pmod 7", 1), (r"x\equiv 3\pmod{7}", r"x \equiv 3 \pmod 5", 0),
        (r"x\equiv 3\pmod{7}", r"x \equiv 4 \pmod 7", 0), (r"x\equiv 3\pmod{7}", "3", 0),
        (r"3\pmod{7}", r"x \equiv 3\pmod{7}", 0), (r"AB \parallel CD", r"AB\parallel CD", 1),
        (r"AB \parallel CD", r"AC\parallel BD", 0), (r"\vec{a}\cdot\vec{b}", r"\vec a \cdot \vec b", 1),
    ],
    "equal for positive variables only": [
        (r"\sqrt{\frac{a}{b}}", r"\frac{\sqrt a}{\sqrt b}", 1), (r"\sqrt{ab}", r"\sqrt{a}\sqrt{b}", 1),
        (r"\ln(ab)", r"\ln a+\ln b", 1), (r"\sqrt{x^2}", "x", 0), ("|x|", "x", 0),
        (r"\sqrt{x^2y}", r"x\sqrt y", 0),
        (r"x\sqrt{1-x^2}", r"\sqrt{x^2-x^4}", 0), (r"\sqrt{x}", r"-\sqrt{x}", 0), (r"\sqrt{n}", "n", 0),
        (r"\frac{1}{\sqrt{n}}", r"\frac{\sqrt n}{n}", 1), (r"\sqrt[3]{x^3}", "x", 1),
        (r"\sqrt{1/n}", r"\sqrt{n}", 0), (r"\ln\frac{a}{b}", r"\ln a-\ln b", 1),
        (r"\ln\frac{a}{b}", r"\ln b-\ln a", 0),
    ],
    "roots": [
        (r"\sqrt{3}", r"\sqrt(3)", 1), (r"\sqrt{3}", "sqrt(3)", 1), (r"\sqrt{3}", "√3", 1),
        (r"\sqrt{13}", "√13", 1), (r"\sqrt{13}", "√(13)", 1), (r"2\sqrt{x+1}", r"2\sqrt(x+1)", 1),
        (r"\sqrt[3]{2}", r"\sqrt[3](2)", 1), (r"\sqrt[3]{2}", r"\sqrt(2)", 0),
        (r"\frac{\sqrt{3}}{2}", r"\frac{\sqrt(3)}{2}", 1), (r"\sqrt{2}+1", r"\sqrt(2)+1", 1),
        (r"\sqrt{3}", r"\sqrt(2)", 0), (r"\sqrt{(x+1)(x-1)}", r"\sqrt((x+1)(x-1))", 1),
        (r"\sqrt{2}", r"\sqrt 2", 1),
    ],
    "intervals, inequalities, set builders": [
        ("(1,3)", "1<x<3", 1), ("(1,3)", r"1<x\le3", 0), ("[1,3]", r"1\leq x\leq 3", 1),
        ("[1,3]", r"1\le y\le 3", 1), (r"(-\infty,2]", r"x\le 2", 1), (r"(-\infty,2]", "x<2", 0),
        (r"(2,\infty)", "x>2", 1), (r"(2,\infty)", "2<x", 1), (r"(2,\infty)", r"\{x : x>2\}", 1),
        (r"(2,\infty)", r"\{x\in\mathbb{R}\mid x>2\}", 1), (r"(2,\infty)", r"\{x \,|\, x>2\}", 1),
        (r"(2,\infty)", r"\{x\mid x<2\}", 0), ("x>2", r"\{x|x>2\}", 1), ("x>2", r"x\in(2,\infty)", 1),
        ("x>2", r"x\in[2,\infty)", 0), (r"\{x\mid x>2\}", r"(2,\infty)", 1), (r"\{x\mid x>2\}", "x>2", 1),
        (r"\{x\mid x>2\}", r"[2,\infty)", 0), (r"(-\infty,-1)\cup(3,\infty)", r"x<-1\text{ and }x>3", 0),
        (r"(-\infty,-1)\cup(3,\infty)", "x>3 or x<-1", 1),
        (r"(-\infty,-1)\cup(3,\infty)", r"x\le-1\text{ or }x>3", 0),
        (r"(-\infty,-1)\cup(3,\infty)", "(-1,3)", 0),
        (r"(-\infty,-1)\cup(3,\infty)", r"(-\infty,-1),(3,\infty)", 0),
        (r"x<-1\text{ or }x>3", r"(-\infty,-1)\cup(3,\infty)", 1),
        (r"x<-1\text{ or }x>3", r"x>3\text{ or }x<-1", 1), (r"x<-1\text{ or }x>3", "-1<x<3", 0),
        (r"(-\infty,2)\cup(2,\infty)", r"x\neq2", 1), (r"x\neq2", r"(-\infty,2)\cup(2,\infty)", 1),
        (r"x\neq2", r"\mathbb{R}\setminus\{2\}", 1),
        (r"(-\infty,2)\cup(2,\infty)", r"\mathbb{R}\setminus\{2\}", 1),
        ("(1,3)", r"x>1\text{ or }x<3", 0), (r"(1,\infty)", "x^2>1", 0),
        ("(-1,1)", "|x|<1", 0), (r"k\geq 2", r"[2,\infty)", 1), (r"k \geqslant 2", r"k\ge2", 1),
        (r"k \geqslant 2", "k>2", 0), ("(0,1]", "0 < t <= 1", 1), ("[0,1)", "0 < t <= 1", 0),
        ("[-2,7]", r"x\in[-2,7]", 1), ("[-2,7]", r"\{x\mid -2\le x\le 7\}", 1), (r"a\le b", r"b\ge a", 1),
        (r"\mathbb{R}", r"(-\infty,\infty)", 1), (r"\mathbb{R}", r"-\infty<x<\infty", 1),
        (r"(2,\infty)", r"(2,\infty]", 0), (r"(-\infty,2)", r"[-\infty,2)", 0),
    ],
    "spaces between thousands": [
        ("1234567", "1 234 567", 1), ("1234567", "1{ }234{ }567", 1), ("1234567", r"1\;234\;567", 1),
        ("12345", "12 345", 1), ("12345", r"12\,345", 1), ("12345", "1 2345", 0), ("12345", "12 34 5", 0),
        ("12345.5", "12 345.5", 1), ("-12345", "-12 345", 1), ("12345, 678", "12 345, 678", 1),
        ("12345", "12 346", 0), ("x=12345", r"x=12\ 345", 1), ("10000", r"10 000\text{ km}", 1),
        ("2", "1 000", 0),
    ],
    "currencies and other scripts": [
        ("5", "£5", 1), ("5", "5€", 1), ("5", "¥5", 1), ("5", r"5\text{ km}", 1), ("5", r"5\text{厘米}", 1),
        ("5", r"5\text{ кг}", 1), ("5", "5 см", 1),
        ("5", r"5\text{ euros}", 1), ("5", r"5\text{ USD}", 1),
        ("5", "₹5", 1), ("5", r"5\text{个}", 1), ("5.50", "€5.50", 1),
        ("5", r"5\text{不}", 0),
    ],
    "units as formulas": [
        ("5", r"5\ \mathrm{m\,s^{-2}}", 1), ("5", r"5\ \mathrm{m}\,\mathrm{s}^{-1}", 1),
        ("5", r"5\ \frac{\mathrm{m}}{\mathrm{s}^2}", 1), ("5", r"5\ m/s", 1), ("5", "5 m/s^2", 1),
        ("5", r"5\,\text{m}^{2}", 1), ("5", "5 km/h", 1), ("5", r"5\text{ m/s}", 1),
        ("5", r"5\frac{m}{s}", 1), ("5", r"5 \text{ kg} \cdot \text{m/s}^2", 1),
        ("5", r"5\ \mathrm{kg\cdot m^2/s^2}", 1), ("5", r"5\text{ W/m}^2", 1),
        (r"5\text{ m/s}", r"5\text{ m/s}^2", 0), (r"5\text{ m/s}", r"5\frac{\text{m}}{\text{s}}", 1),
        (r"5\text{ m/s}", r"5\text{ s/m}", 0), ("5m^2", "5", 0), ("5", "5x^2", 0), ("5", r"5\frac{x}{y}", 0),
        ("5", r"5\frac{1}{2}", 0),
        ("5", r"5\text{ square units}", 1), ("3m/s", "3", 0),
    ],
    "a condition behind the answer": [
        (r"\frac{\pi}{4}+k\pi", r"\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", 1),
        (r"\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"\frac{\pi}{4}+k\pi", 1),
        (r"\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"\frac{\pi}{4}+k\pi \text{ for } k \in \mathbb{Z}", 1),
        (r"\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"\frac{\pi}{4}+k\pi, k\in\mathbb{N}", 0),
        (r"x=\frac{\pi}{4}+k\pi", r"x=k\pi+\frac{\pi}{4}\quad(k\in\mathbb Z)", 1),
        (r"\frac{\pi}{4}+k\pi", r"\frac{\pi}{4}+2k\pi\ (k\in\mathbb{Z})", 0),
        (r"\frac{\pi}{4}+k\pi", r"\frac{\pi}{4}+k\pi\ \forall k\in\mathbb{Z}", 1),
        ("2n", r"2n, n \in ℤ", 1),
        (r"\beta\in\mathbb{R}", r"\beta", 0), (r"k\pi", r"k\pi, k\in\mathbb{R}", 0),
    ],
    "angle brackets": [
        (r"\langle1,2\rangle", "(2,1)", 0), ("(1,2,3)", r"\langle1,2,3\rangle", 1),
        ("(1,2,3)", r"\left\langle 1,2,3\right\rangle", 1), ("(1,2,3)", "⟨1,2,3⟩", 1),
        ("(1,2,3)", r"\langle1,3,2\rangle", 0),
        (r"\langle 1,2\rangle", r"\langle 1,2\rangle", 1),
    ],
    "what nothing but its text can match": [
        (r"\gcd(n,p-1)", r"\gcd(n,p-3)", 0), (r"\gcd(n,p-1)", "1", 0), (r"\gcd(n,p-1)", r"\gcd(n,-1+p)", 1),
        (r"\gcd(n,m)", r"\lcm(n,m)", 0), (r"\gcd(n,p-1)", r"\gcd(n, p-1)", 1), ("f(0)=0", "f(0)=1", 0),
        ("f(0)=0", "f(8)=0", 0), ("f(0)=0", "f(0)=0", 1), ("e^{108}", "e^{108}+1", 0),
        ("e^{108}", "e^{100}e^8", 1),
    ],
    "what reads alike": [
        ("5", r"5\text{ (approximately)}", 0), ("5", r"\approx 5", 0), ("5", "5.0000001", 0),
        (r"\frac12", r"\frac12\text{ or }2", 0), ("5", r"5\text{ or }-5", 0), ("5", r"x\ne5", 0),
        ("5", r"\neg 5", 0), ("5", "5 (6)", 0), ("5", r"5\ (6)", 0), ("-5", "5^-", 0), ("2,3", "(2,3)", 1),
        ("(2,3)", "2,3", 1), (r"\{1\}", "1", 1), ("1", "(1)", 1), ("1", "[1]", 1), ("[1,2]", "(1,2)", 0),
        ("(1,2)", "]1,2[", 0), ("5", "-(-5)", 1), ("x^2", "x^{-2}", 0), (r"\frac{a}{b}", r"\frac{b}{a}", 0),
        ("2^3", "3^2", 0), ("a^b", "b^a", 0), (r"\binom{5}{2}", r"\binom{2}{5}", 0),
        (r"\binom{5}{2}", r"\binom{5}{3}", 1), ("P(5,2)", "P(2,5)", 0), ("10", r"\text{ten}", 0),
        (r"\text{ten}", "10", 0), ("1.5", "1,5", 0), ("1,5", "1.5", 0), ("0.5", ".5", 1),
        (r"\infty", r"-\infty", 0), (r"\infty", r"+\infty", 1), (r"\infty", r"\text{infinity}", 0),
        (r"\text{DNE}", r"\text{does not exist}", 0), (r"\text{no solution}", r"\text{No solution}", 1),
        (r"\text{no solution}", r"\emptyset", 0), (r"\text{None}", r"\text{none}", 1),
        (r"\text{red}", r"\text{Red}", 1), (r"\text{red}", r"\text{not red}", 0),
        (r"\text{red}", r"\text{red and blue}", 0), (r"\text{red}", r"\text{The answer is red}", 0),
        (r"\text{parabola}", r"\text{a parabola}", 0), (r"\text{Alice and Bob}", r"\text{Bob and Alice}", 0),
        (r"\text{two lines}", r"\text{two circles}", 0),
        (r"\text{increasing}", r"\text{decreasing}", 0), (r"\text{True}", r"\text{true}", 1),
        (r"\text{False}", r"\text{F}", 0), ("Yes", "Y", 0), ("Yes", r"\checkmark", 0),
        ("Yes", r"\text{Yes } (1)", 0), ("Yes", "True", 0),
        ("True", "Yes", 0), ("Yes", r"\text{Yes (no)}", 0), ("Yes", "Yes.No", 0),
        ("Yes", r"\text{Yes; no}", 0), ("Yes", "1", 0), ("True", "1", 0), ("C", r"\text{C}_1", 0),
        ("C", "C_1", 0), ("C", "c", 0), ("C", r"\complement", 0), ("(A)", "A", 1), ("(A)", "(B)", 0),
        (r"\textbf{(A) } 5", "5", 0), (r"\text{A}", r"\text{A or B}", 0), ("A", "A: yes", 1),
        ("A", "A. 5 and B. 6", 0), ("A", "(A) and (B)", 0), ("A", "(A), (B)", 0), ("A", "(A)(B)", 0),
        ("1", r"\text{I}", 0), ("I", "1", 0), ("II", "11", 0), (r"3:30\text{ PM}", r"3:30\text{ AM}", 0),
        (r"3:30\text{ PM}", "3:30", 0),
        ("3:4", "4:3", 0), ("7", r"7\text{th}", 0), (r"\sin x", r"\sin(x)", 1), (r"\sin x", r"\sin y", 0),
        (r"\sin x", r"x\sin", 0), (r"\sin 30", r"\frac{1}{2}", 0), (r"\sin^{-1}\frac12", "30", 0),
        (r"\sin^{-1}\frac12", r"\frac{\pi}{6}", 1), (r"\arctan 2", r"\tan 2", 0),
        (r"\cos^2 x", r"\cos x^2", 0), (r"\log x", r"\ln x", 0), (r"\log_2 8", "3", 1), ("|z|", "z", 0),
        (r"\bar{z}", "z", 0), (r"\vec{v}", "v", 0), (r"\mathbf{v}", "v", 1), ("x'", "x", 0),
        (r"\dot{x}", "x", 0), (r"\dot{x}", r"\ddot{x}", 0), (r"\hat{x}", "x", 0), ("x_1", "x_2", 0),
        ("x_{12}", "x_{1}2", 0), ("x^{-1}", r"\frac1x", 1), (r"\frac{1}{2}x", r"\frac{1}{2x}", 0),
        (r"\sqrt{x+1}", r"\sqrt{x}+1", 0), (r"\sqrt2+1", r"\sqrt{2+1}", 0), ("(n+1)!", "n+1!", 0),
        (r"\mathbb{R}", "R", 0), (r"\mathbb{Z}", r"\mathbb{N}", 0), (r"\mathbb{R}^2", r"\mathbb{R}", 0),
        ("A^T", "A", 0), ("A^{-1}", "A", 0), (r"A\cap B", r"A\cup B", 0),
        (r"A\setminus B", r"B\setminus A", 0), ("AB", "A+B", 0), (r"(0,1)\cup(1,2)", "(0,2)", 0),
        (r"[0,\infty)", r"x\geq0", 1), (r"x\ge0", r"x\le0", 0), ("x>y", "y<x", 1), ("x>y", "y>x", 0),
        ("x>y", "x>z", 0), ("-1<x<1", "|x|<1", 0), ("x=1", r"x=1\text{ or }x=2", 0), ("x=1,2", "x=1,x=2", 1),
        ("x=1,2", "1,2", 1), ("x=1,2", "x=2,1", 1), ("x=1,2", "x=1", 0), (r"x=\pm1", "x=1,x=-1", 1),
        (r"x=\pm1", r"\pm1", 1), (r"x=\pm1", "x=1", 0), ("n=2k", "n=2k+1", 0), ("2k", "2n", 0),
        ("f(x)=x^2", "x^2", 1), ("f(x)=x^2", "g(x)=x^2", 0), ("f(x)=x^2", "f(x)=x^3", 0),
        ("f(x)=x^2", "f(y)=y^2", 0), ("y=x^2", "x^2", 1), ("y=x^2", "x=y^2", 0), ("y=x^2", "y=-x^2", 0),
        ("x^2+y^2=4", "x^2+y^2=2", 0), ("x^2+y^2=4", "4-x^2=y^2", 1), ("2x+3y=6", "4x+6y=12", 1),
        ("2x+3y=6", "2x+3y-6", 0),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}", 0),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", 1),
        ("1+2i", "2+i", 0), ("1+2i", "1+2j", 0), (r"10\%", r"0.1\%", 0),
        (r"10\%", r"10\text{ percentage points}", 0), (r"10\%", "0.10", 1), (r"10\%", "1.0", 0),
        ("2^T", "2", 0), ("e^{T}", "e", 0), ("A^T", "A", 0), ("A^TA", "AA^T", 0), ("A^T A", "A^{T}A", 1),
        ("f^{(2)}(x)", "f(x)^2", 0), ("S^1", "S", 0), ("S^1", "S^{1}", 1),
        (r"\vec{a}\times\vec{b}", r"\vec{b}\times\vec{a}", 0), (r"\Gamma", r"\gamma", 0),
        (r"\Delta", r"\delta", 0), (r"\Phi", r"\varphi", 0), (r"\phi", r"\varphi", 0),
        (r"\epsilon", r"\varepsilon", 0), (r"\Omega", r"\omega", 0), (r"\pi", r"\Pi", 0),
        (r"\Sigma", r"\sigma", 0), ("PDP^{-1}", "P^{-1}DP", 0), ("A^{-1}B", "BA^{-1}", 0), ("x^{1}", "x", 1),
        ("A", "A. 5 and B. 6", 0),
        (r"\frac{\Gamma(1/3)}{2}", r"\frac{\Gamma(1/2)}{2}", 0),
    ],
    "more members of the same kinds": [
        ("A", "(A) is wrong", 0), ("A", "(A) 5", 1), ("x=1,y=2", "2=x,1=y", 0), ("x=1,y=2", "1=x,2=y", 0),
        ("x=1,y=2", "x-1=0,y-2=0", 0), ("x=1,y=2", "x-2=0,y-1=0", 0), ("x=1,y=2", "x=1=y-1", 0),
        ("x=1,y=2", "y=x+1", 0), ("x=1, y=2", "x:y=1:2", 0), ("x=1,y=2", "x=2,y=2", 0),
        ("x=1,y=2", "x+y=3,x=1", 0), ("x=3", "3=x", 1), ("x=3", "x=3.0", 1), ("x=3", "x=3,4", 0),
        ("5", r"5\text{ (students)}", 1), ("12", r"12 = 3 \cdot 4", 1), ("12", r"3 \cdot 4 = 12", 1),
        ("12", r"3 \cdot 4 = 13", 0), ("12", "x=12=13", 0), ("B", "B = 5", 0), ("5", r"-5\text{ cm}", 0),
        ("-5", r"-\$5", 1), ("5", r"\$-5", 0), ("-5", r"\$-5", 1), ("1000", r"\$1{,}000", 1),
        ("1500", r"\$1.5\text{ thousand}", 0), ("12", r"12\text{ in.}", 1), ("12", "12''", 0),
        ("72", r"72\text{ beats per minute}", 0), ("5", r"5\text{ mph}", 1), ("5", r"5\ \text{km}^{2}", 1),
        ("5", r"5 \cdot \text{cm}", 0), ("5", r"\frac{5\text{ m}}{\text{s}}", 0), ("5", r"\text{cm }5", 0),
        ("5", r"5\text{ cm or }6\text{ cm}", 0), ("5,6", r"5\text{ cm}, 6\text{ cm}", 1),
        ("(5,6)", r"(5\text{ cm}, 6\text{ cm})", 1), ("(5,6)", r"(6\text{ cm}, 5\text{ cm})", 0),
        (r"\frac{1}{2}", r"\frac{1}{2}\text{ cup}", 1), (r"\pi", r"\pi\text{ cm}^2", 1),
        (r"25\pi", r"25\pi\text{ square units}", 1), (r"25\pi", r"25\pi\text{ squared}", 0),
        ("x", r"x\text{ cm}", 1), ("x", "x m", 0), ("2x", r"2x \text{ dollars}", 1),
        (r"\frac{5}{9}(F-32)", r"\frac{5}{9}(F-32)^\circ", 1), (r"30^\circ", r"\pi/6", 0),
        (r"30^\circ", r"30^\circ\text{C}", 0), ("0", r"0^\circ", 1), ("1:30", r"1:30\text{ PM}", 0),
        ("5", r"5^{\prime\prime}", 0), (r"2\text{ hours}", r"120\text{ minutes}", 0),
        (r"2\text{ m}", r"200\text{ cm}", 0), ("200", r"2\text{ m}", 0), ("1/2", r"50\%", 1),
        ("1/2", "50", 0), ("50", r"50\%", 1), (r"\frac{1}{2}\%", r"\frac{1}{2}", 1),
        ("Yes", r"\mathsf{Yes}", 1), ("Yes", r"\operatorname{Yes}", 1), ("Yes", r"\textsc{Yes}", 1),
        ("Yes", r"\underline{Yes}", 1), ("Yes", r"\color{red}{Yes}", 1),
        ("Yes", r"\textcolor{blue}{\text{Yes}}", 1), ("Yes", r"\cancel{Yes}", 0),
        ("Yes", r"\overline{Yes}", 0), ("A", r"\overline{A}", 0), ("B", r"\textcolor{red}{\textbf{B}}", 1),
        ("5", r"\color{red}{5}", 1), ("5", "{5}", 1), ("5", r"\mathbf{5}", 1), ("5", r"\boldsymbol{5}", 1),
        ("5", r"\underline{5}", 1), (r"\frac12", r"{\frac{1}{2}}", 1),
        (r"(-\infty,0)\cup(0,\infty)", r"\{x\in\mathbb{R}:x\ne0\}", 1),
        (r"(-\infty,0)\cup(0,\infty)", r"\{x\in\mathbb{R}\mid x\neq 0\}", 1),
        (r"(-\infty,0)\cup(0,\infty)", r"x\in\mathbb{R}\setminus\{0\}", 1),
        (r"(-\infty,0)\cup(0,\infty)", r"x\in(-\infty,0)\cup(0,\infty)", 1),
        (r"(-\infty,0)\cup(0,\infty)", r"(-\infty, 0) \cup (0, +\infty)", 1),
        (r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R}", 0),
        (r"(-\infty,-1)\cup(3,\infty)", r"\{x \mid x<-1 \text{ or } x>3\}", 1),
        (r"(-\infty,-1)\cup(3,\infty)", r"x>3 \text{ or } x \leq -1", 0),
        (r"(-\infty,-1)\cup(3,\infty)", r"(-\infty,-1)\text{ or }(3,\infty)", 0),
        ("(0,1)", r"0<x\le1", 0), (r"[1,\infty)", r"[1,+\infty)", 1),
        (r"[1,\infty)", r"\{t : t\geq 1\}", 1), ("[-1,1]", r"\{x | -1 \leq x \leq 1\}", 1),
        ("[-1,1]", r"\{x | -1 < x \leq 1\}", 0), (r"x\in[-1,1]", r"-1\le x\le1", 1),
        (r"-1\le x\le1", r"x\in[-1,1]", 1), (r"-1\le x\le1", r"x\in(-1,1]", 0),
        (r"\{1,2,3\}", r"\{x\in\mathbb{Z}: 1\le x\le3\}", 0), ("[1,3]", r"\{x\in\mathbb{Z}: 1\le x\le3\}", 0),
        (r"(-\infty,2]", r"2\ge x", 1), (r"x\le2", r"2\ge x", 1), ("a<b", "(a,b)", 0),
        (r"\emptyset", "x<1,x>2", 0), ("5", r"5\ m\,s^{-1}", 1), ("5", "5 ft/s^2", 1),
        ("5", r"5\text{ft}\cdot\text{lb}", 1), ("5", r"5\text{ часа}", 1),
        ("5", r"5\text{ рублей}", 1),
        ("5", r"5 \text{公里/小时}", 1), ("5", r"5\text{千}", 0),
        ("5", r"5\text{百}", 0), ("5", r"5\text{ тысяч}", 0), ("5", r"5\text{ millones}", 0),
        ("5", r"5\text{ mille}", 0), (r"\cot 10^\circ", r"\tan 80^\circ", 1),
        (r"\cos36^\circ", r"\frac{1+\sqrt5}{4}", 1), (r"\sin\frac{\pi}{6}", r"\sin30^\circ", 1),
        (r"\cos 1", r"\cos 1^\circ", 0), (r"\sqrt{4^n}", "2^n", 1), ("2^{-n/2}", r"\frac{1}{\sqrt{2^n}}", 1),
        (r"\sqrt[3]{ab}", r"\sqrt[3]{a}\sqrt[3]{b}", 1), ("|x|", r"\sqrt[3]{x^3}", 0),
        ("|x|", r"\sqrt{x^2}", 1), (r"2\ln x", r"\ln(x^2)", 1), (r"\ln x", r"\ln(-x)", 0),
        ("x^{3/2}", r"x\sqrt{x}", 1), ("-x^{3/2}", r"x\sqrt{x}", 0), (r"\sqrt{-x}", r"i\sqrt{x}", 0),
        (r"\pm\sqrt2\pm i", r"\sqrt2+i,\sqrt2-i,-\sqrt2+i,-\sqrt2-i", 1), ("1,2", r"\{1,2\}", 1),
        ("x=1,y=2", r"\begin{cases}x=2\\y=1\end{cases}", 0), ("x=1,y=2", r"x=2\text{ and }y=1", 0),
        ("x=1,y=2", "(2,1)=(x,y)", 0), ("x=1,y=2", "(x;y)=(2;1)", 0), ("x=1,y=2", "[x,y]=[2,1]", 0),
        ("x=1,y=2", r"\{x,y\}=\{2,1\}", 0), ("x=1,y=2", "x,y=2,1", 0), ("x=1,y=2", "x,y=1,2", 0),
        ("m=2,b=-3", "(m,b)=(-3,2)", 0), ("a=1,b=2", "(b,a)=(1,2)", 0), ("a=1,b=2", "a+b=3", 0),
        ("a=1,b=2", r"a=1\text{ or }b=2", 0), (r"\alpha=1,\beta=2", r"(\alpha,\beta)=(2,1)", 0),
        (r"\alpha=1,\beta=2", "(1,2)", 1), ("(x,y)=(1,2)", r"\{1,2\}", 0), ("(x,y)=(1,2)", "1,2", 0),
        ("(x,y)=(1,2),(2,1)", "(1,2),(2,1)", 1), ("(x,y)=(1,2),(3,4)", "(x,y)=(2,1),(4,3)", 0),
    ],
    "malformed": [
        ("5", "5)", 0), ("5", r"\boxed{5\}}", 0), ("5", "\\", 0), ("42", "The answer is 42", 0),
        ("5", "\ud800", 0), ("5", "5\x00", 0), ("42", "**42**", 1),
    ],
    "several boxes: the last complete one counts": [
        ("5", r"First \boxed{4}, but no: \boxed{5}.", 1), ("4", r"First \boxed{4}, but no: \boxed{5}.", 0),
        ("1,2", r"\boxed{1} and \boxed{2}", 0), ("2", r"\boxed{1} and \boxed{2}", 1),
        ("1", r"\boxed{1} and \boxed{2}", 0), ("5", r"\boxed{5}, \boxed{5}, \boxed{6}", 0),
        ("5", r"\boxed{x=\boxed{5}}", 1), ("6", r"\boxed{\boxed{5}+1}", 0),
        ("6", r"\boxed{5} + 1 = \fbox{6}", 1), ("5", r"\boxed{5} and then \boxed{6", 1),
        ("5", r"\boxed{5} and \boxed{}", 1),
        ("5", r"<think>Perhaps \boxed{4}?</think> The answer is $\boxed{5}$.", 1),
        ("4", r"<think>Perhaps \boxed{4}?</think> The answer is $\boxed{5}$.", 0),
        ("5", r"\boxed{4} " * 1000 + r"\boxed{5}", 1), ("5", r"\boxed{5} " * 1000 + r"\boxed{4}", 0),
        ("7", " ".join(rf"\boxed{{{i}}}" for i in range(10)), 0),
    ],
    "whole responses": [
        ("5", r"so the answer is 5, in a \boxed", 0), ("5", r"\boxed{5", 0), ("5", r"boxed{5}", 0),
        ("5", r"\boxed 5", 1), ("5", "```python\nprint(2 + 3)\n```\nprints $\\boxed{5}$.", 1),
        ("5", "```python\nbox = 5\nprint(box)\n```", 0), ("5", "print('\\\\boxed{5}')", 1),
        ("5", "因此答案是 $\\boxed{5}$。", 1), ("5", "因此答案是 $\\boxed{六}$。", 0),
        ("5", "Итак, ответ: $\\boxed{5}$.", 1), ("5", "إذن الجواب هو $\\boxed{٥}$", 1),
        ("5", "उत्तर $\\boxed{५}$ है", 1), ("5", "उत्तर $\\boxed{६}$ है", 0),
        ("5", "\\[\n\\boxed{\n  5\n}\n\\]", 1), ("5", r"$$\boxed{\textbf{5}}$$ 🎉", 1),
        ("5", r"\boxed{5 🎉}", 0), ("5", r"\begin{aligned} x &= 2+3 \\ &= \boxed{5} \end{aligned}", 1),
        ("5", r"\boxed{\text{The answer is } 5}", 0), ("5", r"\boxed{\text{answer}}", 0),
        ("5", r"\boxed{?}", 0),
    ],
}


# rows "gold  =>  answer", ";;" between them
WRONG = {
    "words between numbers, units of members": r"""
        3\text{ weeks and }2\text{ days}  =>  2\text{ weeks and }3\text{ days}
        3\text{ weeks}, 2\text{ days}  =>  2\text{ weeks}, 3\text{ days}
        5\text{ m}, 3\text{ s}  =>  5\text{ s}, 3\text{ m}
        x=5\text{ m}, y=3\text{ s}  =>  x=5\text{ s}, y=3\text{ m}
        5\text{ heads and }3\text{ tails}  =>  3\text{ heads and }5\text{ tails}  ;;  3\text{ of }5  =>  0.6
        2\text{ pairs of }6  =>  6\text{ pairs of }2  ;;  7\text{ to }3  =>  3\text{ to }7
        5\text{ remainder }2  =>  10  ;;  5\text{ R }2  =>  10
        1\text{ and }2\text{ thirds}  =>  2\text{ and }1\text{ thirds}
        \$5\text{ and }3\text{ cents}  =>  \$3\text{ and }5\text{ cents}  ;;  \text{June }5  =>  \text{May }5
        2\text{ red}, 3\text{ blue}  =>  3\text{ red}, 2\text{ blue}
        4\text{ boys}, 3\text{ girls}  =>  3\text{ boys}, 4\text{ girls}
    """,
    "logic": r"""
        dx\wedge dy  =>  dx\,dy  ;;  p\land q  =>  p\lor q  ;;  p\land q  =>  p, q  ;;  p\lor q  =>  q\to p
        p\Rightarrow q  =>  q\Rightarrow p  ;;  p\iff q  =>  p\Rightarrow q  ;;  x>1\land y>2  =>  x>1\lor y>2
        x>1\text{ and }y>2  =>  x>1\text{ or }y>2  ;;  x>1, y>2  =>  x>1\text{ or }y>2
        x=1\land y=2  =>  x=1\lor y=2  ;;  x=1\text{ and }y=2  =>  x=1\text{ or }y=2
        p\text{ and }q  =>  p\text{ or }q
    """,
    "operators that may not commute": r"""
        A\oplus B  =>  A\otimes B  ;;  a\vee b  =>  a\wedge b  ;;  \omega\wedge\eta  =>  \eta\wedge\omega
        f\ast g  =>  g\cdot f  ;;  f*g  =>  gf+1  ;;  A\times B  =>  B\times A  ;;  m\times n  =>  n\times m
        3\times 4  =>  4\times 3  ;;  3\times 4  =>  12  ;;  2\times n  =>  n\times 2
        \vec a\times\vec b  =>  \vec b\times\vec a  ;;  \nabla\cdot F  =>  \nabla\times F
        \nabla f  =>  f\nabla  ;;  \nabla^2 f  =>  (\nabla f)^2
        \mathbf{A}\mathbf{B}  =>  \mathbf{B}\mathbf{A}  ;;  \hat{A}\hat{B}  =>  \hat{B}\hat{A}
        \mathcal{A}\mathcal{B}  =>  \mathcal{B}\mathcal{A}  ;;  2AB  =>  2BA  ;;  A^2B  =>  BA^2
        AB\cdot CD  =>  AC\cdot BD  ;;  \frac{AB}{CD}  =>  \frac{BA}{DC}  ;;  AB^2+BC^2  =>  BA^2+CB^2
        ABA^{-1}  =>  B
    """,
    "functions, derivatives, indices": r"""
        f^{-1}(x)  =>  \frac1{f(x)}  ;;  f^{-1}  =>  \frac1f  ;;  g^{-1}(3)  =>  \frac{1}{g(3)}
        \sin^{-1}x  =>  \frac1{\sin x}  ;;  \cos^{-1} x  =>  \sec x  ;;  f^{(4)}(0)  =>  f(0)^4
        y^{(n)}  =>  y^n  ;;  y^{(3)}+y=0  =>  y^3+y=0
        y'' + y = 0  =>  y'y' + y = 0  ;;  f''(x)  =>  f'(x)
        f(x+1)  =>  f(x)+f(1)  ;;  f(xy)  =>  f(x)y  ;;  y(2t)  =>  2y(t)  ;;  g(f(x))  =>  f(g(x))
        f(g(x))  =>  f g(x)  ;;  f\circ g  =>  g\circ f  ;;  f'g  =>  fg'  ;;  x_n+1  =>  x_{n+1}
        a_{n-1}  =>  a_n-1  ;;  x^{2}_1  =>  x_1^{2}+0.1  ;;  2^{n+1}  =>  2^n+1
    """,
    "numbers that are nearly equal": r"""
        1-\frac1{10^6}  =>  0.999998  ;;  1-\frac1{10^6}  =>  1  ;;  1-\frac1{10^6}  =>  1.00000
        1-\frac{1}{10^{9}}  =>  1  ;;  \frac12+\frac13  =>  0.83  ;;  \frac12+\frac13  =>  0.833
        \frac{1}{3}+\frac{1}{10^{8}}  =>  \frac13  ;;  e^{100}  =>  e^{100}+1  ;;  e^{-100}  =>  0
        e^{-1000}  =>  0  ;;  1+e^{-1000}  =>  1
        \sqrt{10^{40}+1}  =>  10^{20}  ;;  \sqrt{1+10^{-60}}  =>  1
        \pi  =>  \frac{355}{113}  ;;  \pi  =>  3.14160  ;;  \pi  =>  3.141593654  ;;  x+10^{-30}  =>  x
        \frac{x}{1+10^{-40}}  =>  x  ;;  e^{\pi\sqrt{163}}  =>  262537412640768744  ;;  \cos(10^{-20})  =>  1
        1.0000001  =>  1  ;;  \sqrt{2}  =>  1.41422  ;;  \sqrt{2}  =>  1.414  ;;  \frac{2}{3}  =>  0.666668
        \tan(1.57079632679)  =>  \tan(1.5707963268)
    """,
    "times, dates, ratios": r"""
        8:30  =>  4:15  ;;  12:30  =>  2:05  ;;  1:30:00  =>  2:60:00  ;;  1990-05-12  =>  1990-12-05
        5/12/1990  =>  12/5/1990  ;;  2020/1/2  =>  1010  ;;  0:1:2  =>  0:1:3  ;;  1:2:0  =>  2:4:1
        6:8  =>  3:5  ;;  0:5  =>  0:7  ;;  10:30  =>  1:3  ;;  3-5  =>  5-3
    """,
    "signs with several meanings": r"""
        5!!  =>  (5!)!  ;;  5!!  =>  5!  ;;  23  =>  2**3  ;;  z^2  =>  |z|^2  ;;  |A|^2  =>  A^2
        \|v\|^2  =>  v^2  ;;  \|v\|  =>  |v|  ;;  5\text{ cm}  =>  5\%  ;;  5\%  =>  5\text{ cm}
        \lfloor x\rfloor  =>  x  ;;  \lfloor x\rfloor  =>  \lceil x\rceil
        [x]  =>  x  ;;  n-[n/2]  =>  n-n/2
        \{x\}  =>  x  ;;  n \bmod 2  =>  2n  ;;  \binom{n}{k}  =>  \binom{k}{n}
        \left(\frac{a}{p}\right)  =>  \frac{p}{a}  ;;  \left(\frac{2}{3}\right)^n  =>  \frac{2^n}{3}
        \overline{z}  =>  z  ;;  \bar z  =>  z  ;;  z\bar{w}  =>  \bar{z}w  ;;  A^\top  =>  A  ;;  A^*  =>  A
        A'  =>  A  ;;  x^*  =>  x  ;;  x^+  =>  x  ;;  \Re(z)  =>  z  ;;  \arg z  =>  z
    """,
    "bases and units": r"""
        101_{\text{two}}  =>  101_{\text{three}}  ;;  101_2  =>  101_3  ;;  (101)_2  =>  (101)_3
        5\text{ mm}  =>  5\text{ Mm}  ;;  5\text{ mW}  =>  5\text{ MW}  ;;  5\text{ kg}  =>  5\text{ Kg m}
        5\text{ s}  =>  5\text{ S}  ;;  5\text{ m/s}  =>  5\text{ ms}  ;;  5\text{ m}^2  =>  5\text{ m}^3
    """,
    "sets of sets": r"""
        \{\{1,2\},\{3\}\}  =>  \{\{1\},\{2,3\}\}  ;;  \{\{1,2\}\}  =>  \{1,2\}  ;;  \{(1,2)\}  =>  \{1,2\}
        \{\{1\}\}  =>  \{1\}  ;;  \{1\}  =>  \{\{1\}\}  ;;  (\{1\},\{2\})  =>  (\{2\},\{1\})
        ((1,2),3)  =>  (1,2,3)  ;;  ((1,2),3)  =>  (1,(2,3))
    """,
    "decimals, formulas of chemistry and physics": r"""
        0.3  =>  0.3...  ;;  0.3  =>  0.\overline{3}  ;;  0.\overline{12}  =>  0.1\overline{2}
        1s^2 2s^2  =>  1s^1 2s^3  ;;  H_2O  =>  H_2 O_2  ;;  CO_2  =>  C_2O  ;;  Na^+  =>  Na^-
        |0\rangle  =>  0  ;;  \langle x\rangle  =>  x  ;;  \langle a, b\rangle  =>  \langle b, a\rangle
        [A,B]  =>  [B,A]  ;;  [A,B]  =>  AB-BA  ;;  (12)(34)  =>  408  ;;  (12)(34)  =>  (34)(12)
        (1 2)  =>  12
    """,
    "analysis": r"""
        \int_0^1 x\,dx  =>  \int_0^1 y\,dx  ;;  \int_0^1 f  =>  \int_1^0 f  ;;  \int f dx  =>  f x
        \lim_{x\to0} f  =>  \lim_{x\to1} f  ;;  \frac{dy}{dx}  =>  \frac{y}{x}
        \frac{dy}{dx}  =>  \frac{dx}{dy}  ;;  \frac{d^2y}{dx^2}  =>  \left(\frac{dy}{dx}\right)^2
        \frac{\partial f}{\partial x}  =>  \frac{f}{x}  ;;  dy/dx  =>  y/x  ;;  x\,dy-y\,dx  =>  0
        dx\,dy  =>  dy\,dx
    """,
    "algebra and probability": r"""
        \mathbb{Z}  =>  Z  ;;  \mathbb{Z}/2\mathbb{Z}  =>  \frac12
        \mathbb{Z}_2\times\mathbb{Z}_3  =>  \mathbb{Z}_3\times\mathbb{Z}_2+1
        \mathbb{R}^2  =>  \mathbb{R}^3
        \mathbb{R}\setminus\{0\}  =>  \mathbb{R}\setminus\{1\}  ;;  \mathbb{Q}\cap[0,1]  =>  [0,1]
        x\equiv3\pmod7  =>  x=3  ;;  x\equiv3\pmod7  =>  x\equiv 3\pmod 5  ;;  a\mid b  =>  b\mid a
        a\mid b  =>  |ab|  ;;  P(A\cap B)  =>  P(A)P(B)  ;;  E[X^2]  =>  E[X]^2  ;;  E(X)^2  =>  E(X^2)
        \text{Var}(X)  =>  \text{Var}(Y)
    """,
    "geometry": r"""
        \angle A=30  =>  \angle B=30  ;;  \triangle ABC\sim\triangle DEF  =>  \triangle DEF\sim\triangle ABC+1
        \overline{AB}  =>  \overline{BA}+0\cdot x  ;;  AB\parallel CD  =>  AC\parallel BD
        AB\perp CD  =>  AB\parallel CD
    """,
    "relations and sets": r"""
        x\ne 1  =>  x=1  ;;  x\approx 5  =>  x=5  ;;  \sim 5  =>  5  ;;  x\to 0  =>  0  ;;  x\propto y  =>  xy
        x^2+y^2=1  =>  x^2+y^2=2  ;;  y=x+1  =>  x=y+1  ;;  x+y=0  =>  x-y=0  ;;  xy=1  =>  x=1
        x^2=4  =>  x=2  ;;  (x-1)(x-2)=0  =>  x-1=0  ;;  x>1  =>  x>1, x>2\text{ and }y  ;;  x<y<z  =>  x<z<y
        x\le y  =>  x<y  ;;  x<y  =>  -x<-y  ;;  |x|<1  =>  x<1  ;;  x>0  =>  \frac1x>1  ;;  1<x<2  =>  2<x<1
        (1,2)\cup(3,4)  =>  (1,2)\cap(3,4)  ;;  (1,2)\cup(3,4)  =>  (1,2),(3,4)
        (-\infty,a)  =>  (a,\infty)
        [a,b]  =>  [b,a]  ;;  [0,1]  =>  \{0,1\}  ;;  A\cup B  =>  A\cap B  ;;  A\cup B  =>  A+B
        A\Delta B  =>  AB\Delta  ;;  A^c  =>  A  ;;  A\subset B  =>  B\subset A
    """,
    "matrices": r"""
        \begin{pmatrix}1&2\\3&4\end{pmatrix}  =>  \begin{pmatrix}1&3\\2&4\end{pmatrix}
        \begin{pmatrix}1&2\\3&4\end{pmatrix}  =>  -2
        \begin{pmatrix}1\\2\end{pmatrix}  =>  \begin{pmatrix}1&2\end{pmatrix}
        \begin{pmatrix}1&0\\0&1\end{pmatrix}  =>  I
        \begin{cases}1&x>0\\0&x\le0\end{cases}  =>  \begin{cases}1&x\le0\\0&x>0\end{cases}
        \begin{pmatrix}1&2\\3&4\end{pmatrix}^2  =>  \begin{pmatrix}1&4\\9&16\end{pmatrix}
    """,
    "functions": r"""
        \max(a,b)  =>  \min(a,b)  ;;  \max\{1,2\}  =>  1  ;;  \gcd(a,b)  =>  ab  ;;  \log_2 x  =>  \log_x 2
        \ln^2 x  =>  \ln x^2  ;;  \ln\ln x  =>  \ln x  ;;  \sin x^2  =>  \sin^2 x  ;;  \sin(x)y  =>  \sin(xy)
        \sqrt{x}y  =>  \sqrt{xy}  ;;  \sqrt[3]{x}  =>  \sqrt{x}  ;;  \sqrt[n]{x}  =>  \sqrt{x}
        x^{1/3}  =>  x^{1/2}  ;;  e^x  =>  ex  ;;  e^{x}y  =>  e^{xy}  ;;  2^{3^2}  =>  64  ;;  -1^2  =>  1
        -2^2  =>  4  ;;  (-8)^{1/3}  =>  2
    """,
    "complex numbers, sums, words": r"""
        i  =>  -i  ;;  i  =>  j  ;;  1+i  =>  1-i  ;;  e^{i\pi}  =>  1  ;;  e^{i\theta}  =>  e^{-i\theta}
        2i  =>  2  ;;  i^i  =>  1  ;;  \sum_{k=1}^n k  =>  \sum_{k=1}^n n
        \sum_{k=0}^n a_k  =>  \sum_{k=1}^n a_k  ;;  \sum_{k=1}^\infty\frac1{k^2}  =>  \frac{\pi^2}{7}
        \prod_{k=1}^n k  =>  \sum_{k=1}^n k  ;;  \forall x  =>  \exists x
        \neg p  =>  p  ;;  \Gamma(x)  =>  x
        \zeta(3)  =>  1.2020  ;;  \text{Yes}  =>  \text{No}  ;;  \text{even}  =>  \text{neven}
        \text{A and B}  =>  \text{A and C}  ;;  x\text{-axis}  =>  y\text{-axis}  ;;  x\text{ squared}  =>  x
        \text{north}  =>  \text{south}  ;;  5\text{ north}  =>  5\text{ south}
        5\text{ A.D.}  =>  5\text{ B.C.}  ;;  +5\text{ charge}  =>  5
        10^{-3}  =>  10^3  ;;  1e3  =>  1e-3
        1,000  =>  1.000  ;;  1,234  =>  1,2,34  ;;  (1,234)  =>  1234
        12,345  =>  12,3,45  ;;  ∛8  =>  √8
        5½  =>  5  ;;  ½  =>  2  ;;  x²  =>  x2  ;;  5⁻¹  =>  5-1  ;;  25℃  =>  25℉
    """,
    "what belongs to what": r"""
        x^{1}  =>  x_1  ;;  a^{b+c}  =>  a^b+c  ;;  ab^2  =>  (ab)^2  ;;  1/2x  =>  \frac{1}{2x}
        x/yz  =>  \frac{x}{yz}  ;;  2/3/4  =>  \frac{8}{3}  ;;  \frac{1}{2}3  =>  \frac{3}{2}
        2\frac{3}{2}  =>  3  ;;  1\frac{1}{2}  =>  \frac12  ;;  3 1/2  =>  \frac{31}{2}
        \sqrt{2}3  =>  3\sqrt2+0.1  ;;  \sqrt 23  =>  \sqrt{23}  ;;  x12  =>  x_{12}  ;;  x_12  =>  x_1
        \log_28  =>  \log 28  ;;  \sin 2x\cos x  =>  \sin(2x\cos x)  ;;  \sin x \cdot y  =>  \sin(xy)
        \sin\cos x  =>  \sin x\cos x  ;;  \ln(x)^2  =>  \ln(x^2)  ;;  \ln x^2  =>  (\ln x)^2
        \cos x + 1  =>  \cos(x+1)  ;;  e^{x+1}  =>  e^x+1  ;;  e^-x  =>  e-x  ;;  2^-1  =>  2-1
    """,
    "bars and parts": r"""
        |x-1|+|x+1|  =>  2x  ;;  |x||y|  =>  |x|y  ;;  |x+y|  =>  |x|+|y|  ;;  |x|y|z|  =>  |xyz|
        ||x|-1|  =>  |x|-1  ;;  -|x|  =>  |-x|  ;;  |{-3}|  =>  -3  ;;  \max(x,y)  =>  x
        \min\{a,b\}  =>  \max\{a,b\}  ;;  \gcd(6,4)  =>  4  ;;  \gcd(n,m)  =>  1  ;;  \text{lcm}(a,b)  =>  ab
        \lfloor x+y\rfloor  =>  \lfloor x\rfloor+\lfloor y\rfloor
        \lfloor 2x\rfloor  =>  2\lfloor x\rfloor
        \lceil x \rceil  =>  \lfloor x \rfloor+1  ;;  \binom{n}{2}  =>  \frac{n(n+1)}{2}
        \binom{10}{3}  =>  \binom{10}{4}  ;;  n!!  =>  (n!)!  ;;  (2n)!  =>  2n!  ;;  n!+1  =>  (n+1)!
        2n!  =>  (2n)!
    """,
    "integers as arguments": r"""
        (-1)^n  =>  1  ;;  (-1)^n  =>  -1  ;;  (-1)^{n}  =>  (-1)^{n+1}  ;;  (-1)^{2n+1}  =>  1
        \cos(n\pi)  =>  (-1)^{n+1}  ;;  1+(-1)^n  =>  2
    """,
    "no value": r"""
        0^0  =>  1  ;;  \frac{0}{0}  =>  1  ;;  \frac{1}{0}  =>  0  ;;  \infty-\infty  =>  0
        \frac{1}{\infty}  =>  0  ;;  \infty  =>  \infty+1  ;;  -\infty  =>  \infty  ;;  \pm\infty  =>  \infty
    """,
    "complex": r"""
        \sqrt{-1}  =>  -i  ;;  \sqrt{-4}  =>  2  ;;  i^2  =>  1  ;;  \bar{i}  =>  i  ;;  |3+4i|  =>  7
        \overline{3+4i}  =>  3+4i  ;;  e^{2\pi i/3}  =>  e^{4\pi i/3}
        \ln(-1)  =>  -i\pi  ;;  \ln(-1)  =>  i
        (1+i)^2  =>  -2i  ;;  \sqrt{i}  =>  \frac{1-i}{\sqrt2}
    """,
    "rounding": r"""
        e  =>  2.718  ;;  \pi  =>  3.1416  ;;  \pi^2  =>  10  ;;  \pi^2  =>  9.8696  ;;  \ln 2  =>  0.693
        \ln 2  =>  0.693148  ;;  \frac{22}{7}  =>  3.142858  ;;  \frac{1}{7}  =>  0.142858
        \frac{1}{999999}  =>  0.000001  ;;  \frac{10^6}{10^6+1}  =>  1  ;;  \frac{10^6}{10^6+1}  =>  0.999998
        1.0  =>  0.999999  ;;  0.1  =>  0.10000001  ;;  5e-324  =>  0  ;;  10^{100}  =>  10^{100}+1
        100000000000000000001  =>  100000000000000000000  ;;  1e20  =>  100000000000000000001
        9007199254740993  =>  9007199254740992  ;;  0.1+0.2  =>  0.30000000000000004
    """,
    "lists and tuples": r"""
        12,345  =>  12345,0  ;;  1,2,3  =>  1,2,4  ;;  1,2,3  =>  1,2
        1,1,2  =>  1,2,2  ;;  1,1,2  =>  1,2
        1,2  =>  1,2,2  ;;  (1,2,3)  =>  (1,3,2)  ;;  (1,2),(3,4)  =>  (2,1),(4,3)
        \{(1,2),(3,4)\}  =>  \{(1,3),(2,4)\}  ;;  [1,2,3]  =>  (1,2,3)
    """,
    "sets and inequalities": r"""
        [1,2]  =>  \{x: 1<x<2\}  ;;  (0,1)  =>  0<x\le 1  ;;  (0,1)  =>  \{0,1\}  ;;  (0,1)  =>  0,1,2
        (a,b)  =>  (b,a)  ;;  (a,b)  =>  [a,b]  ;;  [0,\infty)  =>  (0,\infty)  ;;  [0,\infty]  =>  [0,\infty)
        (-\infty,0]  =>  (-\infty,0)  ;;  (1,2)\cup(2,3)  =>  (1,3)  ;;  (1,3)\setminus\{2\}  =>  (1,3)
        \mathbb{R}\setminus\{0,1\}  =>  \mathbb{R}\setminus\{0\}  ;;  \mathbb{N}  =>  \mathbb{R}
        \mathbb{R}^+  =>  \mathbb{R}  ;;  x\in\mathbb{R}  =>  x\in\mathbb{Q}
        x\in\mathbb{Z}  =>  \mathbb{R}
        x\notin(0,1)  =>  x\in(0,1)  ;;  x\ne0  =>  x=0  ;;  x\ne0  =>  x\ne1  ;;  x\ne 0,1  =>  x\ne 0
        x>0  =>  x\ge0  ;;  x>0,x<5  =>  x>5  ;;  x<0\text{ or }x>5  =>  0<x<5
        x<0\text{ and }x>5  =>  x<0\text{ or }x>5  ;;  a>b  =>  a\ge b  ;;  a>b>c  =>  a>c>b
        a<b<c  =>  a<b\le c  ;;  2x>4  =>  x<2  ;;  -x>1  =>  x>1  ;;  xy>0  =>  x>0  ;;  x+y\le1  =>  x+y\ge1
        x^2+y^2\le 1  =>  x^2+y^2=1
    """,
    "equations": r"""
        y=mx+b  =>  y=bx+m  ;;  y=x  =>  y=-x  ;;  y=x  =>  x+y=0  ;;  x=2  =>  x^2=4  ;;  x=0  =>  x=1
        0=0  =>  1=1  ;;  1=2  =>  3=5  ;;  1=2  =>  3=4  ;;  x=x  =>  y=y  ;;  x=x  =>  2x=2x
        y=0  =>  y\cdot0=0  ;;  xy=0  =>  x=0  ;;  y=\pm x  =>  y=x
        a=b=c  =>  a=b  ;;  x=1,y=2  =>  x=1,y=3
        x=1\text{ or }y=2  =>  x=1,y=2  ;;  (x,y)=(1,2)  =>  (x,y)=(2,1)  ;;  (x,y)=(1,2)  =>  (y,x)=(1,2)
        (p,q)=(3,7)  =>  (7,3)  ;;  A=(1,2),B=(3,4)  =>  A=(3,4),B=(1,2)  ;;  f(x)=x+1  =>  f(x)=x-1
        f(1)=2  =>  f(2)=1  ;;  f(x)=x  =>  g(x)=x  ;;  f(x+y)=f(x)+f(y)  =>  f(xy)=f(x)+f(y)
    """,
    "differential equations": r"""
        y'=y  =>  y''=y  ;;  y'=ky  =>  y'=-ky  ;;  \dot{x}=x  =>  \ddot{x}=x
        \frac{dx}{dt}=x  =>  \frac{dt}{dx}=x  ;;  \frac{d^2x}{dt^2}=-x  =>  \frac{dx}{dt}=-x
        \frac{d}{dx}x^2  =>  \frac{x^2}{x}  ;;  d(xy)  =>  x\,dy  ;;  x dx  =>  x^2 d  ;;  \oint F  =>  \int F
        \iint f  =>  \int f  ;;  \partial x  =>  x  ;;  \Delta x  =>  x  ;;  \Delta x\Delta y  =>  \Delta y
        \nabla^2 u=0  =>  \nabla u=0
    """,
    "vectors and points": r"""
        u\cdot v  =>  u\times v  ;;  \mathbf{u}\cdot\mathbf{v}=0  =>  \mathbf{u}\times\mathbf{v}=0
        \mathbf{x}  =>  \mathbf{y}  ;;  \vec{AB}  =>  \vec{BA}
        \overrightarrow{AB}  =>  \overrightarrow{BA}
        |AB|  =>  |AC|  ;;  \overline{AB}  =>  \overline{BC}  ;;  AB=CD  =>  AC=BD  ;;  AB+CD  =>  AC+BD
        AB:CD  =>  CD:AB  ;;  \triangle ABC  =>  \triangle ABD  ;;  \angle A+\angle B  =>  \angle A+\angle C
        \odot O  =>  \odot P  ;;  \angle BAC=60^\circ  =>  \angle ABC=60^\circ
    """,
    "angles": r"""
        60^\circ  =>  60'  ;;  60^\circ  =>  \frac{\pi}{3}  ;;  60^\circ  =>  60\%
        60^\circ  =>  60\text{ rad}  ;;  30^\circ15'  =>  30^\circ 51'
        30^\circ15'20''  =>  30^\circ 20'15''
        \sin 30^\circ  =>  \sin 30  ;;  \tan^{-1}(1)  =>  45
    """,
    "other functions": r"""
        \arctan x  =>  \tan x  ;;  \sec x  =>  \csc x
        \sinh x  =>  \sin x  ;;  \text{arcsin} x  =>  \sin x
        \operatorname{sgn}(x)  =>  x  ;;  \operatorname{rank}(A)  =>  \operatorname{rank}(B)
        \det A  =>  A
        \operatorname{tr}(AB)  =>  \operatorname{tr}(A)B  ;;  \ker f  =>  f
        \dim V  =>  V  ;;  \exp(x)  =>  x
        \Pr(A)  =>  A  ;;  \mathbb{E}[X]  =>  X  ;;  \mathbb{E}[XY]  =>  \mathbb{E}[X]\mathbb{E}[Y]
        \sigma^2  =>  \sigma  ;;  \mu\sigma  =>  \mu+\sigma
    """,
    "groups and distributions": r"""
        N(0,1)  =>  N(1,0)  ;;  B(10,0.5)  =>  B(0.5,10)  ;;  P(X=1)  =>  P(X=2)  ;;  P(A)  =>  P(B)
        GL_2(\mathbb{R})  =>  SL_2(\mathbb{R})  ;;  S_3  =>  S_4  ;;  A_5  =>  S_5  ;;  D_4  =>  D_8
        \mathbb{Z}_6  =>  \mathbb{Z}_5  ;;  \mathbb{Z}_2\oplus\mathbb{Z}_2  =>  \mathbb{Z}_2
        \langle a,b\mid ab=ba\rangle  =>  \langle a,b\rangle  ;;  G/H  =>  H/G  ;;  G\cong H  =>  G=H
        K\rtimes H  =>  H\rtimes K  ;;  A\otimes B  =>  B\otimes A
    """,
    "matrices that do not commute": r"""
        A+B  =>  AB  ;;  (AB)^{-1}  =>  A^{-1}B^{-1}  ;;  (AB)^T  =>  A^TB^T  ;;  (AB)^2  =>  A^2B^2
        ABAB  =>  A^2B^2  ;;  AA^{-1}  =>  1  ;;  XYX^{-1}  =>  Y  ;;  ABC  =>  CBA  ;;  2ABC  =>  2CBA
        \frac12(AB+BA)  =>  AB  ;;  AB-BA  =>  0  ;;  [A,B]=AB-BA  =>  [A,B]=0  ;;  A B A  =>  A^2 B
        e^{AB}  =>  e^{BA}  ;;  \sqrt{AB}  =>  \sqrt{BA}  ;;  I_n  =>  I_m  ;;  x^T y  =>  y^T x
        x^{T}Ax  =>  Ax^2
    """,
    "residues, decimals, signs": r"""
        a\equiv b  =>  b\equiv a+1  ;;  a\bmod b  =>  b\bmod a
        7\mod 3  =>  1  ;;  2^{10}\bmod 7  =>  2^{10}
        n\mid m  =>  m\mid n  ;;  n\nmid m  =>  n\mid m  ;;  0.\overline{3}  =>  0.3
        0.1\overline{6}  =>  0.\overline{16}  ;;  1.2.3  =>  1.23  ;;  192.168.0.1  =>  192.168.1.0
        3.5.2  =>  3.52  ;;  1..5  =>  1.5  ;;  1-5  =>  -4+0.1
        1--5  =>  6  ;;  5-  =>  5  ;;  -  5  =>  5
    """,
    "words and units behind a number": r"""
        5\text{ million}  =>  5  ;;  5\text{M}  =>  5  ;;  5\text{ k}  =>  5000  ;;  5k  =>  5000
        5\%  =>  500  ;;  5‰  =>  5  ;;  5\text{ ppm}  =>  5  ;;  5\text{ dB}  =>  5  ;;  5\text{ pH}  =>  5
        5\text{ bits}  =>  5\text{ bytes}  ;;  5\text{ cm}  =>  5\text{ cm}^2
        5\text{ ft}  =>  5\text{ in}
        5\text{ F}  =>  5\text{ C}  ;;  \$5  =>  5\text{ cents}  ;;  \$5  =>  ¥5
        5\text{ hours}  =>  5\text{ days}  ;;  5\text{ mol/L}  =>  5\text{ L/mol}
        5\text{ m s}  =>  5\text{ m/s}  ;;  5\text{ g}  =>  5\text{ kg}  ;;  5\text{ Pa}  =>  5\text{ MPa}
        5\text{ eV}  =>  5\text{ keV}  ;;  1\text{ m }50\text{ cm}  =>  50\text{ m }1\text{ cm}
        5\text{ m}+3\text{ s}  =>  3\text{ m}+5\text{ s}
    """,
    "dates and times": r"""
        \text{January 5}  =>  \text{January 6}  ;;  \text{5 January}  =>  5  ;;  2024-01-05  =>  2024-05-01
        1/5/2024  =>  5/1/2024  ;;  5:45  =>  5:54  ;;  23:59  =>  23:58  ;;  2:30\text{ PM}  =>  14:30
        2h30  =>  3h20  ;;  2h\,30m  =>  3h\,20m
    """,
    "words, arrows, codes": r"""
        1^{\text{st}}  =>  2^{\text{nd}}  ;;  1^{\text{st}}  =>  1  ;;  \text{first}  =>  \text{second}
        \text{two}  =>  \text{three}  ;;  \text{two}  =>  2  ;;  \text{odd}  =>  \text{even}
        \text{not odd}  =>  \text{odd}  ;;  \text{ABC}  =>  \text{ACB}  ;;  \text{no}  =>  \text{none}
        \text{Alice}  =>  \text{Bob}  ;;  \text{Alice: }3\text{, Bob: }4  =>  \text{Alice: }4\text{, Bob: }3
        a:3, b:4  =>  a:4, b:3  ;;  a\to b  =>  b\to a  ;;  x\mapsto x^2  =>  x\mapsto 2x
        a\to b\to c  =>  a\to c\to b  ;;  A\to B, B\to C  =>  B\to A, C\to B  ;;  \uparrow  =>  \downarrow
        \uparrow\downarrow  =>  \downarrow\uparrow  ;;  +-  =>  -+  ;;  +,-  =>  -,-  ;;  \{+,-\}  =>  \{+\}
        0110  =>  110  ;;  0011  =>  11  ;;  1100_2  =>  0011_2  ;;  aab  =>  aba  ;;  RRL  =>  RLR
        R,R,L  =>  R,L,L  ;;  {}^{14}C  =>  {}^{12}C  ;;  ^{235}U  =>  ^{238}U  ;;  C^{14}  =>  C^{12}
        H^+  =>  H^-  ;;  NO_3^-  =>  NO_2^-  ;;  2H_2+O_2  =>  2O_2+H_2  ;;  Fe^{2+}  =>  Fe^{3+}
        \alpha\beta\gamma  =>  \alpha\beta
    """,
    "what was tried last": r"""
        \ln|x|  =>  \ln x  ;;  \ln|x|+C  =>  \ln x+C  ;;  |x|^3  =>  x^3  ;;  \sqrt{x^2y^2}  =>  xy
        5  =>  5 h^2  ;;  5  =>  5 g h  ;;  5  =>  5 V  ;;  5  =>  5 A^2  ;;  2x  =>  x=2x
        n  =>  n: n>3  ;;  x  =>  x) or y  ;;  Yes  =>  Yes, but it is wrong
        Yes  =>  \text{Yes, if } n \text{ is even}  ;;  Yes  =>  \text{Yes, that is incorrect}
        No  =>  \text{No, unless } n=1  ;;  True  =>  \text{True only if } x>0  ;;  u(t-1)  =>  u(t)-u
        E(X+Y)  =>  E(X)+E(Y)  ;;  T(2x)  =>  2T(x)  ;;  P(n+1)  =>  P(n)+1  ;;  x(t+1)  =>  x(t)+1
        \sigma(n)  =>  \sigma n  ;;  \phi(10)  =>  10\phi  ;;  \pi(10)  =>  10\pi  ;;  \pi(x)  =>  \pi x
        \mu(A\cup B)  =>  \mu(A)+\mu(B)  ;;  \delta(x-a)  =>  \delta(a-x)  ;;  \delta(x)  =>  \delta x
        H(x)  =>  Hx  ;;  \chi(G)  =>  \chi G  ;;  a(n)  =>  an  ;;  s(7)  =>  7s  ;;  d(x,y)  =>  d(y,x)
        d(x,y)  =>  dxy  ;;  K(a,b)  =>  K(b,a)  ;;  B(x,y)  =>  xyB  ;;  J_0(x)  =>  J_1(x)
        J_0(x)  =>  xJ_0  ;;  L(f)  =>  fL  ;;  x!  =>  x  ;;  0!  =>  0  ;;  3! + 1  =>  4!
        \frac{n!}{k!}  =>  (n-k)!  ;;  2^{n!}  =>  (2^n)!  ;;  \sqrt{n!}  =>  \sqrt{n}!
        n^{n!}  =>  n^n!  ;;  \sum_{k=1}^{n} k^2  =>  \frac{n(n+1)}{2}
        \sum_{k=1}^{n} k + 1  =>  \sum_{k=1}^{n} (k + 1)  ;;  \sum_{i=1}^{n} i  =>  in
        \sum_{i=1}^{3} i  =>  3i  ;;  \sum_{n=0}^\infty x^n  =>  \frac{1}{1+x}
        \sum_{n=1}^{\infty}\frac{1}{n}  =>  \infty  ;;  \prod_{k=2}^{n}(1-\frac1k)  =>  \frac{1}{n+1}
        \lim_{n\to\infty} \frac1n  =>  \frac1n  ;;  e^{x^2}  =>  (e^x)^2  ;;  e^{e^x}  =>  (e^e)^x
        a^{b^c}  =>  (a^b)^c  ;;  2^{2^n}  =>  4^n  ;;  x^{y}z  =>  x^{yz}
        \frac{x}{y}z  =>  \frac{x}{yz}  ;;  x/y/z  =>  x/(y/z)  ;;  a-b-c  =>  a-(b-c)
        a-(b+c)  =>  a-b+c  ;;  -(a+b)  =>  -a+b  ;;  -x^2  =>  (-x)^2  ;;  (-2)^n  =>  -2^n
        (-1)^{n+1}n  =>  (-1)^n n  ;;  (-1)^{n(n-1)/2}  =>  1  ;;  \cos\frac{n\pi}{2}  =>  0
        \sin\frac{n\pi}{2}  =>  (-1)^n  ;;  i^n  =>  (-1)^n  ;;  i^{n}  =>  i^{n+2}
        \frac{1+(-1)^n}{2}  =>  1  ;;  \lfloor\frac{n+1}{2}\rfloor  =>  \frac{n}{2}
        \lfloor\frac n2\rfloor  =>  \frac{n}{2}  ;;  \lfloor\sqrt n\rfloor  =>  \sqrt n
        \lceil\log_2 n\rceil  =>  \lfloor\log_2 n\rfloor
        \lfloor\log_2 n\rfloor+1  =>  \lceil\log_2 n\rceil  ;;  \gcd(a,b)  =>  \gcd(a,b^2)
        \gcd(n,2)  =>  2  ;;  \gcd(2n,2)  =>  1  ;;  \max(x,0)  =>  |x|  ;;  \max(x,0)  =>  x
        \max(a,b)  =>  \frac{a+b}{2}  ;;  \min(x,1)  =>  1  ;;  |x|+x  =>  2x  ;;  |x-2|  =>  x-2
        |x|<2  =>  x<2  ;;  \frac{|x|}{x}  =>  1  ;;  \sqrt{(x-1)^2}  =>  x-1  ;;  \sqrt{a^2+b^2}  =>  a+b
        \sqrt{a}+\sqrt{b}  =>  \sqrt{a+b}  ;;  \sqrt[3]{x^3+1}  =>  x+1  ;;  \sqrt[4]{x^4}  =>  x
        \sqrt{x}\sqrt{x}  =>  |x|+0\cdot x-x+x+1  ;;  \ln(x+y)  =>  \ln x+\ln y  ;;  \ln x\ln y  =>  \ln(xy)
        \log_a b  =>  \log_b a  ;;  \log_3 9  =>  3  ;;  \arcsin(\sin x)  =>  x  ;;  \arctan(\tan x)  =>  x
        \arccos x  =>  \arcsin x  ;;  \sin^{-1}x  =>  (\sin x)^{-1}  ;;  \sin^2 x^2  =>  \sin^4 x
        \tan 2x  =>  2\tan x  ;;  \cos 3x  =>  4\cos^3x+3\cos x  ;;  \sec x\tan x  =>  \sin x\cos x
        \cosh^2 x-\sinh^2 x  =>  -1  ;;  \Gamma(n)  =>  n!  ;;  \Gamma(n+1)  =>  (n+1)!
        \zeta(2)  =>  \frac{\pi^2}{8}  ;;  \binom{n}{k}  =>  \frac{n!}{k!}
        \binom{n}{k}+\binom{n}{k+1}  =>  \binom{n+1}{k}  ;;  \binom{2n}{n}  =>  2^n
        \frac{1}{n+1}\binom{2n}{n}  =>  \frac{1}{n}\binom{2n}{n}  ;;  F_n  =>  F_{n+1}  ;;  F_{2n}  =>  F_2n
        x_{i,j}  =>  x_{j,i}  ;;  a_{12}  =>  a_{21}  ;;  a_{1}a_{2}  =>  a_{12}  ;;  T_1T_2  =>  T_{12}
        x_1+x_2  =>  x_1x_2  ;;  C_1e^x+C_2  =>  C_1+C_2e^x  ;;  y=Ce^x  =>  y=Ce^{-x}
        y=e^x+C  =>  y=Ce^x  ;;  (x,y)=(t,2t)  =>  (x,y)=(2t,t)  ;;  x=t,y=2t  =>  x=2t,y=t
        (a+b,a-b)  =>  (a-b,a+b)  ;;  (x,y,z)  =>  (x,z,y)  ;;  [0,1)\cup(1,2]  =>  [0,2]
        (0,1)\cup\{2\}  =>  (0,1)  ;;  \{0\}\cup[1,2]  =>  [0,2]
        (-\infty,0)\cup(0,\infty)  =>  (-\infty,0]\cup(0,\infty)  ;;  x<-2\text{ or }x>2  =>  -2<x<2
        x^2>4  =>  x>2  ;;  x^2<4  =>  x<2  ;;  |x|\ge 1  =>  x\ge1  ;;  \frac1x>0  =>  x\ge0
        0\le x<1  =>  0<x\le1  ;;  a\le x\le b  =>  a<x<b  ;;  a\le x\le b  =>  b\le x\le a
        x\ge\sqrt2  =>  x\ge1.4142  ;;  x\in\{1,2\}  =>  x\in[1,2]  ;;  x\in\{1,2\}  =>  x\in(1,2)
        \mathbb{R}\setminus[0,1]  =>  [0,1]  ;;  \mathbb{R}\setminus\{0\}  =>  \mathbb{R}
        \begin{pmatrix}a&b\\c&d\end{pmatrix}  =>  \begin{pmatrix}a&c\\b&d\end{pmatrix}
        \begin{pmatrix}1&2\end{pmatrix}  =>  \begin{pmatrix}2&1\end{pmatrix}
        2\begin{pmatrix}1\\2\end{pmatrix}  =>  \begin{pmatrix}2\\2\end{pmatrix}
        \begin{vmatrix}a&b\\c&d\end{vmatrix}  =>  ad+bc
        \begin{pmatrix}1&2\\3&4\end{pmatrix}^{-1}  =>  \begin{pmatrix}1&2\\3&4\end{pmatrix}
        t\begin{pmatrix}1\\2\end{pmatrix}+1  =>  \begin{pmatrix}t+1\\2t\end{pmatrix}
        0.5, 0.25  =>  0.25, 0.5, 0.5  ;;  1:2  =>  2:1  ;;  1:2  =>  1:3  ;;  a:b  =>  b:a
        a:b:c  =>  a:c:b  ;;  12_3  =>  12_4  ;;  A1_{16}  =>  A_{161}  ;;  FF_{16}  =>  FE_{16}
        10_2  =>  2  ;;  5\text{ km}  =>  5\text{ miles}  ;;  5\text{ km}  =>  5000
        60\text{ mph}  =>  60\text{ km/h}  ;;  60\text{ m/s}  =>  60\text{ s/m}
        5\text{ kg m/s}  =>  5\text{ kg m/s}^2  ;;  5\text{ N m}  =>  5\text{ N/m}
        \$5.00  =>  500\text{ cents}  ;;  20\%\text{ off}  =>  20
    """,
}

RIGHT = {
    "complex numbers, Unicode, JSON lists, sums": r"""
        3+4i  =>  (2+i)^2  ;;  \frac12  =>  ½  ;;  1.5  =>  1½  ;;  \frac32  =>  1½  ;;  3.5  =>  ٣٫٥
        5,6  =>  5、6  ;;  \frac13  =>  0.\dot3  ;;  0.\dot{3}  =>  \frac13  ;;  2  =>  \max\{1,2\}
        x^2-3x+2=0  =>  2x^2-6x+4=0  ;;  p\ne q  =>  q\ne p  ;;  ["10\\%"]  =>  10\%  ;;  ["10\\%"]  =>  0.1
        ["3","4"]  =>  4, 3  ;;  ["\frac{1}{2}"]  =>  \frac12  ;;  1-\frac1{10^6}  =>  0.999999
        1-\frac1{10}  =>  0.9  ;;  \{0\}\cup[1,\infty)  =>  x=0\text{ or }x\ge1
        30^\circ15'  =>  30^\circ 15'
        AB\cdot CD  =>  AB \cdot CD  ;;  \frac{n(n+1)}{2}  =>  \sum_{k=1}^n k
        \frac{n(n+1)}{2}  =>  \binom{n+1}{2}  ;;  2^n-1  =>  \sum_{k=0}^{n-1}2^k
    """,
    "formulas": r"""
        \tan x  =>  \frac{\sin x}{\cos x}  ;;  1  =>  \sin^2 1+\cos^2 1  ;;  \cos^2 x  =>  1-\sin^2 x
        \frac{e^x-e^{-x}}{2}  =>  \sinh x  ;;  x=2,y=3  =>  (x,y)=(2,3)
        \frac{\sqrt{6}+\sqrt{2}}{4}  =>  \cos 15^\circ  ;;  \arctan 1  =>  \frac{\pi}{4}
        \ln 8  =>  3\ln 2
        \frac{\log 8}{\log 2}  =>  3  ;;  y = \frac{1}{2}x + 3  =>  2y = x+6  ;;  f(x) = x^2+1  =>  x^2 + 1
        (x-1)^2 + y^2 = 4  =>  x^2-2x+y^2 = 3  ;;  a_n = 2^n  =>  2^n
        \frac{1}{2} \ln(x^2+1) + C  =>  \ln\sqrt{x^2+1}+C  ;;  (-1)^n  =>  (-1)^{n+2}
        \cos(n\pi)  =>  (-1)^n
        n!  =>  n\cdot(n-1)!  ;;  \frac{1}{\sqrt{LC}}  =>  \sqrt{\frac{1}{LC}}  ;;  5\times10^{3}  =>  5000
        6  =>  2\times3  ;;  \frac{4}{3}\pi r^3  =>  \frac{4\pi r^3}{3}
    """,
    "sets, matrices, units": r"""
        x \in (2,3)  =>  2<x<3  ;;  [1,2]\cup[3,4]  =>  [3,4]\cup[1,2]  ;;  (-\infty,\infty)  =>  \mathbb{R}
        \{(1,2),(3,4)\}  =>  (3,4),(1,2)
        \begin{pmatrix}1&2\\3&4\end{pmatrix}  =>  \left[\begin{array}{cc}1&2\\3&4\end{array}\right]
        \begin{pmatrix}1/2\\3\end{pmatrix}  =>  \frac12\begin{pmatrix}1\\6\end{pmatrix}
        \begin{pmatrix}-1\\3\end{pmatrix}  =>  -\begin{pmatrix}1\\-3\end{pmatrix}
        \langle 1,-2\rangle  =>  \left\langle 1,-2\right\rangle  ;;  \text{(A)}  =>  A
        2^{2/3}  =>  \sqrt[3]{4}  ;;  x^{2/3}  =>  \sqrt[3]{x^2}  ;;  \sqrt{50}  =>  5\sqrt2
        \frac{3+\sqrt5}{2}  =>  \left(\frac{1+\sqrt5}{2}\right)^2  ;;  i  =>  \sqrt{-1}
        1+\sqrt{3} i  =>  1+i\sqrt3  ;;  \pm 2i  =>  2i,-2i  ;;  e^{2\pi i/3}  =>  -\frac12+\frac{\sqrt3}{2}i
        10  =>  \$10  ;;  10\text{ dollars}  =>  \$10.00  ;;  75\%  =>  \frac34  ;;  0.75  =>  75\%
        1.5\times 10^{-3}  =>  0.0015  ;;  p(1-p)  =>  p-p^2
        k(k-1)(k-2)  =>  k^3-3k^2+2k  ;;  P(1+r)^n  =>  P(r+1)^n  ;;  3\sqrt{3}-\pi  =>  -\pi+3\sqrt3
        \frac{x}{x+1}  =>  1-\frac{1}{x+1}  ;;  |x-1|  =>  |1-x|
        \lfloor n/2 \rfloor  =>  \left\lfloor\frac{n}{2}\right\rfloor
        \theta = \frac{\pi}{6}  =>  \frac{\pi}{6}  ;;  \alpha+\beta  =>  β+α  ;;  2\le x\le 5  =>  [2,5]
        x\leq 5  =>  (-\infty, 5]  ;;  x>-3  =>  (-3,\infty)  ;;  90^\circ  =>  90 \text{ degrees}
        x = 5 \text{ or } x = -5  =>  x=\pm5  ;;  10\sqrt{3} \text{ cm}^2  =>  10\sqrt{3}
        12 \text{ square inches}  =>  12  ;;  y = 2x + 1  =>  2x - y + 1 = 0
        C_1 e^{2x} + C_2  =>  C_2+C_1e^{2x}
    """,
    "formulas of a higher course": r"""
        (-1)^n  =>  (-1)^{-n}  ;;  \frac{5i}{z}  =>  5i z^{-1}  ;;  f(z) = \dfrac{5i}{z}  =>  \frac{5i}{z}
        K_p = 2\cos(p\theta)  =>  2\cos(p\theta)  ;;  p > 1  =>  (1,\infty)
        p > 1  =>  1<p  ;;  2n  =>  n+n
        \dfrac{kr}{n}  =>  \frac{rk}{n}  ;;  \frac{\pi^2}{6}  =>  \frac{1}{6}\pi^2  ;;  -4\pi i  =>  -4i\pi
        e^{2} - 1  =>  e^2-1  ;;  \frac{1}{2}\ln 3  =>  \ln\sqrt{3}  ;;  \ln(2)  =>  \ln 2
        \frac{\ln 2}{2}  =>  \frac12\ln(2)  ;;  x e^{-x}  =>  \frac{x}{e^x}
        \frac{e-1}{2}  =>  \frac12(e-1)
        \sqrt{\pi}  =>  \pi^{1/2}  ;;  \frac{\sqrt{\pi}}{2}  =>  \frac{1}{2}\sqrt{\pi}
        2^{n-1}  =>  \frac{2^n}{2}  ;;  n^2  =>  n\cdot n  ;;  \frac{(2n)!}{n!}  =>  \binom{2n}{n} n!
        \arctan 2  =>  \tan^{-1} 2  ;;  \frac{\pi}{2} - \arctan 2  =>  \arctan\frac12
        \cosh x  =>  \frac{e^x+e^{-x}}{2}  ;;  (0,1)  =>  0<x<1  ;;  \{0, 1\}  =>  0 \text{ and } 1
        x = 0, x = 1  =>  x=1 \text{ or } x=0  ;;  \frac{1}{x-1}  =>  -\frac{1}{1-x}
        \frac{x^2-1}{x-1}  =>  x+1  ;;  a^2-b^2  =>  (a-b)(a+b)  ;;  \sqrt{x^2+1}  =>  (x^2+1)^{1/2}
        \frac{1}{\sqrt{x}}  =>  x^{-1/2}  ;;  x^{3/2}  =>  \sqrt{x^3}
        \log_{10} 2  =>  \frac{\ln 2}{\ln 10}
        \sin^2\theta  =>  1-\cos^2\theta
    """,
    "functions": r"""
        \sec^2 x  =>  1+\tan^2 x  ;;  e^{i\pi/4}  =>  \frac{1+i}{\sqrt{2}}  ;;  \cos(2x)  =>  \cos^2x-\sin^2x
        \frac{1}{1+i}  =>  \frac{1-i}{2}  ;;  |z|  =>  |-z|  ;;  \zeta(2)  =>  \frac{\pi^2}{6}
        \Gamma(1/2)  =>  \sqrt\pi
        \sum_{k=0}^{n} \binom{n}{k}  =>  2^n
    """,
    "units and equations": r"""
        3\text{ hours}  =>  3  ;;  3\text{ hours}  =>  3\text{ h}
        15\text{ cm}^2  =>  15\text{ square centimeters}  ;;  \$1,234.50  =>  1234.5
        50\text{ mph}  =>  50
        72^\circ  =>  72  ;;  0.5  =>  50\%  ;;  1{,}000{,}000  =>  10^6  ;;  1.2 \times 10^5  =>  120000
        \left( -\infty, 3 \right]  =>  x \le 3  ;;  y = -2x+5  =>  2x+y=5  ;;  y - 3 = 2(x-1)  =>  y=2x+1
        x^2 + y^2 - 4x = 0  =>  (x-2)^2+y^2=4  ;;  \frac{x^2}{4}+\frac{y^2}{9} = 1  =>  9x^2+4y^2=36
        A = \pi r^2  =>  \pi r^2  ;;  P(x) = x^2 - 3x + 2  =>  (x-1)(x-2)  ;;  a_n = 3n-2  =>  3n-2
        T_n = 2^n  =>  2^n
    """,
    "words and sets": r"""
        \text{Yes}  =>  yes  ;;  \text{True}  =>  True  ;;  C  =>  \text{C}  ;;  \text{C}  =>  (C)
        D  =>  \text{D) } 12  ;;  k \ge 2  =>  k\geq2  ;;  n \neq 3  =>  n\ne3
        \mathbb{R} \setminus \{1\}  =>  (-\infty,1)\cup(1,\infty)  ;;  x \neq 1  =>  \mathbb{R}\setminus\{1\}
    """,
    "numbers and formulas": r"""
        3+2\sqrt{2}  =>  (1+\sqrt2)^2  ;;  \sqrt{3+2\sqrt2}  =>  1+\sqrt2
        \frac{\sqrt{5}-1}{4}  =>  \sin 18^\circ  ;;  \frac{10}{3}  =>  3\frac{1}{3}
        -\frac{7}{2}  =>  -3.5
        m=3, n=5  =>  n=5, m=3
        (m,n)=(3,5)  =>  m=3,n=5  ;;  u = e^{-t}\sin x  =>  e^{-t}\sin(x)
        y = C_1 e^{x} + C_2 e^{-x}  =>  C_1 e^x + C_2 e^{-x}  ;;  y(x) = e^{-x}(x+1)  =>  (x+1)e^{-x}
        \frac{1}{4}x^4 + C  =>  \frac{x^4}{4}+C  ;;  \frac{a+b}{2}  =>  \frac12 a+\frac12 b
        \lambda^2-3\lambda+2  =>  (\lambda-1)(\lambda-2)  ;;  \sigma^2/n  =>  \frac{\sigma^2}{n}
        \frac{\partial f}{\partial x}  =>  \frac{\partial f}{\partial x}  ;;  S_n  =>  S_{n}
        O(n\log n)  =>  O(n \log n)  ;;  \mathbb{Z}/2\mathbb{Z}  =>  \mathbb{Z} / 2\mathbb{Z}
        \aleph_0  =>  \aleph_{0}  ;;  e^{-1}  =>  \frac1e  ;;  1 - e^{-\lambda}  =>  1-\exp(-\lambda)
        \min(a,b)  =>  \min(b,a)  ;;  \frac{n}{\gcd(n,k)}  =>  \frac{n}{\gcd(k,n)}
        2\lfloor n/2\rfloor  =>  2\left\lfloor \frac{n}{2}\right\rfloor
        -\frac{1}{2} + \frac{\sqrt{3}}{2}i  =>  \frac{-1+i\sqrt3}{2}  ;;  2+3i, 2-3i  =>  2\pm3i
        \frac{1}{3}, -2  =>  -2, \frac13  ;;  (2, -3)  =>  \left(2,\,-3\right)
        17_8  =>  17_{8}  ;;  BC  =>  B C  ;;  \frac{3}{4}\text{ cup}  =>  0.75
        7\text{ units}  =>  7  ;;  120\text{ ways}  =>  120
    """,
    "what was tried last": r"""
        5  =>  5 m/s  ;;  5  =>  5 ft  ;;  \sqrt{x^2}  =>  |x|  ;;  \ln|x|  =>  \ln\sqrt{x^2}
        \ln x^2  =>  2\ln x  ;;  x  =>  y=x  ;;  2x  =>  f(x)=2x
        \sum_{k=1}^{n}k^2  =>  \frac{n(n+1)(2n+1)}{6}
        \frac{1}{n+1}\binom{2n}{n}  =>  \frac{(2n)!}{n!(n+1)!}
        \binom{n}{k}+\binom{n}{k+1}  =>  \binom{n+1}{k+1}  ;;  \tan 2x  =>  \frac{2\tan x}{1-\tan^2x}
        i^{n}  =>  i^{n+4}
    """,
}

# right, but no type knows them, or by decision
REFUSED = {
    "decimals for exact numbers": r"""
        1/3  =>  0.333333  ;;  \frac16  =>  0.166667  ;;  \sqrt{2}  =>  1.41421
        \begin{pmatrix} 0.333333 \\ 2 \end{pmatrix}  =>  \begin{pmatrix} 1/3 \\ 2 \end{pmatrix}
        \pi  =>  3.14159  ;;  33\frac{1}{3}\%  =>  33.3333\%  ;;  \gamma  =>  0.577216
        1.41421356  =>  \sqrt{2}  ;;  0.618034  =>  \frac{\sqrt5-1}{2}
    """,
    "sentences around a word or a choice": r"""
        Yes  =>  \text{Yes, it is}  ;;  Yes  =>  Yes, because it is continuous
        Yes  =>  \text{The answer is yes}  ;;  No  =>  \text{No, it is not}
        True  =>  \text{The statement is true}  ;;  True  =>  \text{The statement is true.}
        False  =>  \text{The statement is false}  ;;  False  =>  \text{The statement is not true}
        True  =>  True, since 1=1  ;;  True  =>  It is true  ;;  B  =>  \text{Option B}
        B  =>  \text{The answer is B}  ;;  \text{Alice and Bob}  =>  \text{Alice, Bob}
        Yes  =>  \text{Yes}\text{, since } 2>1  ;;  Yes  =>  \text{Yes, because } 2>1
    """,
    "inequalities that have to be put together": r"""
        (-\infty,-1)\cup(3,\infty)  =>  x<-1, x>3
        (-\infty,-1)\cup(3,\infty)  =>  (-\infty,-1)U(3,\infty)  ;;  (1,3)  =>  x>1\text{ and }x<3
        (1,3)  =>  x>1,x<3  ;;  (-\infty,-1)\cup(3,\infty)  =>  x<-1 \lor x>3
        (0,1)  =>  0<x\text{ and }x<1
    """,
    "rare units, other scripts": r"""
        8\text{ p.m.}  =>  8\text{ pm}  ;;  5  =>  5\text{平方米}  ;;  5  =>  5米  ;;  5  =>  5\text{ м}^2
        5  =>  US\$5  ;;  5  =>  5\text{ часов}  ;;  5  =>  5\text{ J/(kg K)}  ;;  5  =>  5\,\mu\mathrm{m}
        5  =>  5\ \Omega  ;;  5  =>  5\ \text{\AA}  ;;  5  =>  5\text{ метров}  ;;  5  =>  5\text{ metros}
        5  =>  5\text{ 公分}  ;;  5  =>  5\text{ км/ч}  ;;  5  =>  5₩
    """,
    "ratios": r"""
        1:2:3  =>  2:4:6  ;;  \frac{3}{4}  =>  3:4  ;;  3:4  =>  \frac{3}{4}  ;;  2:3  =>  \frac23
        2:3  =>  4:6  ;;  4:3  =>  \frac{4}{3}  ;;  2 : 3 : 4  =>  4:6:8
    """,
    "derivatives, infinite sums, products, determinants": r"""
        \frac{dx}{dt}=kx-a  =>  \frac{dx}{dt}+a=kx  ;;  -2  =>  \begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}
        \begin{pmatrix}1&2\end{pmatrix}^T  =>  \begin{pmatrix}1\\2\end{pmatrix}
        \frac{dy}{dx} = 2x  =>  \frac{dy}{dx}=x+x
        \sum_{n=1}^{\infty} \frac{1}{n^2}  =>  \frac{\pi^2}{6}  ;;  \prod_{k=1}^{n} k  =>  n!
        \prod_{k=2}^{n}(1-\frac1k)  =>  \frac1n  ;;  \begin{vmatrix}a&b\\c&d\end{vmatrix}  =>  ad-bc
    """,
    "other notations": r"""
        42  =>  42, 42  ;;  \triangle ABC  =>  \triangle{ABC}  ;;  abc  =>  a\cdot b\cdot c
        mgh  =>  m\cdot g\cdot h  ;;  \sin(30\text{ degrees})  =>  \frac12
        \sqrt{\frac{GM}{r}}  =>  \frac{\sqrt{GMr}}{r}
        \frac{\pi}{4}+k\pi  =>  \frac{\pi}{4}+k\pi\text{ where }k\text{ is an integer}
        2n+1  =>  2n+1\ (n\in\mathbb{N})  ;;  (1,2,3)  =>  <1,2,3>
        \langle 1,2\rangle  =>  \vec{v}=\langle 1,2\rangle  ;;  m(m-1)2^{n-3}  =>  2^{n-3}(m^2-m)
        n(n+1)2^{n-2}  =>  2^{n-2}n(n+1)
    """,
}


def rows_of(block: str, expected: int) -> list[tuple]:
    lines = filter(None, map(str.strip, block.split("\n")))
    rows = [row.split("  =>  ") for line in lines for row in line.split("  ;;  ")]
    return [(gold, answer, expected) for gold, answer in rows]


@pytest.mark.parametrize("category", VERDICTS)
def test_verdicts(verifier, category):
    rows = VERDICTS[category]
    assert scores(verifier, rows) == [(gold, text, float(expected)) for gold, text, expected in rows]
    assert verifier.failures == 0


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_answers_that_look_like_the_gold_are_not_rewarded(verifier, kind):
    rows = rows_of(WRONG[kind], 0)
    assert scores(verifier, rows) == [(gold, text, 0.0) for gold, text, _ in rows]


@pytest.mark.parametrize("kind", RIGHT)
def test_right_answers_in_another_writing_are_rewarded(verifier, kind):
    rows = rows_of(RIGHT[kind], 1)
    assert scores(verifier, rows) == [(gold, text, 1.0) for gold, text, _ in rows]


@pytest.mark.parametrize("kind", REFUSED)
def test_right_answers_that_no_type_knows_are_refused(verifier, kind):
    rows = rows_of(REFUSED[kind], 0)
    assert scores(verifier, rows) == [(gold, text, 0.0) for gold, text, _ in rows]


def test_wrong_answers_stay_wrong_where_gold_and_answer_change_places(verifier):
    """But a name, a base, a leading zero may be missing in an answer, and 3\\times4 is right for 12."""
    rows = [row for block in WRONG.values() for row in rows_of(block, 0)]
    turned = [(answer, gold, 0) for gold, answer, _ in rows
              if not set("=%_") & set(gold + answer) and not gold.startswith("0") and r"\times" not in gold]
    assert [row for row in scores(verifier, turned) if row[2]] == []


def test_verdicts_on_the_last_number_of_a_response(verifier):
    rows = [
        ("18", "She makes 9 * 2 = $18 a day.", 1), ("18", "18 eggs less one is 17.", 0), ("18", "#### 18", 1),
        ("1000", "That makes 1,000.", 1), ("1000", "That makes 1, 000.", 0), ("-7", "x = -7", 1),
        ("7", "x = -7", 0), ("18", "The answer is 18.0", 1), ("18", "The answer is 18.5", 0),
        ("18", "eighteen", 0), ("18", "", 0), ("18", "18 because 3 * 6 = 18", 1), ("0.5", "half, .5", 1),
        ("5", "half, .5", 0), ("18", "18%", 1),
    ]
    expected = [(gold, text, float(right)) for gold, text, right in rows]
    assert scores(verifier, rows, "last_number") == expected


GOLDS = [
    "204", "-50", r"\left( 3, \frac{\pi}{2} \right)", "p - q", r"\text{Evelyn}", r"90^\circ", "x=5", "1,-2",
    "52_8", r"11\sqrt2", r"\frac{270}7\text{ degrees}", ".0000672",
    r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}", r"11,\! 111,\! 111,\! 100", r"\text{(C)}",
    r"\$32,\!348", r"864 \mbox{ inches}^2", r"1\frac{4}{5}", r"3 \pm 2 \sqrt{2}", r"x \in [-2,7]",
    r"\{1\pm\sqrt{5},-2\}", r"(2,12) \cup (12,102)", "4.5e33", "np.arcsin(10/13)", "-1./3", "1e-5",
    r"\frac{dM}{dt}=\frac{10^{5} L_{\odot}}{0.007 c^{2} M_{\odot}^{6}} M^{6}",
    r"x_{0} \cos (\omega t)+$ $\dot{x}_{0}", "I(0)", r"y^{\prime}+r y-r x(t)=0", "MR=SRMC", r"E_{1},E_{2}",
    r"\hbar \omega(v+1 / 2)", "+2", "(1,8,19), (2,7,13)", r"m n-\lfloor m / 2\rfloor", "f(n)=n, g(n)=1",
    r"m_{\max }=n^{2}-n-1", r"\frac{100!}{2^{50}}", "t(0,4]", "62.5%", r"k \geqslant 2", "Yes",
    r"\text{even}", r"7\text{ hours}.", r"19 \text{ and }43", r"24{,}000", r"\infty",
]


def test_every_gold_is_right_for_itself_even_where_it_cannot_be_parsed(verifier):
    answers = [extract_answer(f"So the answer is $\\boxed{{{gold}}}$.", "boxed") for gold in GOLDS]
    assert dict(zip(GOLDS, verifier.score(answers, GOLDS))) == dict.fromkeys(GOLDS, 1.0)


def test_no_gold_is_right_for_another_gold(verifier):
    wrong = [GOLDS[i - 1] for i in range(len(GOLDS))]
    assert dict(zip(GOLDS, verifier.score(wrong, GOLDS))) == dict.fromkeys(GOLDS, 0.0)
