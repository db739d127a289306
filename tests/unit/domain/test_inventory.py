"""Facts refuse garbage when they are built, and never change afterwards."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from domain.inventory import (
    ACTIVE_RUN_STATES,
    Boot,
    Disk,
    FenceDevice,
    GuestSpec,
    RunState,
    VirtType,
)
from domain.readings import ALIVE_STATES, Domain, DomainState
from tests.unit.domain.builders import id_of

pytestmark = pytest.mark.unit

BAD_PATHS = [
    "",
    "/",
    "disk.img",
    "./disk.img",
    " /disk.img",
    "nbd://10.0.0.1/disk",
    "/srv/disk.img\n",
    "/srv/disk\nimg",
    "\n/srv/disk.img",
    "/srv/disk\x00.img",
    "/" + "x" * 1024,
]
SPEC: dict[str, Any] = {
    "vm_id": id_of("db"),
    "name": "db",
    "memory_mib": 128,
    "vcpus": 1,
    "virt_type": "qemu",
}
DEVICE: dict[str, Any] = {
    "id": id_of("bmc"),
    "host_id": id_of("h1"),
    "name": "h1-bmc",
    "agent": "fence_ipmilan",
    "options": {"ip": "10.0.0.1"},
}


def refused_fields(model: type[BaseModel], values: dict[str, Any]) -> set[str]:
    """Names of the fields a model objects to."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return {str(error["loc"][0]) for error in caught.value.errors()}


@pytest.mark.parametrize("path", ["/a", "/srv/vm 1/disk.img", "/srv/büro.raw", "/" + "x" * 1023])
def test_an_absolute_path_is_taken_as_it_is(path: str) -> None:
    assert Disk(path=path).path == path
    assert Boot(kernel=path, initrd=path).initrd == path


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: ascii(path)[:24])
def test_a_path_that_is_not_absolute_or_not_one_line_is_refused(path: str) -> None:
    assert refused_fields(Disk, {"path": path}) == {"path"}
    assert refused_fields(Boot, {"kernel": path}) == {"kernel"}
    assert refused_fields(Boot, {"kernel": "/vmlinuz", "initrd": path}) == {"initrd"}


@pytest.mark.parametrize("name", ["", "RAW", "vmdk", "raw\n", "raw|qcow2", "xraw"])
def test_a_disk_of_another_format_is_refused(name: str) -> None:
    assert refused_fields(Disk, {"path": "/d", "format": name}) == {"format"}


@pytest.mark.parametrize("name", ["raw", "qcow2"])
def test_a_disk_of_a_known_format_is_taken(name: str) -> None:
    assert Disk(path="/d", format=name).format == name


def test_a_kernel_command_line_has_a_limit() -> None:
    assert Boot(kernel="/k", cmdline="x" * 2048).initrd is None
    assert refused_fields(Boot, {"kernel": "/k", "cmdline": "x" * 2049}) == {"cmdline"}


@pytest.mark.parametrize(
    "agent",
    [
        "",
        "fence_",
        "ipmilan",
        "/usr/sbin/fence_ipmilan",
        "../fence_ipmilan",
        "fence_/../sh",
        "fence_IPMI",
        "fence_ipmilan -o off",
        "fence_ipmilan;id",
        "fence_ipmilan\n",
        "fence_" + "x" * 59,
    ],
)
def test_a_fence_agent_is_a_plain_name_of_a_fence_agent(agent: str) -> None:
    assert refused_fields(FenceDevice, {**DEVICE, "agent": agent}) == {"agent"}


@pytest.mark.parametrize("agent", ["fence_ipmilan", "fence_apc_snmp", "fence_x", "fence_dummy2"])
def test_any_fence_agent_is_taken_by_name(agent: str) -> None:
    device = FenceDevice.model_validate({**DEVICE, "agent": agent})
    assert (device.agent, device.deadline_s) == (agent, 10)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Disk, {"path": "/d"}),
        (Boot, {"kernel": "/k"}),
        (GuestSpec, SPEC),
        (FenceDevice, DEVICE),
        (Domain, {"vm_id": id_of("db"), "name": "db", "state": "running", "generation": 1}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_misspelt_field_is_an_error_and_a_fact_never_changes(
    model: type[BaseModel], values: dict[str, Any]
) -> None:
    assert refused_fields(model, {**values, "pasword": "x"}) == {"pasword"}
    fact = model.model_validate(values)
    field = next(iter(values))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(fact, field, values[field])
    assert model.model_validate_json(fact.model_dump_json()) == fact


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vm_id", "db"),
        ("name", None),
        ("memory_mib", "much"),
        ("memory_mib", 1.5),
        ("vcpus", None),
        ("virt_type", "xen"),
        ("disks", [{"path": "relative"}]),
        ("boot", {"kernel": "relative"}),
    ],
)
def test_a_guest_is_refused_for_the_field_that_is_garbage(field: str, value: object) -> None:
    assert refused_fields(GuestSpec, {**SPEC, field: value}) == {field}


@pytest.mark.parametrize("field", sorted(SPEC))
def test_a_guest_lacks_nothing_that_a_host_needs(field: str) -> None:
    assert refused_fields(GuestSpec, {k: v for k, v in SPEC.items() if k != field}) == {field}


def test_a_guest_without_more_words_has_no_disk_and_no_kernel() -> None:
    spec = GuestSpec.model_validate(SPEC)
    assert (spec.virt_type, spec.disks, spec.boot) == (VirtType.QEMU, (), None)


def test_a_run_is_active_until_it_has_ended_or_is_lost() -> None:
    assert set(ACTIVE_RUN_STATES) == set(RunState) - {RunState.ENDED, RunState.LOST}
    assert len(ACTIVE_RUN_STATES) == len(set(ACTIVE_RUN_STATES))


@pytest.mark.parametrize("state", DomainState)
def test_only_a_domain_that_is_off_or_crashed_may_not_write_any_more(state: DomainState) -> None:
    domain = Domain(vm_id=id_of("db"), name="db", state=state, generation=None)
    assert domain.alive is (state not in {DomainState.SHUTOFF, DomainState.CRASHED})
    assert (state in ALIVE_STATES) is domain.alive
