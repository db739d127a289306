"""Half a surrogate pair is refused wherever it stands in what a caller says."""

from typing import Any

import pytest
from pydantic import SecretStr

from domain.errors import Invalid
from engine.actions.fence_devices import AddFenceDevice, EditFenceDevice
from store.ids import new_id

pytestmark = pytest.mark.unit

HALF = "open\ud800sesame"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("secrets", {"password": HALF}),
        ("secrets", {"password": SecretStr(HALF)}),
        ("secrets", {"\udfff": "x"}),
        ("options", {"username": HALF}),
        ("options", {"\ud800": "x"}),
    ],
    ids=["secret", "built-secret", "name-of-secret", "option", "name-of-option"],
)
def test_half_a_character_is_refused_without_being_repeated(field: str, value: Any) -> None:
    for params, own in (
        (AddFenceDevice, {"host_id": new_id(), "name": "b", "agent": "fence_ipmilan"}),
        (EditFenceDevice, {"fence_device_id": new_id()}),
    ):
        with pytest.raises(Invalid) as refused:
            params(**own | {field: value})
        assert (refused.value.code, refused.value.context["field"]) == ("TEXT_MALFORMED", field)
        assert "sesame" not in str(refused.value)


def test_whole_characters_of_every_plane_are_taken() -> None:
    options = {"username": "Ünï\U0001f600"}
    params = AddFenceDevice(host_id=new_id(), name="b", agent="fence_ipmilan", options=options)
    assert params.options == options
