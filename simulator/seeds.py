"""One seed, from its plan to its report: faults in safety mode, then healing in liveness mode.

The plan's faults come in virtual time while `Watch` checks after every event and commit. Then all
is healed, and `Settling` demands in bounded time what the design promises of a healed data centre.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from domain.profiles import Profile
from simulator.engine import ProcessDied
from simulator.entropy import Entropy
from simulator.faults.draw import plan_of
from simulator.faults.menu import MENU
from simulator.faults.plan import Plan
from simulator.faults.troubles import Troubles
from simulator.faults.turns import turns_of, turns_setup
from simulator.garbage import collect_garbage, collected_at_rest
from simulator.invariants.watch import Watch
from simulator.quiet import quiet
from simulator.report import Report, digest, timeline
from simulator.settling import Settling
from simulator.setup import CROWDED, FenceLimits, Setup
from simulator.stage import Stage, on_stage, set_stage
from simulator.tape import Recorder
from simulator.temporal.errors import NonDeterminism

WARM_S = 10.0
"""Virtual seconds until a monitor's word counts in every profile that is drawn."""

WIDE = FenceLimits(fences_max=3, fences_percent=50, rack_fences_max=1)

SETUPS: tuple[tuple[Setup, int], ...] = (
    (Setup.small(), 6),
    (Setup.small(hosts=2, vms=3), 1),
    (Setup.small(hosts=4, vms=6), 3),
    (Setup.small(profile=Profile.FAST), 4),
    (Setup.small(hosts=5, vms=8, profile=Profile.FAST), 2),
    (Setup.small(hosts=5, vms=6, profile=Profile.FAST).model_copy(update={"limits": WIDE}), 2),
    (CROWDED, 2),
)
"""What seeds run on, and how often each."""


WITH_SSH = 0.5
"""How many seeds have hosts that the engine may reach over SSH."""

LISTENED_TO = 0.1
"""How many seeds have guests that hang. Higher: more time without a lost host, as a guest has to
be silent for a while first."""


HOMES = 0.08
"""How many seeds have VMs that go home. Higher: more virtual time until all rests."""


def setup_of(seed: int) -> Setup:
    """The setup that a seed draws."""
    rng = Entropy(seed).stream("setup")
    setups, weights = zip(*SETUPS, strict=True)
    (found,) = rng.choices(setups, weights=weights)
    # From streams of their own: what a seed draws else does not depend on it.
    if Entropy(seed).stream("ssh").random() < WITH_SSH:
        found = found.with_ssh()
    if Entropy(seed).stream("hangs").random() < LISTENED_TO:
        found = found.listened_to()
    if Entropy(seed).stream("homes").random() < HOMES:
        found = found.with_homes()
    return found  # type: ignore[no-any-return]


def simulate(
    seed: int, plan: Plan | None = None, setup: Setup | None = None, *, losses: int | None = None
) -> Report:
    """Run one seed; the same arguments give the same report, but for `real_s`.

    `losses`: hosts that are lost turn after turn, in one long run, instead of a drawn pattern.
    """
    began = time.perf_counter()
    caught: list[BaseException] = []
    setup = setup or (setup_of(seed) if losses is None else turns_setup(seed))
    if plan is None:
        plan = plan_of(seed, setup) if losses is None else turns_of(seed, setup, losses)
    with quiet(caught), collected_at_rest():
        stage = set_stage(seed, setup)
        trial = Trial(stage, plan)
        with on_stage(stage) as run:
            trial.perform(run)
    return trial.report(time.perf_counter() - began, caught)


class Trial:
    """One run on one stage."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self.stage = stage
        self.plan = plan
        self.recorder = Recorder(stage)
        self.watch = Watch(stage, self.recorder)
        self.troubles = Troubles(stage, self.recorder, MENU)
        self.began_s = self.ended_s = stage.loop.time()

    def perform(self, run: Callable[[Awaitable[Any]], Any]) -> None:
        """The whole of it; what goes wrong with the run itself is a defect."""
        try:
            run(self._whole())
        except Exception as error:  # noqa: BLE001 - a run that breaks is a finding
            self.stage.defects.append(error)
        self.ended_s = self.stage.loop.time()
        self.stage.defects.extend(_errors(self.stage.loop.errors))

    async def _whole(self) -> None:
        stage = self.stage
        for number in range(self.plan.machines):
            stage.engine.start(f"engine-{number + 1}")
        await asyncio.sleep(WARM_S)
        self.began_s = stage.loop.time()
        self.troubles.people(collect_garbage())
        self.troubles.begin(self.plan)
        await asyncio.sleep(self.plan.lasts_s)
        stage.trace("all healed", "everything")
        self.troubles.heal_all()
        await Settling(self.troubles, self.watch).run()

    def report(self, real_s: float, caught: list[BaseException]) -> Report:
        """What it has shown."""
        stage, tape = self.stage, self.recorder.tape
        return Report(
            seed=stage.entropy.seed,
            setup=stage.setup,
            plan=self.plan,
            virtual_s=round(self.ended_s - self.began_s, 3),
            real_s=round(real_s, 3),
            injected=dict(sorted(self.troubles.injected.items())),
            certificates=sum(kind == "certificate.issued" for _, kind, _ in tape),
            fences=self.watch.fences,
            recoveries=dict(sorted(Counter(self._outcomes()).items())),
            started=sum(kind == "guest.started" for _, kind, _ in tape),
            violations=tuple(self.watch.violations),
            defects=tuple(dict.fromkeys(_sentence(e) for e in (*stage.defects, *caught))),
            refused=dict(sorted(self.troubles.refused.items())),
            digest=digest(tape),
            timeline=tuple(timeline(tape, self.began_s)),
        )

    def _outcomes(self) -> Iterator[str]:
        for _, kind, facts in self.recorder.tape:
            if kind == "incident.closed":
                yield str(facts["outcome"])


def _errors(contexts: list[dict[str, Any]]) -> Iterator[BaseException]:
    """What callbacks and forgotten tasks have raised; a dead process's end is none of it."""
    for context in contexts:
        error = context.get("exception")
        if error is not None and not isinstance(error, ProcessDied):
            yield error


def _sentence(error: BaseException) -> str:
    place = ""
    found = error.__traceback__
    while found is not None:
        name = found.tb_frame.f_code.co_filename
        place = f" ({'/'.join(name.split('/')[-2:])}:{found.tb_lineno})"
        found = found.tb_next
    if isinstance(error, NonDeterminism):
        # A diff, with whole payloads in some of its lines.
        lines = (line[:100] for line in str(error).splitlines())
        return f"NonDeterminism: {chr(10).join(lines):.4000}{place}"
    return f"{type(error).__name__}: {error!s:.500}{place}"
