"""What every change and removal in the inventory shares.

A request says only what is to change: a field that is left out stays as it is, and null is refused
where an object always has a value (RFC 7396). One that finds everything as wanted already succeeds
and changes nothing, so its version stays, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from domain.base import Frozen
from domain.errors import Conflict
from engine.actions.base import Done, Params, Problems, Target, Tx, existing, stale_version
from engine.actions.named import taken
from store import edits
from store.rows import Row

VERSION_MAX = 2**31 - 1
"""What a database keeps as a version."""

NAMES_MAX = 10
"""How many names a sentence lists before it only counts the rest."""


class Changes(Frozen):
    """The fields of a change. `may_be_null` names those for which null is a value."""

    may_be_null: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="after")
    def _null_is_a_value_or_wrong(self) -> "Changes":
        always = self.model_fields_set - self.may_be_null - {"expected_version"}
        empty = sorted(name for name in always if getattr(self, name) is None)
        if empty:
            raise ValueError(f"{', '.join(empty)} cannot be null: leave out what is to stay")
        return self

    @model_serializer(mode="wrap")
    def _only_what_was_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Null and absent differ, also in what is stored and in a request's fingerprint."""
        plain: dict[str, Any] = handler(self)
        return {name: value for name, value in plain.items() if name in self.model_fields_set}


class Edit(Changes, Params):
    """A change of one object, with the version that the caller has read."""

    expected_version: int | None = Field(default=None, ge=1, le=VERSION_MAX)


class Removal(Params):
    """The removal of one object, with the version that the caller has read."""

    expected_version: int | None = Field(default=None, ge=1, le=VERSION_MAX)


@dataclass(frozen=True)
class Change:
    """One object as it is, and the columns that are to have other values."""

    row: Row
    values: Row = field(default_factory=dict)

    @property
    def before(self) -> Row:
        """What the changed columns hold now."""
        return {name: self.row[name] for name in self.values}

    def done(self, *notes: str) -> Done:
        """The end of the action once it is written; `notes` are added to its summary."""
        if not self.values:
            return Done(summary="nothing to change")
        summary = "; ".join((f"changed {', '.join(sorted(self.values))}", *notes))
        return Done(summary=summary, before=self.before, after=self.values)


async def change_of(
    tx: Tx, entity: str, params: Edit, entity_id: UUID, fields: Iterable[str], problems: Problems
) -> Change:
    """What an edit changes, its version and a new name being checked; NotFound."""
    row = await existing(tx, entity, entity_id)
    check_version(params.expected_version, entity, row, problems)
    said = params.model_dump(mode="json", include=set(fields))
    change = Change(row, {name: value for name, value in said.items() if row[name] != value})
    if "name" in change.values:
        problems.extend(await taken(tx, entity, change.values["name"]))
    return change


def check_version(
    expected: int | None, entity: str, row: Mapping[str, Any], problems: Problems
) -> None:
    """Add a problem when somebody changed the object since the caller read it."""
    stale = stale_version(f"{entity.replace('_', ' ')} {row['name']}", expected, row["version"])
    if stale is not None:
        problems.append(stale)


async def write_change(tx: Tx, entity: str, change: Change) -> None:
    """Write a change at the version that was read; Conflict (`VERSION_STALE`) when it moved on."""
    if not change.values:
        return
    row = change.row
    written = await edits.edit(tx.connection, entity, row["id"], row["version"], change.values)
    confirm(tx, entity, row, written=written)


def confirm(tx: Tx, entity: str, row: Row, *, written: bool) -> None:
    """Raise when a compare-and-set found the object elsewhere than the plan; else read it anew."""
    if not written:
        raise Conflict(
            "VERSION_STALE",
            f"{entity.replace('_', ' ')} {row['name']} changed while this was being decided",
            next_step="read it again and repeat the request",
            version=row["version"],
        )
    tx.facts.forget(entity, row["id"])


def target_of(entity: str, row: Row, cluster_id: UUID | None = None) -> Target:
    """An object as an operation names it."""
    return Target(entity, row["id"], row["name"], cluster_id or row["cluster_id"])


def counted(count: int, one: str, more: str) -> str:
    """A number with the words that agree with it: `one` for 1, else `more`."""
    return f"{count} {one if count == 1 else more}"


def listed(names: Sequence[str], count: int | None = None) -> str:
    """Names for a sentence: the first few, and how many more there are (of `count` in all)."""
    first = names[:NAMES_MAX]
    more = (len(names) if count is None else count) - len(first)
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")
