"""Prove one host off: cut its power, read it back, certify. Never "cycle".

Phases      cutting (skipped when the power reads off already) → reading back → certifying → done;
            on a person's word: looking for any sign of life → certifying → done.
Invariants  a certificate needs a reading of off from every device, taken after the cut, or the
            word of a person that no channel contradicts; and that
            no monitor has heard the host since the incident began; both are checked by the
            statement that issues it.
Cancel      a power command in flight is waited for; the summary says that power may be off.
"""

from uuid import UUID

from temporalio import workflow

from activities.fencing import CertifyOrder, ConfirmedOrder, FenceStep, Fencing
from domain.operations import Outcome
from domain.orders import Evidence, FenceHostOrder
from workflows import options
from workflows.operation import go_on, run_operation, to_its_end


@workflow.defn
class FenceHost:
    """The durable operation `host.fence`."""

    @workflow.init
    def __init__(self, order: FenceHostOrder) -> None:
        self._order = order
        self._certificate_id: UUID | None = None

    @workflow.run
    async def run(self, order: FenceHostOrder) -> Outcome:
        """Run the operation to its end."""
        outcome = await run_operation(order, self._fence, self._left)
        return outcome.model_copy(update={"certificate_id": self._certificate_id})

    async def _fence(self) -> str:
        order, name = self._order, self._order.host.name
        step = FenceStep(
            operation_id=order.operation_id,
            host=order.host,
            incident_id=order.incident_id,
            policy=order.policy,
        )
        evidence = await (self._prove(step) if order.confirmation is None else self._check(step))
        go_on()
        wanted = CertifyOrder(
            operation_id=order.operation_id,
            host=order.host,
            incident_id=order.incident_id,
            evidence=evidence,
            proofs_required=order.policy.timing.proofs_required,
        )
        what = f"certify that {name} (epoch {order.host.epoch}) is dead"
        certificate = await to_its_end(
            workflow.execute_activity_method(
                Fencing.certify, wanted, **options.fence(order.policy, what)
            )
        )
        self._certificate_id = certificate.certificate_id
        return f"{name} is dead: certificate {certificate.certificate_id}"

    async def _prove(self, step: FenceStep) -> tuple[Evidence, ...]:
        order, name = self._order, self._order.host.name
        if order.cut:
            await workflow.execute_activity_method(
                Fencing.power_off,
                step,
                **options.fence(order.policy, f"cut the power of {name}"),
            )
        go_on()
        return await workflow.execute_activity_method(
            Fencing.read_back,
            step,
            **options.fence(order.policy, f"read {name} back as off"),
        )

    async def _check(self, step: FenceStep) -> tuple[Evidence, ...]:
        assert self._order.confirmation is not None
        word = ConfirmedOrder(step=step, confirmation=self._order.confirmation)
        what = f"see whether {step.host.name} shows any sign of life"
        return await workflow.execute_activity_method(
            Fencing.check_word, word, **options.fence(self._order.policy, what)
        )

    async def _left(self) -> str:
        return f"the power of {self._order.host.name} may be off; no certificate was issued"
