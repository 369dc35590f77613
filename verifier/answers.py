r"""Types of answers: the tree of a whole answer, if all of its tokens are known.

Beside the trees of expressions.py: ("list", members, "," or "or" or "and"), ("set", members), ("tuple", members,
opening, closing), which is also an interval, ("union", sets), ("in", variable, set), ("eq", sides), ("rel", sides,
operators), ("name", text), ("unit", tree, unit). A matrix is a tuple of rows.
"""

import itertools
import re

from verifier.expressions import TRIG, Unknown, names, parse, product, require_known
from verifier.notation import canonical, clean
from verifier.units import without_condition, without_unit

# letters that stand for one thing: HHT, mgh, iv, AB, H_2O, A-B-C; words; digits with a base
NAME = re.compile(r"(?:[A-Z][a-z]?(?:_?\d+|_\{\d+\})?'* ?){2,}|[A-Za-z](?: ?[A-Za-z]){2,}|[ivx]{2,}|[A-Z](?:-[A-Z]){2,}"
                  r"|\\text\{[A-Za-z][A-Za-z '-]*\}|-?\d[\dA-F.]*\s*_\s*(?:\d|\{\d+\})")
PIECE = re.compile(r"\\text\{[^{}]*\}|(?P<open>\\begin\{[a-z]+\}|\\\{|[({\[])|(?P<close>\\end\{[a-z]+\}|\\\}|[)}\]])"
                   r"|\\[a-zA-Z]+|\\.|\S", re.DOTALL)
LISTED = {",": ",", ";": ",", r"\or": "or", r"\and": "and"}
TURNED = {"=": "=", "<": ">", r"\le": r"\ge", ">": "<", r"\ge": r"\le", r"\ne": r"\ne", r"\in": ""}
MATRIX = re.compile(r"(.*?)(?:\\cdot)?[(\[]?\\begin\{([pb]?matrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\2\}[)\]]?",
                    re.DOTALL)
BUILDER = re.compile(r"\\\{\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\||:|\\mid)(.*)\\\}", re.DOTALL)
REALS = re.compile(r"\\mathbb\s*\{?R\}?(?:\s*\\(?:setminus|backslash)\s*\\\{([^,;]*)\\\})?")
BRACKETS = re.compile(r"(\\\{|[(\[])(.*)(\\\}|[)\]])", re.DOTALL)
INFINITY, MINUS_INFINITY = ("inf",), ("neg", ("inf",))


def split(text: str, separators) -> tuple[list[str], list[str]]:
    """The parts of the text between separators that stand in no brackets, and the separators."""
    depth, start, parts, found = 0, 0, [], []
    for token in PIECE.finditer(text):
        depth += bool(token["open"]) - bool(token["close"])
        require_known(depth >= 0)
        if depth == 0 and token[0] in separators:
            parts, found, start = [*parts, text[start : token.start()]], [*found, token[0]], token.end()
    require_known(depth == 0)
    return [part.strip() for part in [*parts, text[start:]]], found


def read(text: str, symbols: bool = False) -> tuple:
    r"""The tree of an answer; raises Unknown.

    `symbols`: one letter behind a number may be a unit, because no letter of the gold could be meant.
    """
    text = without_condition(clean(text))
    if not re.search(r"[(\[]|\\\{", text):
        text = re.sub(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])", lambda number: number[0].replace(",", ""), text)
    require_known(text.isdigit() or not re.search(r"(?<![\d.])0\d", text))  # 1990-05-12; (1,000) may be a thousand
    return listed(text, symbols)


def listed(text: str, symbols: bool) -> tuple:
    texts, separators = split(text, LISTED)
    members = [member(signed, symbols) for part in texts for signed in plus_and_minus(part)]
    if len(members) == 1:
        return members[0]
    connectives = {LISTED[separator] for separator in separators} - {","} or {","}
    require_known(len(connectives) == 1)
    if connectives == {"or"} and "in" in {x[0] for x in members}:  # x<1 or x=2
        sets = [("in", x[1][0][1], ("set", x[1][1:])) if x[0] == "eq" else x for x in members]
        require_known(all(x[:2] == ("in", sets[0][1]) for x in sets))
        return ("in", sets[0][1], ("union", [x[2] for x in sets]))
    return ("list", members, *connectives)


def plus_and_minus(text: str) -> list[str]:
    r"""1\pm2 as 1+2 and 1-2; several \pm vary on their own."""
    pieces = re.split(r"\s*\\pm(?![a-zA-Z])\s*", text)
    if not 1 < len(pieces) < 6 or re.fullmatch(r"\\\{.*\\\}", text):  # of a set, each member
        return [text]
    found = []
    for signs in itertools.product("+-", repeat=len(pieces) - 1):
        signed = pieces[0] + "".join(sign + piece for sign, piece in zip(signs, pieces[1:]))
        found.append(re.sub(r"(^|[=({])\+", r"\1", signed))
    return found


def member(text: str, symbols: bool) -> tuple:
    """One equation, inequality or value of a list."""
    texts, operators = split(text, TURNED)
    if operators == [r"\in"]:
        require_known(re.fullmatch("[a-zA-Z]", texts[0]))
        return ("in", texts[0], side(texts[1], symbols))
    sides = [side(part, symbols) for part in texts]
    kinds = {tree[0] for tree in sides} & {"list", "tuple", "set", "union", "in"}
    if not operators:
        return sides[0]
    if set(operators) == {"="}:
        left, right = sides[0], sides[-1]
        if kinds == {"tuple"} and len(sides) == 2 and len(left[1]) == len(right[1]):  # (x,y)=(1,2) is x=1, y=2
            return ("list", [("eq", list(pair)) for pair in zip(left[1], right[1])], ",")
        require_known(not kinds or len(sides) == 2 and is_name(left))
        return ("eq", sides)
    if operators[0] in (">", r"\ge"):
        sides, operators = sides[::-1], [TURNED[operator] for operator in reversed(operators)]
    require_known(not kinds and (set(operators) <= {"<", r"\le"} or operators == [r"\ne"]))
    return solved(sides, operators) or ("rel", sides, operators)


def is_name(tree: tuple) -> bool:
    return tree[0] in ("sym", "name")


def solved(sides: list, operators: list) -> tuple | None:
    r"""The set of the numbers x with 1<x\le2, x>3 or x\ne4; None if the sides are others."""
    at = [i for i, x in enumerate(sides) if x[0] == "sym"]
    if len(at) != 1 or names([x for x in sides if x[0] != "sym"]) or len(sides) == 3 and at != [1]:
        return None
    variable = sides[at[0]][1]
    if operators == [r"\ne"]:
        return ("in", variable, all_but(sides[1 - at[0]]))
    if at == [0]:
        sides, operators = [MINUS_INFINITY, *sides], ["<", *operators]
    elif len(sides) == 2:
        sides, operators = [*sides, INFINITY], [*operators, "<"]
    opening, closing = "[" if operators[0] == r"\le" else "(", "]" if operators[1] == r"\le" else ")"
    return ("in", variable, ("tuple", [sides[0], sides[2]], opening, closing))


def all_but(number: tuple) -> tuple:
    return ("union", [("tuple", [MINUS_INFINITY, number], "(", ")"), ("tuple", [number, INFINITY], "(", ")")])


def side(text: str, symbols: bool) -> tuple:
    """What stands on its own, or beside a relation: a value, a set, a tuple, a matrix, a name."""
    value, unit = (text, None) if TRIG.search(text) else without_unit(text, symbols)
    if unit is not None:
        return ("unit", side(value, symbols), unit)
    parts, operators = split(text, {r"\cup"})
    if operators:
        sets = [side(part, symbols) for part in parts]
        require_known(all(x[0] == "set" or x[0] == "tuple" and len(x[1]) == 2 for x in sets))
        return ("union", sets)
    if text == r"\emptyset":
        return ("set", [])
    if found := REALS.fullmatch(text):
        return all_but(parse(found[1])) if found[1] else ("tuple", [MINUS_INFINITY, INFINITY], "(", ")")
    if found := MATRIX.fullmatch(text):
        factor = [parse("-1" if found[1] == "-" else found[1].strip())] if found[1] else []
        rows = [row.split("&") for row in re.split(r"\\\\(?:\s*\[[^\]]*\])?", re.sub(r"\\\\\s*$", "", found[3]))]
        rows = [[product([*factor, parse(cell.strip())]) for cell in row] for row in rows]
        return ("tuple", [("tuple", row, "row", "") for row in rows], "matrix", "")
    if NAME.fullmatch(text):
        return ("name", canonical(text))
    return in_brackets(text, symbols) or parse(text)


def in_brackets(text: str, symbols: bool) -> tuple | None:
    """A set, a tuple, an interval, or a value in brackets; None for (x+1)(x-1)."""
    opening, inside, closing = match.groups() if (match := BRACKETS.fullmatch(text)) else ("", "", "")
    if opening + closing == r"\{\}":
        if builder := BUILDER.fullmatch(text):
            found = listed(builder[2].strip(), symbols)
            require_known(found[:2] == ("in", builder[1]))
            return found
        found = listed(inside.strip(), symbols) if inside.strip() else ("list", [], ",")
        return ("set", found[1] if found[0] == "list" else [found])
    try:
        parts, separators = split(inside, (",", ";"))
    except Unknown:
        return None
    if not separators:
        alone = opening + closing == "()" or opening + closing == "[]" and re.fullmatch(r"\s*-?\d+\s*", inside)
        return side(inside.strip(), symbols) if alone else None
    require_known("{" not in opening + closing and (len(parts) == 2 or opening + closing in ("()", "[]")))
    return ("tuple", [side(part, symbols) for part in parts], opening, closing)
