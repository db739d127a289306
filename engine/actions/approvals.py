"""A person's leave to cut the power of a host that the storm guard holds back."""

from uuid import UUID

from pydantic import Field

from domain.context import PriorityClass
from domain.errors import Conflict, Refused
from domain.inventory import HostState
from domain.permissions import Permission
from domain.storm import APPROVABLE
from engine.actions.base import Action, Done, Params, Plan, Problems, Tx, post_once
from engine.actions.confirmations import Judged
from engine.actions.hosts import host_facts, host_target
from engine.closing import LOOK_AGAIN
from store import approvals, incidents, plumbing
from store.rows import Row

LASTS_S = 900
"""How long an approval counts unless its giver says otherwise. Higher: it is forgotten, and cuts
the power of a host that fell silent for another reason. Lower: a slow BMC uses it up."""


class Leave(Params):
    """Why, and for how many seconds of watching."""

    reason: str = Field(min_length=3, max_length=1000)
    lasts_s: int = Field(default=LASTS_S, ge=60, le=86_400)


class ApproveFence(Leave):
    """This host may be fenced in its open incident, though the storm guard holds it back."""

    host_id: UUID


class WithdrawApproval(Params):
    """What was approved for this host's open incident counts no more."""

    host_id: UUID


class ApproveFenceAction(Action[ApproveFence, Judged]):
    """`host.approve_fence`: the open incident may exceed the budget and pass a wide silence."""

    params = ApproveFence
    kind = "host.approve_fence"
    permission = Permission.HOST_APPROVE_FENCE
    priority = PriorityClass.RECOVERY
    idempotent = True
    retryable = False

    async def plan(self, tx: Tx, params: ApproveFence, problems: Problems) -> Plan[Judged]:
        """Check that the guard holds this host back for a reason that a person may overrule."""
        facts = await _waiting(tx, params.host_id)
        held = (facts.incident["decision"] or {}).get("held") or ()
        firm = [one for one in held if one["reason"] not in APPROVABLE]
        if facts.incident["phase"] == "decide" and held and len(firm) == len(held):
            problems.append(_not_approvable(facts.host, firm))
        steps = ("keep your approval", "let the recovery judge anew")
        return _plan(facts, steps)

    async def execute(self, tx: Tx, params: ApproveFence, plan: Plan[Judged]) -> Done:
        """Keep the approval and wake the recovery."""
        incident, by = plan.facts.incident, tx.context.principal
        given = (incident["id"], by, params.reason, params.lasts_s, tx.now)
        await approvals.give(tx.connection, *given)
        await post_once(tx, incident["operation_id"], plumbing.SIGNAL, LOOK_AGAIN)
        return Done(
            summary=f"{by} approves of cutting the power of {plan.facts.host['name']}: "
            f"{params.reason}",
            after={"approved": params.reason, "lasts_s": params.lasts_s},
            data={"incident_id": str(incident["id"])},
        )

    def forbidden(
        self, params: ApproveFence, plan: Plan[Judged], allowed: tuple[str, ...]
    ) -> Refused:
        """Only the fence of a host that is silent can be approved."""
        return _nothing_waits(plan.facts.host)


class WithdrawApprovalAction(Action[WithdrawApproval, Judged]):
    """`host.withdraw_approval`: what was approved counts no more, from the next claim on."""

    params = WithdrawApproval
    kind = "host.withdraw_approval"
    permission = Permission.HOST_APPROVE_FENCE
    priority = PriorityClass.RECOVERY
    idempotent = True
    retryable = False

    async def plan(self, tx: Tx, params: WithdrawApproval, problems: Problems) -> Plan[Judged]:
        """Check that its failure is being judged."""
        return _plan(await _waiting(tx, params.host_id), ("withdraw the approval",))

    async def execute(self, tx: Tx, params: WithdrawApproval, plan: Plan[Judged]) -> Done:
        """Withdraw all that was approved, and let the recovery judge anew."""
        count = await approvals.withdraw(tx.connection, plan.facts.incident["id"], tx.now)
        await post_once(tx, plan.facts.incident["operation_id"], plumbing.SIGNAL, LOOK_AGAIN)
        return Done(
            summary=f"{count} approvals of fencing {plan.facts.host['name']} are withdrawn",
            before={"approvals": count},
            after={"approvals": 0},
            data={"incident_id": str(plan.facts.incident["id"])},
        )

    def forbidden(
        self, params: WithdrawApproval, plan: Plan[Judged], allowed: tuple[str, ...]
    ) -> Refused:
        """There is nothing to withdraw where nothing is judged."""
        return _nothing_waits(plan.facts.host)


async def _waiting(tx: Tx, host_id: UUID) -> Judged:
    host = (await host_facts(tx, host_id)).host
    incident = await incidents.find_open(tx.connection, host["id"], host["epoch"])
    if incident is None or incident["phase"] not in ("detect", "decide", "prove"):
        raise _nothing_waits(host)
    return Judged(host, incident)


def _plan(facts: Judged, steps: tuple[str, ...]) -> Plan[Judged]:
    state = HostState(facts.host["state"])
    return Plan(target=host_target(facts.host), facts=facts, state=state, steps=steps)


def _nothing_waits(host: Row) -> Conflict:
    return Conflict(
        "NO_OPEN_INCIDENT",
        f"{host['name']} is {host['state']}, and no fence of it is being decided on",
        next_step="`holdfast approval list` shows what waits for one",
        host=host["name"],
        state=host["state"],
    )


def _not_approvable(host: Row, held: list[Row]) -> Conflict:
    reasons = ", ".join(one["reason"] for one in held)
    return Conflict(
        "NOT_APPROVABLE",
        f"{host['name']} waits for {reasons}: {'; '.join(one['detail'] for one in held)}",
        next_step="no approval changes that: docs/operations.md says what does",
        host=host["name"],
        reasons=reasons,
    )
