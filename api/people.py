"""The people of a site: who each is, in which role, and the digest of the token that says so.

They are kept in one file that only its owner reads. A token is made of 32 random bytes, so its
plain SHA-256 is as hard to turn back as the token is to guess; the token itself is kept nowhere.

The file is written whole and renamed into place, and read again when it has changed: whoever was
removed is refused at the next request, without a restart of any process.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints, TypeAdapter, ValidationError

from domain.base import Frozen
from domain.errors import Conflict, Denied, Invalid, NotFound
from domain.permissions import Role

ADMIN = "admin"
"""Whoever holds the token of the embedded engine."""

GIVEN = (Role.ADMIN, Role.OPERATOR, Role.AUTOMATION, Role.VIEWER)
"""Roles that people have; the others are the engine's own parts."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@-]{0,62}$")]


class Person(Frozen):
    """One who may ask: the role, and the SHA-256 of the token in hexadecimal."""

    role: Role
    token_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


FILE = TypeAdapter(dict[Name, Person])


def people_file(var: Path) -> Path:
    """Where an embedded engine keeps them."""
    return var / "people.json"


class People(Mapping[str, Role]):
    """Names and roles as the file says now; without a file there is `admin` alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, ...], dict[str, Person]] = ((), {})

    def __getitem__(self, name: str) -> Role:
        return Role.ADMIN if name == ADMIN else self._now()[name].role

    def __iter__(self) -> Iterator[str]:
        yield ADMIN
        yield from self._now()

    def __len__(self) -> int:
        return 1 + len(self._now())

    def holder(self, token: str) -> str | None:
        """Whose token this is; None when it is nobody's."""
        digest = _digest(token)
        found = None
        for name, person in self._now().items():  # all of them: the time tells nothing
            if hmac.compare_digest(person.token_sha256, digest):
                found = name
        return found

    def add(self, name: str, role: Role) -> str:
        """Let somebody in; the token, which is told this once. Conflict when the name is taken."""
        if role not in GIVEN or name == ADMIN:
            raise Invalid(
                "PERSON_RESERVED",
                f"{name} as {role.value} is one of the engine's own",
                next_step=f"take another name, and one of {', '.join(GIVEN)}",
            )
        token = f"holdfast_{secrets.token_urlsafe(32)}"
        with self._changing() as people:
            if name in people:
                raise Conflict(
                    "PERSON_EXISTS",
                    f"{name} has a token already, as {people[name].role.value}",
                    next_step=f"`holdfast token remove {name}` ends it",
                )
            people[name] = _person(name, role, token)
        return token

    def remove(self, name: str) -> None:
        """Let somebody in no more, from the next request on. NotFound when nobody is so called."""
        with self._changing() as people:
            if people.pop(name, None) is None:
                raise NotFound(
                    "PERSON_UNKNOWN",
                    f"nobody is called {name}",
                    next_step="`holdfast token list` names everybody",
                )

    def _now(self) -> dict[str, Person]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return {}
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode)
        if self._read[0] != stamp:
            self._read = (stamp, _read(self._path))
        return self._read[1]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Person]]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            people = dict(_read(self._path)) if self._path.exists() else {}
            yield people
            _write(self._path, people)
        finally:
            os.close(lock)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _person(name: str, role: Role, token: str) -> Person:
    person = Person(role=role, token_sha256=_digest(token))
    try:
        FILE.validate_python({name: person})
    except ValidationError as error:
        raise Invalid(
            "PERSON_NAME",
            f"{name!r} is no name: 1 to 63 of a-z, 0-9, '.', '_', '@', '-'",
            next_step="take another name",
        ) from error
    return person


def _read(path: Path) -> dict[str, Person]:
    with path.open() as file:
        exposed = os.fstat(file.fileno()).st_mode & 0o077
        text = file.read()
    if exposed:
        raise Denied(
            "PEOPLE_EXPOSED", f"{path} can be read by others", next_step=f"chmod 600 {path}"
        )
    try:
        return FILE.validate_json(text)
    except ValidationError as error:
        raise Denied(
            "PEOPLE_UNREADABLE",
            f"{path} is not what `holdfast token` writes ({error.error_count()} faults)",
            next_step="restore it, or remove it and give new tokens",
        ) from error


def _write(path: Path, people: dict[str, Person]) -> None:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(FILE.dump_python(people, mode="json"), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
