"""Take over one guest that a host had before the engine knew it.

Phases      reading (refused when it could not be defined elsewhere) → recording → marking → done.
Invariants  the rows are there before the mark, and what was recorded is read back with the mark;
            the guest runs on untouched whatever becomes of the operation.
Races       the guest starts or ends between two steps: the import is undone and says so. The host
            dies before the import has ended: its recovery takes the rows back with the lock, since
            it could not tell an unmarked copy that runs on from one that is gone.
Cancel      honoured between the steps: rows, then mark, are taken back, and the guest is foreign
            again. Without an answer of the host the mark may stay; it names this operation.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.imports import AdoptOrder, Imports, ImportStep, RecordOrder
from domain.foreign import ForeignGuest
from domain.operations import Outcome
from domain.orders import ImportVmOrder
from workflows import options
from workflows.operation import go_on, problem_of, run_operation, to_its_end

LOSSES_SHOWN_MAX = 8
"""Of what a guest would lack elsewhere; the list of the host's foreign guests has all of it."""


@workflow.defn
class ImportVm:
    """The durable operation `vm.import`."""

    @workflow.init
    def __init__(self, order: ImportVmOrder) -> None:
        self._order = order
        self._recording = False

    @workflow.run
    async def run(self, order: ImportVmOrder) -> Outcome:
        """Run the operation to its end."""
        return await run_operation(order, self._import, self._undo)

    async def _import(self) -> str:
        try:
            return await self._steps()
        except ActivityError as error:
            if not is_cancelled_exception(error):
                await to_its_end(self._give_up())
            raise

    async def _steps(self) -> str:
        order, step = self._order, self._step()
        guest = await workflow.execute_activity_method(
            Imports.read, step, **options.guest(order.policy, f"read {order.guest_name}")
        )
        go_on()
        self._recording = True
        run = await workflow.execute_activity_method(
            Imports.record,
            RecordOrder(step=step, guest=guest),
            **options.decide(f"record {order.guest_name}"),
        )
        go_on()
        adopted = await workflow.execute_activity_method(
            Imports.adopt,
            AdoptOrder(step=step, running=run is not None),
            **options.guest(order.policy, f"mark {order.guest_name} as ours"),
        )
        return _sentence(adopted, guest)

    def _step(self) -> ImportStep:
        order = self._order
        return ImportStep(
            operation_id=order.operation_id,
            attempt=order.attempt,
            host=order.host,
            guest_id=order.guest_id,
            name=order.name,
            protected=order.protected,
            priority=order.priority,
            deadline_s=order.policy.define_deadline_s,
        )

    async def _give_up(self) -> None:
        try:
            await self._undo()
        except ActivityError as error:
            workflow.logger.warning("import was not undone", extra={"code": problem_of(error).code})

    async def _undo(self) -> str:
        order = self._order
        if not self._recording:
            return f"{order.guest_name} was only read"
        return await workflow.execute_activity_method(
            Imports.withdraw,
            self._step(),
            **options.give_up(order.policy, f"undo the import of {order.guest_name}"),
        )


def _sentence(adopted: str, guest: ForeignGuest) -> str:
    if not guest.lost:
        return adopted
    named = ", ".join(guest.lost[:LOSSES_SHOWN_MAX])
    more = "" if len(guest.lost) <= LOSSES_SHOWN_MAX else ", …"
    return f"{adopted}; defined elsewhere it would lack {len(guest.lost)}: {named}{more}"
