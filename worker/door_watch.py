"""Knocks at hosts that are `down`, and has a certificate voided that a door speaks against.

A host whose libvirt answers says itself in which boot it is. One whose libvirtd hangs, or is gone,
shows its life only at the door; whether that speaks against its certificate is decided in
`domain.doors`. Each look is a task of its own with a limit, one at a time for a host, and begins
where a poll of it was missed: no poll waits for it. The power is asked only where a door shows
life.
"""

import asyncio
from typing import Protocol
from uuid import UUID

import structlog

from activities.fencing import SIGNS_OF_LIFE
from activities.ports import Hypervisor, PowerSwitch
from activities.power import Said, ask, proves_off
from domain.doors import Meaning, meaning, shows_life
from domain.errors import EngineError
from domain.inventory import HostState, PowerReading
from domain.readings import Knock
from engine.records.watching import WatchedHost

log = structlog.get_logger()

KNOCK_S = 0.5
"""How long the door of a dead host is listened at. Higher: little, for one that opens is heard at
once. Lower: a slow kernel's answer is not heard in this look."""

LOOK_S = 10.0
"""How long one look may take, from the first knock to the second. Higher: a machine could be
switched off, on again and boot in between. Lower: a slow controller is not waited for."""

AGAIN_S = 60.0
"""From a look at a door that showed life, and voided nothing, to the next. Higher: a controller
that had a bad moment is asked later. Lower: that of a machine which a person has switched on is
asked again and again."""


class Records(Protocol):
    """Where certificates are."""

    async def door_opens(self, host: WatchedHost, reason: str) -> bool:
        """Void the certificate of a host that is `down`; False when there was nothing to void."""
        ...


class DoorWatch:
    """One monitor's looks at the doors of dead hosts."""

    def __init__(self, records: Records, hypervisor: Hypervisor, power: PowerSwitch) -> None:
        self._records = records
        self._hypervisor = hypervisor
        self._power = power
        self._looking: dict[UUID, asyncio.Task[None]] = {}
        self._not_before_s: dict[UUID, float] = {}

    def missed(self, host: WatchedHost) -> None:
        """A host that nobody judges gave no answer to a poll: where it is `down`, look at its door.

        One without power devices is not looked at: nothing would tell an old boot from a new one.
        """
        now_s = asyncio.get_running_loop().time()
        if host.state is not HostState.DOWN or not host.devices or host.id in self._looking:
            return
        if now_s < self._not_before_s.get(host.id, now_s):
            return
        task = asyncio.create_task(self._look(host))
        self._looking[host.id] = task
        task.add_done_callback(lambda _done: self._looking.pop(host.id, None))

    async def _look(self, host: WatchedHost) -> None:
        try:
            before = await self._knock(host)
            if not shows_life(before):
                return
            self._not_before_s[host.id] = asyncio.get_running_loop().time() + AGAIN_S
            said, after = await self._asked(host)
            found = meaning(before, _words(host, said), after)
            log.info("the door of a dead host shows life", host=host.name, means=found)
            if found is Meaning.ALIVE and after is not None:
                await self._void(host, after, said)
        except TimeoutError:
            log.info("a look at a door took too long", host=host.name, limit_s=LOOK_S)
        except EngineError as error:
            self._not_before_s.pop(host.id, None)  # what was seen is not written: seen anew
            log.warning("certificate not voided", host=host.name, code=error.code)
        except Exception:  # one host's defect must not hide the others
            log.exception("door not looked at", host=host.name)

    async def _asked(self, host: WatchedHost) -> tuple[Said, Knock | None]:
        """What the power devices say, and where that proves the host off, what a second knock does.

        TimeoutError when that takes longer than a look may.
        """
        async with asyncio.timeout(LOOK_S):
            said = await ask(self._power, host.devices)
            return said, await self._knock(host) if proves_off(host.devices, said) else None

    async def _void(self, host: WatchedHost, door: Knock, said: Said) -> None:
        off = [d.name for d, (word, _s) in zip(host.devices, said, strict=True) if _is_off(word)]
        reason = (
            f"{host.name} {SIGNS_OF_LIFE[door]} at {host.uri} while {', '.join(off)} reads off: "
            "nothing has switched it on since it was certified"
        )
        if await self._records.door_opens(host, reason):
            log.error("sign of life of a host held to be dead", host=host.name, why=reason)

    async def _knock(self, host: WatchedHost) -> Knock | None:
        """What comes back from the door; None when it could not be tried."""
        try:
            return await self._hypervisor.knock(host.uri, KNOCK_S)
        except EngineError as error:
            log.info("door not tried", host=host.name, code=error.code)
            return None


def _words(host: WatchedHost, said: Said) -> list[tuple[int, PowerReading]]:
    return [(d.level, word) for d, (word, _s) in zip(host.devices, said, strict=True)]


def _is_off(word: PowerReading) -> bool:
    return word is PowerReading.OFF
