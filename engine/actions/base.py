"""What an action is: declarations as data, a plan that only reads, an execution that only writes.

Adding one is one file: a parameter model, a class with the declarations, `plan` and `execute`.

prepare   fetches ahead, outside the transaction, what only the world outside can tell.
plan      reads and judges. What cannot be planned at all (no such object) is raised; every other
          reason against it is collected, so that a caller sees all of them at once.
execute   writes, within the same transaction, what the plan says, and returns what the operation
          needs. It refuses only when a compare-and-set shows that the plan is out of date.
undo      takes back, in the database, what `execute` wrote, for an operation that ends before its
          workflow ever claimed it; where its workflow is gone, also what its steps wrote.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, Protocol, Self, TypeAlias, TypeVar
from uuid import UUID

from pydantic import model_validator
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.base import Frozen
from domain.context import ActionContext, PriorityClass
from domain.errors import Conflict, Invalid, NotFound, Refused
from domain.locks import Lock
from domain.operations import Order, Problem
from domain.permissions import Permission, Role
from engine.actions.texts import holds_half_a_character
from engine.facts import Facts
from engine.writes import Writes
from store import plumbing
from store.rows import Row


class Params(Frozen):
    """What a caller says; the type is what finds the action."""

    @model_validator(mode="after")
    def _whole_characters(self) -> Self:
        for name in type(self).model_fields:
            if holds_half_a_character(getattr(self, name)):
                raise Invalid(
                    "TEXT_MALFORMED",
                    f"{name} holds half of a surrogate pair, which is no character",
                    next_step="send text that UTF-8 can hold",
                    field=name,
                )
        return self


Look: TypeAlias = Callable[[str, UUID], Awaitable[Row | None]]
"""Reads one object by its entity and id, outside of any action's transaction."""

P = TypeVar("P", bound=Params)
F = TypeVar("F")


class Problems(list[Refused]):
    """Reasons against an action, gathered while it is planned.

    `lenient`: the engine itself asks as part of a recovery; what may heal by waiting is no reason.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        super().__init__()
        self.lenient = lenient

    def unless(self, fine: bool, problem: Refused) -> None:
        """Add a reason when something is not fine."""
        if not fine:
            self.append(problem)


class Door(Protocol):
    """What an action about operations may ask of the backend, within its own transaction."""

    async def again(self, tx: "Tx", operation: Row, *, attempt: int, held: bool = False) -> Any:
        """Accept a known operation anew from its parameters; raises the refusal.

        `held`: its batch lets it go when its turn comes.
        """
        ...

    async def problems_again(self, tx: "Tx", operation: Row) -> tuple[Refused, ...]:
        """What speaks against accepting a known operation anew now; changes nothing."""
        ...

    async def undo(self, tx: "Tx", operation: Row) -> str:
        """Take back what accepting an operation wrote, its workflow never having claimed it."""
        ...

    async def give_way(self, tx: "Tx", operation: Row) -> str:
        """Take back what must not outlive an operation that another one takes over."""
        ...

    def kind_of(self, operation: Row) -> "Action[Any, Any]":
        """The action that an operation came from."""
        ...

    def role_of(self, principal: str) -> Role:
        """What a principal is to the engine."""
        ...


@dataclass(frozen=True)
class Tx:
    """The transaction an action is accepted in.

    `attempt` is the operation's try. `facts` reads through a cache of this transaction, `writes`
    collects rows that go out together at its end, `door` accepts other operations within it.
    """

    connection: AsyncConnection
    now: datetime
    operation_id: UUID
    context: ActionContext
    facts: Facts
    writes: Writes
    door: Door
    attempt: int = 1


@dataclass(frozen=True)
class Target:
    """What an operation is about."""

    type: str
    id: UUID
    name: str
    cluster_id: UUID | None = None


@dataclass(frozen=True)
class Plan(Generic[F]):
    """What would be done, judged against what is there. `facts` is what `execute` needs of it.

    state      of the target now, judged by its matrix; None for an action that makes its target
    steps      what happens, in words and in order
    protected  the action is about a protected VM
    """

    target: Target
    facts: F
    state: str | None = None
    locks: tuple[Lock, ...] = ()
    steps: tuple[str, ...] = ()
    protected: bool = False


@dataclass(frozen=True)
class Done:
    """What an executed action needs written: an order for its workflow, or a summary at once.

    before, after   the fields that changed, for the audit event
    progress_total  how much there is to do, where it can be counted
    """

    order: Order | None = None
    summary: str = ""
    incident_id: UUID | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    progress_total: int | None = None


class Action(ABC, Generic[P, F]):
    """One kind of change. Instances hold only what they were wired with.

    kind         `object.verb`, the same in API, log, event and matrix
    permission   what its principal must be allowed
    priority     its class before the policy table looks at principal and VM
    workflow     the workflow of its operation; None: `execute` does all, the operation ends at once
    idempotent   asking twice does no more than asking once
    pausable     its workflow honours `pause` between steps
    reopens      when its workflow is ended behind its back, it is begun again: nobody else would
    retryable    its failed operation may be tried again from its parameters
    audited      its refusals are worth an audit event (those of routine reports are not)
    external     people and programs may ask for it through the API; others are the engine's own
    own_fields   fields of its parameters that only the engine itself gives
    preempts     kinds of operations whose locks it takes over; those end as superseded
    registered   the registry finds it; another part of the engine makes the others itself
    collects     `execute` writes through `tx.writes` alone: where it refuses, nothing is written
    """

    params: ClassVar[type[Params]]
    kind: ClassVar[str]
    permission: ClassVar[Permission]
    priority: ClassVar[PriorityClass] = PriorityClass.PERSON
    workflow: ClassVar[str | None] = None
    registered: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False
    pausable: ClassVar[bool] = False
    retryable: ClassVar[bool] = True
    reopens: ClassVar[bool] = False
    audited: ClassVar[bool] = True
    external: ClassVar[bool] = True
    own_fields: ClassVar[frozenset[str]] = frozenset()
    collects: ClassVar[bool] = False
    preempts: ClassVar[frozenset[str]] = frozenset()

    async def prepare(self, params: P, look: Look) -> None:
        """Fetch ahead what `plan` asks of the world outside the database; nothing by default.

        Runs before the transaction, because one that waits for the world keeps other writers out.
        It refuses nothing: `plan` asks again, and is answered from what was fetched.
        """

    @abstractmethod
    async def plan(self, tx: Tx, params: P, problems: Problems) -> Plan[F]:
        """Read and judge; NotFound for an object that is not there."""

    @abstractmethod
    async def execute(self, tx: Tx, params: P, plan: Plan[F]) -> Done:
        """Write what was planned."""

    async def undo(self, tx: Tx, operation: Row) -> str:
        """Take back what `execute` wrote; a sentence about it. Repeatable."""
        return "nothing was done yet"

    async def give_way(self, tx: Tx, operation: Row) -> str:
        """Take back what must not outlive an operation that another one takes over; a sentence.

        Most leave what they did to their successor.
        """
        return ""

    async def left(self, tx: Tx, operation: Row) -> Problem | None:
        """What a person has to look at after `undo`, of one whose workflow had begun; or None."""
        return None

    async def unsettled(self, tx: Tx, operation: Row) -> bool:
        """Whether its own workflow alone settles what it left: then it is begun again, also when it
        was to be cancelled."""
        return False

    def outranks(self, params: P) -> frozenset[str]:
        """The kinds of operations whose locks this request takes over."""
        return self.preempts

    def rule(self, params: P) -> str:
        """The name under which the status matrix knows this request."""
        return self.kind

    def forbidden(self, params: P, plan: Plan[F], allowed: tuple[str, ...]) -> Refused:
        """Why the target's state forbids this, in the action's own words."""
        target = plan.target
        return Conflict(
            f"{target.type.upper()}_STATE_FORBIDS",
            f"{target.name} is {plan.state}; {self.kind} needs {' or '.join(allowed)}",
            next_step=f"wait until it is {' or '.join(allowed)}, or bring it there",
            name=target.name,
            state=plan.state,
        )


async def post_once(tx: Tx, operation_id: UUID, kind: str, signal: str | None = None) -> None:
    """Tell an operation's workflow something after the commit, unless it is to be told already."""
    if not await plumbing.is_posted(tx.connection, operation_id, kind, signal):
        tx.writes.post_soon(operation_id, tx.now, kind, signal)


async def existing(tx: Tx, entity: str, entity_id: UUID) -> Row:
    """A row that has to be there; NotFound names it."""
    row = await tx.facts.get(entity, entity_id)
    if row is None:
        raise not_found(entity, entity_id)
    return row


def not_found(entity: str, entity_id: UUID) -> NotFound:
    """The refusal for an id that names nothing."""
    word = entity.replace("_", " ")
    return NotFound(
        f"{entity.upper()}_NOT_FOUND",
        f"there is no {word} {entity_id}",
        next_step=f"list the {word}s and use one of their ids",
        id=str(entity_id),
    )


def stale_version(target: str, expected: int | None, version: int) -> Refused | None:
    """Conflict when somebody else has changed the object since the caller read it."""
    if expected is None or expected == version:
        return None
    return Conflict(
        "VERSION_STALE",
        f"{target} is at version {version}, the request expects {expected}",
        next_step="read it again, look at what changed, and repeat with its version",
        version=version,
        expected=expected,
    )
