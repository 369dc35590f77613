r"""Is this answer right?  1.0 or 0.0 for an extracted answer and the dataset's gold answer.

Answers are judged by math-verify, gold first, in worker processes that the parent kills when an item exceeds
its deadline (judge.py): math-verify's own timeouts are SIGALRM in the main thread only (Math-Verify#50), and
some inputs, such as `9^{9^{9^9}}`, cannot be interrupted from within (Math-Verify#63).  A wrong 1.0 does more
harm than a missed one, so where math-verify is generous we are stricter:

- Written numbers (integers, decimals, scientific notation such as `4.5e33`) must be equal.  A decimal against
  another number (1/3, \sqrt{2}) must agree to 5e-6 relative, six significant digits: 0.333333 is right for
  1/3, 0.33 is not.  Other numbers must be equal.  (math-verify rounds to six places after the point, which
  accepts 1e-20 for 1e-21, and drops small differences, Math-Verify#14.)  `18\%` is right for 18 and for 0.18.
- A unit of the list below may be left out, but not be another (`5\text{ cm}` for `5\text{ m}`); every other
  word behind a number belongs to the answer (`5\text{ million}`, `5\text{ squared}`).  A degree counts inside
  sin, cos and tan only.
- Three letters or more, or two capitals, are a name (HHT, IX, \angle ABC), not a product.  `(x,y)=(2,1)` is
  wrong for `x=1,y=2`, `m` for `M`, `52_7` for `52_8`.
- `\sqrt{1/n}` is `1/\sqrt{n}`, though not for negative n: a symbol is positive if a side has its root or
  logarithm.  `\sqrt{x^2}` is not x.
- `x=42` is right for 42; `41=42` and `2x=42` are not: what an answer equates must be a name or be equal.
- Words, whatever their dress, and lists with an ellipsis are compared as text only; Yes is not True.
- Answers over MAX_LENGTH characters are wrong.

The last box counts, even in an unfinished thought: text before `</think>` is the response's, too.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from fractions import Fraction
from multiprocessing.connection import wait
from pathlib import Path
from typing import Self

MAX_LENGTH = 1000  # characters; the longest gold of the usual data sets has about 250
JUDGE = Path(__file__).with_name("judge.py")  # only a worker pays for importing sympy
STARTUP_LIMIT = 300.0  # seconds for a worker to import sympy, on the busiest machine

# ---- from a response to its answer -------------------------------------------------------------------------
BOX_OR_BRACE = re.compile(r"\\\\?(?:boxed|fbox)(?![a-zA-Z])\s*(\{?)|\\.|[{}]", re.DOTALL)
UNBRACED = re.compile(r"(?:(?![a-zA-Z]{2}|[a-zA-Z]\s)[^\s$]+)?")  # nothing of "\boxed as asked"
MENTION = re.compile(
    r"(?i:\\[a-z]*dots|\\text\w*|\\[,;:! ]|(?:(?:your|the|final) )*answer(?: here)?|[\s.…{}~?])*")
NUMBER_RUN = re.compile(
    r"(?:(?<![\w)}\].])-\$?)?(?:(?<![\d.])\.\d+|\d[\d,]*(?:\.\d+)?)(?:[eE][+-]?\d+(?!\w))?")


def last_boxed(text: str) -> str | None:
    r"""Content of the last complete \boxed{...} or \fbox{...}, also of "\boxed 5"; None if there is none.

    A box that is only mentioned ("in the \boxed{} format") does not replace the one before it.  One pass with
    a stack of open braces, because a scan per box is quadratic in "\boxed{\boxed{...".
    """
    open_braces, last_start, content, mention = [], -1, None, None
    for token in BOX_OR_BRACE.finditer(text):
        is_box, start = len(token[0]) > 2, token.end()
        if token[0] == "{" or is_box and token[1]:
            open_braces.append((is_box, start))
            continue
        if is_box:
            found = UNBRACED.match(text, start)[0].rstrip(".,;")
            is_box = found != ""
        elif token[0] == "}" and open_braces:
            is_box, start = open_braces.pop()
            found = text[start : token.start()] if is_box else ""
        # an outer box ends after the inner one, but does not begin after it
        if is_box and start > last_start:
            if len(found) < 50 and MENTION.fullmatch(found):
                mention = found
            else:
                last_start, content = start, found
    return mention if content is None else content


def last_number(text: str) -> str | None:
    """Last number in the text, without thousands commas ("1,234.5" -> "1234.5"); None if there is none."""
    last = deque(NUMBER_RUN.finditer(to_ascii(text)), maxlen=1)
    if not last:
        return None
    number = last[0][0].replace("$", "").rstrip(",")
    is_one_number = re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?([eE][+-]?\d+)?", number)
    return number.replace(",", "") if is_one_number else number.rsplit(",", 1)[-1]  # "1,2,3" is a list


def extract_answer(text: str, how: str) -> str | None:
    """The answer of a response; `how` is "boxed" or "last_number"."""
    return {"boxed": last_boxed, "last_number": last_number}[how](text)


# ---- any answer: notation, members -------------------------------------------------------------------------
SYMBOLS = dict(zip("×·÷π∞√±∓≤≥≠∪∩∈∅⟨⟩",
                   "times cdot div pi infty sqrt pm mp le ge ne cup cap in emptyset langle rangle".split()))
ASCII = str.maketrans(
    {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}  # full-width forms
    | dict.fromkeys("−–‐‑", "-") | dict.fromkeys("′’", "'")
    | dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " ")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff")
    | {symbol: rf"\{command} " for symbol, command in SYMBOLS.items()}
    | dict(zip("ℤℕℝℚℂ", (rf"\mathbb{{{letter}}}" for letter in "ZNRQC"))) | {"°": r"^{\circ}"})
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
FONT = (r"\\(?:text(?:bf|it|rm|sf|tt|sc|up|md|normal)?|[mh]box|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm"
        r"|emph|underline|operatorname)\s*")
COLOR = r"\\(?:text)?color\s*\{[^{}]*\}"
TEXT = FONT + r"\{"
AND_OR = rf"(?:,?\s*{TEXT}[\s,]*%s[\s,]*\}}|,?(?<![a-z]{{2}})\s+%s\s|\\(?:%s)(?![a-zA-Z]))\s*"
ROOT = (r"(?<![a-zA-Z])\\?sqrt\s*((?:\[[^\[\]]*\])?)\s*\(((?:[^()]|\([^()]*\))*)\)", r"\\sqrt\1{\2}")
NOTATION = [(re.compile(pattern), replacement) for pattern, replacement in [
    (rf"\*\*|(?<!\\)(?:\$|\\[()\[\]])|{COLOR}", ""),
    (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![a-zA-Z])\.?", ""),
    (r"\{\s*\\(?:bf|it|rm|sf|tt|bfseries|itshape)(?![a-zA-Z])\s*", r"\\text{"),
    (r"(?<!\\)\\!\s*", ""),
    (r"(?<=\d)\{[\s~]*(?:\\,)?\}(?=\d{3})|(?:(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])|\s)+", " "),
    (r"\{\s*,\s*\}", ","),
    (r"(?<![\d.,^_])\d{1,3}(?: +\d{3})+(?! *[\d/])", lambda number: number[0].replace(" ", "")),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (rf"\\%|{TEXT}\s*(?:\\?%|per ?cent)\s*\}}|(?<=[\d}}])\s*per ?cent\b", "%"),
    (r"\\leq(?:slant|q)?(?![a-zA-Z])|<=", r"\\le "), (r"\\geq(?:slant|q)?(?![a-zA-Z])|>=", r"\\ge "),
    (r"\\neq(?![a-zA-Z])|!=|\\not\s*=", r"\\ne "),
    (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
    (r"\\langle(?![a-zA-Z])([^|]*,[^|]*?)\\rangle(?![a-zA-Z])|^\s*<([^<>]*,[^<>]*)>\s*$", r"(\1\2)"),
    (AND_OR % ("or", "or", "vee|lor"), r"\\lor "), (AND_OR % ("and", "and", "wedge|land"), r"\\land "),
    (rf"(?<=[\d}}]){TEXT}\s*(?:degrees?|deg)\s*\}}", r"^{\\circ}"),
    (r"\b([ap])\.\s?m\.|\b([AP])\.\s?M\.", r"\1\2m"),
    (r"\s*\^\s*(?:\\(?:circ|degree)|\{\s*\\(?:circ|degree)\s*\})|\\degree(?![a-zA-Z])", r"^{\\circ}"),
    ROOT, ROOT,  # a root in a root
]]
SPELLING = [(re.compile(pattern), replacement) for pattern, replacement in [  # after words, units, conditions
    (r"\\\$", ""),
    (rf"^\s*{TEXT}([^{{}}]*)\}}[\s.]*$", r"\1"),
    (r"'+", lambda primes: r"^{" + r"\prime" * len(primes[0]) + "}"),  # math-verify drops them
    (r"(\d*)\.(\d*)\\(?:overline|bar)\{(\d+)\}", lambda match: repeating_decimal(*match.groups())),
    (r"[\s.,;]+$|(?<=\d)\.(?![\d.])", ""),
    (r"(?<![a-zA-Z\\])E(?=_)", r"\\mathcal{E}"),  # an energy E_1; math-verify always takes E for 2.718
    (r"(?<=[\d.])[eE]([+-]?\d+)", r"\\times10^{\1}"),  # math-verify reads 4.5e33 as 4.5 * e * 33
    (r"(?<![\w.^])(\d+)\s+(\d+)\s*/\s*(\d+)(?!\w)", r"\1\\frac{\2}{\3}"),
    (r"(\\[a-zA-Z]+)\s+(?![\sa-zA-Z])", r"\1"),
    (r"(?<![0-9a-zA-Z])\s+|\s+(?![0-9a-zA-Z])", ""),  # the others stay: "1 3" is not 13
]]
SEPARATOR_OR_BRACKET = re.compile(r"\\?[{}()\[\]]|[;=]|,(?!(?<=\d,)\d{3}(?!\d))|\\l(?:or|and)(?![a-zA-Z])")


def to_ascii(text: str) -> str:
    """Unicode digits, full-width forms, common symbols in ASCII; x² becomes x^{2}, where NFKC gives x2."""
    if text.isascii():
        return text
    text = re.sub(r"√\s*(\d+)", r"\\sqrt{\1}", text).translate(ASCII)
    text = re.sub("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda run: "^{" + run[0].translate(SUPERSCRIPTS) + "}", text)
    return re.sub(r"(?![0-9])\d", lambda digit: str(int(digit[0])), text)


def per_member(text: str, rewrite: Callable[[str], str], brackets=("(", "[", r"\{"), levels: int = 4) -> str:
    """Rewrites each member of a list, set or tuple and each side of an equation; else the whole text."""
    depth, start, parts = 0, 0, []  # members and separators in turn
    for token in SEPARATOR_OR_BRACKET.finditer(text):
        if token[0][-1] in "{([":
            depth += 1
        elif token[0][-1] in "})]":
            depth -= 1
        elif depth == 0:
            parts += [text[start : token.start()], token[0]]
            start = token.end()
        if depth < 0 or not levels:
            return rewrite(text)
    parts.append(text[start:])
    if len(parts) > 1:
        parts[::2] = [per_member(member, rewrite, brackets, levels - 1) for member in parts[::2]]
        return "".join(parts)
    group = re.fullmatch(r"(\s*(\\\{|[(\[]))(.*)((?:\\\}|[)\]])\s*)", text, re.DOTALL)
    if group and group[2] in brackets:
        return group[1] + per_member(group[3], rewrite, brackets, levels - 1) + group[4]
    return rewrite(text)


# ---- words and choices -------------------------------------------------------------------------------------
WORDS = r"[A-Za-z]{4,}|(?:[A-Za-z]{2,}[ -])+[A-Za-z]{2,}|(?i:yes|no|odd)"
SAID = (r"(?:(?:(?:the|this|that|my) )?(?:(?:correct|final|given) )?"  # before a word or a choice
        r"(?:answer|statement|claim|assertion|proposition|conjecture|option|choice|it)(?: is:?|:)? )?")
OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}


def plain(text: str) -> str:
    """Words without fonts, quotes, brackets round the whole, final stops."""
    dress = rf"{COLOR}|{FONT}|\\(?:bf|it|rm|sf|left|right|q?quad)(?![a-zA-Z])|\\[,;:! ]|[{{}}$*`\"“”~\s]|''"
    text = " ".join(re.sub(dress, " ", to_ascii(text)).split())
    text = re.sub(r"\b([A-Z]) (?=[A-Z]\b)", r"\1", re.sub(r"\s*(?:[,;]|,? and\b)\s*", ", ", text))
    text = re.sub(r"^[(\[]([^()\[\]]*)[)\]][.!]?$", r"\1", text.strip("_ .,;:?"))
    return re.sub(r"(?<=[a-zA-Z]{2})!+$", "", text.strip("_ .,;:?"))


def is_words(gold: str) -> bool:
    return bool(re.fullmatch(rf"\s*{TEXT}[^{{}}0-9]*\}}[\s.]*", gold) or re.fullmatch(WORDS, plain(gold)))


def same_words(gold: str, answer: str) -> bool:
    def fold(text: str) -> str:  # "Yes" and "YES", but not "AaBb"
        words = r"(?<![A-Za-z])(?:[A-Z]?[a-z]+|[A-Z]{2,})(?![A-Za-z])"
        return re.sub(words, lambda word: word[0].lower(), plain(text))

    gold, said = fold(gold), fold(answer)
    right = re.escape(gold)
    if len(gold) == 1:  # "(B)", "B.", "The answer is B", "(B) 5"
        more = r"(?!.*(?:\b(?:and|n?or|not|wrong|incorrect|false|except)\b|\([A-Z]\)|\b[A-Z][).:]))"
        right = rf"{SAID}\(?{right}\)?|(?:\({right}\)|{right}[).:]) {more}.*"
    elif gold in OPPOSITE:  # behind "Yes, " nothing may take it back; "not true" is false
        others = "|".join(OPPOSITE.keys() - {gold}) + ("|not|never|cannot" if gold in ("yes", "true") else "")
        right = rf"{SAID}{gold}(?:[,:] (?!.*\b(?:{others})\b).*)?"
        right += rf"|{SAID}not {OPPOSITE[gold]}" if gold in ("true", "false") else ""
    return re.fullmatch(right, said) is not None


# ---- units, and conditions behind an answer ----------------------------------------------------------------
UNITS = """
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
apple|arrangement|bag|ball|balloon|banana|bead|bird|block|book|bottle|box|boy|brick|cake|can|car|card|cat|chair
choice|circle|class|coin|combination|cookie|cow|crayon|cupcake|customer|dap|diagonal|digit|divisor|dog|edge|egg
element|employee|episode|face|factor|fish|flower|friend|fruit|game|girl|goat|group|guest|handshake|hat|horse
house|integer|item|jar|kid|leg|letter|line|marble|match|meal|member|muffin|multiple|number|orange|outcome|outfit
page|path|pen|pencil|permutation|photo|pie|piece|pizza|plant|player|point|polynomial|question|rectangle|region
rose|row|scoop|seat|sequence|sheet|shirt|shoe|side|slice|solution|song|sticker|student|subset|teacher|term
ticket|tile|toy|tree|triangle|trip|value|vote|way|wheel|window|worker
"""
UNITS = {form: line.split()[0] for line in re.split(r"[|\n]", UNITS.strip()) for form in line.split()}
UNITS |= {p + u: p + u for p in "fnµkMG" for u in "m s g J W V A N L Hz Pa eV pc yr cal mol".split()}
PLURALS = ("s", "es", "а", "ов", "ы")
UNITS |= {form + end: unit for form, unit in UNITS.items() if len(form) > 2 for end in PLURALS}
UNITS |= {"unit": "", "units": "", "total": "", "lbs": "lb", "hrs": "h"}
UNIT_COMMANDS = {r"^{\circ}": " @deg ", r"\mu": "@µ", r"\Omega": "@Ω", r"\AA": "@Å", r"\$": "@dollar"}
UNIT_START = re.compile(rf"{FONT}|\\(?:frac|mu|Omega|AA|\$)|\^\{{\\circ|(?<=[\d}}). ])[^\W\d_]|[€£¥₹₽₩¢]")
UNIT_TOKEN = re.compile(
    r"\\cdot(?![a-zA-Z])|[*.(){}\s-]|@*(?:distinct|different|possible|lattice|children)\s+(?=@*[a-z])"
    r"|(?P<per>/|@*per(?![a-zA-Z]))|\^\{?(?P<power>-?\d)\}?|@*(?P<square>square|sq|平方|cubic|cu|立方)(?![a-z])"
    r"|(?P<text>@*)(?P<word>[^\W\d_]+|[€£¥₹₽₩¢])")
LONGEST_TAIL = 80  # characters of a unit or condition; their searches are quadratic
CURRENCY = re.compile(r"\s*([+-]?)\s*(?:US)?(\\\$|[€£¥₹₽₩]|(?:Rs\.?|USD|EUR)(?=\W|\d))\s*(?=[\d.(\\])")
TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])(?!\s*\^\s*\{?\s*-)")
CONDITION_START = re.compile(rf"[\s,;(]|{FONT}|\\(?:forall|land)")
CONDITION = re.compile(
    r"[\s,;.]*(?:(?:where|for|with|and|all|any|some|every|each|\\forall|\\land)\s+)*"
    r"(?:integers?\s+(?P<n>[a-zA-Z])|(?P<k>[a-zA-Z])\s*(?:\\in\s*(?:\\mathbb)?\s*"
    r"(?P<set>[ZNQRC]\s*\^?_?\s*[+*]?)|(?:is|are)?\s*(?:an|any|some|all)?\s*integers?))[\s.]*")


def unit_of(text: str, symbols: bool) -> str | None:
    r"""The unit that the text spells, in one form ("\frac{m}{s^2}" is "m^1 s^-2"), or None.

    Outside \text{}, short symbols could be variables: unless `symbols`, only cm, mm, km, kg and words count.
    """
    for command, symbol in UNIT_COMMANDS.items():
        text = text.replace(command, symbol)
    text = re.sub(rf"{TEXT}((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}",  # "@" before each word in \text{}
                  lambda words: re.sub(r"(?<![\\a-zA-Z])([^\W\d_]+)", r"@\1", words[1]) + " ", text)
    text = re.sub(r"\\frac\s*\{?([^{}]*)\}?\s*\{([^{}]*)\}", r"\1/(\2)", text)
    text = re.sub(r"@µ\s*@*(?=[a-zA-Z])", "@µ", text)
    if UNIT_TOKEN.sub("", text):
        return None
    powers, words, bare, unit, sign, ahead = Counter(), [], [], "", 1, 1
    for token in UNIT_TOKEN.finditer(text):
        if token["per"]:
            sign = -1
        elif token["square"]:
            ahead = 2 if token["square"] in ("square", "sq", "平方") else 3
        elif token["power"]:
            powers[unit] += sign * (int(token["power"]) - 1)
        elif word := token["word"]:
            unit = UNITS.get(word, UNITS.get(word.lower()) if len(word) > 1 else None)
            if unit is None:
                return None
            words.append(word)
            bare += [word] if word.isascii() and not token["text"] else []
            powers[unit] += sign * ahead
            ahead = 1
    alone = len(words) == 1 and not re.search(r"[/^]", text)
    if not words or ahead != 1 or alone and words[0] in ("C", "F", "K", "T"):  # 5 K may be 5000
        return None
    if powers["deg"] and powers.keys() - {"deg", "C", "F"}:  # 40° N
        return None
    short = [word for word in bare if len(word) < 3 and word not in ("cm", "mm", "km", "kg")]
    if short and not (symbols and (not alone or len(short[0]) == 2)):
        return None
    return " ".join(sorted(f"{name}^{power}" for name, power in powers.items() if name))


def without_unit(member: str, symbols: bool) -> tuple[str, str | None]:
    """The member without its unit or currency, and the unit, if there is one."""
    if currency := CURRENCY.match(member):
        return currency[1] + member[currency.end() :], unit_of(currency[2], True)
    for start in UNIT_START.finditer(member, max(0, len(member) - LONGEST_TAIL)):
        value = member[: start.start()].rstrip(" ~")
        if re.search(r"(?<!\\circ)[\d})!.]$|\\pi$|(?<![a-zA-Z\\])[a-zA-Z]$", value):
            unit = unit_of(member[start.start() :], symbols)
            if unit is not None:
                return value, unit
    return member, None


def without_condition(text: str) -> tuple[str, str]:
    r"""The answer without the "(k\in\mathbb{Z})" behind it, and the domain of k, "" if none is named."""
    for start in CONDITION_START.finditer(text, max(0, len(text) - LONGEST_TAIL)):
        match = CONDITION.fullmatch(re.sub(rf"{FONT}|[{{}}()]", " ", text[start.start() :]))
        value = text[: start.start()].rstrip(" ,;")
        if match and (match["k"] or match["n"]) in re.sub(r"\\[a-zA-Z]+", "", value):
            return value, re.sub(r"[\s^_]", "", match["set"] or "Z")
    return text, ""


def read(text: str, symbols: bool = False) -> tuple[str, set[str], str]:
    """Canonical text, units, domain of a parameter."""
    text = to_ascii(text)
    for pattern, replacement in NOTATION:
        text = pattern.sub(replacement, text)
    text, domain = without_condition(text)
    units = set()

    def undress(member: str) -> str:
        if TRIG.search(member):
            return member.replace(r"^{\circ}", r"\degree ")  # an angle inside a function: it counts
        member, unit = without_unit(member, symbols)
        units.update([unit] if unit else [])
        return member.replace(r"^{\circ}", "")

    text = per_member(text, undress).replace(r"\degree ", r"^{\circ}")
    for pattern, replacement in SPELLING:
        text = pattern.sub(replacement, text)
    return text, units, domain


def canonical(text: str) -> str:
    """The answer without dressing (dollars, units, spaces), for comparing and for parsing."""
    return read(text)[0]


def read_pair(gold: str, answer: str) -> tuple[str, str] | None:
    """The canonical texts; None where they name different units or domains."""
    gold, gold_units, gold_domain = read(gold)
    # beside a gold without letters, m is not a variable
    symbols = re.search("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", gold)) is None
    answer, units, domain = read(answer, symbols)
    other_domain = domain and domain != gold_domain if gold_domain else domain[:1] in ("Q", "R", "C")
    return None if other_domain or gold_units and units and gold_units != units else (gold, answer)


# ---- numbers -----------------------------------------------------------------------------------------------
NUMBER = re.compile(r"([+-]?)([1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d*)(\.\d+)?(?<=\d)"
                    r"(?:(?:\\times|\\cdot|\*) ?10\^(?:\{\+?(-?\d{1,3})\}|(-?\d{1,3})))?(%?)")
BASED = re.compile(r"(-?\d[0-9A-Fa-f]*(?:\.\d+)?)_\{?(\d+)\}?")


def repeating_decimal(integer: str, decimals: str, period: str) -> str:
    nines = (10 ** len(period) - 1) * 10 ** len(decimals)
    return rf"\frac{{{int(integer + decimals + period) - int('0' + integer + decimals)}}}{{{nines}}}"


def written_number(text: str) -> tuple[Fraction, bool] | None:
    """Value of a canonical integer, decimal or scientific notation, and whether % follows; else None."""
    match = NUMBER.fullmatch(re.sub(r"^([+-]?)10\^", r"\g<1>1\\times10^", text))
    if match is None:
        return None
    sign, integer, decimals, braced, bare, percent = match.groups()
    mantissa = Fraction((integer.replace(",", "") or "0") + (decimals or ""))
    return (-1 if sign == "-" else 1) * mantissa * Fraction(10) ** int(braced or bare or 0), bool(percent)


# ---- verdicts that need no algebra -------------------------------------------------------------------------
WORD_BEHIND = re.compile(rf"(?<=[\d)}}]){TEXT}([^{{}}]*)\}}")
# math-verify multiplies "1 2 3", commutes matrices, takes 2^T for 2 and f^{(2)} for a square
ONLY_TEXT = re.compile(
    r"dots|(?<![\d.a-zA-Z^_])[\d.]+ \d|(?<!matrix\})\^(?:T(?![a-zA-Z])|\{T\})|\^\{\(\d+\)\}"
    r"|[A-Z]\^(?:1(?!\d)|\{1\})|\\vec.*\\times|[A-Z]\^\{-1\} ?[A-Z]|[A-Z] ?[A-Z]\^\{-1\}")


def squeezed(text: str) -> str:
    """Without the spaces and braces that TeX does not need."""
    text = re.sub(r"\{(\\[a-zA-Z]+|[^\\{}])\}(?!\d)", r"\1", text)
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)


def quick_verdict(gold: str, answer: str | None) -> bool | None:
    """Right, wrong, or None where only math-verify can tell."""
    if answer is None or len(answer) > MAX_LENGTH:
        return False
    letter = len(plain(gold)) == 1 and plain(gold).isalpha()  # a choice or a variable
    if letter or is_words(gold):
        right = same_words(gold, answer)
        if right or not letter or len(plain(answer)) <= 1:
            return right
    pair = read_pair(gold, answer)
    if pair is None:
        return False
    gold, answer = pair
    if squeezed(gold) == squeezed(answer) or not answer:
        return answer != ""
    gold_based, based = BASED.fullmatch(gold), BASED.fullmatch(answer)
    if gold_based or based:  # the question names the base, so the answer may leave it out
        if gold_based is None:
            return False
        return based.groups() == gold_based.groups() if based else answer == gold_based[1]
    gold_number, number = written_number(gold), written_number(answer)
    if gold_number and number:
        (gold_value, gold_percent), (value, percent) = gold_number, number
        if percent != gold_percent and (gold_value * 100 == value if percent else gold_value == value * 100):
            return True
        return gold_value == value
    if set(WORD_BEHIND.findall(answer)) - set(WORD_BEHIND.findall(gold)):
        return False
    return False if ONLY_TEXT.search(gold + "," + answer) or len(gold) > MAX_LENGTH else None


# ---- in the parent -----------------------------------------------------------------------------------------
class Verifier:
    """Up to `n_workers` processes; an item gets `deadline` seconds, a process `memory_gb` GiB of addresses.

    Unless given, the workers share the cores with those of this machine's other ranks: cores / ranks, 1 to 8.
    Answers that hang cost deadline / workers each: 1,024 of them 43 minutes on two workers, 11 on eight.
    """

    def __init__(self, extract: str = "boxed", n_workers: int | None = None, deadline: float = 5.0,
                 memory_gb=2.0):
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
        self.n_workers = n_workers or max(1, min(8, len(os.sched_getaffinity(0)) // ranks))
        self.extract, self.deadline, self.memory_gb = extract, deadline, memory_gb
        self.failures = 0  # comparisons that the deadline, a worker's death or its memory ended, scored 0.0
        self.failed_starts = 0  # in a row
        self.idle = []  # worker processes
        self.busy = {}  # worker -> its (gold, answer), None while it starts, and its limit on the clock

    def reward(self, texts: list[str], golds: list[str]) -> list[float]:
        """The rewards of whole responses; a fork's reward is any callable of this form."""
        return self.score([extract_answer(text, self.extract) for text in texts], golds)

    def score(self, answers: list[str | None], golds: list[str]) -> list[float]:
        """1.0 where the extracted answer is right, else 0.0; a pair that occurs twice is judged once."""
        pairs = list(zip(golds, answers, strict=True))
        verdicts = {pair: quick_verdict(*pair) for pair in dict.fromkeys(pairs)}
        self._settle(verdicts)
        return [float(verdicts[pair]) for pair in pairs]

    def unparsable(self, golds: list[str]) -> list[int]:
        """Which golds only the same text can match, although they are not words."""
        algebra = {gold: quick_verdict(gold, r"\alpha_{99}") is None for gold in golds}
        by_text = {gold: is_words(gold) or bool(BASED.fullmatch(canonical(gold))) for gold in golds}
        verdicts = {(gold, None): None if algebra[gold] and not by_text[gold] else by_text[gold]
                    for gold in golds}
        self._settle(verdicts)
        return [i for i, gold in enumerate(golds) if not verdicts[gold, None]]

    def _settle(self, verdicts: dict) -> None:
        """Have the workers judge the pairs whose verdict is None."""
        queue = deque(pair for pair, verdict in verdicts.items() if verdict is None)
        while queue or any(pair for pair, _ in self.busy.values()):
            while len(self.idle) + len(self.busy) < min(self.n_workers, len(queue) + len(self.busy)):
                self._start_worker()
            while queue and self.idle:
                self._send(queue)
            self._receive(verdicts)

    def _start_worker(self) -> None:
        # not a fork: the parent has threads and CUDA; a fixed hash seed: sympy depends on the order of sets
        command = [sys.executable, JUDGE, str(self.memory_gb), str(self.deadline)]
        # a session of its own, so that Ctrl-C and torchrun's signals to the parent's group do not reach it
        worker = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  start_new_session=True, env={**os.environ, "PYTHONHASHSEED": "0"})
        self.busy[worker] = None, time.monotonic() + STARTUP_LIMIT

    def _send(self, queue: deque) -> None:
        worker = self.idle.pop()
        try:
            # far below a pipe's 64 kB: never blocks
            worker.stdin.write(json.dumps(queue[0]).encode() + b"\n")
            self.busy[worker] = queue.popleft(), time.monotonic() + self.deadline
        except BrokenPipeError:  # it died while idle, so the item is not to blame
            end(worker)

    def _receive(self, verdicts: dict) -> None:
        next_limit = min((limit for _, limit in self.busy.values()), default=0.0)
        readable = wait([worker.stdout for worker in self.busy], max(0.0, next_limit - time.monotonic()))
        for worker, (pair, limit) in list(self.busy.items()):
            # a reply is one write of a few bytes, so it is read whole; b"" is the end of a dead worker
            reply = os.read(worker.stdout.fileno(), 64) if worker.stdout in readable else None
            if reply is None and time.monotonic() < limit:
                continue
            del self.busy[worker]
            if reply:
                self.idle.append(worker)
                self.failed_starts = 0
            else:
                end(worker)
                self.failures += pair is not None
                self.failed_starts += pair is None
                if self.failed_starts == 3:
                    raise RuntimeError(
                        "verifier workers did not start, three in a row; they said why on stderr")
            if pair:
                verdicts[pair] = bool(reply) and json.loads(reply)

    def close(self) -> None:
        for worker in [*self.idle, *self.busy]:
            end(worker)
        self.idle, self.busy = [], {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def end(worker: subprocess.Popen) -> None:
    worker.kill()
    worker.stdin.close()
    worker.stdout.close()
    worker.wait()
