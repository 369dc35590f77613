r"""The units that may stand behind a number, and the condition that may stand behind a formula."""

import re
from collections import Counter

from verifier.notation import TEXT

FORMS = """
m meter metre metro mètre м метр メートル 米|cm centimeter centimetre centímetro см сантиметр 厘米 公分
mm millimeter millimetre мм 毫米|km kilometer kilometre kilómetro км километр 千米 公里|nm nanometer|Å|ly
in inch 英寸|ft foot feet 英尺|yd yard|mi mile 英里|acre|ha hectare|L l liter litre litro л литр 升
mL ml milliliter millilitre мл 毫升|gal gallon|cup|pint|quart|g gm gram gramme gramo г грамм 克
kg kilogram kilo кг килограмм 千克 公斤|mg milligram 毫克|ton tonne т тонн 吨|lb pound £ GBP|oz ounce
s sec second segundo с сек секунд 秒|min minute minuto мин минут 分钟|h hr hour hora heure Stunde ч час 小时
day día jour Tag день дня дней 天|week|month 月|yr year año год года лет 年|deg degree grado градус 度
rad radian|C Celsius|F Fahrenheit|K Kelvin kelvin|dollar USD $ 美元|cent ¢|€ euro EUR евро|₩ won 원
¥ yuan yen RMB CNY 元 円|₹ rupee Rs|₽ ruble rouble руб рублей рубля|N newton|J joule|W watt|V volt
A amp ampere|Hz hertz|Pa pascal|eV|mol mole|T tesla|Ω ohm|pc parsec|AU|erg|dyn dyne|cal calorie|atm|kWh
mi/h mph|km/h kmph kph|person people 人|man men|woman women|child children|vertex vertices|candy candies
possibility possibilities|个|個|名|只|本|次|种|条|개|명|штук
apple|arrangement|bag|ball|balloon|banana|bead|bird|block|book|bottle|box|boy|brick|cake|can|car|card|cat
chair|choice|circle|class|coin|combination|cookie|cow|crayon|cupcake|customer|dap|diagonal|digit|divisor|dog
edge|egg|element|employee|episode|face|factor|fish|flower|friend|fruit|game|girl|goat|group|guest|handshake
hat|horse|house|integer|item|jar|kid|leg|letter|line|marble|match|meal|member|muffin|multiple|number|orange
outcome|outfit|page|path|pen|pencil|permutation|photo|pie|piece|pizza|plant|player|point|polynomial|question
rectangle|region|rose|row|scoop|seat|sequence|sheet|shirt|shoe|side|slice|solution|song|sticker|student
subset|teacher|term|ticket|tile|toy|tree|triangle|trip|value|vote|way|wheel|window|worker
"""
UNITS = {form: line.split()[0] for line in re.split(r"[|\n]", FORMS.strip()) for form in line.split()}
UNITS |= {p + u: p + u for p in "fnµkMG" for u in "m s g J W V A N L Hz Pa eV pc yr cal mol".split()}
PLURALS = ("s", "es", "а", "ов", "ы")
UNITS |= {form + end: unit for form, unit in UNITS.items() if len(form) > 2 for end in PLURALS}
UNITS |= {"unit": "", "units": "", "total": "", "lbs": "lb", "hrs": "h"}
COMMANDS = {r"\degree": " @deg ", r"\mu": "@µ", r"\Omega": "@Ω", r"\AA": "@Å", r"\$": "@dollar"}
START = re.compile(rf"{TEXT}|\\(?:frac|mu|Omega|AA|\$|degree)|(?<=[\d}}). ])[^\W\d_]|[€£¥₹₽₩¢]")
TOKEN = re.compile(
    r"\\cdot(?![a-zA-Z])|[*.(){}\s-]|@*(?:distinct|different|possible|lattice|children)\s+(?=@*[a-z])"
    r"|(?P<per>/|@*per(?![a-zA-Z]))|\^\{?(?P<power>-?\d)\}?|@*(?P<square>square|sq|平方|cubic|cu|立方)(?![a-z])"
    r"|(?P<text>@*)(?P<word>[^\W\d_]+|[€£¥₹₽₩¢])")
LONGEST_TAIL = 80  # characters of a unit or condition; their searches are quadratic
CURRENCY = re.compile(r"\s*([+-]?)\s*(?:US)?(\\\$|[€£¥₹₽₩]|(?:Rs\.?|USD|EUR)(?=\W|\d))\s*(?=[\d.(\\-])")
CONDITION_START = re.compile(rf"[\s,;(]|{TEXT}|\\(?:forall|land|and)")
CONDITION = re.compile(
    r"[\s,;.]*(?:(?:where|for|with|and|all|any|some|every|each|\\forall|\\land|\\and)\s+)*"
    r"(?:integers?\s+(?P<n>[a-zA-Z])|(?P<k>[a-zA-Z])\s*(?:\\in\s*(?:\\mathbb)?\s*"
    r"(?P<set>[ZNQRC]\s*\^?_?\s*[+*]?)|(?:is|are)?\s*(?:an|any|some|all)?\s*integers?))[\s.]*")


def unit_of(text: str, symbols: bool) -> str | None:
    r"""The unit that the text spells, in one form ("\frac{m}{s^2}" is "m^1 s^-2"), or None.

    Outside \text{}, short symbols could be variables: unless `symbols`, only cm, mm, km, kg and words count.
    """
    for command, symbol in COMMANDS.items():
        text = text.replace(command, symbol)
    text = re.sub(rf"{TEXT}((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}",  # "@" before each word in \text{}
                  lambda words: re.sub(r"(?<![\\a-zA-Z])([^\W\d_]+)", r"@\1", words[1]) + " ", text)
    text = re.sub(r"\\frac\s*\{?([^{}]*)\}?\s*\{([^{}]*)\}", r"\1/(\2)", text)
    text = re.sub(r"@µ\s*@*(?=[a-zA-Z])", "@µ", text)
    if TOKEN.sub("", text):
        return None
    powers, words, bare, unit, sign, ahead = Counter(), [], [], "", 1, 1
    for token in TOKEN.finditer(text):
        if token["per"]:
            sign = -1
        elif token["square"]:
            ahead = 2 if token["square"] in ("square", "sq", "平方") else 3
        elif token["power"]:
            powers[unit] += sign * (int(token["power"]) - 1)
        elif word := token["word"]:
            # "Dollars", but not Nm for nm
            unit = UNITS.get(word, UNITS.get(word.lower()) if len(word) > 3 else None)
            if unit is None:
                return None
            words.append(word)
            bare += [word] if word.isascii() and not token["text"] else []
            powers[unit] += sign * ahead
            ahead = 1
    formula = re.search(r"[/^]", text) is not None
    if not words or ahead != 1 or not formula and words in (["C"], ["F"], ["K"], ["T"]):  # 5 K may be 5000
        return None
    if powers["deg"] and powers.keys() - {"deg", "C", "F"}:  # 40° N
        return None
    short = [word for word in bare if len(word) < 3 and word not in ("cm", "mm", "km", "kg")]
    # m/s and m^2, but h^2 may be a variable's square
    if short and not (symbols and (formula and (len(words) > 1 or words == ["m"]) or len(words[0]) == 2)):
        return None
    return " ".join(sorted(f"{name}^{power}" for name, power in powers.items() if name))


def without_unit(member: str, symbols: bool) -> tuple[str, str | None]:
    """The member without its unit, currency or %, and the unit, if there is one."""
    if currency := CURRENCY.match(member):
        return currency[1] + member[currency.end() :], unit_of(currency[2], True)
    if member.endswith("%"):
        return member[:-1].rstrip(), "%"
    for start in START.finditer(member, max(0, len(member) - LONGEST_TAIL)):
        value = member[: start.start()].rstrip(" ~")
        balanced = len(re.findall(r"[(\[]", value)) == len(re.findall(r"[)\]]", value))
        if balanced and re.search(r"[\d})\]!.]$|\\pi$|(?<![a-zA-Z\\])[a-zA-Z]$", value):
            unit = unit_of(member[start.start() :], symbols)
            if unit is not None:
                return value, unit
    return member, None


def without_condition(text: str) -> tuple[str, str]:
    r"""The answer without the "(k\in\mathbb{Z})" behind it, and the domain of k, "" if none is named."""
    for start in CONDITION_START.finditer(text, max(0, len(text) - LONGEST_TAIL)):
        match = CONDITION.fullmatch(re.sub(r"\\text|[{}()]", " ", text[start.start() :]))
        value = text[: start.start()].rstrip(" ,;")
        if match and (match["k"] or match["n"]) in re.sub(r"\\[a-zA-Z]+", "", value):
            return value, re.sub(r"[\s^_]", "", match["set"] or "Z")
    return text, ""
