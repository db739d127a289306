"""What somebody reads while seeds run for hours."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli.simulate_run import _Progress
from simulator.campaign import Tally

pytestmark = pytest.mark.unit


def bad(seed: int) -> Any:
    return cast(
        Any, SimpleNamespace(seed=seed, inside=("1.0 s  one_copy: [vm1] twice",), defects=())
    )


@pytest.mark.parametrize("quiet", [False, True])
def test_a_violation_is_told_with_its_seed_before_the_last_seed_has_run(
    quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with _Progress(quiet=quiet) as told:
        told.tell(Tally(), bad(41))
        told.tell(Tally(), cast(Any, SimpleNamespace(seed=42, inside=(), defects=())))
    said = capsys.readouterr().err
    assert said == ("" if quiet else "seed 41: 1.0 s  one_copy: [vm1] twice\n")
