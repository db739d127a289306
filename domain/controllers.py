"""Which settings of fence agents lead to the same power controller.

A death is proven when every device of a host reads off, so one controller under two names would
count as two witnesses.
"""

import re
from collections.abc import Mapping

OTHER_NAMES = {"ipaddr": "ip", "login": "username", "port": "plug"}
"""Old names of options, which the agents still take."""

CREDENTIALS = frozenset({"username"})
TIMING = re.compile(r".*_(timeout|wait|sleep)|delay|timeout|retry_on")
"""How long an agent waits and how often it tries says nothing about whom it asks."""


def controller_of(agent: str, options: Mapping[str, str]) -> tuple[str, tuple[str, ...]] | None:
    """What two devices are compared by; None when the options name no controller at all.

    Credentials and timing do not matter, nor does upper or lower case.
    """
    named = {_plain(name): value for name, value in options.items()}
    told = {
        name: value.strip().lower().rstrip(".")
        for name, value in named.items()
        if name not in CREDENTIALS and not TIMING.fullmatch(name)
    }
    if not told:
        return None
    return agent, tuple(f"{name}={value}" for name, value in sorted(told.items()))


def _plain(name: str) -> str:
    plain = name.replace("-", "_")
    return OTHER_NAMES.get(plain, plain)
