"""What goes wrong with guests by themselves."""

from domain.readings import StateReason
from simulator.faults.people import home_of, vm_of
from simulator.faults.plan import Fault
from simulator.faults.troubles import Kind, Troubles


def crash(troubles: Troubles, fault: Fault) -> None:
    """Its QEMU is gone without a word."""
    _end(troubles, fault, "crashed", StateReason.CRASHED)


def shut_down(troubles: Troubles, fault: Fault) -> None:
    """Somebody inside switches it off."""
    _end(troubles, fault, "shut down from inside", StateReason.SHUTDOWN)


def fail_io(troubles: Troubles, fault: Fault) -> None:
    """A disk fails it, and QEMU pauses it."""
    vm_id = vm_of(troubles, fault)
    home = home_of(troubles, vm_id)
    if home is not None:
        home.fail_io(vm_id)


def hang(troubles: Troubles, fault: Fault) -> None:
    """It does nothing any more, and its QEMU runs on."""
    vm_id = vm_of(troubles, fault)
    home = home_of(troubles, vm_id)
    if home is not None:
        home.hang(vm_id)


def _end(troubles: Troubles, fault: Fault, why: str, reason: StateReason) -> None:
    vm_id = vm_of(troubles, fault)
    home = home_of(troubles, vm_id)
    if home is not None:
        home.end(vm_id, why, reason)


GUESTS: dict[str, Kind] = {
    "guest.crash": Kind("a guest's QEMU is gone without a word", crash),
    "guest.hang": Kind("a guest does nothing any more, and its QEMU runs on", hang),
    "guest.io_error": Kind("a disk fails a guest, and QEMU pauses it", fail_io),
    "guest.shutdown": Kind("a guest is shut down from inside", shut_down),
}
