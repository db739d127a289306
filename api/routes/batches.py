"""Many actions in one request."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError

from api.deps import ACTION, Answer, DoorDep, get_principal
from api.problems import RESPONSES
from api.routes.shared import Empty
from domain.errors import Invalid
from engine.actions.base import Action, Params
from engine.actions.batch import BATCH_MAX
from engine.backend import Receipt
from engine.batches import AT_ONCE, BatchOptions, check_size
from engine.views import BatchDryRunView

router = APIRouter(
    prefix="/batches", tags=["batches"], dependencies=[Depends(get_principal)], responses=RESPONSES
)

Json = dict[str, Any]
Actions = Mapping[str, Action[Any, Any]]


class BatchItem(Empty):
    """One action: its kind, such as `vm.start`, and what its own request would carry."""

    kind: Annotated[str, Field(max_length=32)]
    params: Json = Field(default_factory=dict)


class BatchBody(Empty):
    """What to do, and what becomes of the others when one of them is refused or fails."""

    actions: list[BatchItem]
    stop_on_error: bool = False
    all_or_nothing: bool = False
    at_once: Annotated[int, Field(ge=1, le=BATCH_MAX)] = AT_ONCE


@router.post(
    "", **ACTION | {"responses": {200: {"model": BatchDryRunView, "description": "A dry run"}}}
)
async def run_batch(body: BatchBody, door: DoorDep) -> Answer:
    """Ask for up to 1,000 actions of one or many kinds; each becomes an operation of its own."""
    check_size(len(body.actions))
    items = parsed(door.backend.acceptance.by_kind, body.actions)
    context, key, how = door.terms
    options = BatchOptions(
        stop_on_error=body.stop_on_error,
        all_or_nothing=body.all_or_nothing,
        at_once=body.at_once,
        lock_wait_s=how.lock_wait_s,
        priority=how.priority,
    )
    if how.dry_run:
        return _judged(await door.backend.dry_run_multiple(items, context, options))
    receipt = await door.backend.run_multiple_actions(items, context, options, key)
    return await door.show(Receipt(operation_id=receipt.operation_id, replayed=receipt.replayed))


def _judged(views: Any) -> Response:
    seen = BatchDryRunView(allowed=all(view.allowed for view in views), actions=views)
    return JSONResponse(seen.model_dump(mode="json"))


def parsed(actions: Actions, items: list[BatchItem]) -> list[Params]:
    """The parameters of each item; every field that is wrong in any of them is told at once."""
    found: list[Params] = []
    wrong: list[Json] = []
    for index, item in enumerate(items):
        where = ("body", "actions", index)
        action = actions.get(item.kind)
        if action is None or not action.external:
            wrong.append({"type": "kind_unknown", "loc": (*where, "kind"), "msg": _unknown(item)})
            continue
        own = action.own_fields & set(item.params)
        wrong += [_extra((*where, "params", name)) for name in sorted(own)]
        try:
            found.append(action.params.model_validate(item.params))
        except ValidationError as error:
            wrong += [
                {"type": one["type"], "loc": (*where, "params", *one["loc"]), "msg": one["msg"]}
                for one in error.errors(include_url=False, include_input=False)
            ]
        except Invalid as error:  # pydantic lets it through: it is no ValueError
            field = (error.context["field"],) if "field" in error.context else ()
            wrong.append(
                {"type": error.code, "loc": (*where, "params", *field), "msg": error.detail}
            )
    if wrong:
        raise RequestValidationError(wrong)
    return found


def _unknown(item: BatchItem) -> str:
    return f"there is no action {item.kind!r} to ask for; /api/v1/capabilities lists them"


def _extra(where: tuple[str | int, ...]) -> Json:
    return {"type": "extra_forbidden", "loc": where, "msg": "Extra inputs are not permitted"}
