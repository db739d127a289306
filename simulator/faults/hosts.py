"""What goes wrong with hosts, their power controllers, racks and storage."""

from simulator.faults.plan import Fault
from simulator.faults.troubles import Kind, Troubles
from simulator.world.host import Bmc, Libvirtd, Sshd, VirtualHost
from simulator.world.storage import StorageState


def _host(troubles: Troubles, fault: Fault) -> VirtualHost:
    return troubles.stage.centre.hosts[fault.subject]


def lose_power(troubles: Troubles, fault: Fault) -> None:
    """The supply is gone; with it the controller, where `with_bmc` says so."""
    host = _host(troubles, fault)
    if fault.args.get("with_bmc"):
        host.bmc = Bmc.DEAD_WITH_HOST
    host.lose_power()


def get_power(troubles: Troubles, fault: Fault) -> None:
    """The supply is back, and the host boots."""
    host = _host(troubles, fault)
    host.get_power()
    if fault.args.get("with_bmc"):
        host.bmc = Bmc.OK


def reboot(troubles: Troubles, fault: Fault) -> None:
    """By itself; it may take a while to boot."""
    host = _host(troubles, fault)
    host.boot_s = float(fault.args.get("boot_s", 0.0))
    host.reboot()


def lose_rack(troubles: Troubles, fault: Fault) -> None:
    """Every host of a rack."""
    troubles.stage.centre.lose_rack(fault.subject)


def power_rack(troubles: Troubles, fault: Fault) -> None:
    """They boot again."""
    troubles.stage.centre.power_rack(fault.subject)


def set_libvirtd(state: Libvirtd) -> Kind:
    """A kind that changes how libvirtd is."""

    def apply(troubles: Troubles, fault: Fault) -> None:
        _host(troubles, fault).set_libvirtd(state)

    def heal(troubles: Troubles, fault: Fault) -> None:
        host = _host(troubles, fault)
        if host.libvirtd is state:
            host.set_libvirtd(Libvirtd.ALIVE)

    return Kind(f"libvirtd is {state}; the guests run on", apply, heal)


def slow_down(troubles: Troubles, fault: Fault) -> None:
    """Everything on the host takes `times` as long."""
    _host(troubles, fault).slowness = float(fault.args.get("times", 20.0))


def speed_up(troubles: Troubles, fault: Fault) -> None:
    """As before."""
    _host(troubles, fault).slowness = 1.0


def set_bmc(mode: Bmc, does: str, *, outside: bool = False) -> Kind:
    """A kind that changes how a host's controllers behave, or the one that `device` names."""

    def apply(troubles: Troubles, fault: Fault) -> None:
        host = _host(troubles, fault)
        if device := fault.args.get("device"):
            host.bmcs[str(device)] = mode
        else:
            host.bmc = mode
        host.cut_s = float(fault.args.get("cut_s", host.cut_s))

    def heal(troubles: Troubles, fault: Fault) -> None:
        host = _host(troubles, fault)
        if device := fault.args.get("device"):
            host.bmcs.pop(str(device), None)
        elif host.bmc is mode:
            host.bmc = Bmc.OK

    return Kind(does, apply, heal, outside=outside)


def set_sshd(state: Sshd, does: str) -> Kind:
    """A kind that changes how a host's sshd is."""

    def apply(troubles: Troubles, fault: Fault) -> None:
        _host(troubles, fault).sshd = state

    def heal(troubles: Troubles, fault: Fault) -> None:
        _host(troubles, fault).sshd = Sshd.OK

    return Kind(does, apply, heal)


def set_storage(state: StorageState) -> Kind:
    """A kind that changes how the storage serves."""

    def apply(troubles: Troubles, _fault: Fault) -> None:
        troubles.stage.centre.set_storage(state)

    def heal(troubles: Troubles, _fault: Fault) -> None:
        troubles.stage.centre.set_storage(StorageState.OK)

    return Kind(f"the storage is {state}: no guest can open its disks", apply, heal)


HOSTS: dict[str, Kind] = {
    "host.power_cut": Kind("loses its supply", lose_power, get_power),
    "host.reboot": Kind("reboots by itself", reboot),
    "host.libvirtd_hung": set_libvirtd(Libvirtd.HUNG),
    "host.libvirtd_down": set_libvirtd(Libvirtd.DOWN),
    "ssh.down": set_sshd(Sshd.DOWN, "its sshd refuses connections"),
    "ssh.failing": set_sshd(Sshd.FAILING, "its sshd lets the engine in, and the command fails"),
    "host.slow": Kind("takes many times as long for everything", slow_down, speed_up),
    "rack.power_cut": Kind("a whole rack loses its supply", lose_rack, power_rack),
    "bmc.dead": set_bmc(Bmc.DEAD, "the controller answers nothing"),
    "bmc.hanging": set_bmc(Bmc.HANGING, "the controller answers after every deadline"),
    "bmc.slow": set_bmc(Bmc.SLOW_S, "the controller cuts late"),
    "bmc.wrong_password": set_bmc(Bmc.WRONG_PASSWORD, "the controller refuses everything"),
    "bmc.already_off_error": set_bmc(Bmc.ALREADY_OFF_ERROR, "off twice is an error"),
    "bmc.lying": set_bmc(Bmc.LYING, "reads off and cuts nothing", outside=True),
    "storage.read_only": set_storage(StorageState.READ_ONLY),
    "storage.gone": set_storage(StorageState.GONE),
}
