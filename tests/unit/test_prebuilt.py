"""Statements that are built once are given their values anew, and never look at them."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from store.columns import metadata
from store.prebuilt import NAMES, like, prebuilt
from store.schema import operation

pytestmark = pytest.mark.unit

STORE = Path(__file__).resolve().parents[2] / "store"


def test_a_statement_is_built_once_and_takes_other_values_each_time() -> None:
    built = []

    @prebuilt
    def get(operation_id: UUID, /) -> sa.Select[Any]:
        built.append(operation_id)
        return sa.select(operation).where(operation.c.id == operation_id)

    ids = (uuid4(), uuid4())
    first, second = (get(each) for each in ids)
    assert len(built) == 1
    assert first.statement is second.statement
    assert [list(bound.values.values()) for bound in (first, second)] == [[each] for each in ids]


def test_each_shape_is_a_statement_of_its_own() -> None:
    @prebuilt
    def listing(*values: object, columns: tuple[str, ...]) -> sa.Select[Any]:
        query = sa.select(operation.c.id)
        for column, value in zip(columns, values, strict=True):
            query = query.where(operation.c[column] == value)
        return query

    kinds = listing("vm.start", columns=("kind",))
    both = listing("vm.start", "pending", columns=("kind", "state"))
    assert kinds.statement is listing("vm.stop", columns=("kind",)).statement
    assert "state" not in str(kinds.statement)
    assert "state" in str(both.statement)


def test_a_placeholder_has_the_type_of_its_column() -> None:
    @prebuilt
    def close(now: object, problem: object, /) -> sa.Update:
        first = sa.func.coalesce(operation.c.started_at, like(now, operation.c.started_at))
        return operation.update().values(problem=problem, finished_at=now, started_at=first)

    statement: Any = close(None, None).statement
    binds = statement.compile(dialect=sqlite.dialect()).binds.values()
    types = {bind.key: type(bind.type) for bind in binds}
    assert types[NAMES[0]] is type(operation.c.finished_at.type)
    assert types[NAMES[1]] is sa.JSON


def test_no_column_is_named_as_a_placeholder() -> None:
    names = {column.name for table in metadata.tables.values() for column in table.columns}
    assert names.isdisjoint(NAMES)


def builders() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted(STORE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(each, ast.Name) and each.id == "prebuilt" for each in node.decorator_list
            ):
                yield path.name, node


def looked_at(builder: ast.FunctionDef) -> list[str]:
    """Where a builder asks something of a value that it does not have."""
    given = {arg.arg for arg in (*builder.args.posonlyargs, *builder.args.args)}
    found = []
    for node in ast.walk(builder):
        match node:
            case ast.Attribute(value=ast.Name(id=name)) | ast.Subscript(value=ast.Name(id=name)):
                looks = [name]
            case ast.Compare(left=left, ops=ops, comparators=right) if any(
                isinstance(op, ast.Is | ast.IsNot | ast.In | ast.NotIn) for op in ops
            ):
                looks = [each.id for each in (left, *right) if isinstance(each, ast.Name)]
            case ast.If(test=ast.Name(id=name)) | ast.IfExp(test=ast.Name(id=name)):
                looks = [name]
            case ast.JoinedStr(values=parts):
                looks = [n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)]
            case ast.Call(func=ast.Name(id="len" | "str" | "int" | "sorted" | "list"), args=args):
                looks = [each.id for each in args if isinstance(each, ast.Name)]
            case _:
                continue
        found += [f"{builder.name}: {name}" for name in looks if name in given]
    return found


def test_no_builder_looks_at_a_value() -> None:
    all_of_them = list(builders())
    assert len(all_of_them) > 40, "the rule would hold for an empty store, too"
    assert [f"{path} {look}" for path, each in all_of_them for look in looked_at(each)] == []


def test_values_stand_before_the_slash_so_that_none_is_taken_for_a_shape() -> None:
    by_name = [f"{path} {each.name}" for path, each in builders() if each.args.args]
    assert by_name == []


@pytest.mark.parametrize(
    "body",
    ["state.value", "why[:10]", "1 if why is None else 2", "f'{why}'", "len(why)", "why in x"],
)
def test_the_rule_sees_a_builder_that_looks(body: str) -> None:
    (builder,) = ast.parse(f"def build(state, why, /, *, x): return {body}").body
    assert isinstance(builder, ast.FunctionDef)
    assert len(looked_at(builder)) == 1
