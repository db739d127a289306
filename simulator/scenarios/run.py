"""One scenario in virtual time, from its cold start until nothing is under way.

The engine's processes are ended in long quiet stretches and started again well before the next
operation: nothing can happen in between, and the time that its polling would cost is saved.

Ends  at the scenario's own end, or earlier, once its last operation is behind and nothing is left
      that could end by itself: at most starts that wait for room.
"""

import asyncio
from typing import Any

from domain.errors import EngineError
from engine.actions.affinity import CreateAffinityGroup
from simulator.invariants import facts_of
from simulator.invariants.quiet import QUIET
from simulator.invariants.watch import Watch
from simulator.scenarios.format import Scenario
from simulator.scenarios.outcome import Outcome, broken_off, outcome_of
from simulator.scenarios.play import BY_A_PERSON, OUT_OF_SERVICE, Play
from simulator.scenarios.timeline import NOTHING_HAPPENS, carry_out
from simulator.scenarios.world import RUNNING, Scene, scene_of
from simulator.stage import Stage, build, migrated, on_stage
from simulator.tape import Recorder
from simulator.world.network import Net
from store.inline_sqlite import SharedMemory

SEED = 1
TICK_S = 0.5

CALM_S = 4.0
"""How long nothing must be under way before the engine rests, or the scenario is over."""

REST_MIN_S = 10.0
"""A rest that is shorter saves nothing."""

WARM_S = 6.0
"""How long the engine runs again before the next operation: its view has to be warm."""


BROKE_OFF = (EngineError, LookupError, ValueError, RuntimeError, AssertionError, OSError)
"""What one scenario may break off with, so that the others are still played."""


def run_scenario(scenario: Scenario, seed: int = SEED) -> Outcome:
    """Play one scenario; the same one with the same seed gives the same outcome."""
    scene = scene_of(scenario)
    stage = Stage(seed, scene.setup, SharedMemory(migrated()))
    try:
        with on_stage(stage) as run:
            found: Outcome = run(_played(stage, scenario, scene))
    except BROKE_OFF as error:
        return broken_off(scenario, scene.unsupported, error)
    return found


async def _played(stage: Stage, scenario: Scenario, scene: Scene) -> Outcome:
    stage.engine.start()
    await build(stage)
    play = Play(stage, scenario, scene)
    await _make_groups(play)
    for vm in scene.unending:
        stage.centre.deaf.add(play.vm_id(vm))
        stage.centre.unending.add(play.vm_id(vm))
    for vm, count in scene.refused_starts.items():
        stage.centre.refusing[play.vm_id(vm)] = count
    recorder = Recorder(stage)
    watch = Watch(stage, recorder)
    recorder.tape.listeners.append(lambda _at_s, kind, facts: _follow(play, kind, facts))
    _begin(play)
    tending = asyncio.get_running_loop().create_task(play.tend())
    await _through(play)
    tending.cancel()
    watch.finish()
    return outcome_of(play, _violations(play, watch) + _at_rest(play))


def _violations(play: Play, watch: Watch) -> list[str]:
    """Those within the promised fault model, at the scenario's own times."""
    began_s = play.began_s
    return [
        str(found.model_copy(update={"at_s": round(found.at_s - began_s, 3)}))
        for found in watch.inside
    ]


async def _make_groups(play: Play) -> None:
    """Make the affinity groups; what the engine refuses is named."""
    stage, scene = play.stage, play.scene
    (cluster,) = stage.rows.table("cluster")
    for group in scene.groups:
        wanted = CreateAffinityGroup(
            cluster_id=cluster["id"],
            name=group.name,
            together=group.together,
            hard=group.hard,
            vm_ids=tuple(play.vm_id(vm) for vm in group.vms if vm in scene.vms),
            host_ids=tuple(play.host_row(host)["id"] for host in group.hosts),
        )
        try:
            await stage.act(wanted)
        except EngineError as error:
            play.lacks(f"rule refused: {group.name}: {error.detail} ({error.code})")


def _begin(play: Play) -> None:
    """Give hosts the power and links that the scenario gives them, and ask for what is wanted."""
    play.began_s = play.stage.loop.time()
    for name, said in play.scenario.hosts.items():
        host = play.stage.centre.hosts[play.scene.hosts[name]]
        if said.power and said.network:
            continue
        play.faults.append((0.0, name))
        if said.power:
            play.stage.centre.networks[Net.MANAGEMENT].isolate(host.name)
        else:
            host.lose_power()
    spared = {*play.scene.ran_before, *play.scene.never_started}
    for vm, wish in play.scenario.vms.items():
        if wish.wanted in RUNNING and vm not in spared:
            play.later(play.start(vm))


def _follow(play: Play, kind: str, facts: dict[str, Any]) -> None:
    """A VM lies where it was last started."""
    if kind not in ("guest.started", "guest.arrived"):
        return
    hosts = {here: name for name, here in play.scene.hosts.items()}
    for vm, here in play.vms.items():
        if here == facts["vm"]:
            play.places[vm] = hosts[facts["host"]]


async def _through(play: Play) -> None:
    """Carry out the timeline, and wait for what follows from it."""
    deeds = [op for op in play.scenario.timeline if op.op not in NOTHING_HAPPENS]
    for op in sorted(play.scenario.timeline, key=lambda op: op.t):
        if op in deeds:
            await _until(play, op.t)
        carry_out(play, op)
    await _until(play, max(play.scenario.end_s, play.now_s), last=True)


async def _until(play: Play, at_s: float, *, last: bool = False) -> None:
    """Let time pass; with nothing under way the engine rests, or it is over."""
    calm_s = 0.0
    while (left_s := at_s - play.now_s) > 0:
        if calm_s >= CALM_S and last:
            return
        if calm_s >= CALM_S and left_s > WARM_S + REST_MIN_S:
            await _rest(play, left_s - WARM_S)
            calm_s = 0.0
            continue
        await asyncio.sleep(min(TICK_S, left_s))
        calm_s = calm_s + TICK_S if calm(play) else 0.0


async def _rest(play: Play, seconds: float) -> None:
    """Let the engine's processes be down for a time in which they would only poll."""
    play.resting = True
    for name in tuple(play.stage.engine.running):
        play.stage.engine.kill(name, again_after_s=seconds)
    await asyncio.sleep(seconds + TICK_S)
    play.resting = False


def calm(play: Play) -> bool:
    """Whether nothing will happen before somebody does something."""
    if play.busy or any(_unsettled(play, host) for host in play.scenario.hosts):
        return False
    left = play.open_operations()
    waiting = [op for op in left if op["reason_code"] in BY_A_PERSON]
    parents = {op["parent_id"] for op in waiting}
    return all(op in waiting or op["id"] in parents for op in left)


def _unsettled(play: Play, host: str) -> bool:
    if host in play.kept:
        return False  # what is under way there is an operation
    state = play.host_row(host)["state"]
    return bool(state != "up" if play.well(host) else state not in OUT_OF_SERVICE)


def _at_rest(play: Play) -> list[str]:
    """What the engine got wrong, where nothing is under way; and whatever it failed with."""
    found = [f"defect: {type(error).__name__}: {error}" for error in play.stage.defects]
    if play.busy or play.open_operations():
        return found
    facts = facts_of(play.stage.rows)
    for check in QUIET:
        found += [f"{check.__name__}: {why}" for why in check(play.stage.centre, facts)]
    return found
