"""Which role a principal has.

The engine knows its own parts by their prefix. A site with people hands in a table, which is asked
anew at each request; without one, everybody may do everything but report a host as failed.
"""

from collections.abc import Mapping

from domain.permissions import Role

OWN = {"monitor": Role.MONITOR, "engine": Role.ENGINE}
"""Principals of the engine itself: `monitor:m1`, `engine:relay`. Nobody authenticates as such."""


class Roles:
    """Roles by name, and a role for everybody else."""

    def __init__(
        self, named: Mapping[str, Role] | None = None, everybody: Role = Role.ADMIN
    ) -> None:
        self._named: Mapping[str, Role] = {} if named is None else named
        self._everybody = everybody

    def of(self, principal: str) -> Role:
        """The role of a principal that has been authenticated."""
        own = OWN.get(principal.partition(":")[0]) if ":" in principal else None
        return own or self._named.get(principal, self._everybody)
