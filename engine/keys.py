"""Idempotency keys: the same request under the same key is the same operation."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from domain.base import Frozen
from domain.errors import Invalid
from engine.actions.base import Tx
from store import plumbing
from store.rows import Row


@dataclass(frozen=True)
class Key:
    """What a caller names a request by, and the digest of that request."""

    text: str
    fingerprint: str


def fingerprint(requests: Iterable[tuple[str, Frozen]], options: Frozen) -> str:
    """A digest of what is asked for, each with its kind, and of how.

    Secrets print as asterisks, so their own digest takes their place.
    """
    lines = [options.model_dump_json()]
    for kind, params in requests:
        lines += [kind, json.dumps(_revealed(params.model_dump()), sort_keys=True, default=str)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _revealed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _revealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_revealed(item) for item in value]
    reveal = getattr(value, "get_secret_value", None)
    return value if reveal is None else hashlib.sha256(reveal().encode()).hexdigest()


def replayed(found: Row, wanted: str) -> UUID:
    """The operation that a key stands for; Invalid when it stands for another request."""
    if found["fingerprint"] != wanted:
        raise Invalid(
            "IDEMPOTENCY_KEY_REUSED",
            "this idempotency key was used for another request",
            next_step="use a fresh key for each new request",
            operation_id=str(found["operation_id"]),
        )
    operation_id: UUID = found["operation_id"]
    return operation_id


async def keep_key(tx: Tx, key: str, digest: str) -> None:
    """Bind a key to the operation of this transaction."""
    row: Row = {"principal": tx.context.principal, "key": key, "fingerprint": digest}
    row |= {"operation_id": tx.operation_id, "created_at": tx.now}
    await plumbing.keep_key(tx.connection, row)
