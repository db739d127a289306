"""When a VM is ready, so that those that depend on it start: what is asked, and for how long.

A VM without a rule is ready once it runs. Of the others one thing is asked until it holds or the
rule's limit has passed; then its dependants start all the same, and an event says so. A dependant
that waited for ever would stay down for a service that may be the smaller loss, and an operator who
wants it to wait sets a limit of a day.

Times count from when the VM was read back as running, whoever asks and however often.
"""

from enum import StrEnum

from pydantic import Field, model_validator

from domain.base import Frozen

LIMIT_S = 120.0
"""How long a VM may take unless its rule says otherwise. Higher: dependants of one that never gets
ready come back later. Lower: those of one that boots slowly start too soon."""

LIMIT_MAX_S = 86_400.0


class ReadyWhen(StrEnum):
    """What shows that a VM is ready."""

    DELAY = "delay"  # so many seconds have passed
    TCP = "tcp"  # a port takes connections from the engine
    AGENT = "agent"  # the guest agent answers a ping


class ReadyRule(Frozen):
    """When one VM is ready.

    delay_s  for `delay`: seconds after it runs
    host     for `tcp`: name or address of the service as the engine reaches it
    port     for `tcp`
    limit_s  after so many seconds its dependants start though it is not ready
    """

    when: ReadyWhen
    delay_s: float = Field(default=0.0, ge=0, le=LIMIT_MAX_S)
    host: str = Field(default="", pattern=r"^([A-Za-z0-9:][A-Za-z0-9.:_-]{0,253})?$")
    port: int = Field(default=0, ge=0, le=65_535)
    limit_s: float = Field(default=LIMIT_S, gt=0, le=LIMIT_MAX_S)

    @model_validator(mode="after")
    def _says_what_it_needs(self) -> "ReadyRule":
        if (self.when is ReadyWhen.DELAY) != (self.delay_s > 0):
            raise ValueError("a delay is told of `delay`, and of nothing else")
        tcp = self.when is ReadyWhen.TCP
        if (bool(self.host), bool(self.port)) != (tcp, tcp):
            raise ValueError("host and port are told of `tcp`, and of nothing else")
        return self

    @property
    def within_s(self) -> float:
        """How long it is waited for: a delay is its own limit."""
        return self.delay_s if self.when is ReadyWhen.DELAY else self.limit_s

    def told(self) -> str:
        """What is waited for."""
        if self.when is ReadyWhen.DELAY:
            return f"{self.delay_s:g} s after it runs"
        if self.when is ReadyWhen.TCP:
            return f"{self.host} takes connections at port {self.port}"
        return "its guest agent answers"
