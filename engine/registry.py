"""Every action and query there is, wired with what they need.

They are found: each concrete class of a module of `engine.actions` and `engine.queries` is one.
What its constructor asks for is given to it by the type it names: a new one is its own file alone.
"""

import inspect
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

from engine import actions as actions_package
from engine import queries as queries_package
from engine.actions.base import Action
from engine.actions.fence_devices import AgentCheck, SecretSealer
from engine.queries.base import Query

T = TypeVar("T")
Parts = Mapping[Any, object]


def all_actions(sealer: SecretSealer, agents: AgentCheck) -> tuple[Action[Any, Any], ...]:
    """Every action."""
    parts = {SecretSealer: sealer, AgentCheck: agents}
    found: Iterator[type[Action[Any, Any]]] = _concrete(actions_package, Action)
    return tuple(_wired(kind, parts) for kind in found if kind.registered)


def all_queries(actions: Iterable[Action[Any, Any]] = ()) -> tuple[Query[Any, Any], ...]:
    """Every query; of the given actions is told what the engine can do, and what blocks them."""
    parts = {Iterable[Action[Any, Any]]: tuple(actions)}
    found: Iterator[type[Query[Any, Any]]] = _concrete(queries_package, Query)
    return tuple(_wired(kind, parts) for kind in found)


def _concrete(package: ModuleType, base: type) -> Iterator[Any]:
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = import_module(info.name)
        for item in vars(module).values():
            own = inspect.isclass(item) and item.__module__ == info.name
            if own and issubclass(item, base) and not inspect.isabstract(item):
                yield item


def _wired(kind: type[T], parts: Parts) -> T:
    init = kind.__init__
    wanted = get_type_hints(init) if inspect.isfunction(init) else {}
    wanted.pop("return", None)
    return kind(**{name: parts[hint] for name, hint in wanted.items()})
