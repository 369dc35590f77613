r"""The value of a formula at a point, to 700 digits; and whether two formulas are equal.

Two formulas are equal if their difference is zero at several points. A point counts where both are defined: an
even root or a logarithm of what contains symbols needs it positive, so \sqrt{ab} = \sqrt a\sqrt b, but \sqrt{x^2}
is not x. Numbers beyond 10^160 are not defined, so that few things take long, and the fourth power of the smallest
number is more than a rounding error.
"""

import math
import random
import re

import mpmath
from mpmath import mp, mpc, mpf

from verifier.expressions import Unknown, names, require_known

mp.dps = 700
LARGEST, ZERO = mpf(10) ** 160, mpf(10) ** -640
COMPLEX = re.compile(r"[zwA-Z]|\\[pP]si|\\zeta")  # symbols whose |x|^2 is not x^2


def is_equal(a, b) -> bool:
    return abs(a - b) <= ZERO * max(1, abs(a), abs(b))


def settled(x):
    """The number without its rounding error: 0 for what is nearly 0, real for what is nearly real."""
    x = x.real if isinstance(x, mpc) and abs(x.imag) <= ZERO * max(1, abs(x)) else x
    require_known(mpmath.isfinite(x) and abs(x) < LARGEST and not ZERO < abs(x) < 1 / LARGEST)
    return x if abs(x) > ZERO else mpf(0)


def integer(x) -> int | None:
    return int(mpmath.nint(x)) if not isinstance(x, mpc) and is_equal(x, mpmath.nint(x)) else None


def is_negative(x) -> bool:
    return not isinstance(x, mpc) and x < 0


# ---- operations whose value needs care ---------------------------------------------------------------------
def power(base, exponent):
    require_known(abs(exponent) < 10**5 and (base != 0 or exponent > 0))
    require_known(not is_negative(base) or integer(exponent) is not None)  # (-8)^{1/3} has several values
    return mpmath.power(base, exponent if integer(exponent) is None else integer(exponent))


def root(x, n):
    return -mpmath.root(-x, int(n)) if is_negative(x) and n % 2 else mpmath.root(x, int(n))


def log(x, base=mpf(173) / 31):  # without a base it may be any: \log 8/\log 2 is 3
    require_known(x > 0 and base > 0)
    return mpmath.log(x) / mpmath.log(base)


def floor(x):
    return mpf(integer(x)) if integer(x) is not None else mpmath.floor(x)


def of_integers(function):
    def apply(*numbers):
        require_known(all(integer(x) is not None and abs(x) < 1000 for x in numbers))
        return mpf(function(*map(integer, numbers)))
    return apply


def of_small(function):
    """Without the numbers for which the function takes long."""
    def apply(x):
        require_known(abs(x) < 1000)
        return function(x)
    return apply


OPERATIONS = {"add": lambda *terms: sum(terms), "mul": lambda *factors: math.prod(factors), "neg": lambda x: -x,
              "div": lambda a, b: a / b, "pow": power, "root": root, "log": log, "abs": abs, "max": max, "min": min,
              "ln": mpmath.log, "arcsin": mpmath.asin, "arccos": mpmath.acos, "arctan": mpmath.atan,
              "floor": floor, "ceil": lambda x: -floor(-x), "Gamma": of_small(mpmath.gamma),
              "fact": of_integers(math.factorial), "binom": of_integers(math.comb), "gcd": of_integers(math.gcd)}
OPERATIONS |= {name: of_small(getattr(mpmath, name))
               for name in "sin cos tan cot sec csc sinh cosh tanh exp zeta".split()}
CONSTANTS = {"e": mp.e, "i": mpc(0, 1), "pi": mp.pi}


def value(tree: tuple, point: dict):
    """The number that the tree is, with the symbols' values from `point`; raises an error where there is none."""
    operation, *parts = tree
    if operation == "num":
        return settled(mpf(parts[0].numerator) / parts[0].denominator)
    if operation == "sym":
        return point[parts[0]]
    if operation in CONSTANTS:
        return +CONSTANTS[operation]
    if operation == "sum":
        first, last = integer(value(parts[0], point)), integer(value(parts[1], point))
        require_known(0 <= last - first < 1000)
        return settled(sum(value(parts[2], point | {r"\bound": mpf(k)}) for k in range(first, last + 1)))
    require_known(operation in OPERATIONS)
    numbers = [value(part, point) for part in parts]
    if point and is_negative(numbers[0]):
        require_known(operation != "ln" and (operation != "root" or numbers[1] % 2 != 0))
    return settled(OPERATIONS[operation](*numbers))


def attempt(tree: tuple, point: dict):
    """The value, or None."""
    try:
        return value(tree, point)
    except (Unknown, ArithmeticError, TypeError, ValueError):  # TypeError: complex numbers have no order
        return None


# ---- equal? ------------------------------------------------------------------------------------------------
def has(tree, words: set) -> bool:
    """Whether one of the words is an operation, a unit or a name in the tree."""
    return tree in words if isinstance(tree, str) else (
        isinstance(tree, (tuple, list)) and any(has(part, words) for part in tree))


def points(symbols: list[str], complex_ones: set[str]):
    """Values of the symbols: fractions of both signs, and integers, even and odd in turn."""
    rng = random.Random(0)

    def draw(i: int, name: str):
        if i % 4 == 0:
            return mpf(2 * rng.randint(1, 14) + (i // 4 >> symbols.index(name) % 3) % 2)
        sign = -1 if rng.random() < (0, 0, 0.5, 1)[i % 4] else 1
        x = sign * mpf(rng.randint(1, 97)) / rng.choice((7, 11, 13, 90))
        return mpc(x, mpf(rng.randint(1, 30)) / 17) if name in complex_ones else x

    return ({name: draw(i, name) for name in symbols} for i in range(60))


def formulas_equal(gold: tuple, answer: tuple, ratio: bool = False) -> bool:
    """Whether the values are equal, or, with `ratio`, in one constant ratio that is not zero."""
    symbols = sorted(names((gold, answer)))
    if not symbols:
        values = attempt(gold, {}), attempt(answer, {})
        return None not in values and is_equal(*values)
    if not names(gold):  # 0 of anything is no answer to 0
        return False
    absolute = has((gold, answer), {"abs"})
    agreed, first = 0, None if ratio else (1, 1)
    for point in points(symbols, {*filter(COMPLEX.match, symbols)} if absolute else set()):
        golds, answers = attempt(gold, point), attempt(answer, point)
        if golds is None or answers is None:
            if absolute and golds is not answers:  # \ln|x| and \ln x
                return False
        elif first is None:
            if (golds == 0) != (answers == 0):
                return False
            first = (golds, answers) if golds else None
        elif not is_equal(golds * first[1], answers * first[0]):
            return False
        else:
            agreed += 1
            if agreed == 20:  # so many points because floor and max agree at many by chance
                return True
    return agreed >= 3
