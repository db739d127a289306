"""The question whether the death certificates are what they were when they were issued."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.certificates import Link, first_break
from engine.queries.base import Query, QueryParams
from engine.views_explained import ChainView
from store import certificates


class VerifyCertificates(QueryParams):
    """Is the chain of death certificates whole?"""


class VerifyCertificatesQuery(Query[VerifyCertificates, ChainView]):
    """Every digest made anew and compared, and every link followed."""

    params = VerifyCertificates

    async def answer(
        self, connection: AsyncConnection, params: VerifyCertificates, now: datetime
    ) -> ChainView:
        """The first break, if there is one."""
        rows = await certificates.chain(connection)
        links = [Link(**{field: row[field] for field in Link.model_fields}) for row in rows]
        broken = first_break(links)
        numbered = [link for link in links if link.number is not None]
        return ChainView(
            certificates=len(links),
            whole=broken is None,
            broken=broken,
            last_digest=numbered[-1].digest if numbered else None,
        )
