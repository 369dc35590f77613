r"""The units that may stand behind a number, the currencies before it, and a condition behind a formula."""

import re
from collections import Counter

from verifier.notation import clean

FORMS = """
m meter metre метр|cm centimeter centimetre см 厘米|mm millimeter|km kilometer км 公里|nm nanometer|in inch|ft foot feet
yd yard|mi mile|acre|L l liter litre л|mL ml milliliter|gal gallon|cup|pint|quart|g gram г 克|kg kilogram кг 公斤
mg milligram|ton tonne|lb lbs pound £|oz ounce|s sec second сек 秒|min minute мин 分钟|h hr hrs hour час часа 小时
day 天|week|month|yr year лет 年|deg degree 度|rad radian|C Celsius|F Fahrenheit|dollar USD|cent ¢|€ euro|¥ yuan 元 円
₹ rupee|рублей|N newton|J joule|W watt|V volt|A amp ampere|Hz hertz|Pa pascal|eV|mol mole|Ω ohm|pc parsec|AU|cal calorie
mi/h mph|km/h kmph kph|person people 人|man men|woman women|child children|vertex vertices|candy candies|个
apple|arrangement|bag|ball|banana|bead|bird|block|book|bottle|box|boy|brick|cake|can|car|card|cat|chair|choice|circle
class|coin|color|combination|cookie|cow|customer|dap|diagonal|digit|divisor|dog|edge|egg|element|employee|episode|face
factor|fish|flower|friend|fruit|game|girl|goat|group|guest|handshake|hat|horse|house|integer|item|kid|letter|line
marble|match|meal|member|mile|number|orange|outcome|outfit|page|path|pen|pencil|permutation|piece|pizza|player|point
question|rectangle|region|rose|row|sequence|sheet|shirt|shoe|side|slice|solution|song|student|subset|teacher|term
ticket|toy|tree|triangle|trip|value|vote|way|wheel|window|worker
"""
UNITS = {form: line.split()[0] for line in re.split(r"[|\n]", FORMS.strip()) for form in line.split()}
UNITS |= {prefix + unit: prefix + unit for prefix in "nkMG" for unit in "m s g J W V A N L Hz Pa eV pc yr cal".split()}
UNITS |= {form + end: unit for form, unit in UNITS.items() if len(form) > 2 for end in ("s", "es")}
UNITS |= {"unit": "", "units": "", "total": ""}
TEXT = r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}"
START = re.compile(r"\\(?:text\{|frac|\$|degree)|(?<=[\d}). ])[^\W\d_]|[€£¥₹¢]")
TOKEN = re.compile(r"\\cdot|[.(){}\s-]|(?P<per>/|per(?![a-z]))|\^\{?(?P<power>-?\d)\}?"
                   r"|(?P<ahead>square|sq|cubic)(?![a-z])|(?P<word>[^\W\d_]+|[€£¥₹¢])")
LONGEST_TAIL = 80  # characters of a unit; the search is quadratic
CURRENCY = re.compile(r"\s*([+-]?)\s*(\\\$|[€£¥₹])\s*(?=[\d.(\\-])")
CONDITION = re.compile(r"[\s,;(]*(?:\\text\{[\s,]*(?:where|for|with|any|all|\s)*\}|\\forall)?\s*([a-z])\s*\\in\s*"
                       r"\\mathbb\s*\{?Z\}?[\s.)]*$")


def unit_of(text: str, symbols: bool) -> str | None:
    r"""The unit that the text spells, in one form ("\frac{m}{s^2}" is "m^1 s^-2"), or None.

    Outside \text{}, short symbols could be variables: unless `symbols`, only cm, mm, km, kg and words count.
    """
    bare = re.findall("[a-zA-Z]+", re.sub(rf"{TEXT}|\\[a-zA-Z]+", " ", text))
    text = re.sub(r"\\frac\s*\{(.*)\}\s*\{(.*)\}", r"\1/(\2)", re.sub(TEXT, r" \1 ", text))
    text = text.replace(r"\degree", " deg ").replace(r"\$", " dollar ")
    if TOKEN.sub("", text):
        return None
    powers, unit, sign, ahead = Counter(), "", 1, 1
    for token in TOKEN.finditer(text):
        if token["per"]:
            sign = -1
        elif token["ahead"]:
            ahead = 3 if token["ahead"] == "cubic" else 2
        elif token["power"]:
            powers[unit] += sign * (int(token["power"]) - 1)
        elif word := token["word"]:
            unit = UNITS.get(word, UNITS.get(word.lower()) if len(word) > 3 else None)  # "Dollars", but not Nm for nm
            if unit is None:
                return None
            powers[unit] += sign * ahead
            ahead = 1
    if not powers or ahead != 1 or (powers["C"] or powers["F"]) and not powers["deg"]:
        return None
    # m/s and m^2, but h^2 may be a variable's square
    formula = re.search(r"[/^]", text) and (len(powers) > 1 or bare == ["m"])
    if {word for word in bare if len(word) < 3} - {"cm", "mm", "km", "kg"} and not (
            symbols and (formula or len(bare[0]) == 2)):
        return None
    return " ".join(sorted(f"{name}^{power}" for name, power in powers.items() if name and power))


def without_unit(member: str, symbols: bool) -> tuple[str, str | None]:
    """The member without its unit, currency or %, and the unit, if there is one."""
    if currency := CURRENCY.match(member):
        return currency[1] + member[currency.end() :], unit_of(currency[2], True)
    if member.endswith("%"):
        return member[:-1].rstrip(), "%"
    for start in START.finditer(member, max(0, len(member) - LONGEST_TAIL)):
        value = member[: start.start()].rstrip()
        if value.count("(") == value.count(")") and re.search(r"[\d})\]!]$|\\pi$|(?<![a-zA-Z\\])[a-zA-Z]$", value):
            unit = unit_of(member[start.start() :], symbols)
            if unit is not None:
                return value, unit
    return member, None


def without_condition(text: str) -> str:
    r"""The answer without the "(k\in\mathbb{Z})" behind it."""
    condition = CONDITION.search(text)
    value = text[: condition.start()] if condition else ""
    return value if value and condition[1] in re.sub(r"\\[a-zA-Z]+", "", value) else text


def has_letters(gold: str) -> bool:
    """Whether one letter behind a number could be a variable rather than a unit."""
    return re.search("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", clean(gold))) is not None
