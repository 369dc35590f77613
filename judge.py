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
from latex2sympy2_extended.latex2sympy2 import (
    ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex)
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from math_verify import grader
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from verifier import canonical, per_member, read_pair

# ---- from a canonical text to an expression ----------------------------------------------------------------
# letters that stand for one thing: HHT, mgh, iv, AB, H_2O, A-B-C
NAME = re.compile(r"(?:(?:[A-Z][a-z]?(?:_?\d+|_\{\d+\})?'* ?){2,}|[A-Za-z](?: ?[A-Za-z]){2,}|[ivx]{2,}"
                  r"|[A-Z](?:-[A-Z]){2,})")
FIGURE = re.compile(r"\\(angle|triangle|square|odot)(?![a-zA-Z])\s*\{?([A-Z](?:[A-Z\d_' ]|\{\d+\})*)\}?")


def without_plus_minus(member: str) -> str:
    r"""1\pm2 as the list 1+2,1-2; several \pm vary on their own, unless an \mp goes against them."""
    pieces = re.split(r"(\\[pm]m)(?![a-zA-Z])", member)
    signs = ["+" if sign == r"\pm" else "-" for sign in pieces[1::2]]
    if not 1 <= len(signs) <= 4:
        return member
    opposite = ["-" if sign == "+" else "+" for sign in signs]
    members = []
    for pieces[1::2] in [signs, opposite] if "-" in signs else itertools.product("+-", repeat=len(signs)):
        members.append(re.sub(r"(^|[=({])\+", r"\1", "".join(pieces)))
    return ",".join(members)


def named(member: str) -> str:
    """Letters in a row as one symbol: CAB is not ABC. A ratio of three as a tuple: 1:2:3 is not 1:3:2."""
    ratio = member.split(":")
    if len(ratio) > 2:
        return "(1," + ",".join(rf"\frac{{{part}}}{{{ratio[0]}}}" for part in ratio[1:]) + ")"
    return rf"\text{{{re.sub('[ {}]', '', member)}}}" if NAME.fullmatch(member) else member


def parse(text: str):
    """A sympy expression from a canonical answer, by math-verify's parser, without its search in prose."""
    text = re.sub(r"\s*\\l(?:or|and)(?![a-zA-Z])\s*", ",", text)
    # math-verify drops the base of a number, takes \Gamma for \gamma, and its gcd of variables is 1
    text = re.sub(r"\\Gamma(?![a-zA-Z( {])", r"\\text{GAMMA}", text)
    text = re.sub(r"(?<![\w}])(\d[\d.]*)_\{?(\d+)\}?", r"B_{\1,\2}", text)
    text = re.sub(r"\\([gl])c[dm](?=\([^()]*(?<![\\a-zA-Z])[a-zA-Z])", r"\1_c", text)
    text = FIGURE.sub(lambda figure: rf"\text{{{figure[1]}{re.sub('[ {}]', '', figure[2])}}}", text)
    text = per_member(per_member(text, without_plus_minus, brackets=(r"\{",)), named)
    # math-verify's removal of units would make 2d and 2 equal
    config = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")
    latex = normalize_latex(text, config=config)
    expr = latex2sympy(latex, is_real=not grader.should_treat_as_complex(latex), convert_degrees=True,
                       normalization_config=None, conversion_config=ConversionConfig(lowercase_symbols=False))
    # sympy takes dv/dt for 0, because v is not written v(t)
    for derivative in expr.atoms(sympy.Derivative):
        expr = expr.xreplace({derivative: sympy.Symbol(str(derivative))})
    return expr


def verify(gold, answer) -> bool:
    return grader.verify(gold, answer, timeout_seconds=None, raise_on_error=True)


# ---- numbers and expressions -------------------------------------------------------------------------------
def percent_readings(gold: str, answer: str) -> list[tuple[str, str]]:
    """18% is 18 and 0.18; what a percent sign means is the same on both sides."""

    def divided(text: str) -> str:
        return per_member(text, lambda part: rf"\frac{{{part[:-1]}}}{{100}}" if part[-1:] == "%" else part)

    readings = [(gold.replace("%", ""), answer.replace("%", ""))]
    return readings + [(divided(gold), divided(answer))] if ("%" in gold) != ("%" in answer) else readings


def numbers_agree(gold, answer) -> bool:
    """The rule for numbers at the top of verifier.py, for sympy expressions."""
    written = all(isinstance(x, (sympy.Float, sympy.Integer)) for x in (gold, answer))
    decimal = gold.has(sympy.Float) or answer.has(sympy.Float)
    gold, answer = gold.doit(), answer.doit()
    if gold.free_symbols or answer.free_symbols:
        return (gold - answer).evalf() == 0
    if isinstance(gold, sympy.Rational) and isinstance(answer, sympy.Rational):
        return gold == answer
    if (gold - answer).is_Rational and gold != answer:  # e^{108} and e^{108}+1
        return False
    gold, answer = sympy.N(gold, 50), sympy.N(answer, 50)
    tolerance = 1e-13 if written else 5e-6 if decimal else 1e-30  # a sympy Float has 15 digits
    return bool(gold.is_finite and answer.is_finite and abs(gold - answer) <= tolerance * abs(gold))


def symbols_agree(gold, answer) -> bool:
    r"""mgh is itself and m\cdot g\cdot h."""

    def letters(expr):
        return sorted("".join(map(str, expr.args if isinstance(expr, sympy.Mul) else [expr])))

    if gold == answer or gold.is_Mul != answer.is_Mul and letters(gold) == letters(answer):
        return True
    return isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr) and numbers_agree(gold, answer)


def positive_symbols(gold, answer) -> dict:
    r"""The symbols of which one side has a root or logarithm, or both one of a product with them.

    Only these are taken for positive: \sqrt{x^2} is not x.
    """

    def under(expr):
        powers = expr.atoms(sympy.Pow)
        inner = [power.base for power in powers if power.exp.is_Rational and power.exp.q > 1]
        inner += [log.args[0] for log in expr.atoms(sympy.log)]
        alone, factors = set(), set()
        for factored in map(sympy.factor, inner):  # an even power says nothing of a sign
            bases = factored.as_powers_dict().items()
            odd = {base for base, exponent in bases if base.is_Symbol and exponent.is_odd}
            factors |= odd
            alone |= odd if factored.free_symbols == odd and len(odd) == 1 else set()
        return alone, factors

    if gold.has(sympy.Abs) or answer.has(sympy.Abs):
        return {}
    (alone, factors), (others_alone, others) = under(gold), under(answer)
    positive = alone | others_alone | factors & others
    return {symbol: sympy.Symbol(symbol.name, positive=True) for symbol in positive}


# ---- tuples, lists, named values ---------------------------------------------------------------------------
def is_name(expr) -> bool:
    return isinstance(expr, (sympy.Symbol, AppliedUndef)) or expr == sympy.E


def as_tuple(expr) -> sympy.Tuple | None:
    if isinstance(expr, sympy.Interval) and expr.is_open:  # the parser cannot tell (1,2) from a point
        return sympy.Tuple(expr.start, expr.end)
    return expr if isinstance(expr, sympy.Tuple) else None


def named_values(expr) -> dict | None:
    """{x: 1, y: 2} of "x=1, y=2" and of "(x,y)=(1,2)", in the order of the text."""
    if isinstance(expr, sympy.Eq) and isinstance(expr.lhs, sympy.Tuple) and as_tuple(expr.rhs):
        pairs = list(zip(expr.lhs, as_tuple(expr.rhs), strict=True))
    elif isinstance(expr, (FiniteSet, And)) and all(isinstance(x, sympy.Eq) for x in expr._unsorted_args):
        pairs = [(eq.lhs, eq.rhs) for eq in expr._unsorted_args]
    else:
        return None
    values = dict(pairs)
    return values if len(values) == len(pairs) > 1 and all(map(is_name, values)) else None


def named_values_agree(golds: dict | None, answers: dict | None, unnamed) -> bool:
    """Both by name; or one against a tuple or, if it is the gold's, a list in the same order."""
    if golds and answers:
        return golds.keys() == answers.keys() and all(same(golds[name], answers[name]) for name in golds)
    names, values = [str(name) for name in golds or answers], (golds or answers).values()
    others = as_tuple(unnamed)
    if others:  # (1,2) is x=1, y=2, but it is not y=1, x=2
        if names != sorted(names) and all(re.fullmatch("[a-zA-Z]", name) for name in names):
            return False
    elif answers and isinstance(unnamed, FiniteSet):
        others = unnamed._unsorted_args
    else:
        return False
    pairs = zip(values, others) if golds else zip(others, values)
    return len(values) == len(others) and all(same(*pair) for pair in pairs)


def members_agree(golds, answer) -> bool:
    """A list with a repeated member, which a set would forget, in any order."""
    left = list(answer._unsorted_args) if isinstance(answer, FiniteSet) else [answer]
    for gold in golds:
        found = next((i for i, other in enumerate(left) if same(gold, other)), None)
        if found is None:
            return False
        left.pop(found)
    return not left


# ---- sets, intervals, inequalities -------------------------------------------------------------------------
BUILDER = re.compile(r"\\\{ ?([a-zA-Z])(?:\\in ?\\mathbb ?\{?R\}?)?(?:\\mid|\\vert|\||:|\\colon) ?(.*)\\\}")


def solution_set(text: str) -> tuple | None:
    r"""Variable and set of "x<1\lor x>2", "1<x\le2", "x\ne3", "\{x\mid x>1\}", "x\in(1,2)"; else None."""
    if re.match(r"[a-zA-Z]\\in(?![a-zA-Z])", text):
        return text[0], parse(text[4:])
    builder = BUILDER.fullmatch(text)
    variable, condition = builder.groups() if builder else (None, text)
    parts = re.split(r"(,|\\lor ?|\\land ?)", condition)
    if not all(re.search(r"[<>]|\\[lgn]e(?![a-zA-Z])", part) for part in parts[::2]):
        return None
    total = None
    for separator, part in zip(["", *parts[1::2]], parts[::2]):
        expr = parse(part)
        relations = expr._unsorted_args if isinstance(expr, And) else [expr]
        names = set().union(*(relation.free_symbols for relation in relations))
        solved = all(isinstance(x, Relational) and len(names & {x.lhs, x.rhs}) == 1 for x in relations)
        if not solved or len(names) != 1 or str(*names) != (variable or str(*names)):
            return None
        variable = str(*names)
        values = sympy.Intersection(*(relation.as_set() for relation in relations))
        both = values if total is None else total & values
        # "x<1, x>2" can only be meant as "or"
        either = total is not None and (separator.startswith(r"\lor") or separator == "," and both.is_empty)
        total = total | values if either else both
    return variable, total


def sets_agree(gold: str, answer: str) -> bool | None:
    """None unless one is an inequality or a set builder."""
    for wrong in (r"\infty]", r"[-\infty"):  # sympy takes it for open
        if wrong in answer and wrong not in gold:
            return False
    gold_set, answer_set = solution_set(gold), solution_set(answer)
    if not gold_set and not answer_set:
        return None
    variable, golds = gold_set or (None, parse(gold))
    other_variable, answers = answer_set or (None, parse(answer))
    if variable and other_variable and variable != other_variable:
        return False
    return isinstance(golds, sympy.Set) and isinstance(answers, sympy.Set) and verify(golds, answers)


# ---- equations ---------------------------------------------------------------------------------------------
def equations_are_fair(gold, answer) -> bool:
    """False where math-verify would take the right side of an equation that does not define a value."""

    def equations(expr):
        return [node for node in sympy.preorder_traversal(expr) if isinstance(node, sympy.Eq)]

    if not equations(gold):  # AB=5 and f(3)=5 are right for 5
        return all(is_name(eq.lhs) or not eq.lhs.atoms(sympy.Number) or is_expr_of_only_symbols(eq.lhs)
                   or grader.sympy_expr_eq(eq.lhs, eq.rhs, 6, 15) for eq in equations(answer))
    if equations(answer):
        return True
    # 5 is right for AB=5; but SRMC wrong for MR=SRMC, 5 for x+y=5, and 4,3 for x=3,y=4
    named_once = isinstance(gold, sympy.And) or len({eq.lhs for eq in equations(gold)}) == 1
    return named_once and all(
        not (len(str(eq.lhs)) > 1 and eq.rhs.is_Symbol) if is_name(eq.lhs)
        else not eq.rhs.free_symbols and not eq.lhs.has(sympy.Add) for eq in equations(gold))


# ---- the judge ---------------------------------------------------------------------------------------------
theirs, theirs_numeric, theirs_solve = (
    grader.sympy_expr_eq, grader.sympy_numeric_eq, grader.sympy_solve_and_compare)


def expressions_agree(gold, answer, *settings, **flags) -> bool:
    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr):
        if answer.free_symbols and not gold.free_symbols:  # 0 of anything is no answer to 0
            return False
    return theirs(gold, answer, *settings, **flags)


grader.sympy_expr_eq = expressions_agree
grader.sympy_numeric_eq = lambda gold, answer, *precision: (  # theirs goes through a matrix, number by number
    theirs_numeric(gold, answer, *precision) if isinstance(gold, sympy.MatrixBase)
    else numbers_agree(gold, answer))
# x^2=-1 and x^2=-2, f(0)=0 and f(0)=1 have all their real solutions in common: none
grader.sympy_solve_and_compare = lambda gold, *rest: (
    bool(gold.free_symbols and sympy.solve(gold)) and theirs_solve(gold, *rest))
grader.sympy_compare_symbols = symbols_agree  # theirs ignores case


def same(gold, answer) -> bool:
    if isinstance(gold, FiniteSet) and len(set(gold._unsorted_args)) < len(gold._unsorted_args):
        return members_agree(gold._unsorted_args, answer)
    golds, answers = named_values(gold), named_values(answer)
    if golds or answers:
        return named_values_agree(golds, answers, answer if golds else gold)
    if not equations_are_fair(gold, answer):
        return False
    if verify(gold, answer):
        return True
    positive = positive_symbols(gold, answer)
    return bool(positive) and verify(gold.xreplace(positive), answer.xreplace(positive))


def judge(gold: str, answer: str | None) -> bool:
    """math-verify's verdict; what cannot be parsed is wrong, equal texts having been accepted before.

    Without an answer: can the gold be parsed?
    """
    try:
        if answer is None:
            gold = canonical(gold).replace("%", "")
            return solution_set(gold) is not None or parse(gold) is not None
        for texts in percent_readings(*read_pair(gold, answer)):
            by_set = sets_agree(*texts)
            if by_set is None:
                golds, answers = map(parse, texts)
                braces = [text.startswith(r"\{") for text in texts]
                kinds = [isinstance(x, FiniteSet) and len(x) > 1 for x in (golds, answers)]
                # braces have no order, parentheses have
                by_set = (braces[0] == braces[1] or kinds[0] == kinds[1]) and same(golds, answers)
            if by_set:
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
    judge(r"\frac{1}{2}", r"\sqrt{x}")  # the first parse builds tables
    os.write(replies, b"ready\n")
    for line in sys.stdin:
        # should the parent be killed while sympy computes, nobody else would end this process
        cpu_seconds = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds + 2 * deadline) + 1, resource.RLIM_INFINITY))
        os.write(replies, json.dumps(judge(*json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    serve(*map(float, sys.argv[1:]))
