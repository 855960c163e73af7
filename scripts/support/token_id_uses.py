"""Where SGLang's models use token ids otherwise than to embed them: found in the source text.

A use is not counted where ids are only handed to an embedding module, an inner model or the head,
compared with None, or asked for their shape. Every other use is one that a person has to judge.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache

from support.model_sources import Name, Sources

_IDS = re.compile(r"(^|_)(input_ids|token_ids|input_tokens)(_|$)")
_EMBEDDING = re.compile(r"(^|\.)(\w*embed\w*|wte|embedder|tok_embeddings)(\(\))?$")
_OTHER_EMBEDDING = re.compile(r"per_layer|engram|n_?gram|hash|prev", re.IGNORECASE)
_INNER = re.compile(
    r"(^|\.)(model|transformer|language_model|llm|backbone|decoder|thinker|logits_processor)"
    r"(\.forward)?$|^super\(\)\.forward$|(^|\.)general_mm_embed_routine$"
)
_SHAPE = frozenset({"shape", "device", "dtype", "size", "numel", "dim", "ndim", "is_cuda"})
_NOT_RUN = re.compile(r"pad_input_ids|load_weights|rope_index|mrope|preprocess")
"""Functions that run on the host before a request is scheduled, or while weights are loaded."""


@cache
def fingerprints(sources: Sources, name: Name) -> dict[str, str]:
    """Of the uses in each function of a class or function that has one."""
    return _fingerprints(_by_function(sources, name))


def in_layers(sources: Sources) -> dict[str, str]:
    """The same for functions of ``sglang.srt.layers`` that take ids from the batch."""
    found = {}
    for path in sorted((sources.root / "layers").rglob("*.py")):
        module = ".".join(path.relative_to(sources.root).with_suffix("").parts)
        if "input_ids" not in path.read_text():
            continue
        parsed = sources.module(module)
        assert parsed is not None
        for name in parsed.definitions:
            found |= _fingerprints(_by_function(sources, Name(module, name), True))
    return found


def _fingerprints(by_function: dict[str, set[str]]) -> dict[str, str]:
    return {
        where: hashlib.sha256("\n".join(sorted(statements)).encode()).hexdigest()[:12]
        for where, statements in by_function.items()
    }


def _by_function(
    sources: Sources, name: Name, only_of_batches: bool = False
) -> dict[str, set[str]]:
    """Statements with a use, by ``module.Class.function``."""
    prefix = f"{name.module.removeprefix('models.')}.{name.name}"
    found: dict[str, set[str]] = {}
    for function, statement in _uses(sources.definition(name), only_of_batches):
        where = prefix if function in ("", name.name) else f"{prefix}.{function}"
        found.setdefault(where, set()).add(statement)
    return found


def _uses(root: ast.AST, only_of_batches: bool) -> Iterator[tuple[str, str]]:
    ids = [node for node in ast.walk(root) if _is_ids(node, only_of_batches)]
    if not ids:
        return
    parents = {child: node for node in ast.walk(root) for child in ast.iter_child_nodes(node)}
    for node in ids:
        if _is_plain(node, parents):
            continue
        above = [node]
        while above[-1] is not root:
            above.append(parents[above[-1]])
        functions = [each.name for each in above if isinstance(each, ast.FunctionDef)]
        if any(_NOT_RUN.search(name) for name in functions):
            continue
        statement = next((each for each in above if isinstance(each, ast.stmt)), root)
        yield functions[-1] if functions else "", _text(statement)


def _is_ids(node: ast.AST, only_of_batches: bool) -> bool:
    """Whether token ids are read here."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        if only_of_batches and not re.search("batch|^fb", ast.unparse(node.value)):
            return False
        return bool(_IDS.search(node.attr)) and not node.attr.startswith("pad_")
    if only_of_batches or not isinstance(node, ast.Name):
        return False
    return isinstance(node.ctx, ast.Load) and bool(_IDS.search(node.id))


def _is_plain(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether a use is one of those that are not counted."""
    parent = parents[node]
    if isinstance(parent, ast.keyword):
        parent = parents[parent]
    if isinstance(parent, ast.Attribute):
        return parent.attr in _SHAPE
    if isinstance(parent, ast.Compare):
        return all(isinstance(c, ast.Constant) and c.value is None for c in parent.comparators)
    if not isinstance(parent, ast.Call) or node is parent.func:
        return False
    called = ast.unparse(parent.func)
    if called == "len" or _INNER.search(called):
        return True
    return bool(_EMBEDDING.search(called)) and not _OTHER_EMBEDDING.search(called)


def _text(statement: ast.AST) -> str:
    """The statement without the block below it."""
    if isinstance(statement, ast.If | ast.While):
        return ast.unparse(statement.test)
    if isinstance(statement, ast.For | ast.With):
        return ast.unparse(statement).partition("\n")[0]
    return ast.unparse(statement)
