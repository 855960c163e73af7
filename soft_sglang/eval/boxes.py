r"""``\boxed{...}`` in an answer: which one counts."""

import re

_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
_SEPARATOR = re.compile(
    r"(?:\\text\s*\{\s*(?:and|or)\s*\}|\\quad|\\[()\[\],;: ]|\band\b|\bor\b|[\s$,;]|[a-zA-Z]\s*=)*"
)
"""What may stand between boxes that belong together."""


def last_boxed(text: str) -> str | None:
    r"""Content of the last ``\boxed`` or ``\fbox``, without the box.

    Boxes with nothing but a comma, "and", "or" or ``x =`` between them are one answer of several
    values, joined with commas. A box that was not closed does not count.

    Returns:
        None: there is no box, or it is empty.
    """
    boxes = _boxes(text)
    if not boxes:
        return None
    group = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _SEPARATOR.fullmatch(text, box[1], group[0][0]):
            break
        group.insert(0, box)
    contents = [box[2] for box in group if box[2]]
    return ", ".join(dict.fromkeys(contents)) or None


def before_unclosed_box(text: str) -> str:
    """The text, up to a box that was not closed."""
    closed = _boxes(text)
    for match in _BOX.finditer(text, closed[-1][1] if closed else 0):
        return text[: match.start()]
    return text


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """Start, end and content of every outermost closed box."""
    boxes = []
    position = 0
    while match := _BOX.search(text, position):
        end = _closing_brace(text, match.end())
        if end is None:
            position = match.end()
            continue
        boxes.append((match.start(), end + 1, text[match.end() : end].strip()))
        position = end + 1
    return boxes


def _closing_brace(text: str, start: int) -> int | None:
    """Where the brace before ``start`` is closed."""
    depth = 1
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return position
        position += 1
    return None
