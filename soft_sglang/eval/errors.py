"""What the user is told in one line."""


class EvaluationError(Exception):
    """Something that the user can put right; the message says what."""


def first_line(error: Exception) -> str:
    """Of an error's message, or the name of its kind if it has none."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
