"""SGLang's own gateway before two workers: which carrier reaches them, and how a loss is seen."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from asking import (
    COLD,
    MAX_TOKENS,
    MODEL,
    PROMPT,
    QUESTION,
    TRACED,
    WIDE,
    answer_of,
    chat,
    check_answer,
    complete,
    same_trace,
)
from gateway_process import Gateway
from server_process import Server
from streaming import read

NOISY = {**TRACED, "noise": "gumbel"}
BAD_WORDS = "soft_thinking.max_topk must be an integer from 1 to 32"


@pytest.fixture(scope="module")
def workers(server, tmp_path_factory):
    """Two of them."""
    with Server(tmp_path_factory.mktemp("second")).running() as second:
        yield server, second


@pytest.fixture(scope="module")
def gateway(workers, tmp_path_factory):
    """The gateway before them."""
    urls = [worker.url for worker in workers]
    # few requests at a time are imbalance enough to leave the worker that knows the prefix
    policy = ("--policy", "cache_aware", "--balance-abs-threshold", "1")
    flags = (*policy, "--balance-rel-threshold", "1.1", "--worker-urls", *urls)
    with Gateway(tmp_path_factory.mktemp("gateway"), *flags).running() as gateway:
        yield gateway


@pytest.fixture(scope="module")
def through(gateway):
    """The real OpenAI client, at the gateway."""
    with gateway.openai() as client:
        yield client


@pytest.fixture(scope="module")
def posted(gateway):
    """A plain client, at the gateway."""
    with gateway.http() as http:
        yield http


def in_template(soft):
    """The carrier of chat."""
    return {"extra_body": {"chat_template_kwargs": {"soft_thinking": soft}}}


CARRIERS = pytest.mark.parametrize(
    ("ask", "carry"),
    [(chat, in_template), (complete, lambda soft: {"soft": soft})],
    ids=["chat", "completions"],
)
SOFT = pytest.mark.parametrize("soft", [TRACED, COLD], ids=["think_end", "cold_stop"])


@CARRIERS
@SOFT
def test_whole_answers(client, through, ask, carry, soft):
    choice = ask(through, **carry(soft)).choices[0]
    direct = ask(client, soft).choices[0]
    assert same_trace(answer_of(choice), answer_of(direct))
    text = "text" if ask is complete else "message"
    assert getattr(choice, text) == getattr(direct, text)


@CARRIERS
@SOFT
def test_streams(client, through, ask, carry, soft):
    choices, _ = read(ask(through, **carry(soft), stream=True))
    direct = ask(client, soft).choices[0]
    assert same_trace(choices[0].joined(), answer_of(direct))
    assert len(choices[0].answers) > 1, "the whole trace came with one chunk"


@CARRIERS
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_bad_values(through, ask, carry, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(through, **carry({"max_topk": 0}), stream=stream)
    assert BAD_WORDS in str(caught.value)


@CARRIERS
def test_discrete_requests(through, ask, carry):
    for soft in (False, None):
        assert answer_of(ask(through, **carry(soft), max_tokens=3).choices[0]) is None


def _generate(http, soft, **own):
    request = {
        "text": PROMPT,
        "sampling_params": {**WIDE, "max_new_tokens": MAX_TOKENS},
        "session_params": {"soft_thinking": soft},
        **own,
    }
    return http.post("/generate", json=request)


def _generated(http, soft, **own):
    output = _generate(http, soft, **own).json()
    return output[0] if isinstance(output, list) else output  # the gateway's is a list


@SOFT
def test_generate(client, posted, soft):
    output = _generated(posted, soft)
    direct = complete(client, soft).choices[0]
    assert same_trace(output["meta_info"]["soft_thinking"], answer_of(direct))
    assert output["text"] == direct.text


@SOFT
def test_streamed_generate(client, posted, soft):
    lines = _generate(posted, soft, stream=True).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    parts = [chunk["meta_info"]["soft_thinking"] for chunk in chunks]
    steps = [step for part in parts for step in part["concepts"]]
    direct = complete(client, soft).choices[0]
    assert same_trace({**parts[-1], "concepts": steps}, answer_of(direct))
    assert len(parts) > 1, "the whole trace came with one chunk"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_generate_with_a_bad_value(posted, stream):
    answer = _generate(posted, {"max_topk": 0}, stream=stream)
    assert answer.status_code == 400
    assert BAD_WORDS in answer.text


def _respond(client, metadata, stream=False):
    sampling = {name: WIDE[name] for name in ("temperature", "top_p")}
    return client.responses.create(
        model=MODEL,
        input=QUESTION,
        max_output_tokens=MAX_TOKENS,
        metadata=metadata,
        stream=stream,  # where it is left out, this gateway says null, which SGLang refuses
        **sampling,
    )


def test_responses(client, through):
    metadata = {"soft_thinking": json.dumps(COLD)}
    direct = answer_of(chat(client, COLD).choices[0])  # the gateway asks without filters
    response = _respond(through, metadata).to_dict()
    check_answer(response["soft_thinking"], end="cold_stop")
    assert same_trace(response["soft_thinking"], direct)
    *_, last = _respond(through, metadata, stream=True)
    assert same_trace(last.to_dict()["response"]["soft_thinking"], direct)


def test_responses_with_a_bad_value(through):
    with pytest.raises(openai.BadRequestError) as caught:
        _respond(through, {"soft_thinking": '{"max_topk": 0}'})
    assert BAD_WORDS in str(caught.value)


def test_a_loss_shows_in_the_answer(through, posted):
    """What this gateway drops; the docs tell clients to look for the answer's field."""
    choice = chat(through, TRACED, max_tokens=3).choices[0]
    assert answer_of(choice) is None
    sampling = {"max_new_tokens": 3, "soft_thinking": TRACED}
    answer = posted.post("/generate", json={"text": PROMPT, "sampling_params": sampling})
    assert answer.status_code == 200
    assert "soft_thinking" not in answer.text


def test_every_worker_gives_the_same(workers, through):
    before = [_served(worker) for worker in workers]
    questions = [f"What is {i}*{i + 3}?" for i in range(2, 14)]

    def ask(question):
        return answer_of(
            chat(through, question=question, seed=7, max_tokens=30, **in_template(NOISY)).choices[0]
        )

    with ThreadPoolExecutor(len(questions)) as threads:
        together = list(threads.map(ask, questions))
    shares = [_served(worker) - count for worker, count in zip(workers, before, strict=True)]
    assert min(shares) > 0, f"one worker served them all: {shares}"
    for worker in workers:
        with worker.openai() as direct:
            for question, answer in zip(questions[:4], together[:4], strict=True):
                alone = chat(direct, NOISY, question=question, seed=7, max_tokens=30).choices[0]
                assert same_trace(answer, answer_of(alone))


def _served(worker):
    return worker.log.read_text().count("POST /v1/chat/completions")


def test_a_prompt_is_shared_where_the_gateway_sends_it(posted, http):
    prompt = PROMPT.replace(QUESTION, "What is 1213*1415?")
    length = len(http.post("/tokenize", json={"prompt": prompt}).json()["tokens"])
    cached = []
    for soft in (TRACED, COLD, None):
        cached.append(_generated(posted, soft, text=prompt)["meta_info"]["cached_tokens"])
    assert cached[1:] == [length - 1] * 2
