"""SGLang's model classes as source text: which there are, and what each of them may run."""

import ast
from collections.abc import Iterator
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

MODELS = "models"
FOLLOWED = (MODELS, "managers.mm_utils", "managers.mm_schedule")
"""Modules of ``sglang.srt`` whose classes and functions are followed: the models, and the routine
that embeds text beside images."""
_PACKAGE = "sglang.srt."

Definition = ast.ClassDef | ast.FunctionDef


class Name(NamedTuple):
    """A class or function at the top of a module."""

    module: str
    """Below ``sglang.srt``."""
    name: str


def installed() -> Path:
    """The folder of the installed ``sglang.srt``, which is not imported."""
    spec = find_spec("sglang")
    assert spec is not None and spec.submodule_search_locations, "SGLang is not installed"
    return Path(spec.submodule_search_locations[0]) / "srt"


class Module:
    """One parsed module."""

    def __init__(self, path: Path) -> None:
        self.tree = ast.parse(path.read_text())

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """Classes and functions at the top, also those under a condition."""
        found: dict[str, Definition] = {}
        todo: list[ast.stmt] = list(self.tree.body)
        while todo:
            node = todo.pop(0)
            if isinstance(node, Definition):
                found.setdefault(node.name, node)
            elif isinstance(node, ast.If | ast.Try):
                todo += node.body + node.orelse
                if isinstance(node, ast.Try):
                    todo += [inner for handler in node.handlers for inner in handler.body]
        return found

    @cached_property
    def imports(self) -> dict[str, Name]:
        """What a name stands for that is imported from ``sglang.srt``, anywhere in the module."""
        return {
            alias.asname or alias.name: Name(node.module.removeprefix(_PACKAGE), alias.name)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom)
            and node.module is not None
            and node.module.startswith(_PACKAGE)
            for alias in node.names
        }

    def entry_classes(self) -> Iterator[str]:
        """The classes that SGLang serves from this module."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "EntryClass"
                for target in node.targets
            ):
                value = node.value
                several = isinstance(value, ast.List | ast.Tuple)
                for element in value.elts if several else [value]:  # type: ignore[attr-defined]
                    assert isinstance(element, ast.Name)
                    yield element.id


class Sources:
    """The modules of one SGLang."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.module = lru_cache(maxsize=None)(self._parse)
        self._named_in = lru_cache(maxsize=None)(self._find_named_in)

    def entry_classes(self) -> dict[str, str]:
        """Every model class that SGLang serves, with its module below ``sglang.srt.models``."""
        found = {}
        for path in sorted((self.root / MODELS).glob("*.py")):
            module = self.module(f"{MODELS}.{path.stem}")
            assert module is not None
            found |= dict.fromkeys(module.entry_classes(), path.stem)
        return found

    def reachable(self, module: str, name: str) -> set[Name]:
        """What the class may run: all that it names, and all that those name."""
        seen: set[Name] = set()
        start = self.resolve(Name(f"{MODELS}.{module}", name))
        todo = [] if start is None else [start]
        while todo:
            found = todo.pop()
            if found not in seen:
                seen.add(found)
                todo += self._named_in(found)
        return seen

    def definition(self, name: Name) -> Definition:
        module = self.module(name.module)
        assert module is not None
        return module.definitions[name.name]

    def resolve(self, name: Name) -> Name | None:
        """Where a name is defined; None outside the followed modules."""
        for _ in range(9):
            if not f"{name.module}.".startswith(tuple(f"{each}." for each in FOLLOWED)):
                return None
            module = self.module(name.module)
            if module is None:
                return None
            if name.name in module.definitions:
                return name
            if name.name not in module.imports:
                return None
            name = module.imports[name.name]
        return None

    def _find_named_in(self, name: Name) -> set[Name]:
        """Where everything is defined that a class or function names."""
        module = self.module(name.module)
        assert module is not None
        named = set()
        for node in ast.walk(module.definitions[name.name]):
            if isinstance(node, ast.Name):
                named.add(Name(name.module, node.id))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                imported = module.imports.get(node.value.id)
                if imported is not None:  # perhaps a module
                    named.add(Name(f"{imported.module}.{imported.name}", node.attr))
        return {found for each in named if (found := self.resolve(each)) is not None}

    def _parse(self, module: str) -> Module | None:
        base = self.root / module.replace(".", "/")
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return Module(path)
        return None
