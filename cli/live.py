"""The live tree of an operation on a terminal.

Imported only where it is shown: Rich costs a third of what the rest of this program costs to start.
"""

from collections.abc import Callable
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cli.failures import Json
from cli.progress import Node, tree
from cli.render import lasting

STYLES = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "dim",
    "needs_attention": "magenta",
    "waiting": "yellow",
    "pending": "dim",
}
REDRAWS_PER_SECOND = 8


class LiveTree:
    """Redraws the tree in place; what is running counts its seconds between two answers, too."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._operation: Json | None = None
        self._note = ""
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            self,
            console=Console(stderr=True, highlight=False),
            refresh_per_second=REDRAWS_PER_SECOND,
        )

    def __enter__(self) -> "LiveTree":
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *reason: object) -> None:
        """Draw for the last time and give the terminal back."""
        self._live.stop()

    def update(self, operation: Json) -> None:
        """Show how the operation stands."""
        self._operation, self._note = operation, ""

    def note(self, line: str) -> None:
        """Show a line below the tree until the next update."""
        self._note = line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The tree as it stands this moment."""
        if self._operation is not None:
            table = Table.grid(padding=(0, 1))
            table.add_column()
            table.add_column(overflow="fold")
            table.add_column(justify="right", no_wrap=True)
            for node in tree(self._operation, folded=True):
                table.add_row(*self._row(node))
            yield table
        if self._note:
            yield Text(self._note, style="yellow")

    def _row(self, node: Node) -> tuple[Spinner | Text, Text, Text]:
        style = STYLES.get(node.state, "cyan")
        icon = self._spinner if node.state == "running" else Text(node.icon, style=style)
        line = Text("  " * node.depth)
        line.append(node.title, style="bold" if node.depth == 0 else "")
        if node.state not in ("running", "succeeded") or node.tries > 1 or node.note:
            line.append(f"  {node.told()}", style="dim" if node.state == "succeeded" else style)
        return icon, line, Text(lasting(node.took_s(self._now())), style="dim")
