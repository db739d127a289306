"""The registry finds what there is: an action is its own file, and nothing else need name it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import actions
from engine.registry import all_actions, all_queries
from tests.store.engine_room import Agents, Sealer

pytestmark = pytest.mark.unit

ACTION = """
from engine.actions.base import Action, Done, Params, Plan, Target
from engine.actions.fence_devices import AgentCheck

class TidyRack(Params):
    pass

class TidyRackAction(Action):
    params, kind = TidyRack, "rack.tidy"

    def __init__(self, agents: AgentCheck) -> None:
        self.agents = agents

    async def plan(self, tx, params, problems):
        raise NotImplementedError

    async def execute(self, tx, params, plan):
        raise NotImplementedError
"""


@pytest.fixture
def a_further_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more file in the folder of actions."""
    (tmp_path / "racks.py").write_text(ACTION)
    monkeypatch.setattr(actions, "__path__", [*actions.__path__, str(tmp_path)])
    yield
    sys.modules.pop("engine.actions.racks", None)


@pytest.mark.usefixtures("a_further_file")
def test_one_more_file_is_one_more_action_given_what_its_constructor_names() -> None:
    agents = Agents()
    found = {action.kind: action for action in all_actions(Sealer(), agents)}
    assert vars(found["rack.tidy"])["agents"] is agents
    assert "vm.start" in found


def test_nothing_is_found_twice_and_what_others_make_is_not_found() -> None:
    found = all_actions(Sealer(), Agents())
    assert len({action.kind for action in found}) == len(found)
    assert len({action.params for action in found}) == len(found)
    assert "batch" not in {action.kind for action in found}
    asked = [query.params for query in all_queries(found)]
    assert len(set(asked)) == len(asked)
