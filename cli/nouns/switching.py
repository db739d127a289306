"""Arming and disarming one cluster, or every cluster of an engine."""

import uuid
from dataclasses import replace

from cli.failures import Exit, Failure, Json, failure
from cli.session import Act
from cli.terminal import clean, say


def switch(act: Act, verb: str, cluster: str | None, body: Json, *, everywhere: bool) -> None:
    """Ask for one cluster, or for all of them; Failure unless each request was taken."""
    if (cluster is None) is not everywhere:
        raise failure(Exit.USAGE, "CLUSTER_OR_ALL", "name one cluster, or all of them with --all")
    if cluster is None:
        _Everywhere(act, verb, body).run()
        return
    found = act.asked(lambda: act.api.find("cluster", cluster))
    act.run(f"/clusters/{found['id']}/actions/{verb}", body)


class _Everywhere:
    """One cluster after the other, and the others though one is refused: each is safer than none.

    By requests of their own, since a batch would wait for Temporal. Those that could not be asked
    for are asked for again in rounds, so that none waits behind another.
    """

    def __init__(self, act: Act, verb: str, body: Json) -> None:
        self._act, self._verb, self._body = act, verb, body
        self._key = act.idempotency_key or str(uuid.uuid4())
        self._left: list[Json] = []
        self._refused: list[Failure] = []

    def run(self) -> None:
        """Failure: the first of what was refused, or of what is still not taken."""
        self._left = self._act.asked(lambda: self._act.api.all("/clusters"))
        try:
            self._act.asked(self._ask_those_left)
        except KeyboardInterrupt:
            raise self._interrupted() from None
        except Failure as error:
            self._refused.append(error)
            for one in self._left:
                say(f"{clean(one['name'])}: {error.document['detail']}")
        if self._refused:
            raise self._refused[0]

    def _ask_those_left(self) -> None:
        away: Failure | None = None
        for one in tuple(self._left):
            # One key makes one request safe to repeat, so each cluster's has one of its own.
            key = f"{self._key}-{one['id']}"
            asking = replace(self._act, idempotency_key=key, trying=None)
            try:
                asking.run(f"/clusters/{one['id']}/actions/{self._verb}", self._body)
            except Failure as error:
                if error.code is Exit.UNREACHABLE:
                    away = away or error
                    continue
                say(f"{clean(one['name'])}: {error.document['detail']}")
                self._refused.append(error)
            self._left.remove(one)
        if away is not None:
            away.document["next_step"] = self._again()
            raise away

    def _again(self) -> str:
        return f"the same command with --idempotency-key {self._key} asks for those that are left"

    def _interrupted(self) -> Failure:
        names = ", ".join(str(one["name"]) for one in self._left)
        return failure(
            Exit.INTERRUPTED,
            "INTERRUPTED",
            f"not known to be taken: {names}",
            next_step=self._again(),
            idempotency_key=self._key,
        )
