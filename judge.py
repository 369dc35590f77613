r"""What runs in a worker of verifier.py: one answer after another against its gold, by math-verify.

Run as a script and imported by nobody, so that only a worker pays for importing sympy.
"""

import itertools
import json
import logging
import os
import re
import resource
import sys

import sympy
from latex2sympy2_extended import is_expr_of_only_symbols
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from math_verify import grader, verify
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from verifier import canonical, per_member, read_pair

# math-verify's removal of units would make 2d and 2 equal
NORMALIZATION = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")
SYMBOLS = ConversionConfig(lowercase_symbols=False)
NAME = re.compile(r"\{?((?:[A-Z] ?){2,}|[A-Za-z](?: ?[A-Za-z]){2,}|[ivx]{2,})'*\}?")
NAMED_FIGURE = re.compile(r"\\(angle|triangle|square|odot)(?![a-zA-Z])\s*(?:\{([A-Z][A-Z\d_' {}]*)\}|([A-Z](?: ?[A-Z]|_\d|')*))")


# ---- what a text says --------------------------------------------------------------------------------------


def percent_readings(gold: str, answer: str) -> list[tuple[str, str]]:
    """18% is 18 and 0.18, but what a percent sign means is the same on both sides."""
    def divided(text: str) -> str:
        return per_member(text, lambda member: rf"\frac{{{member[:-1]}}}{{100}}" if member.endswith("%") else member)

    pairs = [(gold.replace("%", ""), answer.replace("%", ""))]
    if ("%" in gold) != ("%" in answer):
        pairs.append((divided(gold), divided(answer)))
    return pairs


def without_plus_minus(member: str) -> str:
    r"""1\pm2 as the list 1+2, 1-2; several \pm vary on their own unless there is an \mp, which goes against them."""
    signs = re.findall(r"\\[pm]m(?![a-zA-Z])", member)
    if not signs or len(signs) > 4:
        return member
    together = r"\mp" in signs
    members = []
    for choice in [(0,) * len(signs), (1,) * len(signs)] if together else itertools.product((0, 1), repeat=len(signs)):
        picks = iter(zip(signs, choice))
        written = re.sub(r"\\[pm]m(?![a-zA-Z])", lambda _: "+-"[(lambda s, c: c ^ (s == r"\mp"))(*next(picks))], member)
        members.append(re.sub(r"(^|[=({])\+", r"\1", written))
    return ",".join(members)


def name_of(member: str) -> str:
    """Letters in a row as one symbol: CAB is not ABC."""
    match = NAME.fullmatch(member)
    return rf"\text{{{re.sub('[ {}]', '', member)}}}" if match else member


def parse(text: str):
    """A sympy expression from a canonical answer, by math-verify's parser without its search for formulas in prose."""
    text = re.sub(r"\s*\\l(?:or|and)\s*", ",", text)
    text = NAMED_FIGURE.sub(lambda figure: rf"\text{{{figure[1]}{re.sub('[ {}]', '', figure[2] or figure[3])}}}", text)
    text = per_member(per_member(text, without_plus_minus, (r"\{",)), name_of)
    latex = normalize_latex(text, config=NORMALIZATION)
    expr = latex2sympy(latex, is_real=not grader.should_treat_as_complex(latex), convert_degrees=True,
                       normalization_config=None, conversion_config=SYMBOLS)
    # sympy takes dv/dt for 0, because v is not written v(t)
    for derivative in expr.atoms(sympy.Derivative):
        expr = expr.xreplace({derivative: sympy.Symbol(str(derivative))})
    return expr


# ---- numbers and expressions -------------------------------------------------------------------------------


def numbers_agree(gold, answer) -> bool:
    """The rule for numbers at the top of verifier.py, for sympy expressions."""
    written = all(isinstance(x, (sympy.Float, sympy.Integer)) for x in (gold, answer))
    decimal = gold.has(sympy.Float) or answer.has(sympy.Float)
    gold, answer = gold.doit(), answer.doit()
    if gold.free_symbols or answer.free_symbols:
        return (gold - answer).evalf() == 0
    if isinstance(gold, sympy.Rational) and isinstance(answer, sympy.Rational):
        return gold == answer
    gold, answer = sympy.N(gold, 50), sympy.N(answer, 50)
    tolerance = 1e-13 if written else 5e-6 if decimal else 1e-30  # a sympy Float has 15 digits
    return bool(gold.is_finite and answer.is_finite and abs(gold - answer) <= tolerance * abs(gold))


def symbols_agree(gold, answer) -> bool:
    """A name is itself, or the product that an answer spells with \\cdot."""
    def letters(expr):
        factors = expr.args if isinstance(expr, sympy.Mul) else (expr,)
        return sorted("".join("e" if factor == sympy.E else str(factor) for factor in factors))

    return gold == answer or isinstance(gold, sympy.Mul) != isinstance(answer, sympy.Mul) and letters(gold) == letters(answer)


def positive_symbols(gold, answer) -> dict:
    """The symbols of which one side has a root or logarithm, or both one of a product with them."""

    def under(expr):
        inner = [power.base for power in expr.atoms(sympy.Pow) if power.exp.is_Rational and power.exp.q % 2 == 0]
        inner += [log.args[0] for log in expr.atoms(sympy.log)]
        alone, factors = set(), set()
        for factored in map(sympy.factor, inner):  # an even power says nothing of a sign
            bases = {base for base, exponent in factored.as_powers_dict().items() if base.is_Symbol and exponent.is_odd}
            factors |= bases
            alone |= bases if factored.free_symbols == bases and len(bases) == 1 else set()
        return alone, factors

    (alone, factors), (others_alone, others) = under(gold), under(answer)
    positive = alone | others_alone | factors & others
    return {symbol: sympy.Symbol(symbol.name, positive=True) for symbol in positive}


# ---- lists with repeated members ---------------------------------------------------------------------------


def same_members(gold, answer) -> bool:
    """A list that repeats a member, which a set would forget, in any order."""
    left = list(answer._unsorted_args) if isinstance(answer, FiniteSet) else [answer]
    for member in gold._unsorted_args:
        found = next((i for i, other in enumerate(left) if same(member, other)), None)
        if found is None:
            return False
        left.pop(found)
    return not left


# ---- named values, tuples ----------------------------------------------------------------------------------


def is_name(expr) -> bool:
    return isinstance(expr, (sympy.Symbol, AppliedUndef)) or expr == sympy.E


def as_tuple(expr):
    if isinstance(expr, sympy.Interval) and expr.is_open:
        return sympy.Tuple(expr.start, expr.end)
    return expr if isinstance(expr, sympy.Tuple) else None


def named_values(expr) -> dict | None:
    """{x: 1, y: 2} of "x=1, y=2" and of "(x,y)=(1,2)", in the order of the text."""
    if isinstance(expr, sympy.Eq) and isinstance(expr.lhs, sympy.Tuple) and as_tuple(expr.rhs) is not None:
        pairs = list(zip(expr.lhs, as_tuple(expr.rhs), strict=True))
    elif isinstance(expr, (FiniteSet, And)) and all(isinstance(x, sympy.Eq) for x in expr._unsorted_args):
        pairs = [(eq.lhs, eq.rhs) for eq in expr._unsorted_args]
    else:
        return None
    names = dict(pairs)
    return names if len(names) == len(pairs) > 1 and all(is_name(name) for name in names) else None


def named_agree(gold, answer) -> bool | None:
    """None where neither names several values."""
    golds, answers = named_values(gold), named_values(answer)
    if golds and answers:
        return golds.keys() == answers.keys() and all(same(golds[name], answers[name]) for name in golds)
    named, other = (golds, answer) if golds else (answers, gold)
    if not named:
        return None
    names, values = [str(name) for name in named], sympy.Tuple(*named.values())
    if as_tuple(other) is not None:  # (1,2) is x=1, y=2, where the letters ascend
        latin = all(re.fullmatch("[a-zA-Z]", name) for name in names)
        other = as_tuple(other) if names == sorted(names) or not latin else None
    elif golds or not isinstance(other, FiniteSet):
        return False
    else:
        other = sympy.Tuple(*other._unsorted_args)
    return other is not None and len(other) == len(values) and all(map(same, *((other, values) if answers else (values, other))))


# ---- intervals and inequalities ----------------------------------------------------------------------------


def solution_set(text: str):
    r"""(variable, set) of "x<1\lor x>2", "1<x\le2", "x\ne3", "\{x\mid x>1\}"; None for every other text."""
    builder = re.fullmatch(r"\\\{ ?([a-zA-Z])(?:\\in ?\\mathbb ?\{?R\}?)?(?:\\mid|\\vert|\||:|\\colon) ?(.*)\\\}", text)
    if re.fullmatch(r"[a-zA-Z]\\in(?![a-zA-Z]).*", text):
        return text[0], parse(text.split(r"\in", 1)[1])
    variable, condition = builder.groups() if builder else (None, text)
    parts = re.split(r"(,|\\lor ?|\\land ?)", condition)
    total = None
    if not all(re.search(r"[<>]|\\[lgn]e(?![a-zA-Z])", part) for part in parts[::2]):
        return None
    for separator, part in zip([""] + parts[1::2], parts[::2]):
        expr = parse(part)
        relations = expr._unsorted_args if isinstance(expr, And) else [expr]
        names = set().union(*(relation.free_symbols for relation in relations))
        fair = all(isinstance(r, Relational) and not isinstance(r, sympy.Eq) and len(names & {r.lhs, r.rhs}) == 1 for r in relations)
        if not fair or len(names) != 1 or str(*names) != (variable or str(*names)):
            return None
        variable = str(*names)
        values = sympy.Intersection(*(relation.as_set() for relation in relations))
        if total is None:
            total = values
        elif separator.startswith(r"\lor"):
            total = total | values
        else:  # "x<1, x>2" can only be meant as "or"
            both = total & values
            total = total | values if separator == "," and both.is_empty else both
    return variable, total


def sets_agree(gold: str, answer: str) -> bool | None:
    """None unless one is an inequality or set builder, and the other one, too, or a set."""
    if re.search(r"\\infty\]|\[-\\infty", answer) and not re.search(r"\\infty\]|\[-\\infty", gold):
        return False  # which sympy takes for open
    gold_set, answer_set = solution_set(gold), solution_set(answer)
    if not gold_set and not answer_set:
        return None
    (variable, gold), (other, answer) = gold_set or (None, parse(gold)), answer_set or (None, parse(answer))
    if variable and other and variable != other or not all(isinstance(x, sympy.Set) for x in (gold, answer)):
        return False
    return verify(gold, answer, timeout_seconds=None, raise_on_error=True)


# ---- equations ---------------------------------------------------------------------------------------------


def equations_are_fair(gold, answer) -> bool:
    """False where math-verify would take the right side of an equation that does not define a value."""
    def equations(expr):
        return [node for node in sympy.preorder_traversal(expr) if isinstance(node, sympy.Eq)]

    if not equations(gold):  # AB=5 and f(3)=5 are right for 5
        return all(is_name(eq.lhs) or not eq.lhs.atoms(sympy.Number) or is_expr_of_only_symbols(eq.lhs)
                   or grader.sympy_expr_eq(eq.lhs, eq.rhs, 6, 15) for eq in equations(answer))
    # 5 is right for AB=5; but SRMC wrong for MR=SRMC, 5 for x+y=5, and 4,3 for x=3,y=4
    named_once = isinstance(gold, sympy.And) or len({eq.lhs for eq in equations(gold)}) == 1
    return bool(equations(answer)) or named_once and all(
        is_name(eq.lhs) and not (len(str(eq.lhs)) > 1 and eq.rhs.is_Symbol) or not eq.rhs.free_symbols and not eq.lhs.has(sympy.Add) for eq in equations(gold))


# ---- the judge ---------------------------------------------------------------------------------------------


def same(gold, answer) -> bool:
    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr):
        if answer.free_symbols and not gold.free_symbols:  # 0 of anything is not an answer to 0
            return False
    if isinstance(gold, FiniteSet) and len(set(gold._unsorted_args)) < len(gold._unsorted_args):
        return same_members(gold, answer)
    named = named_agree(gold, answer)
    if named is not None:
        return named
    if not equations_are_fair(gold, answer):
        return False
    if verify(gold, answer, timeout_seconds=None, raise_on_error=True):
        return True
    positive = positive_symbols(gold, answer)
    return bool(positive) and verify(gold.xreplace(positive), answer.xreplace(positive), timeout_seconds=None, raise_on_error=True)


def judge(gold: str, answer: str | None) -> bool:
    """math-verify's verdict; what cannot be parsed is wrong, equal texts having been accepted before.

    Without an answer: can the gold be parsed?
    """
    try:
        if answer is None:
            parse(canonical(gold).replace("%", ""))
            return True
        for gold_text, answer_text in percent_readings(*read_pair(gold, answer)):
            try:
                by_set = sets_agree(gold_text, answer_text)
            except Exception:
                by_set = None
            if by_set or by_set is None and same(parse(gold_text), parse(answer_text)):
                return True
        return False
    except MemoryError:
        os._exit(1)  # a fresh process is safer; the parent counts the failure
    except Exception:  # noqa: BLE001  antlr and sympy raise anything
        return False


def serve(memory_gb: float, deadline: float) -> None:
    """Answer each line [gold, answer] from stdin with true or false, until stdin closes."""
    replies = os.dup(1)
    os.dup2(2, 1)  # a stray print must not look like a reply
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_gb * 2**30),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    patch_grader()
    judge(r"\frac{1}{2}", r"\sqrt{x}")  # the first parse builds tables
    os.write(replies, b"ready\n")
    for line in sys.stdin:
        # should the parent be killed while sympy computes, nobody else would end this process
        cpu_seconds = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds + 2 * deadline) + 1, resource.RLIM_INFINITY))
        os.write(replies, json.dumps(judge(*json.loads(line))).encode() + b"\n")


def patch_grader() -> None:
    numeric_eq, solve_and_compare = grader.sympy_numeric_eq, grader.sympy_solve_and_compare
    grader.sympy_numeric_eq = lambda gold, answer, *precision: (  # theirs goes through a matrix, number by number
        numeric_eq(gold, answer, *precision) if isinstance(gold, sympy.MatrixBase) else numbers_agree(gold, answer))
    # x^2=-1 and x^2=-2 have all their real solutions in common: none
    grader.sympy_solve_and_compare = lambda gold, *rest: bool(sympy.solve(gold)) and solve_and_compare(gold, *rest)
    grader.sympy_compare_symbols = symbols_agree  # theirs ignores case


if __name__ == "__main__":
    serve(*map(float, sys.argv[1:]))
