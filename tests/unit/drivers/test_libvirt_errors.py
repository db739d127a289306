"""Answers of libvirtd that mean something to the engine, by their codes and texts."""

import libvirt
import pytest

from drivers.libvirt_errors import answered

pytestmark = pytest.mark.unit


def refusal(code: int, text: str) -> libvirt.libvirtError:
    """An error as libvirt's binding raises it."""
    error = libvirt.libvirtError("refused")
    error.err = (code, libvirt.VIR_FROM_QEMU, text, 2, "", None, None, 0, 0)
    return error


def test_a_disk_that_is_not_there_is_named_with_what_to_do() -> None:
    text = "Cannot access storage file '/srv/vms/a.img': No such file or directory"
    found = answered("h1", True, refusal(libvirt.VIR_ERR_SYSTEM_ERROR, text))
    assert (found.code, found.status) == ("DISK_MISSING", 409)
    assert "/srv/vms/a.img" in found.detail
    assert found.next_step


def test_any_other_refusal_keeps_the_words_of_libvirtd() -> None:
    for code, text in (
        (libvirt.VIR_ERR_SYSTEM_ERROR, "cannot fork child process"),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "Cannot access storage file"),
    ):
        found = answered("h1", True, refusal(code, text))
        assert found.code == "HYPERVISOR_REFUSED"
        assert text in found.detail
