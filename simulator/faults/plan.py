"""A fault and a plan of faults: values that say everything, and do nothing."""

from pydantic import Field

from domain.base import Frozen

Value = str | float | int | bool


class Fault(Frozen):
    """One thing that goes wrong.

    at_s         seconds after the plan begins, or behind the event that it waits for
    after_event  the kind of an event (`certificate.issued`), or kind and subject
                 (`step.started:guest.start`); the fault comes behind its first one
    since_s      seconds after the plan begins before which that event is not waited for
    lasts_s      seconds until it heals by itself; None: until everything is healed
    """

    kind: str
    at_s: float = Field(ge=0)
    subject: str = ""
    lasts_s: float | None = Field(default=None, ge=0)
    after_event: str | None = None
    since_s: float = Field(default=0.0, ge=0)
    args: dict[str, Value] = Field(default_factory=dict)

    def __str__(self) -> str:
        when = f"at {self.at_s:.2f} s"
        if self.after_event is not None:
            when = f"{self.at_s:.3f} s behind {self.after_event}"
            when += f" past {self.since_s:.2f} s" if self.since_s else ""
        lasts = "" if self.lasts_s is None else f", for {self.lasts_s:.1f} s"
        args = "".join(f" {name}={value}" for name, value in self.args.items())
        return f"{when}: {self.kind} {self.subject}{args}{lasts}".rstrip()


class Plan(Frozen):
    """What goes wrong in one run. `lasts_s` later everything is healed."""

    pattern: str
    faults: tuple[Fault, ...]
    lasts_s: float = 60.0
    machines: int = 1  # of the engine

    def __str__(self) -> str:
        head = f"{self.pattern}: {len(self.faults)} faults in {self.lasts_s:.0f} s"
        if self.machines > 1:
            head += f", {self.machines} machines of the engine"
        return "\n".join((head, *(f"  {fault}" for fault in self.faults)))
