"""Every model class of SGLang is decided, and what was decided is what the installed one does."""

import json
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from support import model_classes  # noqa: E402
from support.model_sources import Sources, installed  # noqa: E402

MOST = 100
"""Classes that are built, at least; fewer where the surroundings no longer fit."""

SOME = (
    *("Gemma3nForCausalLM", "Gemma4ForCausalLM", "MuseSparkForConditionalGeneration"),
    *("Qwen3MoeForCausalLM", "Qwen3NextForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    *("Qwen3VLForConditionalGeneration", "DeepseekV32ForCausalLM", "Glm4MoeForCausalLM"),
    *("KimiVLForConditionalGeneration", "NemotronHForCausalLM", "MiniMaxM2ForCausalLM"),
    *("Llama4ForCausalLM", "LongcatFlashForCausalLM", "WhisperForConditionalGeneration"),
)
"""Classes that are built in every run; ``make test-slow`` builds all."""

DECISIONS = model_classes.Decisions.load()


@pytest.fixture(scope="module")
def sources():
    return Sources(installed())


@cache
def _built(*names: str) -> dict[str, str]:
    """What classes say that are built, without those that cannot be.

    In a process of its own, as it lends SGLang the names of kernels that are not installed.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, SCRIPTS / "survey_models.py", "--build", *names],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout[done.stdout.index("{\n") :])
    return {name: verdict for name, verdict in said.items() if not verdict.startswith("not built")}


def _check(built: dict[str, str]) -> None:
    for name, said in built.items():
        verdict = DECISIONS.classes[name].verdict
        # built without the parts for which a class is refused by its configuration
        expected = model_classes.WORKS if verdict == model_classes.DEPENDS else verdict
        assert said == expected, name


def test_every_class_is_decided(sources):
    undecided = set(sources.entry_classes()) - set(DECISIONS.classes)
    assert not undecided, "decide them in docs/model-classes.json"
    for name, module in sources.entry_classes().items():
        assert DECISIONS.classes[name].module == module


def test_decisions_are_complete():
    for name, decision in DECISIONS.classes.items():
        assert decision.verdict in model_classes.VERDICTS, name
        generates = decision.verdict != model_classes.NOT_TEXT
        known = model_classes.EVIDENCE if generates else (model_classes.ROLE,)
        assert decision.evidence in known, name
        assert decision.reason or decision.verdict == model_classes.WORKS, name
    for where, use in DECISIONS.uses.items():
        assert use.why and use.fingerprints, where


def test_uses_of_token_ids_are_judged(sources):
    """A class that is fed concepts, in this SGLang, reads ids only where somebody looked at it."""
    unreviewed = DECISIONS.unreviewed(model_classes.uses_of(sources, DECISIONS))
    assert not unreviewed, "read them, then run scripts/survey_models.py --accept"


def test_a_use_that_nobody_judged_is_noticed(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (tmp_path / "layers").mkdir()
    inner = """
from sglang.srt.layers.vocab_parallel_embedding import VocabParallelEmbedding
class Inner:
    def forward(self, input_ids, forward_batch):
        assert input_ids is not None and len(input_ids) == input_ids.shape[0]
        hidden = self.embed_tokens(input_ids)
        return hidden{more}
"""
    (models / "outer.py").write_text("""
from sglang.srt.models.inner import Inner
class Outer:
    def __init__(self):
        self.model = Inner()
    def forward(self, input_ids, forward_batch):
        return self.logits_processor(input_ids, self.model(input_ids, forward_batch))
EntryClass = [Outer]
""")
    decisions = model_classes.Decisions(
        [], {"Outer": model_classes.Decision("outer", model_classes.WORKS, "", "read")}, {}
    )
    for more, found in (
        ("", []),
        (" + self.embed_tokens_per_layer(input_ids)", ["inner.Inner.forward"]),
        (" + self.bias[input_ids]", ["inner.Inner.forward"]),
        (" * (forward_batch.input_ids == 7)", ["inner.Inner.forward"]),
    ):
        (models / "inner.py").write_text(inner.format(more=more))
        sources = Sources(tmp_path)
        assert sources.entry_classes() == {"Outer": "outer"}
        assert list(model_classes.uses_of(sources, decisions)) == found


def test_the_document_has_the_table():
    assert model_classes.written_table() == DECISIONS.table(), "survey_models.py --write"


def test_built_classes_are_found_or_refused_as_decided():
    built = _built(*SOME)
    assert len(built) >= len(SOME) - 1  # not every SGLang has every class
    _check(built)


@pytest.mark.slow
def test_all_classes_that_can_be_built_are_as_decided():
    built = _built()
    assert len(built) > MOST
    _check(built)
    if version("sglang") != DECISIONS.versions[-1]:
        return  # an older one cannot build as many
    for name, decision in DECISIONS.classes.items():
        if decision.evidence != "engine":
            assert (decision.evidence == "built") == (name in built), name
