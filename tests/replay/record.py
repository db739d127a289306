"""Record histories and snapshots anew: `python -m tests.replay.record [WORD]`; read the diff.

With a word, only those with it in their name. Histories of earlier code are never recorded again.

Runs each scenario on a bench with a dev server of its own. Stack traces are emptied, since they
name this machine's folders and a replay does not read them.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.replay.golden import ALL, EARLIER, FOLDER, Golden, replay
from tests.workflow.bench import Bench, bench, quick, template
from worker.exit import exit_process
from worker.temporal_server import running_temporal


async def record_all(folder: Path, word: str = "") -> None:
    """Record everything; files of goldens that are no more are removed."""
    made_from = await template(folder)
    say = sys.stderr.write
    async with running_temporal(folder, os.environ, lambda line: None) as endpoint:
        for golden in (item for item in ALL if word in str(item.path)):
            with quick():
                async with bench(endpoint.address, made_from, folder) as made:
                    await _record(made, golden)
            say(f"recorded {golden.workflow} {golden.name}\n")
    wanted = {path for golden in (*ALL, *EARLIER) for path in (golden.path, golden.snapshot)}
    for path in set(FOLDER.rglob("*.json")) - wanted:
        path.unlink()


async def _record(made: Bench, golden: Golden) -> None:
    await made.build("h1", "h2", "h3")
    await made.watcher.start()
    async with made.workers():
        operation = await golden.pick(made, await golden.scenario(made))
        handle = made.workflow(operation, golden.attempt)
        await handle.result()
        history = await handle.fetch_history()
    write(golden.path, scrubbed(json.loads(history.to_json())))
    write(golden.snapshot, await replay(golden.read()))


def scrubbed(value: Any) -> Any:
    """A history without stack traces."""
    if isinstance(value, dict):
        return {key: "" if key == "stackTrace" else scrubbed(v) for key, v in value.items()}
    return [scrubbed(item) for item in value] if isinstance(value, list) else value


def write(path: Path, value: Any) -> None:
    """Write JSON that diffs well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def main() -> None:
    """Record, and leave as processes that used a Temporal client must."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(record_all(Path(folder), *sys.argv[1:2]))
    exit_process(0)


if __name__ == "__main__":
    main()
