"""Every setting of the engine's processes, read once from `HOLDFAST_*`; a misspelt one stops it."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from domain.base import Frozen
from domain.errors import Invalid

PREFIX = "HOLDFAST_"

OTHERS = frozenset(
    f"{PREFIX}{name}" for name in ("LAB_CACHE", "PYTHON", "URL", "TOKEN", "TOKEN_FILE")
)
"""Variables of other programs of ours that share the prefix."""


class Settings(Frozen):
    """What a process needs to know before it starts.

    var               folder for the database file, keys, tokens, logs
    database_url      SQLAlchemy URL; empty: a SQLite file in `var`
    temporal_address  an existing Temporal server; empty: `holdfast up` runs one
    api_host api_port where the REST API listens; port 0 takes a free one
    ui_port           where the UI of our own Temporal listens; port 0 takes a free one
    traces            off | console | otlp (its address from OTEL_EXPORTER_OTLP_ENDPOINT)
    fleet             a fleet without hardware, such as sim:hosts=5,vms=40; empty: real hosts
    steps_at_once     steps that one worker runs side by side
    monitors          monitors that `holdfast up` runs
    monitor_name      this monitor's name, no other process's; empty: made of the machine's
    machine           the machine's name for other monitors; empty: its host name
    retention_days    how long an ended operation stays before it goes to the archive
    log_level         debug | info | warning | error
    """

    var: Path = Path("var")
    database_url: str = ""
    temporal_address: str = ""
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8420, ge=0, le=65535)
    ui_port: int = Field(default=0, ge=0, le=65535)
    traces: str = Field(default="off", pattern="^(off|console|otlp)$")
    fleet: str = Field(default="", max_length=200)
    steps_at_once: int = Field(default=32, ge=1, le=1000)
    monitors: int = Field(default=1, ge=1, le=16)
    monitor_name: str = Field(default="", max_length=56)
    machine: str = Field(default="", max_length=255)
    retention_days: int = Field(default=30, ge=1, le=36500)
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """Read them; Invalid names every variable that is wrong."""
        given = {
            key.removeprefix(PREFIX).lower(): value
            for key, value in env.items()
            if key.startswith(PREFIX) and key not in OTHERS
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            wrong = "; ".join(
                f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()
            )
            raise Invalid(
                "SETTINGS_INVALID", wrong, next_step="correct or unset these variables"
            ) from None

    @property
    def database(self) -> str:
        """The database's URL."""
        if self.database_url:
            return self.database_url
        return f"sqlite+aiosqlite:///{self.var.absolute()}/holdfast.db"

    def as_env(self) -> dict[str, str]:
        """The same settings as variables, for child processes."""
        plain = self.model_dump(mode="json") | {"var": str(self.var.absolute())}
        return {f"{PREFIX}{key.upper()}": str(value) for key, value in plain.items()}
