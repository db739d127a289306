"""Death certificates as a chain: each carries the digest of the one before it.

Whoever changes one afterwards, or takes one out, breaks every later link. The digest covers what
was certified (host, epoch, evidence) and the link, not what became of the certificate later.
Certificates from before there was a chain have a digest and no number.
"""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID

from domain.base import Frozen


class Link(Frozen):
    """One certificate of the chain."""

    id: UUID
    host_id: UUID
    epoch: int
    evidence: tuple[dict[str, Any], ...]
    number: int | None = None  # from 1; None: from before there was a chain
    previous: str | None = None  # digest of the one before; None: there was none
    digest: str


def digest_of(
    host_id: UUID, epoch: int, evidence: Sequence[dict[str, Any]], previous: str | None
) -> str:
    """SHA-256 over host, epoch, evidence and the digest of the certificate before, in hex."""
    body: dict[str, Any] = {"host": str(host_id), "epoch": epoch, "evidence": list(evidence)}
    if previous is not None:
        body["previous"] = previous
    return sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def first_break(links: Iterable[Link]) -> str | None:
    """What is wrong with the first certificate that does not fit, or None: the chain is whole.

    `links` are all there are, those without a number first, then by number.
    """
    before: str | None = None
    count = 0
    for link in links:
        if link.digest != digest_of(link.host_id, link.epoch, link.evidence, link.previous):
            return f"certificate {link.id} is not what its digest says"
        if link.number is None:
            before = link.digest
            continue
        count += 1
        if link.number != count:
            return f"certificate {link.id} has number {link.number}, {count} is missing"
        if link.previous != before:
            return f"certificate {link.id} does not follow on the one before it"
        before = link.digest
    return None
