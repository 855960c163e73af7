"""The markers of thinking: how they are looked up, and where a prompt leaves its thought."""

import pytest
import tiny_models
from vocabularies import Pieces

from soft_sglang.kernels.table_rows import FORCED_LIMIT, MARKER_LIMIT
from soft_sglang.markers import Markers, Vocabulary, is_closed, read_markers

EOS, THINK, THINK_END = tiny_models.EOS, tiny_models.THINK, tiny_models.THINK_END


def words_vocabulary(size: int = tiny_models.VOCAB_SIZE, *turn_ends: int) -> Vocabulary:
    """Of the tiny models: a word is a token."""
    tokenizer = tiny_models.tokenizer()
    tokenizer.unk_token = "<pad>"
    return Vocabulary(tokenizer, size, frozenset(turn_ends))


WORDS = words_vocabulary(tiny_models.VOCAB_SIZE, EOS, 40)
PIECES = Vocabulary(
    Pieces(
        *("<end>", "</", "think", ">", "<think>", ">\n", "\n", ".</", ".", "a", "b"),
        *("<", "/", "\n<"),
    ),
    size=100,
    turn_ends=frozenset({1}),
)
"""As of a model that has no tokens for its markers: what stands beside them grows into them."""


def text_of(field: str, error: pytest.ExceptionInfo[ValueError]) -> str:
    text = str(error.value)
    assert text.startswith(f"{field} must ")
    return text


# Texts and their tokens.


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("</think>", (THINK_END,)),
        ("w5 </think>", (5, THINK_END)),
        (" w5\n w7 ", (5, 7)),
        (" ".join(["w9"] * 16), (9,) * 16),
    ],
)
def test_tokens(text: str, ids: tuple[int, ...]) -> None:
    assert WORDS.tokens("think_end_str", text, MARKER_LIMIT) == ids


def test_no_token_is_added() -> None:
    """A tokenizer may put special tokens around a text that it is not told to leave as it is."""

    class Polite:
        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [1, 5, 2] if add_special_tokens else [5]

    assert Vocabulary(Polite(), 10).tokens("x", "y", 4) == (5,)


@pytest.mark.parametrize(
    ("text", "limit", "problem"),
    [
        ("", 16, "1 to 16 tokens of the vocabulary, but '' is 0 tokens."),
        ("  ", 4, "1 to 4 tokens of the vocabulary, but '  ' is 0 tokens."),
        ("w4 w5 w6", 2, "1 to 2 tokens of the vocabulary, but 'w4 w5 w6' is 3 tokens."),
        ("w4 w5", 1, "one token of the vocabulary, but 'w4 w5' is 2 tokens."),
        ("w999", 1, "one token of the vocabulary, but 'w999' is unknown."),
        ("w4 w999 w5", 9, "1 to 9 tokens of the vocabulary, but 'w4 w999 w5' is unknown."),
        ("w4 w200", 9, "1 to 9 tokens of the vocabulary, but 'w4 w200' is beyond the model's"),
    ],
)
def test_texts_that_are_not_tokens(text: str, limit: int, problem: str) -> None:
    vocabulary = words_vocabulary(size=200)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - its text is looked at
        vocabulary.tokens("some_field", text, limit)
    assert text_of("some_field", error).startswith(f"some_field must be {problem}")


def test_the_last_token_of_the_vocabulary() -> None:
    vocabulary = words_vocabulary(size=200)
    assert vocabulary.tokens("x", "w199", 1) == (199,)


def test_one_token() -> None:
    assert WORDS.token("x", "w77") == 77
    with pytest.raises(ValueError, match=r"^x must be one token of .* 'w7 w7' is 2 tokens\.$"):
        WORDS.token("x", "w7 w7")


# The markers of a request.


def markers_of(
    start: str = "<think>",
    end: str = "</think>",
    cold_stop: str | None = None,
    needs_start: bool = False,
    vocabulary: Vocabulary = WORDS,
) -> Markers:
    return read_markers(vocabulary, start, end, cold_stop, needs_start)


def test_markers() -> None:
    assert markers_of() == Markers("<think>", "</think>", (THINK,), (THINK_END,), (THINK_END,))
    several = markers_of("w4 w5", "w6 w7", "w8 w9 w6 w7")
    assert several == Markers("w4 w5", "w6 w7", (4, 5), (6, 7), (8, 9, 6, 7))


@pytest.mark.parametrize(
    ("end", "cold_stop", "ids"),
    [
        ("w6 w7", None, (6, 7)),
        ("w6 w7", "w6 w7", (6, 7)),
        ("w6", "w5w6", (5, 6)),  # the text before is looked up alone
        ("w6 w7", "w5 w6 w6 w7", (5, 6, 6, 7)),
    ],
)
def test_what_is_forced(end: str, cold_stop: str | None, ids: tuple[int, ...]) -> None:
    assert markers_of(end=end, cold_stop=cold_stop).cold_stop == ids


def test_nothing_grows_together_with_the_marker() -> None:
    """Whole, the text would be other tokens, among which the marker is not."""
    markers = markers_of(end="</think>", cold_stop="a.</think>", vocabulary=PIECES)
    pieces = PIECES.tokenizer
    assert markers.think_end == tuple(pieces.encode("</think>"))
    assert markers.cold_stop == (*pieces.encode("a"), *pieces.encode("."), *markers.think_end)
    assert pieces.encode("a.</think>") != list(markers.cold_stop)
    assert pieces.decode(markers.cold_stop, skip_special_tokens=False) == "a.</think>"


@pytest.mark.parametrize("text", ["<think>", "</think>", "w5 w6"])
def test_start_and_end_are_two_strings(text: str) -> None:
    with pytest.raises(ValueError, match=r"^think_start_str must be another text than think_end"):
        markers_of(start=text, end=text)


@pytest.mark.parametrize(
    ("end", "cold_stop"),
    [
        ("w6", "w6 w6"),
        ("w6", "w6 w5 w6"),
        ("w6 w7", "w6 w7 w5 w6 w7"),
        ("w6 w6", "w6 w6 w6"),  # the two overlap
    ],
)
def test_what_is_forced_has_the_marker_once(end: str, cold_stop: str) -> None:
    with pytest.raises(ValueError, match=r"^cold_stop_str must have think_end_str at its end only"):
        markers_of(end=end, cold_stop=cold_stop)


@pytest.mark.parametrize("cold_stop", ["w5", "</think> ", "</think> w5", "think>", "</THINK>"])
def test_what_is_forced_ends_with_the_marker(cold_stop: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - its text is looked at
        markers_of(cold_stop=cold_stop)
    text = text_of("cold_stop_str", error)
    assert "must end with think_end_str, which is '</think>', got " in text
    assert repr(cold_stop) in text


def words(count: int) -> str:
    """So many, of which the last one is another."""
    return " ".join([*["w9"] * (count - 1), "w7"])


def test_lengths_at_their_limits() -> None:
    end, start = words(MARKER_LIMIT), words(MARKER_LIMIT - 1) + " w8"
    whole = words(FORCED_LIMIT)
    markers = markers_of(start, end, whole, needs_start=True)
    assert len(markers.think_start) == len(markers.think_end) == MARKER_LIMIT
    assert len(markers.cold_stop) == FORCED_LIMIT
    long = words(FORCED_LIMIT - 1) + " </think>"
    assert len(markers_of(cold_stop=long).cold_stop) == FORCED_LIMIT


@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        ({"end": words(MARKER_LIMIT + 1)}, "think_end_str", "1 to 16 tokens"),
        (
            {"start": words(MARKER_LIMIT + 1), "needs_start": True},
            "think_start_str",
            "1 to 16 tokens",
        ),
        (
            {"cold_stop": words(FORCED_LIMIT) + " </think>"},
            "cold_stop_str without think_end_str",
            "1 to 63 tokens",
        ),
        (
            {"end": words(MARKER_LIMIT), "cold_stop": words(FORCED_LIMIT + 1)},
            "cold_stop_str without think_end_str",
            "1 to 48 tokens",
        ),
        ({"end": "w999"}, "think_end_str", "1 to 16 tokens"),
        (
            {"cold_stop": "w999 </think>"},
            "cold_stop_str without think_end_str",
            "1 to 63 tokens",
        ),
    ],
)
def test_markers_that_are_refused(changes: dict, field: str, allowed: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - its text is looked at
        markers_of(**changes)
    assert f" must be {allowed} of the vocabulary" in text_of(field, error)


@pytest.mark.parametrize("start", ["w999", words(MARKER_LIMIT + 1), "w4 w999"])
def test_a_start_that_nobody_needs(start: str) -> None:
    """A model may have no such token, and serve all requests that do not think again."""
    assert markers_of(start=start).think_start == ()
    with pytest.raises(ValueError, match=r"^think_start_str must be 1 to 16 tokens"):
        markers_of(start=start, needs_start=True)


# The prompt.

ONE = markers_of()
"""A token each."""


@pytest.mark.parametrize(
    ("prompt", "closed"),
    [
        ([], False),
        ([5, 6], False),
        ([5, THINK], False),
        ([5, THINK, 6], False),
        ([5, THINK_END], True),
        ([THINK, 6, THINK_END], True),
        ([THINK, 6, THINK_END, 7, 8], True),
        ([THINK, 6, THINK_END, 7, THINK], False),
        ([THINK, 6, THINK_END, 7, THINK, 8], False),
        ([THINK, THINK_END, THINK, THINK_END, 5], True),
        ([THINK_END, 5, THINK], False),  # somebody speaks of the marker, then the thought opens
        ([THINK, 6, THINK_END, EOS, 7], False),  # the turn before
        ([THINK, 6, THINK_END, 40, 7], False),
        ([THINK, 6, THINK_END, EOS], False),
        ([THINK, 6, THINK_END, EOS, 7, THINK], False),
        ([THINK, 6, EOS, 7, THINK_END, 8], True),
        ([THINK_END, EOS, THINK_END], True),
        ([EOS], False),
    ],
)
def test_where_a_prompt_leaves_its_thought(prompt: list[int], closed: bool) -> None:
    assert is_closed(prompt, ONE, WORDS) == closed
    assert is_closed(tuple(prompt), ONE, WORDS) == closed
    # the same of markers that are looked for in the text
    several = markers_of("w50 w51", "w52 w53")
    spelled = {THINK: [50, 51], THINK_END: [52, 53]}
    longer = [i for token in prompt for i in spelled.get(token, [token])]
    assert is_closed(longer, several, WORDS) == closed
    for mixed, spelled_one in (
        (markers_of("w50 w51", "</think>"), {THINK: [50, 51]}),
        (markers_of("<think>", "w52 w53"), {THINK_END: [52, 53]}),
    ):
        longer = [i for token in prompt for i in spelled_one.get(token, [token])]
        assert is_closed(longer, mixed, WORDS) == closed


@pytest.mark.parametrize(("prompt", "closed"), [([5, THINK, 6], False), ([5, THINK_END], True)])
def test_a_model_without_the_start(prompt: list[int], closed: bool) -> None:
    assert is_closed(prompt, markers_of(start="w999"), WORDS) == closed


def test_a_model_without_turns() -> None:
    vocabulary = words_vocabulary()
    prompt = [THINK, THINK_END, EOS, 5]
    assert is_closed(prompt, ONE, vocabulary)
    assert is_closed([52, 53, EOS, 5], markers_of(end="w52 w53"), vocabulary)


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("", False),
        ("a", False),
        ("<think>", False),
        ("</think>", True),
        ("<think>a.</think>\n", True),  # merged before and behind
        ("<think>\na.</think>b", True),
        ("a.</think>\n<think>\n", False),
        ("</think>\n<think>\n", False),
        ("<think>a</think>b<end>a", False),
        ("<think>a</think>b<end>", False),
        ("a<end><think>\n</think>\n\n", True),
        ("<end>.</think>\nab", True),
        ("</thin", False),
        ("think>", False),
    ],
)
def test_markers_that_have_grown_together_with_their_neighbours(text: str, closed: bool) -> None:
    markers = markers_of(vocabulary=PIECES)
    assert len(markers.think_end) == 3
    assert is_closed(PIECES.tokenizer.encode(text), markers, PIECES) == closed


def test_the_marker_is_not_among_the_tokens_of_such_a_text() -> None:
    """Else the table above would show nothing."""
    markers, tokens = markers_of(vocabulary=PIECES), PIECES.tokenizer.encode("a.</think>\n")
    for token in markers.think_end[0], markers.think_end[-1]:
        assert token not in tokens


@pytest.mark.parametrize(
    ("start", "end", "text", "closed"),
    [
        # the start is part of the end: the longer one is meant
        ("think>", "</think>", "a</think>", True),
        ("think>", "</think>", "</think>bthink>", False),
        ("think>", "</think>", "think>b</think>", True),
        ("a", "ab", "ab", True),
        ("a", "ab", "aba", False),
        # the end is part of the start
        ("</think>", "think>", "a</think>", False),
        ("</think>", "think>", "</think>athink>", True),
        ("</think>", "think>", "think></think>", False),
        ("ab", "a", "ab", False),
        ("ab", "a", "aba", True),
        # they overlap: the one that ends last is the last one
        ("ab", "ba", "aba", True),
        ("ab", "ba", "bab", False),
        ("ab", "ba", "ababab", False),
    ],
)
def test_markers_that_are_part_of_each_other(start: str, end: str, text: str, closed: bool) -> None:
    markers = markers_of(start, end, vocabulary=PIECES)
    assert len(markers.think_start) > 1 or len(markers.think_end) > 1
    assert is_closed(PIECES.tokenizer.encode(text), markers, PIECES) == closed


def test_special_tokens_are_part_of_the_text() -> None:
    """A decoder that leaves them out would hide the markers that most models have."""
    asked = []

    class Decoder:
        def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
            asked.append((ids, skip_special_tokens))
            return "x"

    vocabulary = Vocabulary(Decoder(), 100, frozenset({9}))
    assert not is_closed((4, 9, 5, 6), Markers("a", "b", (1, 2), (3,), (3,)), vocabulary)
    assert asked == [([5, 6], False)]


# Templates whose turns end with words instead of end-of-sequence tokens.


def templated(template: str) -> Vocabulary:
    """The tiny models' tokenizer with a chat template."""
    tokenizer = tiny_models.tokenizer()
    tokenizer.chat_template = template
    return Vocabulary(tokenizer, tiny_models.VOCAB_SIZE)


OPENED_BY_MODEL = "{% for m in messages %}w50 {{ m.content }} {% endfor %}w60 w61 "
OPENED = OPENED_BY_MODEL + "<think>"


@pytest.mark.parametrize("template", [OPENED_BY_MODEL, OPENED, OPENED + "</think>"])
def test_the_words_before_a_reply(template: str) -> None:
    vocabulary = templated(template)
    markers = markers_of(vocabulary=vocabulary)
    for prompt, closed in {
        "w50 w9 w60 w61": False,
        "w50 </think> w60 w61": False,
        "w50 <think> w5 </think> w60 w61": False,
        "w50 </think> w60 w61 <think>": False,
        "w50 w9 w60 w61 <think> </think>": True,
        "w50 w9 w60 w61 </think> w5": True,
        "w50 w9 w60 w61 <think> w5 </think> w8 w50 w9 w60 w61": False,
        "w50 w9 w60 w61 w8 w50 w9 w60 w61 </think>": True,
        "w50 w9 w61 </think>": True,  # not those words
    }.items():
        ids = vocabulary.tokenizer.encode(prompt)
        assert is_closed(ids, markers, vocabulary) == closed, prompt


def test_a_template_that_starts_a_reply_with_the_end_marker_tells_nothing() -> None:
    """As OpenAI's Harmony does: the end of every message is that of a thought."""
    vocabulary = templated("{% for m in messages %}w50 {{ m.content }} </think> {% endfor %}w60")
    ids = vocabulary.tokenizer.encode("w50 w9 </think> w60")
    assert is_closed(ids, markers_of(vocabulary=vocabulary), vocabulary)


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ messages.x.y }}", "w5"])
def test_a_template_that_does_not_tell_is_no_harm(template: str) -> None:
    vocabulary = templated(template)
    assert vocabulary.reply_start == ""
    ids = vocabulary.tokenizer.encode("w9 </think>")
    assert is_closed(ids, markers_of(vocabulary=vocabulary), vocabulary)
