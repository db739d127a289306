"""What travels between a fleet and the engine's processes comes out as it went in."""

import asyncio
import inspect
import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from activities.ports import Hypervisor, HypervisorSession, PowerSwitch
from domain.errors import (
    Conflict,
    EngineError,
    Invalid,
    NoAnswer,
    OutcomeUnknown,
    Superseded,
    Unavailable,
)
from domain.foreign import ForeignGuest
from domain.inventory import FenceDevice, GuestSpec, PowerReading, VirtType
from domain.readings import Domain, DomainState, GuestStats, HostReading, Knock
from simulator.fleet.control import Control
from simulator.fleet.wire import (
    ERRORS,
    Answered,
    Asked,
    Failed,
    codec,
    failed,
    read_answered,
    read_asked,
    read_line,
    rebuilt,
    written,
)

pytestmark = pytest.mark.unit

VM, CLAIM = uuid4(), uuid4()
SPEC = GuestSpec(vm_id=VM, name="db", memory_mib=128, vcpus=1, virt_type=VirtType.KVM)
DEVICE = FenceDevice(id=uuid4(), host_id=uuid4(), name="bmc-h1", agent="fence_sim", options={})
DOMAIN = Domain(vm_id=VM, name="db", state=DomainState.RUNNING, generation=3)
READING = HostReading(
    guests=(GuestStats(vm_id=VM, name="db", state=DomainState.RUNNING, memory_kib=5),),
    boot_mark=None,
    memory_total_mib=9,
    memory_free_mib=4,
    cpus=2,
    took_s=0.25,
)
GUEST = ForeignGuest(
    guest_id=VM,
    name="old",
    state=DomainState.PAUSED,
    memory_mib=1,
    vcpus=1,
    virt_type="kvm",
    lost=("a", "b"),
)


@pytest.mark.parametrize(
    ("method", "args"),
    [
        (HypervisorSession.define, (SPEC, 7)),
        (HypervisorSession.adopt, (VM, 1, CLAIM)),
        (HypervisorSession.describe_foreign, (VM,)),
        (HypervisorSession.describe_foreign, ("old",)),
        (Hypervisor.poll, ("qemu+tcp://h1/system", 0.8)),
        (PowerSwitch.off, (DEVICE,)),
    ],
)
def test_arguments_come_out_as_they_went_in(method: Any, args: tuple[Any, ...]) -> None:
    sent = written(Asked(port="P", call="c", args=codec(method).write_args(args)))
    assert codec(method).read_args(read_asked(sent).args) == args


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (HypervisorSession.domains, (DOMAIN, DOMAIN)),
        (HypervisorSession.lookup, None),
        (HypervisorSession.lookup, DOMAIN),
        (HypervisorSession.create, None),
        (HypervisorSession.list_foreign, (GUEST,)),
        (HypervisorSession.boot_mark, 4),
        (Hypervisor.session, None),
        (Hypervisor.poll, READING),
        (Hypervisor.knock, Knock.REFUSED),
        (PowerSwitch.read, PowerReading.OFF),
    ],
)
def test_answers_come_out_as_they_went_in(method: Any, answer: Any) -> None:
    sent = written(Answered(value=codec(method).write_answer(answer)))
    assert codec(method).read_answer(read_answered(sent).value) == answer


def test_every_method_of_every_port_can_be_written() -> None:
    ports = (Hypervisor, HypervisorSession, PowerSwitch, Control)
    methods = [
        method
        for port in ports
        for name, method in vars(port).items()
        if inspect.isfunction(method) and not name.startswith("_")
    ]
    assert len(methods) > 25
    for method in methods:
        codec(method)


@pytest.mark.parametrize("kind", ERRORS.values(), ids=lambda kind: kind.__name__)
def test_an_error_arrives_as_its_own_class_with_all_it_says(kind: type[EngineError]) -> None:
    error = kind("A_CODE", "what went wrong", next_step="do this", host="h1", epoch=3)
    error.problems = (Conflict("ONE", "first"), Superseded("TWO", "second"))
    sent = written(Answered(error=failed(error)))
    told = read_answered(sent).error
    assert told is not None
    found = rebuilt(told)
    assert type(found) is kind
    assert str(found) == str(error)
    assert (found.code, found.detail, found.next_step) == ("A_CODE", "what went wrong", "do this")
    assert found.context == {"host": "h1", "epoch": 3}
    assert [(type(p), p.code) for p in found.problems] == [(Conflict, "ONE"), (Superseded, "TWO")]
    assert found.retryable == error.retryable


def test_every_error_of_the_domain_can_travel() -> None:
    assert {NoAnswer, OutcomeUnknown, Invalid, EngineError} <= set(ERRORS.values())
    assert len(ERRORS) == 10


def test_an_error_of_a_class_that_nobody_knows_may_pass() -> None:
    assert type(rebuilt(Failed(kind="OSError", code="C", detail="d"))) is Unavailable


@pytest.mark.parametrize(
    "line", [b"\n", b"{}\n", b"[1]\n", b"\xff\xfe\n", b'{"port":1,"call":"x"}\n', b'{"a":1}\n']
)
def test_what_is_no_call_is_refused(line: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        read_asked(line)
    assert refused.value.code == "FLEET_MESSAGE_INVALID"


@pytest.mark.parametrize("args", [(), ("x", 1), ("no id", 1), (str(VM), "one"), (str(VM), 1, 2)])
def test_arguments_that_do_not_fit_the_method_are_refused(args: tuple[Any, ...]) -> None:
    with pytest.raises(Invalid) as refused:
        codec(HypervisorSession.create).read_args(args)
    assert refused.value.code == "FLEET_MESSAGE_INVALID"


def test_an_answer_of_another_type_is_refused() -> None:
    with pytest.raises(Invalid):
        codec(PowerSwitch.read).read_answer("perhaps")
    with pytest.raises(Invalid):
        codec(Hypervisor.poll).read_answer({"guests": []})


def test_a_message_is_one_line_whatever_it_holds() -> None:
    sent = written(Asked(port="P", call="c", args=("a\nb\u2028c",)))
    assert sent.count(b"\n") == 1
    assert json.loads(sent)["args"] == ["a\nb\u2028c"]


async def test_half_a_line_is_no_message_and_a_line_without_end_is_refused() -> None:
    reader = asyncio.StreamReader(limit=64)
    reader.feed_data(b'{"port"')
    reader.feed_eof()
    assert await read_line(reader) is None
    endless = asyncio.StreamReader(limit=64)
    endless.feed_data(b"x" * 1000)
    with pytest.raises(Invalid):
        await read_line(endless)


def test_a_uuid_stays_a_uuid_where_a_name_is_allowed_too() -> None:
    (found,) = codec(HypervisorSession.describe_foreign).read_args((str(VM),))
    assert isinstance(found, UUID)
