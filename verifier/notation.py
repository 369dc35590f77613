r"""One spelling for TeX and Unicode, and the verdicts that comparing texts can give.

`clean` keeps the meaning: it drops dollars, colors, sizes, \left, spacing and final stops, and writes Unicode
signs as TeX.  `canonical` is the form in which two texts are compared: it also ignores fonts, spaces (but "1 3"
is not 13), and braces that TeX does not need.
"""

import re
from fractions import Fraction
from unicodedata import normalize

GREEK = dict(zip("αβγδεζηθκλμνξρστφχψωπΓΘΛΣΦΨΩ", "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu "
                 "xi rho sigma tau phi chi psi omega pi Gamma Theta Lambda Sigma Phi Psi Omega".split()))
FUNCTIONS = "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan ln log exp gcd max min".split()
SIGNS = {sign: rf"\{name} " for sign, name in zip(
    "×·÷∞±≤≥≠∪∈∅⋅√⟨⟩", "times cdot div infty pm le ge ne cup in emptyset cdot sqrt langle rangle".split())}
SIGNS |= dict.fromkeys("−–‐", "-") | dict.fromkeys("、，،", ",") | {"′": "'", "’": "'", "٫": ".", "\u200b": ""}
SIGNS |= {"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "°": r"^{\circ}", "℃": r"^{\circ}\text{C}"}
RAISED, LOWERED = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "₋₀₁₂₃₄₅₆₇₈₉"
FONT = (r"\\(?:text(?:bf|it|rm|sf|tt|sc|up|md|normal)?|[mh]box|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm"
        r"|emph|underline|operatorname)\s*")
COLOR = r"\\(?:text)?color\s*\{[^{}]*\}"
END = r"(?![a-zA-Z])"  # of a command
JOINED = r"(?:,?\s*\\text\{[\s,]*%s[\s,]*\}|,?(?<![a-z]{2})\s+%s\s)\s*"
NOTATION = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r"^\s*\*\*(.*)\*\*[\s.]*$", r"\1"), (r"\*\*", "^"),  # bold in Markdown; a power in programs
    (rf"(?<!\\)(?:\$|\\[()\[\]])|{COLOR}", ""),
    (rf"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits){END}\.?", ""),
    (rf"(?<![a-zA-Z\\])({'|'.join(FUNCTIONS)}|sqrt)(?=\s*[({{\[])", r"\\\1"),
    (r"\\(?:math(?:rm|it)|text)\s*\{([dei])\}", r"\1"),
    (rf"{FONT}\{{\s*(-?\d[\d.]*)\s*\}}", r"\1"), (rf"{FONT}\{{", r"\\text{"),
    (r"(?<!\\)\\!\s*", ""),
    (rf"(?<=\d)\{{[\s~]*(?:\\,)?\}}(?=\d{{3}})|(?:(?<!\\)\\[,;: ]|~|\\q?quad{END}|\s)+", " "),
    (r"\{\s*([,+-])\s*\}", r"\1"), (r"^\s*\{([^{}]*)\}\s*$", r"\1"),
    (r"(?<![\d.,^_])\d{1,3}(?: +\d{3})+(?! *[\d/])", lambda number: number[0].replace(" ", "")),
    (rf"\\[dtc](frac|binom){END}", r"\\\1"),
    (r"\\%|\\text\{\s*(?:\\?%|per ?cent)\s*\}|(?<=[\d}])\s*per ?cent\b", "%"),
    (rf"\\leq(?:slant|q)?{END}|<=", r"\\le "), (rf"\\geq(?:slant|q)?{END}|>=", r"\\ge "),
    (rf"\\neq{END}|!=", r"\\ne "), (rf"\\lt{END}", "<"), (rf"\\gt{END}", ">"), (rf"\\[lr]?vert{END}", "|"),
    (rf"\\(?:empty|varnothing){END}", r"\\emptyset "), (rf"\\lbrace{END}", r"\\{"), (rf"\\rbrace{END}", r"\\}"),
    (rf"\\langle{END}([^|]*,[^|]*?)\\rangle{END}", r"(\1)"),
    (JOINED % ("or", "or"), r"\\or "), (JOINED % ("and", "and"), r"\\and "),
    (rf"\s*\^\s*(?:\\(?:circ|degree){END}|\{{\s*\\(?:circ|degree)\s*\}})", r"\\degree "),
    (rf"\^\s*(?:\\prime{END}|\{{\s*\\prime\s*\}})", "'"), (r"^\s*\(([\dA-F]+)\)\s*_", r"\1_"),  # (101)_2
    (r"(?:(?<!\.)\.|[\s,;])+$|(?<=\d)\.(?![\d.\\])", ""), (r"^\s+", ""),
]]
PLAIN_NUMBER = re.compile(r"-?(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d+)?")
WORDS = re.compile(r"[A-Za-z]{4,}|(?:[A-Za-z]{2,}[ -])+[A-Za-z]{2,}|(?i:yes|no|odd)")


def to_ascii(text: str) -> str:
    """Unicode digits, full-width forms, common symbols in ASCII; x² becomes x^{2}, where NFKC gives x2."""
    if text.isascii():
        return text
    for run, mark in ((RAISED, "^"), (LOWERED, "_")):
        digits = str.maketrans(run, "-0123456789")
        text = re.sub(f"[{run}]+", lambda found: f"{mark}{{{found[0].translate(digits)}}}", text)
    text = re.sub("[¼½¾⅐-⅞]", lambda sign: r"\frac{%s}{%s}" % tuple(normalize("NFKC", sign[0]).split("⁄")), text)
    text = re.sub(r"√\s*(\d+)", r"\\sqrt{\1}", text).translate(str.maketrans(SIGNS))
    text = normalize("NFKC", text)
    if r"\text" not in text:  # Greek words stay as they are
        text = text.translate(str.maketrans({letter: rf"\{name} " for letter, name in GREEK.items()}))
    return re.sub(r"(?![0-9])\d", lambda digit: str(int(digit[0])), text)


def clean(text: str) -> str:
    text = to_ascii(text)
    for pattern, replacement in NOTATION:
        text = pattern.sub(replacement, text)
    return text


def canonical(text: str) -> str:
    """The text as which an answer is compared where it is not understood."""
    text = re.sub(r"\\text(?=\{)|\\\$$", "", clean(text))
    text = re.sub(r"\{(\\[a-zA-Z]+|[^\\{}])\}(?!\d)", r"\1", text)
    text = re.sub(r"^\{([^{}]*)\}$", r"\1", text)
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)


def plain(text: str) -> str:
    """Words without fonts, quotes, brackets round the whole, final stops; in lower case, but for AaBb."""
    dress = rf"{COLOR}|{FONT}|\\(?:bf|it|rm|sf|left|right|q?quad){END}|\\[,;:! ]|[{{}}$*`\"“”~\s]|''"
    text = " ".join(re.sub(dress, " ", to_ascii(text)).split()).strip("_ .,;:?")
    text = re.sub(r"(?<=[a-zA-Z]{2})!+$", "", re.sub(r"^\(\s*([^()]*?)[\s.]*\)[.!]?$", r"\1", text))
    words = r"(?<![A-Za-z])(?:[A-Z]?[a-z]+|[A-Z]{2,})(?![A-Za-z])"
    return re.sub(words, lambda word: word[0].lower(), text)


def is_words(gold: str) -> bool:
    """Words, or a letter: a choice or a variable."""
    return is_letter(gold) or bool(
        re.fullmatch(rf"\s*{FONT}\{{[^{{}}0-9]*\}}[\s.]*", gold) or WORDS.fullmatch(plain(gold)))


def is_letter(gold: str) -> bool:
    return len(plain(gold)) == 1 and plain(gold).isalpha()


def verdict_of_texts(gold: str, answer: str) -> bool | None:
    """Right, wrong, or None where it takes more than comparing words, texts and plain numbers."""
    texts, words = (canonical(gold), canonical(answer)), (plain(gold), plain(answer))
    if texts[0] == texts[1] or not texts[1]:
        return texts[1] != ""
    if re.fullmatch(r"\w+\\times\w+|0[01]{3,}", texts[0]):  # 3\times4 may be a size, 0110 a code
        return False
    if is_words(gold):
        # "(B) 5", "B. 5", but no second choice
        more = r"(?!.*(?:\b(?:and|n?or|not|wrong|incorrect|false|except)\b|\([A-Z]\)|\b[A-Z][).:]))"
        choice = len(words[0]) == 1 and words[0].isupper() and (
            re.fullmatch(rf"(?:\({words[0]}\)|{words[0]}[).:])(?: (?![,;+]){more}.*)?", words[1]))
        if words[0] == words[1] or choice:
            return True
        return None if is_letter(gold) and len(words[1]) > 1 else False
    numbers = clean(gold), clean(answer)
    if all(map(PLAIN_NUMBER.fullmatch, numbers)):
        return Fraction(numbers[0].replace(",", "")) == Fraction(numbers[1].replace(",", ""))
    based = re.fullmatch(r"(-?\d[\dA-F.]*)_\d+", texts[0].replace("{", "").replace("}", ""))
    return True if based and based[1] == texts[1] else None  # the question names the base
