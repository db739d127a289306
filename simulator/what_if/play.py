"""Plays losses on a stage: power cut, silently, at given seconds; then whatever the engine does.

Power controllers tell the truth and have a supply of their own, unless one says that they die with
their hosts. Everything else is the engine: what comes back, where and when is not predicted but
watched.
"""

import asyncio
import re
from collections.abc import Sequence

from domain.base import Frozen
from domain.errors import Invalid
from domain.operations import OPEN_STATES
from simulator.invariants.watch import Watch
from simulator.quiet import quiet
from simulator.stage import Stage, on_stage, set_stage
from simulator.tape import Recorder
from simulator.what_if.answer import Answer, answer_of
from simulator.what_if.inventory import Cluster
from simulator.world.host import Bmc

LOSS = re.compile(r"(host|rack):([A-Za-z0-9._-]+)")
WARM_S = 16.0
"""Until a monitor's word counts in the slowest profile: three rounds of 5 s."""

CALM_S = 90.0
"""How long nothing has to happen until the engine is taken to wait for something from outside."""

LIMIT_S = 3600.0
OPEN = tuple(state.value for state in OPEN_STATES)


class Loss(Frozen):
    """One host or rack that loses its power, seconds after the beginning."""

    kind: str
    name: str
    at_s: float = 0.0

    def hosts(self, cluster: Cluster) -> list[str]:
        """The hosts of a cluster that it hits, those out of service left out."""
        serving = [host for host in cluster.hosts if host.state == "up"]
        if self.kind == "host":
            return [host.name for host in serving if host.name == self.name]
        return [host.name for host in serving if host.rack == self.name]


def losses_of(words: Sequence[str], at_s: Sequence[float] = ()) -> tuple[Loss, ...]:
    """What `--lose` and `--at` say, in their order. Invalid (`LOSS_INVALID`)."""
    if len(at_s) > len(words):
        raise _refused(f"{len(at_s)} times --at for {len(words)} times --lose")
    times = [*at_s, *([at_s[-1] if at_s else 0.0] * (len(words) - len(at_s)))]
    found = []
    for word, when_s in zip(words, times, strict=True):
        if (match := LOSS.fullmatch(word)) is None:
            raise _refused(f"{word!r} is neither host:NAME nor rack:NAME")
        if when_s < 0:
            raise _refused(f"--at {when_s:g} is before the beginning")
        found.append(Loss(kind=match[1], name=match[2], at_s=when_s))
    return tuple(found)


def play(
    cluster: Cluster, losses: tuple[Loss, ...], *, seed: int = 0, bmc_dies: bool = False
) -> Answer:
    """What happens in one cluster; the same arguments give the same answer."""
    caught: list[BaseException] = []
    with quiet(caught):
        stage = set_stage(seed, cluster.setup())
        watch = Watch(stage, Recorder(stage))
        with on_stage(stage) as run:
            began_s = run(_played(stage, cluster, losses, bmc_dies=bmc_dies))
            watch.finish()
    broken = [*map(repr, (*stage.defects, *caught)), *(str(found) for found in watch.inside)]
    return answer_of(stage, cluster, began_s, broken)


async def _played(
    stage: Stage, cluster: Cluster, losses: tuple[Loss, ...], *, bmc_dies: bool
) -> float:
    for host in cluster.hosts:
        if host.name in stage.centre.hosts and (bmc_dies or host.blocks_on_power_loss):
            stage.centre.hosts[host.name].bmc = Bmc.DEAD_WITH_HOST
    stage.engine.start()
    await asyncio.sleep(WARM_S)
    began_s = stage.loop.time()
    for loss in sorted(losses, key=lambda loss: loss.at_s):
        await asyncio.sleep(max(began_s + loss.at_s - stage.loop.time(), 0))
        for name in loss.hosts(cluster):
            stage.centre.hosts[name].lose_power()
    await _calm(stage)
    return began_s


async def _calm(stage: Stage) -> None:
    """Wait until nothing goes on, or all that goes on has waited for long."""
    end_s = stage.loop.time() + LIMIT_S
    seen, since_s = -1, stage.loop.time()
    while stage.loop.time() < end_s:
        happened = sum(kind in ("guest.started", "workflow.started") for _, kind, _ in stage.events)
        if happened != seen:
            seen, since_s = happened, stage.loop.time()
        states = {row["state"] for row in stage.rows.table("operation")} & set(OPEN)
        waited_s = stage.loop.time() - since_s
        if waited_s >= CALM_S or (not states and waited_s >= _settles_s(stage)):
            return
        await asyncio.sleep(1.0)


def _settles_s(stage: Stage) -> float:
    """How long a loss may go unnoticed: the silence that its profile allows, and then some."""
    (timing,) = [row["profile"] for row in stage.rows.table("cluster")]
    return {"fast": 15.0, "balanced": 30.0, "classic": 80.0}.get(timing, CALM_S)


def _refused(why: str) -> Invalid:
    return Invalid("LOSS_INVALID", why, next_step="for example --lose host:h2 --lose rack:r1")
