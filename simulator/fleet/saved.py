"""What of a fleet outlives its process: `fleet.json` in the engine's folder.

Invariants  The file names the fleet of the folder from its first start on. It holds the hosts only
            between a clean stop and the next start, which takes them out again: a process that
            was killed leaves none, and then every host has lost its power, and boots empty.
            Only the fleet's process writes it, and it is replaced as a whole.
"""

import os
from pathlib import Path
from uuid import UUID

from pydantic import ValidationError

from domain.base import Frozen
from domain.errors import Invalid
from domain.readings import DomainState
from simulator.fleet.place import FILE
from simulator.fleet.spec import FleetSpec
from simulator.world.centre import DataCentre
from simulator.world.host import Bmc, Libvirtd, VirtualDomain, VirtualHost
from simulator.world.network import Net


class SavedDomain(Frozen):
    """One domain of a host."""

    vm_id: UUID
    name: str
    memory_mib: int
    generation: int | None
    running: int | None
    state: DomainState
    claim: UUID | None
    held: bool = False


class SavedHost(Frozen):
    """One host as it was left."""

    name: str
    powered: bool
    supplied: bool
    libvirtd: Libvirtd
    boot: int
    mark: int | None
    bmc: Bmc
    domains: tuple[SavedDomain, ...]


class SavedWorld(Frozen):
    """A data centre that stands still."""

    hosts: tuple[SavedHost, ...]
    cuts: tuple[tuple[str, str], ...]  # of the management network


class FleetFile(Frozen):
    """The fleet of a folder. `built`: the engine knows it. `world`: it was stopped cleanly."""

    spec: FleetSpec
    built: bool = False
    world: SavedWorld | None = None

    def write(self, var: Path) -> None:
        """Replace what is there, as a whole."""
        whole = var / f"{FILE}.new"
        whole.write_text(self.model_dump_json(indent=1) + "\n")
        os.replace(whole, var / FILE)


def read_file(var: Path) -> FleetFile | None:
    """The fleet of a folder; None where it has none. Invalid when the file cannot be read."""
    try:
        return FleetFile.model_validate_json((var / FILE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError) as error:
        raise Invalid(
            "FLEET_FILE_UNREADABLE",
            f"{var / FILE} cannot be read: {str(error).splitlines()[0]}",
            next_step="remove it: the hosts of the fleet then boot as after a loss of power",
        ) from None


def save(centre: DataCentre) -> SavedWorld:
    """The data centre as it is."""
    return SavedWorld(
        hosts=tuple(_saved(host) for host in centre.hosts.values()),
        cuts=centre.networks[Net.MANAGEMENT].cuts(),
    )


def restore(world: SavedWorld, centre: DataCentre) -> None:
    """Set the hosts of a new data centre as they were left; a boot under way has ended."""
    for saved in world.hosts:
        if (host := centre.hosts.get(saved.name)) is not None:
            _set(host, saved)
            for vm_id, domain in host.domains.items():
                if domain.alive:
                    centre.copies_max[vm_id] = max(
                        centre.copies_max[vm_id], len(centre.copies(vm_id))
                    )
    for source, target in world.cuts:
        centre.networks[Net.MANAGEMENT].cut(source, target)


def _saved(host: VirtualHost) -> SavedHost:
    same = set(SavedHost.model_fields) - {"domains"}
    domains = (
        SavedDomain(
            vm_id=vm_id,
            **{name: getattr(domain, name) for name in SavedDomain.model_fields if name != "vm_id"},
        )
        for vm_id, domain in host.domains.items()
    )
    return SavedHost(domains=tuple(domains), **{name: getattr(host, name) for name in same})


def _set(host: VirtualHost, saved: SavedHost) -> None:
    host.powered, host.supplied, host.boot = saved.powered, saved.supplied, saved.boot
    host.libvirtd, host.mark, host.bmc = saved.libvirtd, saved.mark, saved.bmc
    for domain in saved.domains:
        host.domains[domain.vm_id] = VirtualDomain(**domain.model_dump(exclude={"vm_id"}))
