"""A host dies while what the engine rests on is away: it is recovered once that is back.

The engine keeps its rows in a real PostgreSQL here, so that the database can go without it.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.lab.center import Center, running_center, until
from tests.store.conftest import new_cluster, new_database
from tests.store.postgres import Cluster

pytestmark = [pytest.mark.lab, pytest.mark.slow]

ROUNDS = 6
"""Polls that the monitor makes without the database: more than the profile needs to be sure."""


@pytest.fixture(scope="module")
def database() -> Iterator[Cluster]:
    server = new_cluster()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def running(fresh_lab: Lab, engine_var: Path, database: Cluster) -> Iterator[Center]:
    url = database.url(asyncio.run(new_database(database, "template1")))
    with running_center(fresh_lab, engine_var, "fast", database_url=url) as found:
        yield found


@pytest.fixture
def center(running: Center) -> Center:
    running.settle()
    return running


@contextmanager
def temporal_away(center: Center, back: signal.Signals) -> Iterator[None]:
    """Frozen; it goes on afterwards, or is ended and started again."""
    server = center.engine.endpoint.server
    assert server is not None
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, back)


def arming(center: Center, verb: str) -> None:
    assert center.act(f"/clusters/{center.cluster_id}/actions/{verb}")["state"] == "succeeded"


@pytest.mark.parametrize("back", [signal.SIGCONT, signal.SIGKILL], ids=["hung", "dead"])
def test_a_host_that_dies_while_temporal_is_away_can_be_held_at_once_and_is_recovered_after(
    center: Center, back: signal.Signals
) -> None:
    vm = center.running_vm("orphan", "h1")
    known = len(center.incidents("h1"))
    with center.lab.sampler() as sampler:
        with temporal_away(center, back):
            center.lab.crash("h1")
            incident = center.new_incident("h1", known)
            arming(center, "disarm")
            assert center.get(f"/operations/{incident['operation_id']}")["state"] == "pending"
        try:
            assert center.waiting(incident)["reason_code"] == "DISARMED"
            assert sampler.result().hosts_of(vm.name) == ()
            assert center.get(f"/incidents/{incident['id']}")["certificate"] is None
        finally:
            arming(center, "arm")
        assert center.closed(incident["id"])["outcome"] == "recovered"
        assert len(center.incidents("h1")) == known + 1
        center.assert_one_copy_each(sampler.result(), vm)


def unrecorded_polls(center: Center) -> int:
    log = center.engine.settings.var / "log" / "monitor.log"
    return log.read_text().count("monitor polls without the database")


def test_a_host_that_dies_while_the_database_is_away_is_recovered_when_it_is_back(
    center: Center, database: Cluster
) -> None:
    vm = center.running_vm("unwritten", "h1")
    known, before = len(center.incidents("h1")), unrecorded_polls(center)
    with center.lab.sampler() as sampler:
        database.stop()
        try:
            center.lab.crash("h1")
            until(lambda: unrecorded_polls(center) >= before + ROUNDS, "the monitor polls on")
            disarm = f"/clusters/{center.cluster_id}/actions/disarm"
            assert center.refused(disarm) == (503, "DATABASE_UNAVAILABLE")
            assert sampler.result().hosts_of(vm.name) == ()
        finally:
            database.start()
        incident = center.closed(center.new_incident("h1", known)["id"])
        assert incident["outcome"] == "recovered"
        assert len(center.incidents("h1")) == known + 1
        center.assert_one_copy_each(sampler.result(), vm)
