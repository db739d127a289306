"""Switch a host in maintenance off and on again through each level of its fence devices.

Phases      testing → for each level: marking the boot → cutting → bringing back → done.
Invariants  whatever becomes of a cut, the host is brought back before anything else is done, also
            when the operation is cancelled, and before a later try does anything of its own. A
            level that cuts another machine is the last one.
Giving up   a host that does not come back, whatever kept it, leaves the operation in need of
            attention, and the devices that were cut are shown as such.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from activities.rehearsing import BackOrder, RehearsalStep, Rehearsing
from domain.operations import Outcome, Problem
from domain.orders import RehearseFencingOrder
from domain.rehearsal import LevelBack, LevelOff, Rehearsed, switch_it_on
from workflows import options
from workflows.operation import failure_of, go_on, problem_of, run_operation, to_its_end


@workflow.defn
class RehearseFencing:
    """The durable operation `host.rehearse_fencing`."""

    @workflow.init
    def __init__(self, order: RehearseFencingOrder) -> None:
        self._order = order
        self._cut: int | None = None  # the level that may be without power
        self._may_be_off = order.attempt > 1  # an earlier try may have ended in the middle

    @workflow.run
    async def run(self, order: RehearseFencingOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._rehearse, self._left)

    async def _rehearse(self) -> str:
        name = self._order.host.name
        summary = f"test the fence devices of {name}"
        if self._may_be_off:
            levels = await to_its_end(self._begin_again(summary))
        else:
            levels = await workflow.execute_activity_method(
                Rehearsing.begin, self._step(0), **options.look(self._order.policy, summary)
            )
        found: list[LevelBack] = []
        go_on()
        for level in levels:
            found.append(await self._level(level))
            go_on()
            if found[-1].verdict is Rehearsed.OTHER:
                break
        return self._judged(found, len(levels))

    async def _begin_again(self, summary: str) -> tuple[int, ...]:
        try:
            levels = await workflow.execute_activity_method(
                Rehearsing.begin, self._step(0), **options.bring_back(self._order.policy, summary)
            )
        except ActivityError as error:
            problem = problem_of(error)
            if problem.code == "STEP_TIMED_OUT":
                raise self._left_off(problem.detail) from error
            self._may_be_off = problem.code == "HOST_LEFT_OFF"
            raise
        self._may_be_off = False
        return levels

    async def _level(self, level: int) -> LevelBack:
        await workflow.execute_activity_method(
            Rehearsing.mark,
            self._step(level),
            **options.look(self._order.policy, f"mark this boot of {self._order.host.name}"),
        )
        go_on()
        self._cut = level
        off: LevelOff | None = None
        try:
            off = await workflow.execute_activity_method(
                Rehearsing.cut,
                self._step(level),
                **options.fence(
                    self._order.policy, f"cut {self._order.host.name} at level {level}"
                ),
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise  # `_left` brings it back
            await to_its_end(self._bring_back(level, None))
            raise
        return await to_its_end(self._bring_back(level, off))

    async def _bring_back(self, level: int, off: LevelOff | None) -> LevelBack:
        name = self._order.host.name
        try:
            back = await workflow.execute_activity_method(
                Rehearsing.bring_back,
                BackOrder(step=self._step(level), off=off),
                **options.bring_back(self._order.policy, f"switch {name} on again, level {level}"),
            )
        except ActivityError as error:
            problem = problem_of(error)
            if problem.code == "HOST_LEFT_OFF":
                raise
            raise self._left_off(
                f"{name} was cut at level {level}, and it is not known to be back: {problem.detail}"
            ) from error
        self._cut = None
        return back

    def _left_off(self, detail: str) -> ApplicationError:
        host = self._order.host.name
        return failure_of(
            Problem(code="HOST_LEFT_OFF", detail=detail, next_step=switch_it_on(host))
        )

    async def _left(self) -> str:
        if self._may_be_off:
            name = self._order.host.name
            raise self._left_off(f"an earlier try may have left {name} off, and none looked since")
        if self._cut is not None:
            await self._bring_back(self._cut, None)
        return f"{self._order.host.name} is on"

    def _judged(self, found: list[LevelBack], levels: int) -> str:
        wrong = [back.said for back in found if back.verdict is not Rehearsed.PROVEN]
        if not wrong:
            return "; ".join(back.said for back in found)
        left = "" if len(found) == levels else "; the levels after it were not tried"
        raise failure_of(
            Problem(
                code="FENCE_TEST_FAILED",
                detail=f"{'; '.join(wrong)}{left}; {self._order.host.name} is on again",
                next_step="look at the machine that lost its power, correct the device's address,"
                " plug or cabling, then rehearse again",
            )
        )

    def _step(self, level: int) -> RehearsalStep:
        order = self._order
        return RehearsalStep(
            operation_id=order.operation_id,
            host=order.host,
            policy=order.policy,
            level=level,
            attempt=order.attempt,
        )
