"""The secrets of virtual power controllers, which have no passwords."""

from pydantic import SecretStr


class NoSecrets:
    """Implements the ports of `fence.add`; seals nothing, and every agent is there."""

    def seal(self, secrets: dict[str, str]) -> bytes:
        """Nothing to seal."""
        return b""

    def open(self, sealed: bytes) -> dict[str, SecretStr]:
        """Nothing was sealed."""
        return {}

    async def check(self, agent: str, options: dict[str, str], secrets: dict[str, str]) -> None:
        """Every agent is there."""
