"""A stage's events, told to listeners as they are kept, and its transactions as they are committed.

Listeners of events come in the middle of whatever made the event: they look, and plan what they
want to do for later. Listeners of commits see the rows as they are about to be committed.
"""

from collections.abc import Callable
from typing import Any

from simulator.loop import Process
from simulator.sql import WRITING
from simulator.stage import Stage

Event = tuple[float, str, dict[str, Any]]
Listener = Callable[[float, str, dict[str, Any]], None]
Committing = Callable[[frozenset[str]], None]
"""Gets the names of the tables that the transaction has written to."""

Statement = Callable[[Process, str], None]
"""Stands before each statement; what it raises, the process gets."""


class Tape(list[Event]):
    """Events in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Listener] = []

    def append(self, event: Event) -> None:
        """Keep an event and tell of it."""
        super().append(event)
        for listener in self.listeners:
            listener(*event)


class Recorder:
    """Puts itself before a stage's events and statements."""

    def __init__(self, stage: Stage) -> None:
        self.tape = Tape()
        self.committing: list[Committing] = []
        self.statements: list[Statement] = []
        self._written: dict[str, None] = {}
        stage.events = self.tape
        stage.engine.before_statement = self._before

    def _before(self, process: Process, statement: str) -> None:
        verb, _, _rest = statement.partition(" ")
        if verb == "BEGIN":
            self._written.clear()
        elif verb in WRITING:
            self._written[statement.split(None, 3)[WRITING[verb]]] = None
        elif verb == "COMMIT":
            self._commit()
        for hook in tuple(self.statements):
            hook(process, statement)

    def _commit(self) -> None:
        tables = frozenset(self._written)
        self._written.clear()
        if tables:
            for listener in self.committing:
                listener(tables)
