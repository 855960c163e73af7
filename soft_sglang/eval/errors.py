"""What the user is told in one line."""


class EvaluationError(Exception):
    """Something that the user can put right; the message says what."""
