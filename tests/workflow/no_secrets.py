"""What the secrets of power controllers are to an engine whose power is a fake."""

from pydantic import SecretStr


class NoSecrets:
    """Implements the ports of `fence.add`, which no test here uses."""

    def seal(self, secrets: dict[str, str]) -> bytes:
        """Nothing to seal."""
        return b""

    def open(self, sealed: bytes) -> dict[str, SecretStr]:
        """Nothing was sealed."""
        return {}

    async def check(self, agent: str, options: dict[str, str], secrets: dict[str, str]) -> None:
        """Every agent is known."""
