r"""The units that may stand behind a number, the currencies before it, and a condition behind a formula."""

import re

from verifier.notation import clean

FORMS = """
m meter metre метр|cm centimeter centimetre см 厘米|mm millimeter|km kilometer км 公里|nm nanometer|in inch|ft foot feet
yd yard|mi mile|acre|L l liter litre л|mL ml milliliter|gal gallon|cup|pint|quart|g gm gram г 克|kg kilogram кг 公斤
mg milligram|ton tonne|lb lbs pound £|oz ounce|s sec second сек 秒|min minute мин 分钟|h hr hrs hour час часа 小时
day 天|week|month|yr year лет 年|deg degree 度|rad radian|C Celsius|F Fahrenheit|dollar USD|cent ¢|€ euro|¥ yuan 元 円
₹ rupee|рублей|N newton|J joule|W watt|V volt|A amp ampere|Hz hertz|Pa pascal|eV|mol mole|Ω ohm|pc parsec|AU|cal calorie
mi/h mph|km/h kmph kph|erg|dyn dyne|person people 人|man men|woman women|child children|vertex vertices|candy candies|个
apple|arrangement|bag|ball|banana|bead|bird|block|book|bottle|box|boy|brick|cake|can|car|card|cat|chair|choice|circle
class|coin|color|combination|cookie|cow|customer|dap|diagonal|digit|divisor|dog|edge|egg|element|employee|episode|face
factor|fish|flower|friend|fruit|game|girl|goat|group|guest|handshake|hat|horse|house|integer|item|kid|letter|line
marble|match|meal|member|multiple|number|orange|outcome|outfit|page|path|pen|pencil|permutation|piece|pizza|player|point
question|rectangle|region|rose|row|sequence|sheet|shirt|shoe|side|slice|solution|song|student|subset|teacher|term
ticket|toy|tree|triangle|trip|value|vote|way|wheel|window|worker
"""
UNITS = {form: line.split()[0] for line in re.split(r"[|\n]", FORMS.strip()) for form in line.split()}
UNITS |= {prefix + unit: prefix + unit for prefix in "nkMG" for unit in "m s g J W V A N L Hz Pa eV pc yr cal".split()}
UNITS |= {form + end: unit for form, unit in UNITS.items() if len(form) > 2 for end in ("s", "es")}
UNITS |= {"unit": "", "units": "", "total": ""}
TEXT = r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}"
START = re.compile(r"\\(?:text\{|frac|\$|degree)|(?<=[\d}). ])[^\W\d_]|[€£¥₹¢]")
WORD = re.compile(r"[^\W\d_]+|[€£¥₹¢]")
BETWEEN_WORDS = re.compile(r"\\cdot|[/.(){}\s-]|\^\{?-?\d\}?")
LONGEST_TAIL = 80  # characters of a unit; the search is quadratic
CURRENCY = re.compile(r"\s*([+-]?)\s*(\\\$|[€£¥₹])\s*(?=[\d.(\\-])")
CONDITION = re.compile(r"[\s,;(]*(?:\\text\{[\s,]*(?:where|for|with|any|all|\s)*\}|\\forall)?\s*([a-z])\s*\\in\s*"
                       r"\\mathbb\s*\{?Z\}?[\s.)]*$")


def unit_of(text: str, symbols: bool) -> str | None:
    r"""The unit that the text spells, in one form ("\frac{m}{s^2}" is "m/s^2"), or None.

    Outside \text{}, short symbols could be variables: unless `symbols`, only cm, mm, km, kg and words count.
    """
    bare = WORD.findall(re.sub(rf"{TEXT}|\\[a-zA-Z]+", " ", text))
    text = re.sub(r"\\frac\s*\{(.*)\}\s*\{(.*)\}", r"\1/(\2)", re.sub(TEXT, r" \1 ", text))
    text = text.replace(r"\degree", " deg ").replace(r"\$", " dollar ")
    text = re.sub(r"\b(?:square|sq\.?)\s+(\w+)", r"\1^2", re.sub(r"\bcubic\s+(\w+)", r"\1^3", text))
    text = re.sub(r"\s*(?:/|\bper\b)\s*", "/", text)
    words = [UNITS.get(word, UNITS.get(word.lower()) if len(word) > 3 else None)  # "Dollars", but not Nm for nm
             for word in WORD.findall(BETWEEN_WORDS.sub(" ", text))]
    if not words or None in words or WORD.sub("", BETWEEN_WORDS.sub("", text)):
        return None
    is_formula = re.search(r"[/^]", text) and (len(words) > 1 or bare == ["m"])  # h^2 may be a variable's square
    short = {word for word in bare if len(word) < 3 and word.isascii()} - {"cm", "mm", "km", "kg"}
    if short and not (symbols and (is_formula or len(bare[0]) == 2)) or {"C", "F"} & {*words} and "deg" not in words:
        return None
    names = iter(words)
    text = re.sub(r"\s*([/^])\s*", r"\1", re.sub(r"(?:\\cdot|[.(){}\s])+", " ", text)).strip()
    return WORD.sub(lambda word: next(names), text)


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
