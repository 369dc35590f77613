r"""Numbers and formulas: from tokens to a tree, if every token and its place are known.

A tree is (operation, *parts): ("num", Fraction), ("sym", name), ("pi",), ("add", a, b, …), ("neg", a), ("pow", a, b),
("root", a, n), ("sin", a), …  What can be read in two ways is not known: 1/2x, 2\frac32, |x|y|, f^{(2)}, f^{-1}, dx.
"""

import re
from fractions import Fraction

from verifier.notation import FUNCTIONS, GREEK


class Unknown(Exception):
    """A token, or an order of tokens, whose meaning no type of answer knows; a formula without a value."""


def require_known(understood) -> None:
    if not understood:
        raise Unknown


REPEATING = r"\d*\.\d*\\(?:(?:overline|bar)\s*\{\d+\}|dot\s*(?:\d|\{\d\}))"
NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3}(?!\w))?"
NAMES = "|".join([*GREEK.values(), *"varphi varepsilon vartheta Pi Xi hbar ell bound".split()])
LETTER = rf"(?:[a-zA-Z]|\\(?:{NAMES})(?![a-zA-Z]))(?:\s*_\s*(?:\{{[^{{}}]*\}}|\w|\\[a-z]+))?'*"
TOKEN = re.compile(rf"{REPEATING}|{NUMBER}|{LETTER}|\\[a-zA-Z]+|\\.|\S", re.DOTALL)
SEVERAL = {r"\gcd", r"\max", r"\min"}  # functions of several arguments
KNOWN = {rf"\{name}" for name in FUNCTIONS}
FUNCTION_LETTERS = {*"fghFGH", r"\varphi", r"\psi", r"\Phi", r"\Psi", r"\Gamma", r"\zeta"}  # f(x+1) is no product
CLOSING = {"(": ")", "[": "]", "{": "}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
FACTORS = KNOWN | CLOSING.keys() | {r"\frac", r"\sqrt", r"\binom", r"\sum", r"\abs"}
MIXED = re.compile(r"(?<![\w.^})])(?<![a-zA-Z}^_] )(\d+)(?:\s*\\frac\s*(?:\{(\d+)\}\s*\{(\d+)\}|(\d)\s*(\d)(?!\d))"
                   r"| (\d+)/(\d+)(?![/^!\d]))")
UNREADABLE = re.compile(  # a date, a word, |x|y|z|
    r"^\d+(\s*[-/]\s*\d+){2,}$|(?<![\\a-zA-Z])[a-z]{4,}|^[^|]*(?:\|[^|]*\|[^|]*)*?\|[^|]*\|\s*[\w({][^|]*\|")
TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")  # beside it, a degree counts
ONE, MINUS_ONE = ("num", Fraction(1)), ("neg", ("num", Fraction(1)))


def number(token: str) -> tuple:
    if match := re.fullmatch(r"(\d*)\.(\d*)\\[a-z]+\s*\{?(\d+)\}?", token):  # 0.1\overline{6}
        whole, decimals, period = match.groups()
        nines = (10 ** len(period) - 1) * 10 ** len(decimals)
        return ("num", Fraction(int("0" + whole + decimals + period) - int("0" + whole + decimals), nines))
    return ("num", Fraction(token))


def is_letter(token: str) -> bool:
    return re.fullmatch(LETTER, token, re.ASCII) is not None


def head(token: str) -> str:
    """f of f_1'."""
    return re.match(r"\\[a-zA-Z]+|.?", token)[0]


def symbol(token: str) -> tuple:
    return (token.strip("\\"),) if token in ("e", "i", r"\pi") else ("sym", re.sub(r"[\s{}]", "", token))


def with_sum(mixed: re.Match) -> str:
    r"""(1+\frac{2}{3}) of 1\frac23; 2\frac32 may be a product."""
    whole, above, below = (int(part) for part in mixed.groups() if part)
    require_known(0 < above < below)
    return rf"({whole}+\frac{{{above}}}{{{below}}})"


def parse(text: str) -> tuple:
    """The tree of a formula; raises Unknown."""
    require_known(not UNREADABLE.search(text))
    parser = Parser(re.sub(r"\|([^|]*)\|", r"\\abs(\1)", MIXED.sub(with_sum, text)))
    tree = parser.sum()
    require_known(parser.next == "")
    return tree


class Parser:
    """Reads a formula from left to right, a method for each part of speech."""

    def __init__(self, text: str):
        self.tokens, self.at, self.has_angles = [*TOKEN.findall(text), ""], 0, TRIG.search(text) is not None

    @property
    def next(self) -> str:
        return self.tokens[self.at]

    def take(self, *expected: str) -> str:
        require_known(self.next and (not expected or self.next in expected))
        self.at += 1
        return self.tokens[self.at - 1]

    def took(self, token: str) -> bool:
        """Whether the token was next; if so, go on."""
        found = self.next == token
        self.at += found
        return found

    def sum(self) -> tuple:
        terms = [self.signed(self.term)]
        while self.next in ("+", "-"):
            terms.append(self.signed(self.term))
        return ("add", *terms) if len(terms) > 1 else terms[0]

    def signed(self, operand) -> tuple:
        if self.took("-"):
            return ("neg", operand())
        self.took("+")
        return operand()

    def starts_factor(self) -> bool:
        return is_letter(self.next) or self.next in FACTORS

    def term(self) -> tuple:
        factors = [self.factor()]
        while True:
            sign = self.next
            if sign in (r"\cdot", "*", r"\times"):
                self.take()
                factors.append(self.signed(self.factor))
                found = {*map(head, names(factors[-2:]))}  # \times of vectors or sets, f*g
                require_known(not (sign == r"\times" and found or sign == "*" and found & FUNCTION_LETTERS))
            elif sign in ("/", r"\div"):
                self.take()
                factors = [("div", product(factors), self.signed(self.factor))]
                require_known(not self.starts_factor())
            elif self.starts_factor():
                factors.append(self.factor())
                left, right = factors[-2:]
                if left[0] == "num":  # (12)(34), 2\frac32
                    in_brackets = self.tokens[self.at - 1] == ")"
                    is_fraction = right[0] == "div" and right[1][0] == right[2][0] == "num"
                    require_known(right[0] != "num" if in_brackets else not is_fraction)
            else:
                return product(factors)

    def factor(self) -> tuple:
        name, base, raised = self.next, self.base(), False
        while True:
            if self.took("!"):
                base = ("fact", base)
                require_known(self.next != "!")
            elif self.took("^"):
                start, exponent = self.at, self.exponent()
                if base[0] == "sym":  # y^{(n)}, f^{-1}, f^2(x), A^T
                    require_known(not re.fullmatch(r"\{?\([^()]*\)\}?", "".join(self.tokens[start : self.at])))
                    require_known(head(name) not in FUNCTION_LETTERS or exponent != MINUS_ONE and self.next != "(")
                    require_known(not name.isupper() or exponent not in (("sym", "T"), ONE))
                require_known(not raised)  # x^2^3
                base, raised = ("pow", base, exponent), True
            elif self.has_angles and self.took(r"\degree"):
                base = ("div", ("mul", base, ("pi",)), ("num", Fraction(180)))
            else:
                return base

    def exponent(self) -> tuple:
        if self.next in ("+", "-"):  # 10^-5
            return self.signed(self.exponent)
        if self.next == "(" or self.next == r"\frac" or self.next.isdecimal():  # 2^10, as everybody means it
            return self.base()
        return self.argument()

    def group(self) -> tuple:
        start = self.at
        closing = CLOSING[self.take(*CLOSING)]
        tree = self.sum()
        self.take(closing)
        # [x] may be the integer part
        require_known(closing != "]" or "(" in self.tokens[start : self.at] or self.next == "^")
        return tree

    def argument(self) -> tuple:
        r"""What TeX takes for an argument: a group, a command or one character, so that \frac12 is a half."""
        if self.next == "{":
            return self.group()
        if self.next.isdecimal():
            digits = self.take()
            if digits[1:]:
                self.tokens[self.at - 1 : self.at] = [digits[0], digits[1:]]
            return number(digits[0])
        if is_letter(self.next):
            return symbol(self.take())
        require_known(self.next == r"\sqrt")
        return self.base()

    def base(self) -> tuple:
        token = self.next
        if token in CLOSING:
            inside = self.group()
            return (token[2:], inside) if token[0] == "\\" else inside
        self.take()
        if token == r"\abs":
            return ("abs", self.group())
        if re.match(r"\.?\d", token):
            require_known(self.next != "_")
            return number(token)
        if token in (r"\frac", r"\binom"):
            return ("div" if token == r"\frac" else "binom", self.argument(), self.argument())
        if token == r"\sqrt":
            index = self.take(*map(str, range(2, 100))) if self.took("[") else None
            if index:
                self.take("]")
            inside = self.group() if self.next == "(" else self.argument()
            return ("root", inside, ("num", Fraction(index or 2)))
        if token in KNOWN:
            return (token[1:], *self.several()) if token in SEVERAL else self.function(token)
        if token == r"\sum":
            return self.series()
        if token == r"\infty":
            return ("inf",)
        require_known(is_letter(token) and not (token == "d" and is_letter(self.next)))  # dx
        return self.next == "(" and self.application(token) or symbol(token)

    def function(self, name: str) -> tuple:
        power, base = None, ()
        if self.took("^"):
            power = self.exponent()
            if power == MINUS_ONE and name in (r"\sin", r"\cos", r"\tan"):
                name, power = r"\arc" + name[1:], None
            else:
                require_known(power[0] == "num")
        if name == r"\log" and self.took("_"):
            base = (self.argument(),)
        if self.next in ("(", "[", "{"):
            inside = self.group()
            require_known(self.next not in ("^", "!", r"\degree"))
        else:
            factors = [self.signed(self.factor)]
            while self.starts_factor() and self.next not in KNOWN | {"(", "[", "{", r"\abs"}:
                factors.append(self.factor())
            require_known(self.next not in ("/", "("))
            inside = product(factors)
        tree = (name[1:], inside, *base)
        return ("pow", tree, power) if power else tree

    def several(self) -> list[tuple]:
        opening = self.take("(", r"\{")
        members = [self.sum()]
        while self.took(","):
            members.append(self.sum())
        self.take(")" if opening == "(" else r"\}")
        return members

    def series(self) -> tuple:
        r"""\sum_{k=1}^n: its variable becomes \bound, and is no imaginary unit."""
        self.take("_"), self.take("{")
        variable = self.take()
        require_known(variable.isalpha() and r"\bound" not in self.tokens)
        self.take("=")
        first = self.sum()
        self.take("}"), self.take("^")
        last = self.argument()
        require_known(not any("_" in token and variable in token for token in self.tokens[self.at :]))  # a_k
        self.tokens = [r"\bound" if token == variable and at >= self.at else token
                       for at, token in enumerate(self.tokens)]
        body = self.term()
        require_known(self.next not in ("+", "-"))
        return ("sum", first, last, body)

    def application(self, token: str) -> tuple | None:
        """f(x), P(1,2), y(2t) as one value that only the same argument gives; None for the product n(n+1)."""
        start, arguments = self.at, self.several()
        is_sum = [tree[0] for tree in arguments] == ["add"]
        if token == "i" or is_sum and head(token) not in FUNCTION_LETTERS and "'" not in token:
            self.at = start
            return None
        if token in (r"\Gamma", r"\zeta") and len(arguments) == 1:
            return (token[1:], *arguments)
        return ("sym", symbol(token)[-1] + "".join(self.tokens[start : self.at]))


def product(factors: list[tuple]) -> tuple:
    """Factors in any order, but for capitals: AB, PDP^{-1} may not commute, and keep theirs."""
    bases = [factor[1] if factor[0] == "pow" else factor for factor in factors]
    ordered = [factor for factor, base in zip(factors, bases) if base[0] == "sym" and re.fullmatch("[A-Z]'*", base[1])]
    if len(ordered) > 1:
        factors = [*(factor for factor in factors if factor not in ordered), ("sym", "·".join(map(str, ordered)))]
    return ("mul", *factors) if len(factors) > 1 else factors[0]


def names(tree) -> set[str]:
    """The symbols of a tree, or of several."""
    if tree[0] == "sym":
        return {tree[1]}
    return set().union(*(names(part) for part in tree if isinstance(part, (tuple, list)))) - {r"\bound"}
