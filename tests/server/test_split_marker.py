"""A model whose tokenizer splits the markers of thoughts into pieces, on a server of its own."""

import pytest
import spelling
from asking import answer_of, same_trace
from server_process import Server
from streaming import read
from tiny_models import tokenizer_path

PIECES = [
    token if token not in ("<think>", "</think>") else f"w0{i}"
    for i, token in enumerate(spelling.TOKENS)
]
"""No token spells a marker: `</think>` is eight characters."""
TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{% endfor %}<think>"
    "{% if enable_thinking is defined and not enable_thinking %}</think>{% endif %}"
)
SOFT = {"max_topk": 4, "after_thinking_temperature": 0, "return_concepts": True}
CLOSED = {"steps": 0, "end": "closed", "mean_entropy": 0.0, "longest_run": 0, "concepts": []}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A client of the server."""
    folder = tmp_path_factory.mktemp("pieces")
    path = spelling.create_model(folder / "model")
    tokenizer = spelling.tokenizer(PIECES)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tokenizer_path(path))
    server = Server(
        folder,
        *("--model-path", path, "--tokenizer-path", tokenizer_path(path), "--dtype", "float32"),
        *("--reasoning-parser", "qwen3", "--enable-soft-thinking"),
    )
    try:
        server.wait_until_ready()
        with server.openai() as client:
            yield client
    finally:
        server.stop()


def chat(client, soft, **own):
    more = {"ignore_eos": True, **own.pop("extra_body", {})}
    return client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": "Kw233"}],
        temperature=0.7,
        max_tokens=40,
        extra_body={"soft_thinking": {**SOFT, **soft}, **more},
        **own,
    )


@pytest.mark.parametrize(
    ("soft", "end", "words"),
    [
        ({"max_thinking_steps": 6}, "budget", ""),
        ({"max_thinking_steps": 0}, "budget", ""),
        ({"max_thinking_steps": 6, "cold_stop_str": "so: </think>"}, "budget", "so: "),
        (
            {"early_stopping_entropy_threshold": 9, "early_stopping_length_threshold": 7},
            "cold_stop",
            "",
        ),
    ],
)
def test_parser_count_and_stream_agree(pieces, soft, end, words):
    response = chat(pieces, soft)
    choice, answer = response.choices[0], answer_of(response.choices[0])
    assert answer["end"] == end
    free = 6 if soft.get("max_thinking_steps", 6) else 0
    assert answer["steps"] == free + len(words) + len("</think>")
    assert response.usage.reasoning_tokens == answer["steps"]
    assert [len(concept) for concept in answer["concepts"]][free:] == [1] * (len(words) + 8)
    reasoning, content = choice.message.reasoning_content or "", choice.message.content
    assert reasoning.strip().endswith(words.strip()) and "</" not in reasoning
    assert content and "think>" not in content
    choices, _ = read(chat(pieces, soft, stream=True))
    assert choices[0].text == content
    assert choices[0].reasoning.strip() == reasoning.strip()
    assert same_trace(choices[0].joined(), answer)


def test_the_grammar_starts_after_all_pieces(pieces):
    grammar = {"regex": "(yes|no)w1[0-9]{2}"}
    choice = chat(pieces, {"max_thinking_steps": 4}, extra_body=grammar).choices[0]
    assert answer_of(choice)["end"] == "budget"
    assert choice.message.content[:1] in ("y", "n")


def test_the_prompt_is_read_as_text(pieces):
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    choice = chat(pieces, {}, extra_body=off).choices[0]
    assert answer_of(choice) == CLOSED
    assert not choice.message.reasoning_content and choice.message.content


def test_the_first_piece_alone(pieces):
    """Forced, the whole marker follows; the answer begins after it."""
    response = chat(pieces, {"max_thinking_steps": 3, "think_end_first_token": True})
    answer = answer_of(response.choices[0])
    assert (answer["end"], answer["steps"]) == ("budget", 3 + 8)
    assert response.usage.reasoning_tokens == 3 + 8
