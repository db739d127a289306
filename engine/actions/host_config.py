"""Hosts as configuration: adding them."""

from uuid import UUID

from pydantic import Field

from domain.errors import Conflict
from domain.inventory import HostState
from domain.locks import exclusive
from domain.orders import ActivateHostOrder, HostRef
from domain.permissions import Permission
from domain.profiles import Profile, policy_for
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.actions.named import NAME, taken
from store import inventory
from store.ids import new_id
from store.rows import Row

SCHEMES = r"^(qemu\+(tcp|tls|ssh)|test(\+tcp)?)://[^\s]{0,480}$"


class AddHost(Params):
    """Add a host and bring it into service."""

    cluster_id: UUID
    name: str = Field(pattern=NAME)
    uri: str = Field(pattern=SCHEMES)
    own_host: bool = False  # the engine itself runs there: it is never fenced


class AddHostAction(Action[AddHost, Row]):
    """`host.add`: written at once, then activated."""

    params = AddHost
    kind = "host.add"
    permission = Permission.HOST_CONFIGURE
    workflow = "ActivateHost"
    retryable = False  # the host is there: it is activated instead

    async def plan(self, tx: Tx, params: AddHost, problems: Problems) -> Plan[Row]:
        """Check that name and address are free."""
        cluster = await existing(tx, "cluster", params.cluster_id)
        problems.extend(await taken(tx, "host", params.name))
        known = await inventory.listing(tx.connection, "host", uri=params.uri)
        problems.unless(
            not known,
            Conflict(
                "URI_TAKEN",
                f"there is a host at {params.uri} already",
                next_step="use that host, or correct the address",
                uri=params.uri,
            ),
        )
        host_id = new_id()
        return Plan(
            target=Target("host", host_id, params.name, params.cluster_id),
            facts=cluster,
            locks=(exclusive("host", host_id),),
            steps=("write the host", "wait for its answer", "settle its copies", "admit it"),
        )

    async def execute(self, tx: Tx, params: AddHost, plan: Plan[Row]) -> Done:
        """Write the host and order its activation."""
        host_id = plan.target.id
        row = params.model_dump() | {
            "id": host_id,
            "state": HostState.RECONCILING.value,
            "state_reason": "just added",
            "state_since": tx.now,
            "created_at": tx.now,
        }
        await inventory.insert(tx.connection, "host", row)
        order = ActivateHostOrder(
            operation_id=tx.operation_id,
            attempt=tx.attempt,
            context=tx.context,
            policy=policy_for(Profile(plan.facts["profile"]), power_on_answer_s=30),
            host=HostRef(host_id=host_id, name=params.name, uri=params.uri, epoch=0),
            power_on=False,
        )
        return Done(order=order, after=params.model_dump(mode="json"))
