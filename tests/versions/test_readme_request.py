"""README's example request gives the same trace on every supported SGLang.

``make matrix`` runs this after it has set up the environments of all versions.
"""

import json
import re
from pathlib import Path

import pytest
import tolerances
from server_process import MODULE, Server

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = {
    re.search(r"^sglang==(.+)$", file.read_text(), re.MULTILINE)[1]: environment
    for file, environment in [
        (ROOT / "requirements" / "cpu.txt", ROOT / ".venv"),
        *(
            (file, ROOT / f".venv-{file.stem.removeprefix('sglang-')}")
            for file in (ROOT / "requirements").glob("sglang-*.txt")
        ),
    ]
}
"""The environment of each version."""

pytestmark = pytest.mark.versions


def _readme_example() -> tuple[dict, dict]:
    """The request, and what the README shows of its answer."""
    readme = (ROOT / "README.md").read_text()
    request = json.loads(re.search(r"curl .*-d '(\{.*?\})'\n", readme, re.DOTALL)[1])
    shown = re.search(r'"soft_thinking": \{"steps": (\d+), "end": "(\w+)"', readme)
    concept = re.search(r'"concepts": \[(\[.*?\]\]), …', readme)[1]
    return request, {
        "steps": int(shown[1]),
        "end": shown[2],
        "first": json.loads(concept),
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The answer of each version's server to README's request."""
    request, _ = _readme_example()
    found = {}
    for version, environment in ENVIRONMENTS.items():
        server = Server(
            tmp_path_factory.mktemp(version), launch=[environment / "bin" / "python", *MODULE]
        )
        try:
            server.wait_until_ready()
            with server.http() as http:
                assert http.get("/server_info").json()["version"] == version
                response = http.post("/v1/chat/completions", json=request)
                response.raise_for_status()
                found[version] = response.json()["choices"][0]
        finally:
            server.stop()
    return found


@pytest.mark.parametrize("version", ENVIRONMENTS)
def test_the_trace_is_the_readmes(answers, version):
    _, shown = _readme_example()
    answer = answers[version]["soft_thinking"]
    assert (answer["steps"], answer["end"]) == (shown["steps"], shown["end"])
    first = answer["concepts"][0]
    assert [i for i, _ in first] == [i for i, _ in shown["first"]]
    assert [w for _, w in first] == pytest.approx([w for _, w in shown["first"]], abs=1e-4)


def test_the_versions_agree_on_every_step(answers):
    assert len(answers) >= 3
    newest, *others = answers.values()
    for other in others:
        assert other["message"]["reasoning_content"] == newest["message"]["reasoning_content"]
        steps = zip(
            other["soft_thinking"]["concepts"], newest["soft_thinking"]["concepts"], strict=True
        )
        for mine, theirs in steps:
            assert [i for i, _ in mine] == [i for i, _ in theirs]
            weights = [w for _, w in theirs]
            assert [w for _, w in mine] == pytest.approx(weights, **tolerances.TRACE_WEIGHT)
