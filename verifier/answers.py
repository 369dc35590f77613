r"""Types of answers: the tree of a whole answer, if all of its tokens are known.

Beside the trees of expressions.py: ("list", members, "," or "or" or "and"), ("tuple", members, bracket),
("set", members), ("interval", low, high, low is in, high is in), ("union" or "intersection" or "difference",
sets), ("reals",), ("builder", variable, condition), ("in", variable, set), ("eq", sides), ("rel", sides,
operators), ("matrix", rows), ("ratio", parts), ("based", digits, base), ("name", text), ("unit", tree, unit).
"""

import itertools
import re

from verifier.expressions import Unknown, parse, product
from verifier.notation import TEXT, canonical, clean
from verifier.units import without_condition, without_unit

# letters that stand for one thing: HHT, mgh, iv, AB, H_2O, A-B-C; and words
NAME = re.compile(rf"(?:[A-Z][a-z]?(?:_?\d+|_\{{\d+\}})?'* ?){{2,}}|[A-Za-z](?: ?[A-Za-z]){{2,}}|[ivx]{{2,}}"
                  rf"|[A-Z](?:-[A-Z]){{2,}}|{TEXT}[A-Za-z][A-Za-z '-]*\}}|\\(?:vec|bold)\s*\{{?[a-zA-Z]\}}?")
PIECE = re.compile(r"(?P<thousands>(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,]))|\\text\{[^{}]*\}"
                   r"|(?P<open>\\begin\{[a-z]+\}|\\\{|[({\[])|(?P<close>\\end\{[a-z]+\}|\\\}|[)}\]])"
                   r"|\\[a-zA-Z]+|\\.|\S", re.DOTALL)
LISTED = {",": ",", ";": ",", r"\or": "or", r"\and": "and"}
LOGIC = {r"\lor": "or", r"\vee": "or", r"\land": "and", r"\wedge": "and"}  # known between relations only
TURNED = {"=": "=", "<": ">", r"\le": r"\ge", ">": "<", r"\ge": r"\le", r"\ne": r"\ne", r"\in": ""}
SETS = {r"\cup": "union", r"\cap": "intersection", r"\setminus": "difference", r"\backslash": "difference"}
TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])(?!\s*\^\s*\{?\s*-)")
MATRIX = re.compile(r"(.*?)\\begin\{([pbBv]?|small|array)(?:matrix)?\}(?:\{[clr|]*\})?(.*)"
                    r"\\end\{\2(?:matrix)?\}\s*(\^\s*\{?\s*T\s*\}?)?", re.DOTALL)
BUILDER = re.compile(r"\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?)?\s*"
                     r"(?:\||:|\\(?:mid|colon)(?![a-zA-Z]))(.*)", re.DOTALL)
BASED = re.compile(r"(-?)\s*(\d[0-9A-F]*(?:\.[0-9A-F]+)?)\s*_\s*\{?\s*(\d+)\s*\}?")
LEADING_ZERO = re.compile(r"\d,0\d\d(?!\d)")  # (1,000) may be a thousand
DEEPEST = 6  # members in members
STRUCTURES = {*"list set interval reals builder in eq rel matrix tuple".split(), *SETS.values()}


def kind(tree: tuple) -> str:
    tree = tree[1] if tree[0] == "unit" else tree
    return tree[0] if tree[0] in STRUCTURES else "value"


def is_name(tree: tuple) -> bool:
    return tree[0] in ("sym", "name")


def require(understood) -> None:
    if not understood:
        raise Unknown


def split(text: str, separators, thousands: bool = False) -> tuple[list[str], list[str]]:
    """The parts of the text between separators that stand in no brackets, and the separators."""
    depth, start, parts, found = 0, 0, [], []
    for token in PIECE.finditer(text):
        depth += bool(token["open"]) - bool(token["close"])
        require(depth >= 0)
        if depth == 0 and token["thousands"] and not thousands and "," in separators:
            *heads, _ = token[0].split(",")
            for head in heads:
                comma = max(token.start(), start) + len(head)
                parts, found, start = [*parts, text[start:comma]], [*found, ","], comma + 1
        elif depth == 0 and token[0] in separators and not token["close"]:
            parts, found, start = [*parts, text[start : token.start()]], [*found, token[0]], token.end()
    require(depth == 0)
    return [part.strip() for part in [*parts, text[start:]]], found


def read(text: str, symbols: bool = False) -> tuple[tuple, str]:
    """The tree of an answer and the domain of its parameter; raises Unknown.

    `symbols`: one letter behind a number may be a unit, for no letter of the gold could be meant.
    """
    text, domain = without_condition(clean(text))
    return listed(text, symbols), domain


def listed(text: str, symbols: bool, depth: int = 0) -> tuple:
    require(depth <= DEEPEST and not (depth and LEADING_ZERO.search(text)))
    texts, separators = split(text, LISTED | LOGIC, thousands=depth == 0)
    members = [member(signed, symbols, depth) for part in texts for signed in plus_and_minus(part)]
    if len(members) == 1:
        return members[0]
    kinds = {tree[0] for tree in members}
    require("list" not in kinds and (not LOGIC.keys() & set(separators) or kinds <= {"rel", "eq", "in"}))
    if members[0][0] == "eq" and not {"eq", "rel", "in"} & {tree[0] for tree in members[1:]}:  # x=1,2
        members[1:] = [("eq", [*members[0][1][:-1], tree]) for tree in members[1:]]
    connectives = {(LISTED | LOGIC)[separator] for separator in separators} - {","}
    require(len(connectives) < 2)
    return ("list", members, *(connectives or {","}))


def member(text: str, symbols: bool, depth: int) -> tuple:
    sides, operators = split(text, TURNED)
    if not operators:
        return side(text, symbols, depth)
    if operators == [r"\in"] and re.fullmatch("[a-zA-Z]", sides[0]):
        return ("in", sides[0], side(sides[1], symbols, depth))
    trees = [side(part, symbols, depth) for part in sides]
    kinds = {kind(tree) for tree in trees}
    if set(operators) == {"="}:
        require(all(map(is_name, trees[:-1])) or kinds in ({"tuple"}, {"value"}))
        return ("eq", trees)
    if operators[0] in (">", r"\ge"):
        trees, operators = trees[::-1], [TURNED[operator] for operator in reversed(operators)]
    require((set(operators) <= {"<", r"\le"} or operators == [r"\ne"]) and kinds == {"value"})
    return ("rel", trees, operators)


def side(text: str, symbols: bool, depth: int) -> tuple:
    """What stands on its own, or beside a relation: a value, a set, a tuple, a matrix, a name."""
    require(depth <= DEEPEST)
    # in \sin 30° a degree counts
    value, unit = (text, None) if TRIG.search(text) else without_unit(text, symbols)
    if unit is not None:
        return ("unit", side(value, symbols, depth + 1), unit)
    parts, operators = split(text, SETS)
    if operators:
        sets = [side(part, symbols, depth + 1) for part in parts]
        require(len(set(operators)) == 1 and (SETS[operators[0]] != "difference" or len(parts) == 2))
        for x in sets:
            require(kind(x) in ("interval", "set", "reals") or x[0] == "tuple" and len(x[1]) == 2)
        return (SETS[operators[0]], sets)
    if text == r"\emptyset":
        return ("set", [])
    if re.fullmatch(r"\\mathbb\s*\{?R\}?", text):
        return ("reals",)
    if found := MATRIX.fullmatch(text):
        return matrix(*found.groups())
    if found := brackets(text, symbols, depth):
        return found
    if found := BASED.fullmatch(text):
        require(all(int(digit, 16) < int(found[3]) for digit in found[2].replace(".", "")))
        return ("based", found[1] + found[2], found[3])
    if NAME.fullmatch(text):
        return ("name", canonical(text))
    parts, colons = split(text, (":",))
    if colons:  # 3:30 is a time, 1:0 is no quotient
        require(len(parts) < 6 and not re.search(r"^0:|:(0+|\d\d)(:|$)", ":".join(parts)))
        return ("ratio", [parse(part) for part in parts])
    return parse(text)


def brackets(text: str, symbols: bool, depth: int) -> tuple | None:
    match = re.fullmatch(r"(\\\{|[(\[])(.*?)(\\\}|[)\]])", text, re.DOTALL)
    try:
        opening, inside, closing = match.groups() if match else ("", "", "")
        parts, separators = split(inside, (",", ";"))
    except Unknown:  # (x+1)(x-1)
        return None
    pair = opening[-1:] + closing[-1:]
    if pair == "{}":
        if builder := BUILDER.fullmatch(inside):
            return ("builder", builder[1], listed(builder[2].strip(), symbols, depth + 1))
        found = listed(inside.strip(), symbols, depth + 1) if inside.strip() else ("list", [], ",")
        found = found if found[0] == "list" else ("list", [found], ",")
        require(found[2] == ",")
        return found if found[1] and found[1][0][0] == "eq" else ("set", found[1])
    if not separators:
        alone = pair == "()" or pair == "[]" and re.match(r"\s*(-?\d+\s*$|\\begin)", inside)
        return side(inside.strip(), symbols, depth + 1) if alone else None
    require(pair in ("()", "[]", "(]", "[)") and not LEADING_ZERO.search(inside))
    members = [side(part, symbols, depth + 1) for part in parts]
    if len(members) == 2 and pair != "()":
        return ("interval", *members, pair[0] == "[", pair[1] == "]")
    require(pair in ("()", "[]"))
    return ("tuple", members, opening)


def matrix(factor: str, name: str, content: str, transposed: str | None) -> tuple:
    require(r"\begin" not in content)
    rows = [row.split("&") for row in re.split(r"\\\\(?:\s*\[[^\]]*\])?", content)]
    rows = rows[:-1] if not "".join(rows[-1]).strip() else rows
    rows = [[parse(cell.strip()) for cell in row] for row in rows]
    require(rows and len({len(row) for row in rows}) == 1)
    if name == "v":
        require(len(rows) == len(rows[0]) < 6 and not factor and not transposed)
        return ("det", *(cell for row in rows for cell in row))
    rows = [list(column) for column in zip(*rows)] if transposed else rows
    if factor:
        scale = parse("-1" if factor == "-" else re.sub(r"\\cdot\s*$", "", factor))
        rows = [[product([scale, cell]) for cell in row] for row in rows]
    return ("matrix", rows)


def plus_and_minus(text: str) -> list[str]:
    r"""1\pm2 as 1+2 and 1-2; several \pm vary on their own, unless an \mp goes against them."""
    pieces = re.split(r"\s*(\\[pm]m)(?![a-zA-Z])\s*", text)
    signs = ["+" if sign == r"\pm" else "-" for sign in pieces[1::2]]
    if not 1 <= len(signs) <= 4 or re.fullmatch(r"\\\{.*\\\}", text, re.DOTALL):  # of a set, each member
        return [text]
    opposite = ["-" if sign == "+" else "+" for sign in signs]
    found = []
    for pieces[1::2] in [signs, opposite] if "-" in signs else itertools.product("+-", repeat=len(signs)):
        found.append(re.sub(r"(^|[=({])\+", r"\1", "".join(pieces)))
    return found
