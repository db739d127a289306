"""Which role a principal has.

The embedded engine knows one person, who may do everything but report a host as failed, and its own
parts by their prefix. A site with more people hands in a table.
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
        self._named = dict(named or {})
        self._everybody = everybody

    def of(self, principal: str) -> Role:
        """The role of a principal that has been authenticated."""
        own = OWN.get(principal.partition(":")[0]) if ":" in principal else None
        return own or self._named.get(principal, self._everybody)
