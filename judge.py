"""What runs in a worker of verifier.py: one answer after another against its gold, by math-verify.

Run as a script and imported by nobody, so that only a worker pays for importing sympy.
"""

import json
import logging
import os
import resource
import sys

import sympy
from latex2sympy2_extended import is_expr_of_only_symbols
from latex2sympy2_extended.latex2sympy2 import (
    ConversionConfig,
    NormalizationConfig,
    latex2sympy,
    normalize_latex,
)
from math_verify import grader, verify
from sympy.core.function import AppliedUndef

from verifier import canonical


def parse(text: str):
    """A sympy expression from an answer, by math-verify's parser without its search for formulas in prose."""
    # math-verify's removal of units would make 2d and 2 equal
    config = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")
    latex = normalize_latex(canonical(text), config=config)
    expr = latex2sympy(
        latex,
        is_real=not grader.should_treat_as_complex(latex),
        normalization_config=None,
        conversion_config=ConversionConfig(lowercase_symbols=False),
    )
    # sympy takes dv/dt for 0, because v is not written v(t)
    for derivative in expr.atoms(sympy.Derivative):
        expr = expr.xreplace({derivative: sympy.Symbol(str(derivative))})
    return expr


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


def equations_are_fair(gold, answer) -> bool:
    """False where math-verify would take the right side of an equation that does not define a value."""

    def equations(expr):
        return [node for node in sympy.preorder_traversal(expr) if isinstance(node, sympy.Eq)]

    def is_name(expr):
        return isinstance(expr, (sympy.Symbol, AppliedUndef)) or expr == sympy.E

    if not equations(gold):  # AB=5 and f(3)=5 are right for 5
        return all(
            is_name(eq.lhs)
            or not eq.lhs.atoms(sympy.Number)
            or is_expr_of_only_symbols(eq.lhs)
            or grader.sympy_expr_eq(eq.lhs, eq.rhs, 6, 15)
            for eq in equations(answer)
        )
    # 5 is right for AB=5; but SRMC wrong for MR=SRMC, 5 for x+y=5, and 4,3 for x=3,y=4
    named_once = isinstance(gold, sympy.And) or len({eq.lhs for eq in equations(gold)}) == 1
    return (
        bool(equations(answer))
        or named_once
        and all(
            is_name(eq.lhs) or not eq.rhs.free_symbols and not eq.lhs.has(sympy.Add) for eq in equations(gold)
        )
    )


def judge(gold: str, answer: str | None) -> bool:
    """math-verify's verdict; what cannot be parsed is wrong, equal texts having been accepted before.

    Without an answer: can the gold be parsed?
    """
    try:
        gold = parse(gold)
        if answer is None:
            return True
        answer = parse(answer)
        return equations_are_fair(gold, answer) and verify(
            gold, answer, timeout_seconds=None, raise_on_error=True
        )
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
    numeric_eq, solve_and_compare = grader.sympy_numeric_eq, grader.sympy_solve_and_compare
    grader.sympy_numeric_eq = (
        lambda gold, answer, *precision: (  # theirs goes through a matrix, number by number
            numeric_eq(gold, answer, *precision)
            if isinstance(gold, sympy.MatrixBase)
            else numbers_agree(gold, answer)
        )
    )
    # x^2=-1 and x^2=-2 have all their real solutions in common: none
    grader.sympy_solve_and_compare = lambda gold, *rest: (
        bool(sympy.solve(gold)) and solve_and_compare(gold, *rest)
    )
    judge(r"\frac{1}{2}", r"\sqrt{x}")  # the first parse builds tables
    os.write(replies, b"ready\n")
    for line in sys.stdin:
        # should the parent be killed while sympy computes, nobody else would end this process
        cpu_seconds = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds + 2 * deadline) + 1, resource.RLIM_INFINITY))
        os.write(replies, json.dumps(judge(*json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    serve(*map(float, sys.argv[1:]))
