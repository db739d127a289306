"""What an engine has to know of a lab: its hosts, how to reach their power controllers, its guest.

It holds the controllers' password, so it is printed nowhere.
"""

from domain.base import Frozen
from domain.inventory import Boot
from lab import sshd
from lab.state import HostPlan, LabState, Paths


class BmcAccess(Frozen):
    """How to reach a power controller; option names as on the fence agent's standard input."""

    agent: str
    options: dict[str, str]
    password: str


class HostInventory(Frozen):
    """One host as an engine has to know it."""

    name: str
    uri: str
    address: str
    uuid: str
    bmc: BmcAccess
    redfish: BmcAccess  # nobody answers there before `Lab.redfish` was called
    ssh: sshd.SshEntry


class Inventory(Frozen):
    """All that an engine has to know of a lab."""

    name: str
    hosts: tuple[HostInventory, ...]
    guest: Boot
    shared: str


def inventory_of(state: LabState, plan: HostPlan, paths: Paths) -> HostInventory:
    """One host of a lab."""
    return HostInventory(
        name=plan.name,
        uri=plan.uri,
        address=plan.address,
        uuid=str(plan.uuid),
        bmc=_access(state, "fence_ipmilan", plan.bmc_port, lanplus="1"),
        # Its certificate is signed by nobody but itself.
        redfish=_access(state, "fence_redfish", plan.redfish_port, ssl_insecure="1"),
        ssh=sshd.entry(paths.root, paths.host(plan.name)),
    )


def _access(state: LabState, agent: str, port: int, **more: str) -> BmcAccess:
    account = {"ip": "127.0.0.1", "ipport": str(port), "username": state.bmc_username}
    return BmcAccess(agent=agent, options=account | more, password=state.bmc_password)
