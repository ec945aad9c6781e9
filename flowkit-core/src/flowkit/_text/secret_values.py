"""Values after the names of secrets, such as ``password=…``, in texts of any shape.

A value is a quoted text, a call, list or object with others in it, a block of YAML, or a word. It
may go on over several lines. The time of a search is proportional to the length of the text.
"""

import re
from collections.abc import Iterator

SECRETS = (
    r"(?:passw(?:or)?ds?|pass[_-]?phrase|pwd|secrets?(?:[_-]?keys?)?|signing[_-]?keys?"
    r"|(?:api|access|private|account)[_-]?keys?|credentials?|tokens?)"
)
HEADERS = r"(?:authorization|cookies?)"
COUNTS = r"tokens"
"""Names whose values are secrets, or counts such as ``max_tokens=100``, which are shown."""

_NAME = re.compile(
    rf"(?i)(?:(?P<count>{COUNTS})|{SECRETS}|(?P<header>{HEADERS}))(?P<quote>\\*['\"])?"
    r"\s*+(?:=>|:=|={1,3}|:)"
)
_GAP = r"(?:\s|\\++[nrt])*+(?:bearer[ \t]{1,8})?"
_QUOTE = re.compile(rf"""(?i){_GAP}(?P<opening>[bfru]{{0,2}}\\*(?P<quote>['"]))""")
_MORE_QUOTES = re.compile(r"""(?i)[ \t]*+\r?\n[ \t|]*+(?P<opening>[bfru]{0,2}(?P<quote>['"]))""")
_BRACKET = re.compile(rf"(?i){_GAP}[(\[{{]")
_WORD = re.compile(
    r"""(?i)[ \t]*+\s{0,8}(?:bearer[ \t]{1,8})?(?P<word>(?:[^\s,;&'"()\[\]{}\\]|\\(?![nrt'"\\]))"""
    r"""(?:[^\s,;&'"()\[\]{}\\]|['"](?=[^\W_])|\\(?![nrt'"\\]))*+)(?P<call>[(\[{])?"""
)
_BLOCK = re.compile(
    r"[ \t]*+(?:[&!][^\s\\]{0,99}+(?:[ \t]++|(?=\r?\n))){0,2}"
    r"(?P<style>[|>][0-9+-]{0,2})?[ \t]*+(?:#[^\n]{0,999}+)?(?:\r?\n|\Z)"
)
_SCALAR = re.compile(r"[ \t]++(?P<value>[^\s'\"\[{][^\n]*+)(?:\n|\Z)")
_ENTRY = re.compile(
    r"""(?:[ \t|\r]*+\n)*+[ \t|]*+(?:-[ \t]|['"]?[\w.-]{1,64}+['"]?[ \t]*+:(?:\s|\Z))"""
)
"""Beginning of an object or list in YAML."""
_ESCAPED_ENTRY = re.compile(
    r"""[ \t]*+(?P<backslashes>\\++)n[ \t]*+"""
    r"""(?:-[ \t]|\\*['"]?[\w.-]{1,64}+\\*['"]?[ \t]*+:(?:[ \t\\]|\Z))"""
)
_FLOW = re.compile(
    r"""[ \t]++(?P<value>[^\s,'"()\[\]{}](?:[^\n,()\[\]{}]|\n[ \t]++(?=\S))*+)"""
    r"""(?=\}|,\s++['"]?[\w.-]{1,64}+['"]?:)"""
)
"""Value of a key in ``{user: a, password: a b}``."""
_TYPE = re.compile(
    r"[ \t]*+(?P<type>(?:[!&][\w:/.!-]{0,99}+[ \t]++){1,2}"
    r"|[^\W\d][\w.]{0,64}+(?:\[[\w.,| \[\]]{0,99}\])?(?:[ \t]*+\|[ \t]*+[\w.\[\]]{1,64}+){0,4}"
    r"[ \t]*+=[ \t]*+)"
)
"""Type between a name and its value: ``password: str = …``, ``password: !!str …``."""
_REVEALS_NOTHING = re.compile(
    r"""(?:None|null|True|true|False|false|\\*(?P<quote>['"])[^\w\s]{1,2}\\*(?P=quote))\s*+"""
)
_NUMBER = r"[~<>+-]?\d[\d_.,/%]*+(?:[kKmM]\b|[eE][+-]?\d++)?"
# An object has its keys in quotes or a space after the colon, as a word such as ``ann:1`` has not.
_NUMBERS = re.compile(
    rf"""[\s(\[{{'"\\]*+(?:(?:[\w.-]{{1,64}}+(?:['"\\]++\s*+:|:\s)[\s'"\\]*+)?{_NUMBER}"""
    r"""[\s,;)\]}'"\\]*+)++"""
)
_BREAK_OR_QUOTE = re.compile(r"""(?<=\\)n|[\n'"]""")
_INDENTATION = re.compile(r"[ \t|]*+(?:-[ \t]++)*+")
"""It includes the bars of a traceback of an exception group, and the dashes of lists of YAML."""
_SPACES = re.compile(r"[ \t|]*+")
_BLANK = re.compile(r"[ \t|\r]*+(?:\n|\Z)")
_KEY = re.compile(r"""[ \t|]*+(?:-[ \t]++)*+['"]?[\w.-]{0,64}""")
_MORE_ITEMS = re.compile(r"""[ \t|]*+[\[\]{}()'"]""")
"""Beginning of a line of a value in brackets, also if it is less indented than its first line."""
_IN_BRACKETS = re.compile(r"""[()\[\]{}'"\n]""")
_IN_QUOTES = {sign: re.compile(f"[{sign}\n]") for sign in "'\""}
_PREFIX = re.compile(r"(?i)(?<![^\W_])[bfru]{1,2}\Z")


def secret_values(text: str) -> Iterator[tuple[int, int]]:
    """Yield the beginnings and ends of the values after names of secrets, in their order."""
    position = line = 0
    while found := _NAME.search(text, position):
        line = text.rfind("\n", position, found.start()) + 1 or line
        position = found.end()
        begin, end = _value(text, found, line)
        if begin < end:
            if not _is_harmless(text, found, begin, end):
                yield begin, end
            line = text.rfind("\n", position, end) + 1 or line
            position = end


def _is_harmless(text: str, name: re.Match[str], begin: int, end: int) -> bool:
    """Return whether a value is no secret: a constant, a punctuation mark, or counts of tokens."""
    return bool(
        _REVEALS_NOTHING.fullmatch(text, begin, end)
        or (name["count"] and _NUMBERS.fullmatch(text, begin, end))
    )


def _value(text: str, name: re.Match[str], line: int) -> tuple[int, int]:
    at = name.end()
    indentation = _width(_INDENTATION, text, line)
    quoted = _QUOTE.match(text, at)
    is_key = _KEY.match(text, line).end() >= name.start()  # type: ignore[union-attr]
    block = _BLOCK.match(text, at)
    if block and (block["style"] or is_key or _ENTRY.match(text, block.end())):
        end = _end_of_block(text, block.end(), indentation, items=not block["style"])
        if end > block.end():
            if quoted:
                end = max(end, _end_of_quoted(text, quoted, indentation))
            return block.end() + _width(_INDENTATION, text, block.end()), end
    end = at
    if not name["quote"] and (not quoted or "\\" in text[at : quoted.start("opening")]):
        end = _end_in_escaped_lines(text, name.start(), at)
    if quoted:
        end = max(end, _end_of_quoted(text, quoted, indentation))
        return quoted.start("opening"), end
    if end > at:
        return at, end
    has_colon = text[at - 1] == ":" and not name["quote"]
    scalar = _SCALAR.match(text, at) if is_key and has_colon else None
    if scalar and (line or scalar[0].endswith("\n")):
        end = _end_of_block(text, scalar.end(), indentation, items=False)
        return scalar.start("value"), end if end > scalar.end() else scalar.end("value")
    is_header = bool(name["header"]) and not name["quote"]
    if has_colon and not is_header:
        flow = _FLOW.match(text, at) if _is_in_braces(text, name.start()) else None
        if flow:
            return flow.span("value")
        if typed := _TYPE.match(text, at):
            _, end = _value_in_line(text, typed.end(), indentation, words=True)
            if end > typed.end():
                return typed.start("type"), end
    return _value_in_line(text, at, indentation, words=not is_header)


def _value_in_line(text: str, at: int, indentation: int, *, words: bool) -> tuple[int, int]:
    """Return the beginning and end of a quoted text, of a value in brackets, or of a word."""
    if quoted := _QUOTE.match(text, at):
        return quoted.start("opening"), _end_of_quoted(text, quoted, indentation)
    if bracket := _BRACKET.match(text, at):
        return bracket.end() - 1, _end_of_brackets(text, bracket.end() - 1, indentation)
    word = _WORD.match(text, at) if words else None
    if not word:
        return at, at
    if word["call"]:
        return word.start("word"), _end_of_brackets(text, word.end() - 1, indentation)
    return word.span("word")


def _beginning_of_key(text: str, name: int) -> int:
    key = name
    while key > max(0, name - 64) and (text[key - 1].isalnum() or text[key - 1] in "_.-"):
        key -= 1
    return key


def _is_in_braces(text: str, name: int) -> bool:
    """Return whether a name is in a key after an opening brace or a comma."""
    key = _beginning_of_key(text, name)
    return text[max(0, key - 64) : key].rstrip()[-1:] in ("{", ",")


def _end_in_escaped_lines(text: str, name: int, at: int) -> int:
    """Return the end of a value at ``at`` in a text whose line breaks are escaped.

    Return ``at`` if the name before it is neither the beginning of such a line nor before an
    object or list.
    """
    key = _beginning_of_key(text, name)
    if text[key : key + 1] == "n" and text[key - 1 : key] == "\\":
        key += 1
    line = key
    while line and text[line - 1] in " \t-":
        line -= 1
    before, backslashes = text[line - 1 : line], 0
    if before == "n":
        backslashes = _backslashes(text, line - 1, 0)
    is_first, depth = not backslashes, key - line
    is_list = text.startswith("- ", line)
    if is_first and (not before or before not in "'\"" or (line < key and not is_list)):
        entry = _ESCAPED_ENTRY.match(text, at)
        if not entry:
            return at
        backslashes = len(entry["backslashes"])
        depth = _escaped_indentation(text, key)
    for found in _BREAK_OR_QUOTE.finditer(text, at):
        sign, end = found[0], found.start()
        if sign == "\n":
            return at if is_first else end
        if sign != "n":
            if is_first and sign == before:
                return at  # the quoted text has one line
            continue
        count = _backslashes(text, end, at)
        if backslashes and count != backslashes:
            continue
        backslashes, is_first = count, False
        if not _goes_on(text, found.end(), depth):
            return end - count
    return at if is_first else len(text)


def _escaped_indentation(text: str, at: int) -> int:
    """Return the indentation after the last escaped line break before ``at``, if it is near."""
    breaks = [*_BREAK_OR_QUOTE.finditer(text, max(0, at - 256), at)]
    return _width(_SPACES, text, breaks[-1].end()) if breaks and breaks[-1][0] == "n" else 0


def _goes_on(text: str, line: int, indentation: int) -> bool:
    """Return whether a line after an escaped line break belongs to the value before it."""
    width = _width(_SPACES, text, line)
    rest = line + width
    is_item = width == indentation and text.startswith("- ", rest)
    return width > indentation or is_item or text.startswith("\\", rest)


def _end_of_quoted(text: str, opening: re.Match[str], indentation: int) -> int:
    """Return the end of a quoted text that may go on over several lines.

    Further quoted texts on the next lines belong to it, as Python writes a long text.
    """
    sign, at = opening["quote"], opening.end()
    if text.startswith(sign * 2, at) and (end := text.find(sign * 3, at + 2)) >= 0:
        return end + 3
    backslashes = _backslashes(text, opening.end() - 1, opening.start())
    while True:
        at, closed = _end_in_line(text, at, sign, backslashes)
        if not closed:
            if at == len(text) or _is_outside(text, at + 1, indentation):
                return at
            at += 1
        elif more := _MORE_QUOTES.match(text, at):
            sign, at = more["quote"], more.end()
        else:
            return at


def _end_in_line(text: str, at: int, sign: str, backslashes: int) -> tuple[int, bool]:
    """Return the position after the closing quote and True, or the end of the line and False.

    The opening quote follows these backslashes, because it is in a text that is quoted itself. A
    quote with more of them, such as ``\\"`` in ``"…\\"…"``, belongs to the quoted text, and so do
    doubled ones.
    """
    begin, quote = at, "\\" * backslashes + sign
    while found := _IN_QUOTES[sign].search(text, at):
        at = found.end()
        if found[0] == "\n":
            return found.start(), False
        if _backslashes(text, found.start(), begin) <= backslashes:
            if not text.startswith(quote, at):
                return at, True
            at += len(quote)
    return len(text), False


def _end_of_brackets(text: str, at: int, indentation: int) -> int:
    depth = 0
    while found := _IN_BRACKETS.search(text, at):
        begin, at, sign = found.start(), found.end(), found[0]
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
            if not depth:
                return at
        elif sign == "\n":
            if _is_outside(text, at, indentation) and not _MORE_ITEMS.match(text, at):
                return begin
        elif not _is_apostrophe(text, begin):
            at, _ = _end_in_line(text, at, sign, _backslashes(text, begin, 0))
    return len(text)


def _end_of_block(text: str, at: int, indentation: int, *, items: bool) -> int:
    """Return the end of the lines that are further indented than this.

    With ``items``, the items of a list may begin at the indentation itself.
    """
    end = at
    while at < len(text):
        stop = text.find("\n", at)
        stop = len(text) if stop < 0 else stop
        if not _BLANK.match(text, at):
            width = _width(_SPACES, text, at)
            is_item = items and width == indentation and text.startswith("- ", at + width)
            if width <= indentation and not is_item:
                break
            end = stop
        at = stop + 1
    return end


def _is_outside(text: str, line: int, indentation: int) -> bool:
    """Return whether a line is indented less than this, so that no value goes on in it."""
    return not _BLANK.match(text, line) and _width(_SPACES, text, line) < indentation


def _is_apostrophe(text: str, at: int) -> bool:
    return at > 0 and text[at - 1].isalnum() and not _PREFIX.search(text, max(0, at - 3), at)


def _backslashes(text: str, end: int, begin: int) -> int:
    """Return the number of backslashes directly before ``end``."""
    at = end
    while at > begin and text[at - 1] == "\\":
        at -= 1
    return end - at


def _width(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return len(found[0]) if found else 0
