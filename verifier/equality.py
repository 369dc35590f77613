"""When two answers of known types are equal, type by type. Imported by workers only, because it imports mpmath."""

from fractions import Fraction

from verifier.answers import is_name, read
from verifier.expressions import names
from verifier.units import has_letters
from verifier.values import formulas_equal, has

SETS = {"tuple", "set", "union"}
STRUCTURES = {"list", "in", "rel", "eq", "name", *SETS}


def answers_equal(gold: str, answer: str) -> bool:
    trees = read(gold), read(answer, symbols=not has_letters(gold))
    for percent in (1, Fraction(1, 100)) if has(trees, {"%"}) else (1,):
        golds, answers = (with_percent(tree, percent) for tree in trees)
        if same(without_braces(golds, answers), without_braces(answers, golds)):
            return True
    return False


def with_percent(tree, percent: Fraction):
    """18% read as 18, or as 18/100."""
    if not isinstance(tree, (tuple, list)):
        return tree
    if tree[:1] == ("unit",) and tree[2] == "%":
        return ("unit", ("mul", tree[1], ("num", percent)) if percent != 1 else tree[1], "%")
    return type(tree)(with_percent(part, percent) for part in tree)


def without_braces(tree: tuple, other: tuple) -> tuple:
    r"""1,2 of \{1,2\}, where the other is no set; but {x} may be the fractional part."""
    is_named = named_values(other) and not has(tree, {"eq"})
    if tree[0] != "set" or other[0] in {"in", *SETS} or is_named or len(tree[1]) == 1 and names(tree[1]):
        return tree
    return tree[1][0] if len(tree[1]) == 1 else ("list", tree[1], ",")


def same(gold: tuple, answer: tuple) -> bool:
    kinds = {gold[0], answer[0]}
    if gold == answer:
        return True
    if "unit" in kinds:  # one may be missing, not be another
        (gold, unit), (answer, other) = bare(gold), bare(answer)
        return not (unit and other and unit != other) and same(gold, answer)
    if kinds == {"in"}:
        return gold[1] == answer[1] and same(gold[2], answer[2])
    if "in" in kinds:
        found, other = (gold[2], answer) if gold[0] == "in" else (answer[2], gold)
        return other[0] in SETS and same(found, other)
    if named_values(gold) or named_values(answer):
        return same_named(gold, answer)
    if "eq" in kinds:
        return same_equations(gold, answer)
    if kinds == {"tuple", "list"}:  # parentheses have an order
        return ("(", ")") in (gold[2:], answer[2:]) and ordered(gold[1], answer[1])
    if kinds == {"list"}:
        apart = {gold[2], answer[2]} == {"or", "and"} and names(gold[1])
        return not apart and unordered(gold[1], answer[1])
    if len(kinds) == 1 and kinds < {"rel", *SETS}:
        has_order = gold[0] == "tuple" or gold[0] == "rel" and gold[2] != [r"\ne"]
        return gold[2:] == answer[2:] and (ordered if has_order else unordered)(gold[1], answer[1])
    return not kinds & STRUCTURES and formulas_equal(gold, answer)


def bare(tree: tuple) -> tuple[tuple, str | None]:
    return (tree[1], tree[2]) if tree[0] == "unit" else (tree, None)


def ordered(golds: list, answers: list) -> bool:
    return len(golds) == len(answers) and all(map(same, golds, answers))


def unordered(golds: list, answers: list) -> bool:
    answers = list(answers)
    for gold in golds:
        found = [i for i, answer in enumerate(answers) if same(gold, answer)]
        if not found:
            return False
        del answers[found[0]]
    return not answers


# ---- equations and named values ----------------------------------------------------------------------------
def value_of(equation: tuple) -> tuple | None:
    r"""42 of x=42, 42=x, x=6\cdot7=42 and 6\cdot7=42; None where nothing is defined: 41=42, 2x=42, MR=SRMC."""
    sides = equation[1]
    if is_name(sides[-1]) and not is_name(sides[0]) and not names(sides[0]):
        sides = sides[::-1]
    defined = all(i == 0 and is_name(x) or same(sides[-1], x) for i, x in enumerate(sides[:-1]))
    circular = sides[0][0] == sides[-1][0] == "name" or names(sides[0]) & names(sides[1:])  # x=2x
    return sides[-1] if defined and not circular else None


def same_equations(gold: tuple, answer: tuple) -> bool:
    if gold[0] != "eq" or answer[0] != "eq":  # 5 is right for AB=5, and AB=5 for 5
        equation, other = (gold, answer) if gold[0] == "eq" else (answer, gold)
        found = value_of(equation)
        return found is not None and (equation is answer or is_name(gold[1][0])) and same(found, other)
    if is_name(gold[1][0]) and gold[1][0] == answer[1][0]:
        values = value_of(gold), value_of(answer)
        return None not in values and same(*values)
    sides = [bare(x)[0] for x in gold[1] + answer[1]]
    if len(gold[1]) != 2 or len(answer[1]) != 2 or {x[0] for x in sides} & (STRUCTURES - {"name"}):
        return ordered(gold[1], answer[1])
    # x=5 and 2x=10: the differences of the sides are in a constant ratio
    left, right, other_left, other_right = (("sym", x[1]) if x[0] == "name" else x for x in sides)
    differences = ("add", left, ("neg", right)), ("add", other_left, ("neg", other_right))
    return names(differences[0]) != set() and formulas_equal(*differences, ratio=True)


def named_values(tree: tuple) -> dict | None:
    """{x: 1, y: 2} of "x=1, y=2", in the order of the text."""
    if tree[0] != "list" or tree[2] == "or" or any(x[0] != "eq" or len(x[1]) != 2 for x in tree[1]):
        return None
    values = {x[1][0][1]: x[1][1] for x in tree[1] if is_name(x[1][0])}
    return values if len(values) == len(tree[1]) > 1 else None


def same_named(gold: tuple, answer: tuple) -> bool:
    """Both by name; or one against a tuple or, if it is the gold's, a list in the same order."""
    golds, answers = named_values(gold), named_values(answer)
    if golds and answers:
        return golds.keys() == answers.keys() and all(same(golds[name], answers[name]) for name in golds)
    found, unnamed = (golds, answer) if golds else (answers, gold)
    # (1,2) is x=1, y=2, but it is not y=1, x=2
    if unnamed[0] == "tuple" and [*found] != sorted(found) and all(len(name) == 1 for name in found):
        return False
    if unnamed[0] != "tuple" and (golds or unnamed[0] != "list" or has(unnamed[1], {"eq"})):
        return False
    return ordered([*golds.values()], answer[1]) if golds else ordered(gold[1], [*answers.values()])
