"""From a response to its answer: the last box, or the last number."""

import re
from collections import deque

from verifier.notation import to_ascii

BOX_OR_BRACE = re.compile(r"\\\\?(?:boxed|fbox)(?![a-zA-Z])\s*(\{?)|\\.|[{}]", re.DOTALL)
UNBRACED = re.compile(r"(?:(?![a-zA-Z]{2}|[a-zA-Z]\s)[^\s$]+)?")  # nothing of "\boxed as asked"
MENTION_ONLY = re.compile(  # a box that is talked about
    r"(?i:\\[a-z]*dots|\\text\w*|\\[,;:! ]|(?:(?:your|the|final) )*answer(?: here)?|[\s.…{}~?])*")
NUMBER_RUN = re.compile(
    r"(?:(?<![\w)}\].])-\$?)?(?:(?<![\d.])\.\d+|\d[\d,]*(?:\.\d+)?)(?:[eE][+-]?\d+(?!\w))?")


def last_boxed(text: str) -> str | None:
    r"""Content of the last complete \boxed{...} or \fbox{...}, also of "\boxed 5"; None if there is none.

    A box that is only mentioned ("in the \boxed{} format") does not replace the one before it. One pass with
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
            if len(found) < 50 and MENTION_ONLY.fullmatch(found):
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
