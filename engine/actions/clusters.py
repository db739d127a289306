"""Clusters: adding them, and arming or disarming their automatic actions."""

from uuid import UUID

from pydantic import Field

from domain.context import PriorityClass
from domain.inventory import VirtType
from domain.permissions import Permission
from domain.profiles import Profile
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx, existing
from engine.actions.named import NAME, taken
from store import inventory
from store.ids import new_id
from store.rows import Row


class CreateCluster(Params):
    """Add a cluster; its profile sets the timing of everything in it."""

    name: str = Field(pattern=NAME)
    profile: Profile = Profile.BALANCED
    virt_type: VirtType = VirtType.KVM


class CreateClusterAction(Action[CreateCluster, None]):
    """`cluster.create`: done within the transaction."""

    params = CreateCluster
    kind = "cluster.create"
    permission = Permission.CLUSTER_CONFIGURE
    priority = PriorityClass.INVENTORY

    async def plan(self, tx: Tx, params: CreateCluster, problems: Problems) -> Plan[None]:
        """Check that the name is free."""
        problems.extend(await taken(tx, "cluster", params.name))
        cluster_id = new_id()
        target = Target("cluster", cluster_id, params.name, cluster_id)
        return Plan(target=target, facts=None, steps=("write the cluster",))

    async def execute(self, tx: Tx, params: CreateCluster, plan: Plan[None]) -> Done:
        """Write the cluster."""
        plain = params.model_dump(mode="json")
        row = plain | {"id": plan.target.id, "created_at": tx.now}
        await inventory.insert(tx.connection, "cluster", row)
        return Done(summary="created", after=plain)


class ArmCluster(Params):
    """Allow (arm) or stop (disarm) every automatic action in a cluster."""

    cluster_id: UUID
    armed: bool


class ArmClusterAction(Action[ArmCluster, Row]):
    """`cluster.arm`: one row, at once, also while everything else is stuck."""

    params = ArmCluster
    kind = "cluster.arm"
    permission = Permission.CLUSTER_ARM
    priority = PriorityClass.RECOVERY
    idempotent = True

    async def plan(self, tx: Tx, params: ArmCluster, problems: Problems) -> Plan[Row]:
        """Nothing speaks against it."""
        cluster = await existing(tx, "cluster", params.cluster_id)
        target = Target("cluster", cluster["id"], cluster["name"], cluster["id"])
        return Plan(target=target, facts=cluster, steps=("write the switch",))

    async def execute(self, tx: Tx, params: ArmCluster, plan: Plan[Row]) -> Done:
        """Write the switch."""
        await inventory.arm_cluster(tx.connection, params.cluster_id, armed=params.armed)
        word = "armed" if params.armed else "disarmed"
        now = {"armed": params.armed}
        return Done(summary=word, before={"armed": plan.facts["armed"]}, after=now, data=now)
