"""The table in docs/models.md is that of the tested architectures; the engine test writes it."""

import model_table
from tiny_models import ARCHITECTURES


def test_the_document_has_every_tested_architecture():
    rows = model_table.written()
    assert [row[0] for row in rows] == list(ARCHITECTURES)
    for architecture, model_class, kind, head, special, tokens, error in rows:
        tiny = ARCHITECTURES[architecture]
        tied = tiny.config.get("tie_word_embeddings", False)
        assert (kind, head, special) == (tiny.kind, "tied" if tied else "untied", tiny.special)
        assert model_class.strip("`").isidentifier()
        assert tokens.startswith("all ") and int(tokens[4:]) > 0
        assert error.startswith("< 1e-") and float(error[2:]) <= 1e-4
