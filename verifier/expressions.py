r"""Numbers and formulas: from tokens to a tree, if every token and its place are known.

A tree is (operation, *parts): ("num", Fraction, significant digits of a decimal or 0), ("sym", name),
("pi",), ("add", a, b, …), ("neg", a), ("pow", a, b), ("root", a, n), ("sin", a), …  What can be read in two
ways is not known: 1/2x, 2\frac32, |x|y|, f^{(2)}, f^{-1}.
"""

import re
from fractions import Fraction

from verifier.notation import FUNCTIONS, GREEK


class Unknown(Exception):
    """A token, or an order of tokens, whose meaning no type of answer knows."""


NUMBER = r"(?:(?:[1-9]\d{0,2}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3}(?!\w))?"
REPEATING = r"\d*\.\d*\\(?:(?:overline|bar)\s*\{\d+\}|dot\s*(?:\d|\{\d\}))"
POINTS = r"\\(?:angle|triangle|square|odot)\s*\{?\s*[A-Z][A-Z'\s]*\}?|\\overline\s*\{\s*[A-Z][A-Z'\s]+\}"
TOKEN = re.compile(rf"{POINTS}|{REPEATING}|{NUMBER}|\\(?:text|bold|mathbb|mathcal|begin|end)\s*"
                   r"(?:\{[^{}]*\}|[a-zA-Z])|\\[a-zA-Z]+|\\.|\S", re.DOTALL)
SYMBOLS = {rf"\{name}" for name in (*GREEK.values(), *(
    "varphi varepsilon vartheta varrho upsilon Pi Xi Upsilon hbar ell iota bound pi".split()))}
ACCENTS = {r"\dot", r"\ddot", r"\bar", r"\tilde"}
SEVERAL = {r"\gcd", r"\lcm", r"\max", r"\min"}  # of several arguments
KNOWN = {rf"\{name}" for name in FUNCTIONS}
# f(x+1) is no product
FUNCTION_LETTERS = {*"fghFGH", r"\varphi", r"\psi", r"\Phi", r"\Psi", r"\Gamma", r"\zeta"}
CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
FACTORS = SYMBOLS | KNOWN | ACCENTS | CLOSING.keys() - {r"\{"} | {
    r"\frac", r"\sqrt", r"\binom", r"\sum", r"\prod"}
MIXED = re.compile(r"\\frac(?:\{(\d+)\}\{(\d+)\}|(\d)(\d)(?!\d)|(\d)\{(\d+)\}|\{(\d+)\}(\d))"
                   r"|(\d+)/(\d+)(?![/^!\d])")
VARIABLE = r"(?:[a-zA-Z]|\\[a-z]+)(?:_\{?\w\}?)?"
DERIVATIVE = re.compile(rf"(d|d\^\{{?\d\}}?){VARIABLE}/d{VARIABLE}(?:\^\{{?\d\}}?)?")  # dx/dt is one value
MINUS_ONE = ("neg", ("num", Fraction(1), 0))


def number(token: str) -> tuple:
    if match := re.fullmatch(r"(\d*)\.(\d*)\\[a-z]+\s*\{?(\d+)\}?", token):  # 0.1\overline{6}
        whole, decimals, period = match.groups()
        nines = (10 ** len(period) - 1) * 10 ** len(decimals)
        return ("num", Fraction(int("0" + whole + decimals + period) - int("0" + whole + decimals), nines), 0)
    token = token.replace(",", "")
    digits = re.sub(r"[eE].*|\.", "", token).lstrip("0")
    return ("num", Fraction(token), len(digits) if re.search(r"[.eE]", token) else 0)


def symbol(name: str) -> tuple:
    return (name.strip("\\"),) if name in ("e", "i", r"\pi") else ("sym", name)


def is_letter(token: str) -> bool:
    return token.isascii() and token.isalpha() or token in SYMBOLS


def parse(text: str) -> tuple:
    """The tree of a formula; raises Unknown."""
    if re.fullmatch(r"\d+(\s*[-/]\s*\d+){2,}", text):
        raise Unknown("perhaps a date")
    if re.search(r"(?<![\\a-zA-Z])[a-z]{4,}", text):
        raise Unknown("a word")
    parser = Parser(text)
    tree = parser.sum()
    parser.require(parser.next == "")
    return tree


class Parser:
    """Reads a formula from left to right, a method for each part of speech."""

    def __init__(self, text: str):
        self.tokens, self.at, self.in_bars, self.in_angle = [*TOKEN.findall(text), *[""] * 8], 0, False, False

    @property
    def next(self) -> str:
        return self.tokens[self.at]

    def take(self, *expected: str) -> str:
        self.require(self.next and (not expected or self.next in expected))
        self.at += 1
        return self.tokens[self.at - 1]

    def require(self, understood: bool) -> None:
        if not understood:
            raise Unknown("".join(self.tokens[self.at :]))

    def since(self, start: int) -> str:
        return "".join(self.tokens[start : self.at])

    def sum(self) -> tuple:
        terms = [self.signed(self.term)]
        while self.next in ("+", "-"):
            self.require(terms[-1][0] not in ("sum", "prod"))
            terms.append(self.signed(self.term))
        return ("add", *terms) if len(terms) > 1 else terms[0]

    def signed(self, operand) -> tuple:
        if self.next in ("+", "-"):
            return operand() if self.take() == "+" else ("neg", operand())
        return operand()

    def starts_factor(self) -> bool:
        before, after = self.tokens[self.at - 1], self.tokens[self.at + 1]
        power = self.next[:1].isdecimal() and before == ")" and after == "^"
        return is_letter(self.next) or self.next in FACTORS or self.next == "|" and not self.in_bars or (
            power or bool(re.fullmatch(POINTS, self.next)))  # power: (n-2)2^n

    def term(self) -> tuple:
        factors = [self.factor()]
        while True:
            sign = self.next
            if sign in (r"\cdot", "*", r"\times"):
                self.take()
                factors.append(self.signed(self.factor))
                found = names(factors[-2:])  # \times of vectors or sets, f*g
                self.require(not (sign == r"\times" and found or sign == "*" and found & FUNCTION_LETTERS))
            elif sign in ("/", r"\div"):
                self.take()
                self.require(not re.match("d[a-z]", "".join(self.tokens[self.at : self.at + 2])))  # dy/dx
                factors = [("div", product(factors), self.signed(self.factor))]
                self.require(not self.starts_factor())
            elif self.starts_factor():
                self.require(factors[-1][0] not in ("sum", "prod"))
                factors.append(self.factor())
                numbers = all(factor[0] == "num" for factor in factors[-2:])
                self.require(self.tokens[self.at - 1] != ")" or not numbers)  # (12)(34)
            else:
                return product(factors)

    def factor(self) -> tuple:
        name, base, raised = self.next, self.base(), False
        while True:
            if self.next == "!":
                self.take()
                base = ("fact", base)
                self.require(self.next != "!")
            elif self.next == "^":
                self.take()
                start, exponent = self.at, self.exponent()
                if base[0] == "sym":  # y^{(n)}, f^{-1}, f^2(x), A^T, S^1
                    self.require(not re.fullmatch(r"\{?\([^()]*\)\}?", self.since(start)))
                    self.require(name not in FUNCTION_LETTERS or exponent != MINUS_ONE and self.next != "(")
                    self.require(not name.isupper() or exponent not in (("sym", "T"), MINUS_ONE[1]))
                self.require(not raised)  # x^2^3
                base, raised = ("pow", base, exponent), True
            elif self.next == r"\degree" and self.in_angle:
                self.take()
                base = ("div", ("mul", base, ("pi",)), ("num", Fraction(180), 0))
            else:
                return base

    def exponent(self) -> tuple:
        if self.next in ("+", "-"):  # 10^-5
            return self.signed(self.exponent)
        if self.next.isdecimal():  # 2^10, as everybody means it
            return number(self.take())
        if self.next in ("{", "("):
            return self.group()
        return self.base() if self.next == r"\frac" else self.argument()

    def group(self) -> tuple:
        start, bars, self.in_bars = self.at, self.in_bars, False
        closing = CLOSING[self.take(*CLOSING.keys() - {r"\{"})]
        tree = self.sum()
        self.take(closing)
        self.in_bars = bars
        # [x] alone may be the integer part
        self.require(closing != "]" or "(" in self.tokens[start : self.at] or self.next == "^")
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
        self.require(self.next == r"\sqrt")
        return self.base()

    def base(self) -> tuple:
        token = self.next
        if token in CLOSING:
            inside = self.group()
            return (token[2:], inside) if token in (r"\lfloor", r"\lceil") else inside
        self.take()
        if token == "|":
            self.require(not self.in_bars)
            self.in_bars = True
            inside = self.sum()
            self.take("|")
            self.in_bars = False
            return ("abs", inside)
        if re.match(r"\.?\d", token):
            return self.literal(token)
        if token in (r"\frac", r"\binom"):
            start, above = self.at, self.argument()
            middle, below = self.at, self.argument()
            parts = [part[1:-1] if part[0] == "{" else part
                     for part in ("".join(self.tokens[start:middle]), self.since(middle))]
            if DERIVATIVE.fullmatch("/".join(parts)):
                return ("sym", "/".join(parts))
            self.require(not (parts[0][0] == "d" and re.match(r"d[a-z\\]", parts[1])))
            return ("div" if token == r"\frac" else "binom", above, below)
        if token == r"\sqrt":
            index = 2
            if self.next == "[":
                self.take()
                index = self.take(*map(str, range(2, 100)))
                self.take("]")
            inside = self.group() if self.next == "(" else self.argument()
            return ("root", inside, ("num", Fraction(index), 0))
        if token in KNOWN:
            return self.function(token)
        if token in (r"\sum", r"\prod"):
            return self.series(token[1:])
        if token == r"\infty":
            return ("inf",)
        if re.fullmatch(POINTS, token):
            return ("sym", re.sub(r"[\s{}]", "", token))
        if token in ACCENTS:
            letter = self.argument()
            self.require(letter[0] == "sym")
            return ("sym", token + letter[1] + self.subscript())
        self.require(is_letter(token))
        return self.letter(token)

    def literal(self, token: str) -> tuple:
        # not a base, not 1990-05-12
        self.require(self.next != "_" and not (re.match(r"0\d", token) and self.tokens[2:3] != [""]))
        mixed = MIXED.match("".join(self.tokens[self.at : self.at + 7])) if token.isdecimal() else None
        if not mixed:
            return number(token)
        above, below = (int(part) for part in mixed.groups() if part)
        self.require(0 < above < below)  # 2\frac32 may be a product
        end = self.at + 7
        while len("".join(self.tokens[self.at : end])) > mixed.end():
            end -= 1
        self.at = end
        return ("num", int(token) + Fraction(above, below), 0)

    def function(self, name: str) -> tuple:
        if name in SEVERAL:
            return (name[1:], *self.several())
        power, base = None, ()
        if self.next == "^":
            self.take()
            power = self.exponent()
            if power == MINUS_ONE and name in (r"\sin", r"\cos", r"\tan"):
                name, power = r"\arc" + name[1:], None
            else:
                self.require(power[0] == "num")
        if name == r"\log" and self.next == "_":
            self.take()
            base = (self.argument(),)
        angle, self.in_angle = self.in_angle, name in (r"\sin", r"\cos", r"\tan", r"\cot", r"\sec", r"\csc")
        if self.next in ("(", "[", "{"):
            inside = self.group()
            self.require(self.next not in ("^", "!", r"\degree"))
        else:
            factors = [self.signed(self.factor)]
            while self.starts_factor() and self.next not in KNOWN | {"(", "[", "{", "|"}:
                factors.append(self.factor())
            self.require(self.next not in ("/", "("))
            inside = product(factors)
        self.in_angle = angle
        tree = (name[1:], inside, *base)
        return ("pow", tree, power) if power else tree

    def several(self) -> list[tuple]:
        opening, members = self.take("(", r"\{"), [self.sum()]
        while self.next == ",":
            self.take()
            members.append(self.sum())
        self.take(CLOSING[opening])
        return members

    def series(self, kind: str) -> tuple:
        r"""\sum_{k=1}^n: its variable becomes \bound, and is no imaginary unit."""
        self.take("_"), self.take("{")
        variable = self.take()
        self.require(variable.isalpha() and r"\bound" not in self.tokens)
        self.take("=")
        first = self.sum()
        self.take("}"), self.take("^")
        last = self.base() if self.next == r"\infty" else self.argument()
        self.require(kind == "sum" or last != ("inf",))
        self.tokens = [r"\bound" if token == variable and at >= self.at else token
                       for at, token in enumerate(self.tokens)]
        return (kind, first, last, self.term())

    def subscript(self) -> str:
        if self.next != "_":
            return ""
        start, depth = self.at + 1, 0
        self.take()
        while depth or self.at == start:
            depth += {"{": 1, "}": -1}.get(self.take(), 0)
        found = self.since(start)
        return "_" + (found[1:-1] if found[0] == "{" else found)

    def letter(self, token: str) -> tuple:
        name = token
        if token == r"\Delta":  # \Delta x is one value, A\Delta B a set
            self.require(not self.tokens[self.at - 2].isupper())
            name += self.take() if self.next.isalpha() else ""
        if token == "d" and self.next.isascii() and self.next.islower():  # dx
            return ("sym", token + self.take())
        name += self.subscript()
        while self.next == "'":
            name += self.take()
        return self.next == "(" and self.application(token, name) or symbol(name)

    def application(self, token: str, name: str) -> tuple | None:
        """f(x), P(1,2), y(2t) as one value that only the same argument gives; None for the product n(n+1)."""
        start, bars, self.in_bars = self.at, self.in_bars, False
        arguments = self.several()
        self.in_bars = bars
        is_sum = [tree[0] for tree in arguments] == ["add"]
        if name == "i" or is_sum and token not in FUNCTION_LETTERS and "'" not in name:
            self.at = start
            return None
        if name in (r"\Gamma", r"\zeta") and len(arguments) == 1:
            return (name[1:], *arguments)
        return ("sym", name + self.since(start))


def product(factors: list[tuple]) -> tuple:
    """Factors in any order, but for capitals and dx: AB, PDP^{-1}, dx dy may not commute, and keep theirs."""
    bases = [factor[1] if factor[0] == "pow" else factor for factor in factors]
    ordered = [factor for factor, base in zip(factors, bases)
               if base[0] == "sym" and re.fullmatch(r"[A-Z]'*|d[a-z]", base[1])]
    if len(ordered) > 1:
        others = [factor for factor in factors if factor not in ordered]
        factors = [*others, ("sym", "·".join(map(str, ordered)))]
    return ("mul", *factors) if len(factors) > 1 else factors[0]


def names(tree) -> set[str]:
    """The symbols of a tree, or of several."""
    if tree[0] == "sym":
        return {tree[1]}
    found = set().union(*(names(part) for part in tree if isinstance(part, (tuple, list))))
    return found - {r"\bound"} if tree[0] in ("sum", "prod") else found
