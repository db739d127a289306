"""What a fleet is made of, as a person writes it: `sim:hosts=5,vms=40,profile=fast,racks=2`."""

import re
from difflib import get_close_matches
from math import ceil

from pydantic import Field, ValidationError, model_validator

from domain.base import Frozen
from domain.errors import Invalid
from domain.profiles import Profile

SCHEME = "sim"
HOSTS_MAX = 200
VMS_MAX = 5000
"""What one process serves beside an engine on the same machine. Higher: polls come too late."""

VM_MIB = 1024
SPARE = 1.25
"""How much more memory hosts have than they need when one of them is away."""

EXAMPLE = "write something like --fleet sim:hosts=5,vms=40"
MEMORY = re.compile(r"(\d{1,9})([MGT]?)i?B?", re.IGNORECASE)
UNITS = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}


class FleetSpec(Frozen):
    """Hosts h1, h2, … spread over racks rack-1, rack-2, …, and protected VMs vm-1, vm-2, …

    memory  MiB of each host; 0: enough for every VM when one host is away
    """

    hosts: int = Field(default=5, ge=1, le=HOSTS_MAX)
    vms: int = Field(default=40, ge=0, le=VMS_MAX)
    profile: Profile = Profile.BALANCED
    racks: int = Field(default=1, ge=1, le=HOSTS_MAX)
    memory: int = Field(default=0, ge=0, le=64 * UNITS["T"])

    @model_validator(mode="after")
    def _fits(self) -> "FleetSpec":
        if self.racks > self.hosts:
            raise ValueError(f"{self.racks} racks are more than {self.hosts} hosts can fill")
        room = self.hosts * (self.memory_mib // VM_MIB)
        if room < self.vms:
            raise ValueError(
                f"{self.hosts} hosts of {self.memory_mib} MiB carry {room} VMs of {VM_MIB} MiB, "
                f"not {self.vms}"
            )
        return self

    @property
    def memory_mib(self) -> int:
        """What each host has."""
        if self.memory:
            return self.memory
        each = ceil(self.vms / max(1, self.hosts - 1) * SPARE)
        return VM_MIB * max(4, each)

    @property
    def host_names(self) -> tuple[str, ...]:
        """In the order in which they are numbered."""
        return tuple(f"h{number}" for number in range(1, self.hosts + 1))

    def rack_of(self, number: int) -> str:
        """The rack of the host with this number, from 1."""
        return f"rack-{(number - 1) % self.racks + 1}"

    def __str__(self) -> str:
        """As it may be written; reads back as the same."""
        given = self.model_dump(mode="json", exclude_defaults=True, exclude={"hosts", "vms"})
        words = {"hosts": self.hosts, "vms": self.vms, **given}
        return f"{SCHEME}:" + ",".join(f"{key}={value}" for key, value in words.items())


def parse_fleet(text: str) -> FleetSpec:
    """Read it; Invalid (`FLEET_INVALID`) says what is wrong with it."""
    scheme, _colon, rest = text.strip().partition(":")
    if scheme != SCHEME:
        raise _invalid(f"{text!r} is no fleet: it begins with {SCHEME}:")
    given: dict[str, str | int] = {}
    for word in filter(None, rest.split(",")):
        key, equals, value = (part.strip() for part in word.partition("="))
        if key not in FleetSpec.model_fields:
            raise _invalid(f"a fleet has no {key!r}{_hint(key)}")
        if not equals or not value or key in given:
            raise _invalid(f"{key} needs one value, {text!r} gives it none or two")
        given[key] = _mib(value) if key == "memory" else value
    try:
        return FleetSpec.model_validate(given)
    except ValidationError as error:
        raise _invalid("; ".join(_told(dict(one)) for one in error.errors())) from None


def _hint(key: str) -> str:
    near = get_close_matches(key, FleetSpec.model_fields, n=1)
    words = ", ".join(FleetSpec.model_fields)
    return f": did you mean {near[0]}?" if near else f": it has {words}"


def _mib(text: str) -> int:
    match = MEMORY.fullmatch(text)
    if match is None:
        raise _invalid(f"memory={text} is no amount of memory: write 64G or 65536, which is MiB")
    return int(match[1]) * UNITS[match[2].upper()]


def _told(error: dict[str, object]) -> str:
    where = error["loc"]
    name = f"{where[0]}: " if isinstance(where, tuple) and where else ""
    return f"{name}{error['msg']}".replace("Value error, ", "")


def _invalid(detail: str) -> Invalid:
    return Invalid("FLEET_INVALID", detail, next_step=EXAMPLE)
