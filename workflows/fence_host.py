"""Prove one host off: cut its power, read it back, certify. Never "cycle".

Phases      cutting (skipped when the power reads off already) → reading back → certifying → done;
            both level after level where the devices have several, until one level proves it;
            on a person's word: looking for any sign of life → certifying → done.
Invariants  a certificate needs a reading of off from every device of a level and of on from none
            of the host, taken after the cut, or the word of a person that no channel contradicts;
            and that no monitor has heard the host since the incident began; both are checked by
            the statement that issues it.
Cancel      a power command in flight is waited for; the summary says that power may be off.
"""

from uuid import UUID

from temporalio import workflow

from activities.fencing import (
    CertifyOrder,
    ConfirmedOrder,
    FenceStep,
    Fencing,
    LevelCut,
    ReadLevelOrder,
)
from domain.operations import Outcome
from domain.orders import Evidence, FenceHostOrder
from workflows import options
from workflows.operation import go_on, run_operation, to_its_end

LEVELS = "fence-levels"
"""Patch: before it, all devices of a host were cut at once and had to read off together."""


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
        if self._order.cut:
            cut = await self._power_off(step, f"cut the power of {step.host.name}")
            go_on()
            # A worker from before this patch said nothing of levels, and cut them all.
            if cut is not None and workflow.patched(LEVELS):
                return await self._climb(step, cut)
        return await workflow.execute_activity_method(
            Fencing.read_back,
            step,
            **options.fence(self._order.policy, f"read {step.host.name} back as off"),
        )

    async def _climb(self, step: FenceStep, cut: LevelCut) -> tuple[Evidence, ...]:
        """Level after level until one proves it; the last raises what it lacks."""
        policy, name = self._order.policy, step.host.name
        earlier: tuple[Evidence, ...] = ()
        while True:
            at = step.model_copy(update={"level": cut.level})
            read = await workflow.execute_activity_method(
                Fencing.read_level,
                ReadLevelOrder(step=at, earlier=earlier, once=bool(cut.why)),
                **options.fence(policy, f"read {name} back as off, level {cut.level}"),
            )
            go_on()
            if read.proven:
                return read.evidence
            earlier = read.evidence
            above = step.model_copy(update={"level": cut.level + 1})
            what = f"cut the power of {name}, past level {cut.level}"
            cut = await self._power_off(above, what) or cut
            go_on()

    async def _power_off(self, step: FenceStep, what: str) -> LevelCut | None:
        return await workflow.execute_activity_method(
            Fencing.power_off, step, **options.fence(self._order.policy, what)
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
