r"""One spelling for what TeX and Unicode can write in several ways, and answers that are words.

`clean` keeps the meaning: it drops dollars, colors, sizes, \left, spacing, final stops and roman or text
fonts, and writes Unicode signs as TeX.  `canonical` is the form in which two texts are compared: it also
ignores bold, \text{}, spaces (but "1 3" is not 13), and braces that TeX does not need.
"""

import re

SYMBOLS = dict(zip("×·÷π∞±∓≤≥≠∪∩∈∅⟨⟩⋅∖", "times cdot div pi infty pm mp le ge ne cup cap in emptyset langle "
                   "rangle cdot setminus".split()))
GREEK = dict(zip("αβγδεζηθκλμνξρστφχψωΓΔΘΛΣΦΨΩ", "alpha beta gamma delta epsilon zeta eta theta kappa lambda "
                 "mu nu xi rho sigma tau phi chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi "
                 "Omega".split()))
ASCII = str.maketrans(
    {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}  # full-width forms
    | dict.fromkeys("−–‐‑", "-") | dict.fromkeys("′’", "'") | dict.fromkeys("、，،", ",") | {"٫": ".", "٬": ","}
    | dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " ")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff")
    | {symbol: rf"\{command} " for symbol, command in SYMBOLS.items()}
    | dict(zip("ℤℕℝℚℂ", (rf"\mathbb{{{letter}}}" for letter in "ZNRQC")))
    | {"°": r"^{\circ}", "℃": r"^{\circ}\text{C}", "℉": r"^{\circ}\text{F}", "√": r"\sqrt ", "∛": r"\sqrt[3]"}
    | {mark: rf"\frac{{{n}}}{{{d}}}" for mark, n, d in
       zip("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞", "112131234151357", "233445555668888")})
RAISED, LOWERED = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "₋₀₁₂₃₄₅₆₇₈₉"
FONT = (r"\\(?:text(?:bf|it|rm|sf|tt|sc|up|md|normal)?|[mh]box|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm"
        r"|emph|underline|operatorname)\s*")
COLOR = r"\\(?:text)?color\s*\{[^{}]*\}"
TEXT = r"\\text\{"
FUNCTIONS = ("sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan ln log exp gcd lcm max min".split())
SAID_OR = rf"(?:,?\s*{TEXT}[\s,]*%s[\s,]*\}}|,?(?<![a-z]{{2}})\s+%s\s)\s*"
NOTATION = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r"^\s*\*\*(.*)\*\*[\s.]*$", r"\1"), (r"\*\*", "^"),  # bold in Markdown; a power in programs
    (rf"(?<!\\)(?:\$|\\[()\[\]])|{COLOR}", ""),
    (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits|nolimits)(?![a-zA-Z])\.?", ""),
    (r"\{\s*\\(?:bf|it|rm|sf|tt|bfseries|itshape)(?![a-zA-Z])\s*", r"\\text{"),
    (rf"(?<![a-zA-Z\\])({'|'.join(FUNCTIONS)}|sqrt)(?=\s*[({{\[])", r"\\\1"),
    (rf"\\operatorname\*?\s*\{{({'|'.join(FUNCTIONS)})\}}", r"\\\1 "),
    (r"\\(?:math(?:rm|it|normal)|text)\s*\{([dei])\}", r"\1"),
    (r"\\(?:mathbf|boldsymbol|bm)\s*(?:\{\s*([a-zA-Z]|\\[a-zA-Z]+)\s*\}|([a-zA-Z])(?![a-zA-Z]))",
     r"\\bold{\1\2}"),
    (rf"{FONT}\{{\s*(-?\d[\d.]*)\s*\}}", r"\1"), (rf"{FONT}\{{", r"\\text{"),
    (r"(?<!\\)\\!\s*", ""),
    (r"(?<=\d)\{[\s~]*(?:\\,)?\}(?=\d{3})|(?:(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])|\s)+", " "),
    (r"\{\s*,\s*\}", ","), (r"\{\s*([+-])\s*\}", r"\1"), (r"^\s*\{([^{}]*)\}\s*$", r"\1"),
    (r"(?<![\d.,^_])\d{1,3}(?: +\d{3})+(?! *[\d/])", lambda number: number[0].replace(" ", "")),
    (r"\\[dtc](frac|binom)(?![a-zA-Z])", r"\\\1"),
    (rf"\\%|{TEXT}\s*(?:\\?%|per ?cent)\s*\}}|(?<=[\d}}])\s*per ?cent\b", "%"),
    (r"\\leq(?:slant|q)?(?![a-zA-Z])|<=", r"\\le "), (r"\\geq(?:slant|q)?(?![a-zA-Z])|>=", r"\\ge "),
    (r"\\neq(?![a-zA-Z])|!=|\\not\s*=", r"\\ne "), (r"\\lt(?![a-zA-Z])", "<"), (r"\\gt(?![a-zA-Z])", ">"),
    (r"\\(?:[lr]?vert)(?![a-zA-Z])", "|"), (r"\\(?:empty|varnothing)(?![a-zA-Z])", r"\\emptyset "),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"), (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
    (r"\\langle(?![a-zA-Z])([^|]*,[^|]*?)\\rangle(?![a-zA-Z])|^\s*<([^<>]*,[^<>]*)>\s*$", r"(\1\2)"),
    (SAID_OR % ("or", "or"), r"\\or "), (SAID_OR % ("and", "and"), r"\\and "),
    (rf"(?<=[\d}}]){TEXT}\s*(?:degrees?|deg)\s*\}}", r"\\degree "),
    (r"\b([ap])\.\s?m\.|\b([AP])\.\s?M\.", r"\1\2m"),
    (r"\s*\^\s*(?:\\(?:circ|degree)(?![a-zA-Z])|\{\s*\\(?:circ|degree)\s*\})", r"\\degree "),
    (r"\^\s*(?:\\prime(?![a-zA-Z])|\{((?:\s*\\prime)+)\s*\})",
     lambda p: "'" * max(1, (p[1] or "").count("prime"))),
    (r"_\{\s*\((\d+)\)\s*\}|_\((\d+)\)", r"_{\1\2}"), (r"^\s*\(([\dA-F]+)\)\s*(_)", r"\1\2"),  # (101)_{(2)}
    (r"(?:(?<!\.)\.|[\s,;])+$|(?<=\d)\.(?![\d.\\])", ""), (r"^\s+", ""),
]]


def to_ascii(text: str) -> str:
    """Unicode digits, full-width forms, common symbols in ASCII; x² becomes x^{2}, where NFKC gives x2."""
    if text.isascii():
        return text
    for run, mark in ((RAISED, "^"), (LOWERED, "_")):
        digits = str.maketrans(run, "-0123456789")
        text = re.sub(f"[{run}]+", lambda found: f"{mark}{{{found[0].translate(digits)}}}", text)
    text = re.sub(r"√\s*(\d+)", r"\\sqrt{\1}", text).translate(ASCII)
    if not re.search(r"\\text|[^\W\d_a-zA-Zα-ωΓ-Ω]|\d\s*µ", text):  # no words of other languages
        text = text.translate(str.maketrans({letter: rf"\{name} " for letter, name in GREEK.items()}))
    return re.sub(r"(?![0-9])\d", lambda digit: str(int(digit[0])), text)


def clean(text: str) -> str:
    text = to_ascii(text)
    for pattern, replacement in NOTATION:
        text = pattern.sub(replacement, text)
    return text


def canonical(text: str) -> str:
    """The text as which an answer is compared where it is not understood."""
    text = re.sub(r"\\(?:text|bold)(?=\{)|\\\$$", "", clean(text))
    text = re.sub(r"\{(\\[a-zA-Z]+|[^\\{}])\}(?!\d)", r"\1", text)
    text = re.sub(r"^\{([^{}]*)\}$", r"\1", text)
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)


def has_letters(gold: str) -> bool:
    """Whether one letter behind a number could be a variable rather than a unit."""
    return re.search("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", clean(gold))) is not None


# ---- words and choices -------------------------------------------------------------------------------------
MENTION_ONLY = re.compile(  # a box that is talked about
    r"(?i:\\[a-z]*dots|\\text\w*|\\[,;:! ]|(?:(?:your|the|final) )*answer(?: here)?|[\s.…{}~?])*")
WORDS = r"[A-Za-z]{4,}|(?:[A-Za-z]{2,}[ -])+[A-Za-z]{2,}|(?i:yes|no|odd)"
SAID = (r"(?:(?:(?:the|this|that|my) )?(?:(?:correct|final|given) )?"  # before a word or a choice
        r"(?:answer|statement|claim|assertion|proposition|conjecture|option|choice|it)(?: is:?|:)? )?")
OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}


def plain(text: str) -> str:
    """Words without fonts, quotes, brackets round the whole, final stops."""
    dress = rf"{COLOR}|{FONT}|\\(?:bf|it|rm|sf|left|right|q?quad)(?![a-zA-Z])|\\[,;:! ]|[{{}}$*`\"“”~\s]|''"
    text = " ".join(re.sub(dress, " ", to_ascii(text)).split())
    text = re.sub(r"\b([A-Z]) (?=[A-Z]\b)", r"\1", re.sub(r"\s*(?:[,;]|,? and\b)\s*", ", ", text))
    text = re.sub(r"^\(([^()]*)\)[.!]?$", r"\1", text.strip("_ .,;:?"))
    return re.sub(r"(?<=[a-zA-Z]{2})!+$", "", text.strip("_ .,;:?"))


def is_words(gold: str) -> bool:
    return bool(re.fullmatch(rf"\s*{FONT}\{{[^{{}}0-9]*\}}[\s.]*", gold) or re.fullmatch(WORDS, plain(gold)))


def is_letter(gold: str) -> bool:
    """A choice or a variable."""
    return len(plain(gold)) == 1 and plain(gold).isalpha()


def same_words(gold: str, answer: str) -> bool:
    def fold(text: str) -> str:  # "Yes" and "YES", but not "AaBb"
        words = r"(?<![A-Za-z])(?:[A-Z]?[a-z]+|[A-Z]{2,})(?![A-Za-z])"
        return re.sub(words, lambda word: word[0].lower(), plain(text))

    gold, said = fold(gold), fold(answer)
    right = re.escape(gold)
    if len(gold) == 1:  # "(B)", "B.", "The answer is B", "(B) 5"
        more = r"(?!.*(?:\b(?:and|n?or|not|wrong|incorrect|false|except)\b|\([A-Z]\)|\b[A-Z][).:]))"
        choice = rf"|(?:\({right}\)|{right}[).:]) {more}.*" if gold.isupper() else ""
        right = rf"{SAID}\(?{right}\)?{choice}"
    elif gold in OPPOSITE:  # behind "Yes, " nothing may take it back; "not true" is false
        others = "|".join([*OPPOSITE.keys() - {gold}, *"wrong incorrect but only unless except if".split()])
        others += "|not|never|cannot|hardly" if gold in ("yes", "true") else ""
        right = rf"{SAID}{gold}(?:[,:] (?!.*\b(?:{others})\b).*)?"
        right += rf"|{SAID}not {OPPOSITE[gold]}" if gold in ("true", "false") else ""
    return re.fullmatch(right, said) is not None
