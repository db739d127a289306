"""A partial change of a VM says exactly what it was given, through JSON and back."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.actions.vm_config import EditVm, VmChanges
from store.ids import new_id

pytestmark = pytest.mark.unit

GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(VmChanges.model_fields)), GARBAGE, max_size=3))
@settings(max_examples=300, deadline=None)
def test_garbage_is_refused_or_kept_exactly_as_it_was_said(said: dict[str, Any]) -> None:
    try:
        edit = EditVm.model_validate({"vm_id": new_id()} | said)
    except ValidationError:
        return
    again = EditVm.model_validate(edit.model_dump(mode="json"))
    assert (again, again.model_fields_set) == (edit, edit.model_fields_set)
    assert edit.model_fields_set == set(said) | {"vm_id"}


@pytest.mark.parametrize("field", ["budget_s", "boot"])
def test_null_and_absent_differ_where_null_is_a_value(field: str) -> None:
    taken_away = EditVm.model_validate({"vm_id": new_id(), field: None})
    assert taken_away.model_dump()[field] is None
    assert field not in EditVm(vm_id=new_id()).model_dump()
