"""Vocabularies without a tokenizer's files."""

from collections.abc import Mapping, Sequence

from soft_sglang.markers import Vocabulary


class Texts:
    """A tokenizer that knows the ids of some texts; every other text is one token."""

    unk_token_id = None

    def __init__(self, ids: Mapping[str, Sequence[int]], other: int) -> None:
        self._ids = ids
        self._other = other

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(self._ids.get(text, (self._other,)))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Nothing that could be a marker."""
        return " ".join(map(str, ids))


class Distinct:
    """A tokenizer to which every text is one token, another one for each."""

    unk_token_id = None

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [self._ids.setdefault(text, len(self._ids))]


class Pieces:
    """A tokenizer that takes the longest piece that comes next; unknown characters are token 0."""

    unk_token_id = 0

    def __init__(self, *pieces: str) -> None:
        self._pieces = ("<unknown>", *pieces)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = []
        while text:
            fitting = [piece for piece in self._pieces[1:] if text.startswith(piece)]
            piece = max(fitting, key=len, default=None)
            ids.append(0 if piece is None else self._pieces.index(piece))
            text = text[1 if piece is None else len(piece) :]
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        assert not skip_special_tokens
        return "".join(self._pieces[i] for i in ids)


def vocabulary(ids: Mapping[str, Sequence[int]] | None = None, other: int = 7) -> Vocabulary:
    """The ids of some texts; every other text is the token ``other``."""
    return Vocabulary(Texts(ids or {}, other), size=1 << 20)
