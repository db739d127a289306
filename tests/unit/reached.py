"""Which activities each workflow may run, by its source: what it names, and what that names."""

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

Scope = dict[str, Any]


def activities_of(workflow: type) -> set[str]:
    """Names of the activities that a workflow refers to, directly or through what it uses."""
    found: set[str] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [workflow]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for thing in _named_in(one):
            definition = getattr(thing, "__temporal_activity_definition", None)
            if definition is not None:
                found.add(str(definition.name))
            elif _is_ours(thing) and not _is_workflow(thing):
                waiting.append(thing)
    return found


def _is_ours(thing: Any) -> bool:
    kind = isinstance(thing, FunctionType | type)
    return kind and str(getattr(thing, "__module__", "")).startswith("workflows.")


def _is_workflow(thing: Any) -> bool:
    return hasattr(thing, "__temporal_workflow_definition")


def _named_in(thing: Any) -> Iterator[Any]:
    """What the names and dotted names in a function or class stand for."""
    scope = vars(sys.modules[thing.__module__])
    start, lines = inspect.getsourcelines(thing)[1], len(inspect.getsourcelines(thing)[0])
    for node in ast.walk(_tree(sys.modules[thing.__module__])):
        if not start <= getattr(node, "lineno", 0) < start + lines:
            continue
        if isinstance(node, ast.Name):
            yield scope.get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield getattr(scope.get(node.value.id), node.attr, None)


@cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))
