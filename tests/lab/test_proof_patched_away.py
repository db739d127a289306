"""What the certificate is for: without its checks an isolated host's VMs run twice.

This proves that the sampler sees second copies, and so that the other tests mean something.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.lab.center import Center, planted, running_center, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.fixture(scope="module")
def center(fresh_lab: Lab, engine_var: Path) -> Iterator[Center]:
    command = planted("fencing", plant="no_certificate_check")
    with running_center(fresh_lab, engine_var, "fast", command) as found:
        yield found


def test_without_the_certificate_check_an_isolated_hosts_vm_runs_twice_and_the_sampler_sees_it(
    center: Center,
) -> None:
    vm = center.running_vm("twice", "h1")
    with center.lab.sampler() as sampler:
        center.recover_from("h1", center.lab.isolate)
        until(lambda: sampler.result().copies_max(vm.name) == 2, "the sampler sees two copies")
        samples = sampler.result()
    assert "h1" in samples.hosts_of(vm.name)
    assert vm.name in samples.doubled()
    assert samples.rate_hz >= 5
