"""A share of what `python -m benchmarks kills` does in full: one process killed a recovery.

The worker at each step stands in `test_crashes.py`; here are the processes that do not run the step
at which they are killed, and Temporal.
"""

from collections.abc import Callable, Iterator

import pytest

from lab.lab import Lab
from tests.lab.kills import HOSTS, VMS, Kills, Pair, killing

pytestmark = [pytest.mark.lab, pytest.mark.slow]

Figure = Callable[[str], None]

SHARE = (
    Pair("relay", "accepted"),
    Pair("api", "end:RecoverHost:recovery.claim_victims"),
    Pair("temporal", "claimed"),
)


@pytest.fixture(scope="module")
def kills(
    tmp_path_factory: pytest.TempPathFactory, own_lab_for_module: Callable[[int], Lab]
) -> Iterator[Kills]:
    lab = own_lab_for_module(HOSTS)
    lab.up()
    with killing(lab, tmp_path_factory.mktemp("engine")) as found:
        yield found


@pytest.mark.parametrize("pair", SHARE, ids=lambda pair: f"{pair.process}-{pair.point}")
def test_whichever_process_is_killed_at_a_step_all_ten_vms_run_again_exactly_once(
    kills: Kills, pair: Pair, figure: Figure
) -> None:
    round_ = kills.round(pair)
    assert (round_.back_once, round_.wrong) == (VMS, ())
    figure(f"all of {VMS} VMs run again {round_.took_s:.2f} s after the last answer")
