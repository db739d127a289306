"""A lab made whole again: what each test and each measurement begins with."""

import libvirt

from lab.bmc_control import BmcMode, Controller, was_started
from lab.lab import Lab


def make_whole(lab: Lab) -> None:
    """Every host on, connected and empty, every power controller honest."""
    for host in lab.state().hosts:
        lab.bmc(host.name, BmcMode.OK)
        if was_started(lab.paths.host(host.name), Controller.REDFISH):
            lab.redfish(host.name, BmcMode.OK)
    lab.up()
    for entry in lab.inventory().hosts:
        _empty(entry.uri)


def _empty(uri: str) -> None:
    connection = libvirt.open(uri)
    try:
        for domain in connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
            if domain.isPersistent():
                domain.undefine()
        # An engine's mark of this boot would tell the next engine that it is overtaken.
        for pool in connection.listAllStoragePools():
            pool.destroy()
    finally:
        connection.close()
