"""The lab's network: one bridge in the machine's own namespace, one veth and namespace a host.

The bridge has an address, so an engine, a CLI or a browser on this machine reaches the hosts like
any other peer. A host's link is cut on the bridge's side: the host sees its carrier go.
"""

import json
from pathlib import Path

from pydantic import Field

from domain.base import Frozen
from domain.errors import Conflict, Unavailable
from lab.shell import run
from lab.state import HostPlan


class _Address(Frozen, extra="ignore"):
    local: str = ""


class _Link(Frozen, extra="ignore"):
    ifname: str
    flags: tuple[str, ...] = ()
    addr_info: tuple[_Address, ...] = Field(default=())


def bridge_name(lab: str) -> str:
    """The bridge of a lab."""
    return f"hf-{lab}"


def namespace_name(lab: str, number: int) -> str:
    """The network namespace of a host."""
    return f"hf-{lab}-h{number}"


def link_name(lab: str, number: int) -> str:
    """The bridge's side of a host's cable."""
    return f"hf-{lab}-{number}"


def gateway(k: int) -> str:
    """The machine's own address in lab network k."""
    return f"10.77.{k}.1"


def host_address(k: int, number: int) -> str:
    """The address of host number n."""
    return f"10.77.{k}.{10 + number}"


def _links() -> tuple[_Link, ...]:
    return tuple(_Link.model_validate(row) for row in json.loads(run("ip", "-j", "addr", "show")))


def namespaces() -> frozenset[str]:
    """Every named network namespace of the machine."""
    folder = Path("/run/netns")
    return frozenset(entry.name for entry in folder.iterdir()) if folder.is_dir() else frozenset()


def free_k(first: int = 1) -> int:
    """The first lab network from `first` on that no interface of this machine uses."""
    used = {address.local for link in _links() for address in link.addr_info}
    for k in range(first, 256):
        if gateway(k) not in used:
            return k
    raise Unavailable("LAB_NO_NETWORK", f"networks 10.77.{first}.0/24 and up are all taken")


def up_bridge(lab: str, k: int) -> None:
    """Make the bridge and give it its address; idempotent.

    Raises Conflict when another interface has that address: the two labs would share a network.
    """
    name, address = bridge_name(lab), gateway(k)
    links = _links()
    taken = [
        link.ifname
        for link in links
        if link.ifname != name and any(a.local == address for a in link.addr_info)
    ]
    if taken:
        raise Conflict(
            "LAB_NETWORK_TAKEN",
            f"{address} belongs to {taken[0]}",
            next_step="choose another network with --k, or take the other lab down",
        )
    mine = next((link for link in links if link.ifname == name), None)
    if mine is None:
        run("ip", "link", "add", name, "type", "bridge")
    if mine is None or all(a.local != address for a in mine.addr_info):
        run("ip", "addr", "add", f"{address}/24", "dev", name)
    run("ip", "link", "set", name, "up")


def up_host(lab: str, host: HostPlan) -> None:
    """Make a host's namespace and cable; idempotent. A new cable is down until power on."""
    space, link = namespace_name(lab, host.number), link_name(lab, host.number)
    if space not in namespaces():
        run("ip", "netns", "add", space)
    run("ip", "-n", space, "link", "set", "lo", "up")
    if not _link_exists(link):
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "link", "set", link, "master", bridge_name(lab))
        run("ip", "-n", space, "addr", "add", f"{host.address}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")


def set_link(lab: str, number: int, *, up: bool) -> None:
    """Plug or pull a host's cable; idempotent."""
    run("ip", "link", "set", link_name(lab, number), "up" if up else "down")


def link_is_up(lab: str, number: int) -> bool:
    """Whether the cable is plugged (False as well when there is none)."""
    wanted = link_name(lab, number)
    return any(link.ifname == wanted and "UP" in link.flags for link in _links())


def _link_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def interfaces_of(lab: str) -> tuple[str, ...]:
    """Every interface of a lab on this machine: the bridge's name or a host's cable."""
    bridge = bridge_name(lab)
    return tuple(
        link.ifname
        for link in _links()
        if link.ifname == bridge or _is_numbered(link.ifname, f"{bridge}-")
    )


def namespaces_of(lab: str) -> tuple[str, ...]:
    """Every network namespace of a lab."""
    prefix = f"{bridge_name(lab)}-h"
    return tuple(sorted(name for name in namespaces() if _is_numbered(name, prefix)))


def _is_numbered(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.removeprefix(prefix).isdigit()


def pids_in(namespace: str) -> tuple[int, ...]:
    """The processes inside a network namespace."""
    return tuple(int(word) for word in run("ip", "netns", "pids", namespace).split())


def down(lab: str) -> None:
    """Remove every interface and namespace of a lab; idempotent. End its processes first."""
    for name in interfaces_of(lab):
        # The bridge goes last by itself: removing a cable twice is no error worth stopping for.
        run("ip", "link", "del", name, check=False)
    for name in namespaces_of(lab):
        run("ip", "netns", "del", name)
    left = interfaces_of(lab)
    if left:
        raise Unavailable("LAB_LINK_LEFT", f"{', '.join(left)} could not be removed")
