"""When two answers of known types are equal, type by type.  Imported by workers only, for it needs sympy."""

import re
from fractions import Fraction

import sympy
from sympy import FiniteSet, Interval, S

from verifier.answers import is_name, kind, read
from verifier.expressions import names
from verifier.notation import has_letters
from verifier.values import Undefined, formulas_equal, has, is_zero, ratio_is_positive, require, sign, value

COMBINE = {"union": sympy.Union, "intersection": sympy.Intersection, "difference": sympy.Complement}
SETS = {"interval", "reals", "builder", "in", "rel", *COMBINE}
ONE = ("num", Fraction(1), 0)
INFINITE = {("inf",): S.Infinity, ("neg", ("inf",)): S.NegativeInfinity}


def answers_equal(gold: str, answer: str) -> bool:
    golds, answers = read(gold), read(answer, symbols=not has_letters(gold))
    (gold, domain), (answer, other) = golds, answers
    if other and other != domain if domain else other[:1] in ("Q", "R", "C"):
        return False
    if not has((gold, answer), {"%"}):
        return same(gold, answer)
    return any(same(percent(gold, divide), percent(answer, divide)) for divide in (False, True))


def percent(tree, divide: bool):
    """18% read as 18, or as 18/100."""
    if not divide or not isinstance(tree, (tuple, list)):
        return tree
    if tree[0] == "unit" and tree[2] == "%":
        return ("unit", ("div", tree[1], ("num", Fraction(100), 0)), "%")
    return type(tree)(percent(part, divide) for part in tree)


def same(gold: tuple, answer: tuple) -> bool:
    if gold == answer:
        return True
    if "unit" in (gold[0], answer[0]):  # one may be missing, not be another
        (gold, unit), (answer, other) = bare(gold), bare(answer)
        return not (unit and other and unit != other) and same(gold, answer)
    kinds = {kind(gold), kind(answer)}
    named = named_values(gold), named_values(answer)
    if any(named):
        return named_values_agree(*named, answer if named[0] else gold)
    if SETS & kinds or is_solution(gold) or is_solution(answer):
        return sets_agree(gold, answer)
    if kinds & {"list", "set"}:
        return lists_agree(gold, answer)
    if kinds == {"tuple"}:
        return gold[2] == answer[2] and ordered(gold[1], answer[1])
    if kinds == {"matrix"}:
        return len(gold[1]) == len(answer[1]) and all(map(ordered, gold[1], answer[1]))
    if "eq" in kinds:
        return equations_agree(gold, answer)
    return kinds == {"value"} and values_agree(gold, answer)


def bare(tree: tuple) -> tuple[tuple, str | None]:
    return (tree[1], tree[2]) if tree[0] == "unit" else (tree, None)


def ordered(golds: list, answers: list) -> bool:
    return len(golds) == len(answers) and all(map(same, golds, answers))


# ---- values ------------------------------------------------------------------------------------------------
def values_agree(gold: tuple, answer: tuple) -> bool:
    if "name" in (gold[0], answer[0]):  # mgh is m\cdot g\cdot h
        return letters(gold) == letters(answer) is not None
    if "based" in (gold[0], answer[0]):  # the question names the base, so the answer may leave it out
        return gold[0] == "based" and answer[0] == "num" and gold[1] == str(answer[1])
    if "ratio" in (gold[0], answer[0]):
        golds, answers = (tree[1] if tree[0] == "ratio" else [tree, ONE] for tree in (gold, answer))
        return len(golds) == len(answers) and all(
            formulas_equal(("mul", g, answers[0]), ("mul", a, golds[0])) for g, a in zip(golds, answers))
    return formulas_equal(gold, answer)


def letters(tree: tuple) -> str | None:
    parts = tree[1:] if tree[0] == "mul" else [tree]
    return "".join(part[1] for part in parts) if all(map(is_name, parts)) else None


# ---- lists and sets of members -----------------------------------------------------------------------------
def lists_agree(gold: tuple, answer: tuple) -> bool:
    """Lists and sets in any order; a tuple beside a list in the same order, for parentheses have one."""
    kinds = kind(gold), kind(answer)
    if "tuple" in kinds:
        return "list" in kinds and ordered(gold[1], answer[1])
    # {x} may be the fractional part
    if not set(kinds) <= {"list", "set", "value"} or set(kinds) == {"set", "value"} and names((gold, answer)):
        return False
    if kinds == ("list", "list") and {gold[2], answer[2]} == {"or", "and"} and names(gold[1]):
        return False
    golds, answers = ([*tree[1]] if k != "value" else [tree] for tree, k in zip((gold, answer), kinds))
    if len(golds) == 1 and kinds[0] != "set" and answers:  # 42, 42
        return all(same(golds[0], other) for other in answers)
    if kinds[1] == "set":  # a set has its members once
        golds, answers = ([x for i, x in enumerate(part) if not any(same(x, other) for other in part[:i])]
                          for part in (golds, answers))
    for x in golds:  # {{1}} is not {1}
        found = [i for i, y in enumerate(answers) if (kind(x) == "set") == (kind(y) == "set") and same(x, y)]
        if not found:
            return False
        answers.pop(found[0])
    return not answers


# ---- equations and named values ----------------------------------------------------------------------------
def value_of(equation: tuple) -> tuple | None:
    r"""42 of x=42, 42=x, x=6\cdot7=42 and 6\cdot7=42; None where nothing is defined: 41=42, 2x=42."""
    sides = equation[1]
    if len(sides) == 2 and is_name(sides[1]) and not is_name(sides[0]) and not names(sides[0]):
        sides = sides[::-1]
    defined = all(i == 0 and is_name(x) or same(sides[-1], x) for i, x in enumerate(sides[:-1]))
    return sides[-1] if defined and not names(sides[0]) & names(sides[1:]) else None  # x=2x


def equations_agree(gold: tuple, answer: tuple) -> bool:
    if answer[0] != "eq":  # 5 is right for AB=5; but SRMC wrong for MR=SRMC
        name, found = gold[1][0], value_of(gold)
        return found is not None and is_name(name) and same(found, answer) and not (
            is_name(found) and re.fullmatch("[A-Z]{2,}", name[1]))
    if gold[0] != "eq":
        found = value_of(answer)
        return found is not None and same(gold, found)
    sides = gold[1], answer[1]
    if is_name(sides[0][0]) and sides[0][0] == sides[1][0]:
        values = value_of(gold), value_of(answer)
        return None not in values and same(*values)
    if any(len(pair) != 2 or any(kind(x) != "value" for x in pair) for pair in sides):
        return ordered(*sides)
    return multiples(gold, answer)


def multiples(gold: tuple, answer: tuple) -> bool:
    """x=5 and 2x=10: the differences of the sides are in a constant ratio."""
    differences = [difference(tree) for tree in (gold, answer)]
    return None not in differences and names(differences[0]) != set() and (
        formulas_equal(*differences, ratio=True))


def difference(tree: tuple) -> tuple | None:
    left, right = (("sym", x[1]) if x[0] == "name" else x for x in (bare(x)[0] for x in tree[1]))
    return None if has((left, right), {"based", "ratio"}) else ("add", left, ("neg", right))


def named_values(tree: tuple) -> dict | None:
    """{x: 1, y: 2} of "x=1, y=2" and of "(x,y)=(1,2)", in the order of the text."""
    pairs = []
    if tree[0] == "eq" and len(tree[1]) == 2 and kind(tree[1][0]) == kind(tree[1][1]) == "tuple":
        left, right = tree[1]
        pairs = list(zip(left[1], right[1])) if len(left[1]) == len(right[1]) else []
    elif tree[0] == "list" and tree[2] != "or" and all(x[0] == "eq" and len(x[1]) == 2 for x in tree[1]):
        pairs = [tuple(x[1]) for x in tree[1]]
    values = {name[1]: found for name, found in pairs if is_name(name)}
    return values if len(values) == len(pairs) > 1 else None


def named_values_agree(golds: dict | None, answers: dict | None, unnamed: tuple) -> bool:
    """Both by name; or one against a tuple or, if it is the gold's, a list in the same order."""
    if golds and answers:
        return golds.keys() == answers.keys() and all(same(golds[name], answers[name]) for name in golds)
    found, values = [*(golds or answers)], [*(golds or answers).values()]
    # (1,2) is x=1, y=2, but it is not y=1, x=2
    if unnamed[0] == "tuple" and found != sorted(found) and all(len(name) == 1 for name in found):
        return False
    if unnamed[0] != "tuple" and (golds or unnamed[0] != "list" or any(x[0] == "eq" for x in unnamed[1])):
        return False
    return ordered(values, unnamed[1]) if golds else ordered(unnamed[1], values)


# ---- intervals, inequalities, set builders ----------------------------------------------------------------
def is_solution(tree: tuple) -> bool:
    kinds = {x[0] for x in tree[1]} if tree[0] == "list" else set()
    return kinds <= {"rel", "in", "eq"} and bool(kinds & {"rel", "in"})


def number(tree: tuple):
    tree = bare(tree)[0]
    if tree in INFINITE:
        return INFINITE[tree]
    require(kind(tree) == "value" and not names(tree) and not has(tree, {"name", "based", "ratio"}))
    found = value(tree, {})
    require(sign(found) is not None)
    return found


def interval(low, high, low_in: bool, high_in: bool) -> sympy.Set:
    require((low < high or low == high and low_in and high_in) and not (low_in and low == -S.Infinity)
            and not (high_in and high == S.Infinity))
    return Interval(low, high, not low_in, not high_in)


def as_set(tree: tuple) -> tuple[str | None, sympy.Set]:
    r"""Variable and set of (1,2], x<1\lor x>2, 1<x\le2, x\ne3, \{x\mid x>1\}, x\in(1,2); raises Undefined."""
    type_, *parts = bare(tree)[0]
    if type_ == "reals":
        return None, S.Reals
    if type_ == "interval":
        return None, interval(number(parts[0]), number(parts[1]), *parts[2:])
    if type_ == "tuple":
        require(len(parts[0]) == 2 and parts[1] == "(")
        return None, interval(*map(number, parts[0]), False, False)
    if type_ == "set":
        return None, FiniteSet(*map(number, parts[0]))
    if type_ in ("union", "intersection", "difference"):
        sets = [as_set(part)[1] for part in parts[0]]
        return None, COMBINE[type_](*sets)
    if type_ == "in":
        return parts[0], as_set(parts[1])[1]
    if type_ == "builder":
        variable, found = as_set(parts[1])
        require(variable == parts[0])
        return variable, found
    if type_ == "eq":
        require(len(parts[0]) == 2 and parts[0][0][0] == "sym")
        return parts[0][0][1], FiniteSet(number(parts[0][1]))
    require(type_ == "rel" or is_solution(tree))
    if type_ == "rel":
        return solved(*parts)
    sets = [as_set(member) for member in parts[0]]
    require(len({variable for variable, _ in sets}) == 1)
    both, either = (combine(*(found for _, found in sets)) for combine in (sympy.Intersection, sympy.Union))
    # "x<1, x>2" can only be meant as "or"
    return sets[0][0], either if parts[1] == "or" or parts[1] == "," and both.is_empty else both


def solved(sides: list, operators: list) -> tuple[str, sympy.Set]:
    at = [i for i, x in enumerate(sides) if x[0] == "sym"]
    require(len(at) == 1 and (len(sides) == 2 or at == [1] and len(sides) == 3))
    variable, numbers = sides[at[0]][1], [None if i == at[0] else number(x) for i, x in enumerate(sides)]
    if operators == [r"\ne"]:
        return variable, S.Reals - FiniteSet(*filter(lambda x: x is not None, numbers))
    numbers = numbers if at == [1] else [-S.Infinity, *numbers]
    operators = operators if at == [1] else ["<", *operators]
    numbers, operators = [*numbers, S.Infinity][:3], [*operators, "<"][:2]
    return variable, interval(numbers[0], numbers[2], *(operator == r"\le" for operator in operators))


def sets_agree(gold: tuple, answer: tuple) -> bool:
    try:
        (variable, golds), (other, answers) = as_set(gold), as_set(answer)
    except (Undefined, ValueError):
        return same_form(gold, answer)
    parts = [sorted(found.args if isinstance(found, sympy.Union) else [] if found.is_empty else [found],
                    key=lambda part: part.inf.evalf(50)) for found in (golds, answers)]
    return not (variable and other and variable != other) and len(parts[0]) == len(parts[1]) and all(
        map(same_part, *parts))


def same_part(gold: sympy.Set, answer: sympy.Set) -> bool:
    if not (isinstance(gold, Interval) and isinstance(answer, Interval)):
        return gold == answer
    ends = (gold.start, answer.start), (gold.end, answer.end)
    return gold.left_open == answer.left_open and gold.right_open == answer.right_open and all(
        x == y or x.is_finite and y.is_finite and is_zero(x - y) for x, y in ends)


def same_form(gold: tuple, answer: tuple) -> bool:
    """Sets whose ends are formulas, and inequalities in several variables."""
    (gold, unit), (answer, other) = bare(gold), bare(answer)
    if gold[0] != answer[0] or unit and other and unit != other:
        return False
    if gold[0] == "interval":
        return gold[3:] == answer[3:] and ordered(gold[1:3], answer[1:3])
    if gold[0] == "difference":
        return ordered(gold[1], answer[1])
    if gold[0] in ("union", "intersection", "list"):
        return (gold[-1] == "or") == (answer[-1] == "or") and lists_agree(
            ("list", gold[1], ","), ("list", answer[1], ","))
    if gold[0] in ("in", "builder"):
        return gold[1] == answer[1] and same(gold[2], answer[2])
    if gold[0] != "rel" or gold[2] != answer[2]:
        return False
    return ordered(gold[1], answer[1]) or len(gold[1]) == 2 and multiples(gold, answer) and (
        gold[2] == [r"\ne"] or ratio_is_positive(difference(gold), difference(answer)))
