r"""The value of a formula at a point, exactly, by sympy; and whether two formulas are equal.

Two formulas are equal if their difference is zero at several points: to a hundred digits and more, unless
sympy finds it exactly.  A point counts where both are defined: an even root or a logarithm of what contains
symbols needs it positive, so \sqrt{ab} = \sqrt a\sqrt b, but \sqrt{x^2} is not x.
"""

import math
import random
import re

import sympy
from sympy import I, Integer, Rational
from sympy.core.evalf import PrecisionExhausted

from verifier.expressions import names

STEPS = {"gcd", "lcm", "floor", "ceil", "max", "min"}  # equal at many points by chance
COMPLEX = re.compile(r"[zwA-Z]|\\[pP]si|\\zeta")  # symbols whose |x|^2 is not x^2
LONGEST = 10**6  # bits of a number
CONSTANTS = {"e": sympy.E, "i": I, "pi": sympy.pi}


class Undefined(Exception):
    """No value at this point."""


def require(defined: bool) -> None:
    if not defined:
        raise Undefined


def sign(x) -> int | None:
    """1, 0 or -1; None for what is not real."""
    real, imaginary = (x, 0) if x.is_Rational else x.evalf(20).as_real_imag()
    require(bool(real.is_number and real.is_finite))
    return None if abs(imaginary) > 1e-15 * abs(real) else 1 if real > 0 else -1 if real < 0 else 0


def is_zero(x) -> bool:
    if x.is_Rational or x.free_symbols:  # the variable of a series
        return x == 0
    # as many digits as the numbers in x could need: 1+e^{-1000} is not 1
    digits = sum((abs(q.p).bit_length() + q.q.bit_length()) // 3 + int(min(abs(q), 1000))
                 for q in x.atoms(Rational))
    try:
        number = x.evalf(5, maxn=100 + digits, strict=True)
    except PrecisionExhausted:
        return True
    require(number.is_number and number.is_finite is not False and number is not sympy.nan)
    return number == 0


# ---- operations whose value needs care; `symbolic`: their arguments contain symbols -----------------------
def divide(symbolic, a, b):
    require(not is_zero(b))
    return a / b


def power(symbolic, base, exponent):
    if base == sympy.E:
        return sympy.exp(exponent)
    if exponent.is_Integer:
        bits = max(abs(base.p).bit_length(), base.q.bit_length()) if base.is_Rational else 1
        require((base != 0 or exponent > 0) and abs(exponent) * bits < LONGEST)
    else:  # (-8)^{1/3} has several values
        odd = not exponent.is_Rational or exponent.q % 2
        require(sign(base) != 0 and not (sign(base) == -1 and (symbolic or odd)))
    return base**exponent


def root(symbolic, x, n):
    if sign(x) == -1:
        require(n % 2 or not symbolic)
        return -((-x) ** (1 / n)) if n % 2 else (x ** (1 / n))
    return x ** (1 / n)


def ln(symbolic, x):
    require(x != 0 and not (symbolic and sign(x) == -1))
    return sympy.log(x)


def log(symbolic, x, base=Rational(173, 31)):  # without a base it may be any: \log 8/\log 2 is 3
    require(sign(base) == 1 and base != 1)
    return ln(symbolic, x) / sympy.log(base)


def factorial(symbolic, x):
    require(not x.is_Integer or 0 <= x < LONGEST // 10)
    return sympy.factorial(x) if x.is_Integer else sympy.gamma(x + 1)


def binomial(symbolic, n, k):
    if n.is_Integer and k.is_Integer:
        return sympy.binomial(n, k)
    return factorial(symbolic, n) / (factorial(symbolic, k) * factorial(symbolic, n - k))


def integers(function):
    def apply(symbolic, *numbers):
        require(all(x.is_Integer for x in numbers))
        return Integer(function(*map(int, numbers)))
    return apply


def extreme(function):
    def apply(symbolic, *numbers):
        require(None not in map(sign, numbers))
        return function(*numbers)
    return apply


OPERATIONS = {"div": divide, "pow": power, "root": root, "ln": ln, "log": log, "fact": factorial,
              "binom": binomial, "gcd": integers(math.gcd), "lcm": integers(math.lcm),
              "max": extreme(sympy.Max), "min": extreme(sympy.Min)}
PLAIN = {"add": sympy.Add, "mul": sympy.Mul, "neg": lambda x: -x, "abs": sympy.Abs, "arcsin": sympy.asin,
         "arccos": sympy.acos, "arctan": sympy.atan, "ceil": sympy.ceiling, "Gamma": sympy.gamma}
PLAIN |= {name: getattr(sympy, name) for name in
          "sin cos tan cot sec csc sinh cosh tanh exp zeta floor".split()}


def value(tree: tuple, point: dict):
    """The sympy number of the tree, with the symbols' values from `point`; raises Undefined."""
    operation, *parts = tree
    if operation == "num":
        return Rational(parts[0].numerator, parts[0].denominator)
    if operation == "sym":
        return point[parts[0]]
    if operation in CONSTANTS:
        return CONSTANTS[operation]
    if operation in ("sum", "prod"):
        return series(*tree, point)
    require(operation in PLAIN or operation in OPERATIONS or operation == "det")
    numbers = [value(part, point) for part in parts]
    if operation == "det":
        return sympy.Matrix(math.isqrt(len(numbers)), math.isqrt(len(numbers)), numbers).det()
    if operation in PLAIN:
        return PLAIN[operation](*numbers)
    return OPERATIONS[operation](bool(names(parts)), *numbers)


def series(kind: str, first: tuple, last: tuple, body: tuple, point: dict):
    first = value(first, point)
    if last == ("inf",):
        k = sympy.Symbol("k", integer=True, positive=True)
        total = sympy.Sum(value(body, point | {r"\bound": k}), (k, first, sympy.oo)).doit()
        require(not total.has(sympy.Sum, sympy.Piecewise) and total.is_finite)
        return total
    last = value(last, point)
    require(first.is_Integer and last.is_Integer and 0 <= last - first + 1 <= 1000)
    terms = [value(body, point | {r"\bound": Integer(k)}) for k in range(first, last + 1)]
    return (sympy.Add if kind == "sum" else sympy.Mul)(*terms)


# ---- equal? ------------------------------------------------------------------------------------------------
def has(tree, words: set) -> bool:
    """Whether one of the words is an operation, a unit or a name in the tree."""
    return tree in words if isinstance(tree, str) else (
        isinstance(tree, (tuple, list)) and any(has(part, words) for part in tree))


def points(symbols: list[str], is_complex=lambda name: False):
    """Values of the symbols: fractions of both signs, small and large, and integers, even and odd in turn."""
    rng = random.Random(0)

    def draw(i: int, name: str):
        style = i % 5
        if style == 0:
            return Integer(2 * rng.randint(1, 14) + (i // 5 >> symbols.index(name) % 3) % 2)
        size = Rational(rng.randint(1, 97), rng.choice((7, 11, 13, 90)) if style < 4 else 101)
        x = -size if rng.random() < (0.0, 0.0, 0.5, 1.0, 0.2)[style] else size
        return x + I * Rational(rng.randint(1, 30), 17) if is_complex(name) else x

    return ({name: draw(i, name) for name in symbols} for i in range(60))


def attempt(tree: tuple, point: dict):
    """The value, or None."""
    try:
        return value(tree, point)
    except (Undefined, ZeroDivisionError):
        return None


def odd_under_roots(tree) -> set[str]:
    r"""The symbols whose power in a product or quotient under an even root is odd: of \sqrt{GM/r} all."""

    def powers(tree, factor: int) -> dict | None:
        if tree[0] == "sym":
            return {tree[1]: factor}
        if tree[0] == "pow" and tree[2][0] == "num" and tree[2][1].denominator == 1:
            return powers(tree[1], factor * int(tree[2][1]))
        if tree[0] not in ("mul", "div"):
            return None if names(tree) else {}
        found = [powers(part, factor) for part in tree[1:]]
        return None if None in found else {
            name: sum(part.get(name, 0) for part in found) for name in names(tree)}

    if not isinstance(tree, tuple):
        return set()
    here = powers(tree[1], 1) if tree[0] == "root" and tree[2][1] % 2 == 0 else None
    return {name for name, power in (here or {}).items() if power % 2}.union(*map(odd_under_roots, tree))


def formulas_equal(gold: tuple, answer: tuple, ratio: bool = False) -> bool:
    """Whether the values are equal, or, with `ratio`, in one constant ratio that is not zero."""
    symbols = sorted(names((gold, answer)))
    if symbols == [r"\gamma"] and not (names(gold) and names(answer)):
        return constants_equal(gold, answer, {r"\gamma": sympy.EulerGamma})
    if not symbols:
        return constants_equal(gold, answer, {})
    if not names(gold):  # 0 of anything is no answer to 0
        return False
    absolute, positive = has((gold, answer), {"abs"}), odd_under_roots(gold) & odd_under_roots(answer)
    agreed, first = 0, None
    for point in points(symbols, lambda name: absolute and bool(COMPLEX.match(name))):
        point |= {name: abs(point[name]) for name in positive}
        golds, answers = attempt(gold, point), attempt(answer, point)
        if golds is None or answers is None:
            if absolute and golds is not answers:  # \ln|x| and \ln x
                return False
            continue
        try:
            if ratio and first is None:
                if is_zero(golds) != is_zero(answers):
                    return False
                first = None if is_zero(golds) else (golds, answers)
                continue
            if not is_zero(golds * first[1] - answers * first[0] if ratio else golds - answers):
                return False
        except Undefined:
            continue
        agreed += 1
        if agreed == (20 if has((gold, answer), STEPS) else 8):
            return True
    return agreed >= 3


def ratio_is_positive(gold: tuple, answer: tuple) -> bool:
    for point in points(sorted(names((gold, answer)))):
        values = attempt(gold, point), attempt(answer, point)
        signs = [0 if x is None else sign(x) for x in values]
        if 0 not in signs:
            return signs[0] == signs[1]
    return False


def constants_equal(gold: tuple, answer: tuple, point: dict) -> bool:
    """Equal, or one is a decimal of six significant digits or more that is the other, rounded or cut off."""
    try:
        values = value(gold, point), value(answer, point)
        if is_zero(values[0] - values[1]):
            return True
        digits = [(tree[1] if tree[0] == "neg" else tree) for tree in (gold, answer)]
        digits = [tree[2] if tree[0] == "num" else 0 for tree in digits]
        exact, decimal = values if digits[1] else values[::-1]
        if all(digits) or max(digits) < 6 or exact.is_Integer or decimal.is_Integer:
            return False
        require(sign(exact) == sign(decimal))
        place = max(digits) - 1 - sympy.floor(sympy.log(abs(decimal), 10))
        cut = ((abs(exact) - abs(decimal)) * Integer(10) ** place).evalf(20)
        return bool(-0.5 <= cut < 1 and abs(exact - decimal) <= 5e-6 * abs(exact))
    except (Undefined, ZeroDivisionError):
        return False
