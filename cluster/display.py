"""What a person sees of a run: the live view on a terminal, alerts as lines, the closing summary. Nothing here decides."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import IO, Any

import orjson

from cluster.core.watermark import NEVER_S
from cluster.runtime.job import Status
from cluster.sinks import standard_output_failing
from cluster.wording import counted

_SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "INFO")
_COLOURS = {"CRITICAL": "bold white on red", "HIGH": "bold red", "MEDIUM": "yellow", "LOW": "cyan", "INFO": "dim"}


class Display:
    """The driver's face. Without a terminal it prints records only."""

    def __init__(
        self, outputs: dict[str, str], *, live: bool, human_alerts: IO[str] | None, quiet: bool = False
    ) -> None:
        self._quiet = quiet
        self._outputs = outputs
        self._live_wanted = live
        self._human_alerts = human_alerts
        self._live: Any = None
        self.severities: Counter[str] = Counter()
        """How many alerts of each came."""
        self._seen: list[tuple[float, int]] = []
        self._note = ""

    def __enter__(self) -> Display:
        if self._live_wanted:
            from rich.console import Console
            from rich.live import Live

            self._console = Console(stderr=True)
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None

    def lines(self, status: Status) -> None:
        """Print the records that go to the terminal. Raises SinkFailed."""
        with standard_output_failing():
            self._print(status)

    def _print(self, status: Status) -> None:
        for kind, records in status.lines.items():
            if kind == "alerts":
                self.severities.update(orjson.loads(record)["severity"] for record in records)
                if self._outputs.get("alerts", "-") == "-" and self._human_alerts is not None:
                    for record in records:
                        self._print_alert(orjson.loads(record))
                    continue
            if self._outputs.get(kind) == "-":
                sys.stdout.buffer.write(b"".join(record + b"\n" for record in records))
                sys.stdout.flush()

    def note(self, text: str) -> None:
        """Something the person should know now."""
        self._note = text
        if self._live is None:
            print(f"countersign: {text}", file=sys.stderr)
        else:
            self._console.print(f"countersign: {text}", soft_wrap=True, markup=False, highlight=False)

    def aside(self, text: str) -> None:
        """Something to know that needs nothing done; not with --quiet."""
        if not self._quiet:
            print(f"countersign: {text}", file=sys.stderr)

    def show(self, status: Status) -> None:
        """Refresh the live view."""
        if self._live is not None:
            self._live.update(self._view(status))

    def _print_alert(self, alert: dict[str, Any]) -> None:
        from rich.console import Console
        from rich.text import Text

        line = Text()
        line.append(f"{alert['created_at'][:19]}Z ", style="dim")
        line.append(f"{alert['severity']:<8}", style=_COLOURS.get(alert["severity"], ""))
        line.append(f" {alert['rule_id']}  ", style="bold")
        line.append(alert["title"])
        if alert["match_count"] > 1:
            line.append(f"  ({alert['match_count']} matches)", style="dim")
        console = self._console if self._live is not None else Console(file=self._human_alerts, soft_wrap=True)
        console.print(line, soft_wrap=True)

    def _rate(self, events: int) -> float:
        now_s = time.monotonic()
        self._seen = [(at_s, n) for at_s, n in self._seen if now_s - at_s < 5.0]
        self._seen.append((now_s, events))
        first_s, first = self._seen[0]
        return (events - first) / (now_s - first_s) if now_s > first_s else 0.0

    def _view(self, status: Status) -> Any:
        from rich.table import Table
        from rich.text import Text

        totals = status.totals
        table = Table.grid(padding=(0, 2))
        w = "" if status.w_s == NEVER_S else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(status.w_s))
        age = "none yet"
        if status.checkpointed_at_s is not None and totals.checkpoints:
            age = f"{max(0.0, time.monotonic() - status.checkpointed_at_s):.0f} s ago"
        alerts = Text()
        for severity in _SEVERITIES:
            if self.severities[severity]:
                alerts.append(f"{severity} {self.severities[severity]}  ", style=_COLOURS[severity])
        table.add_row("events", f"{totals.counts.events:,}", f"{self._rate(totals.counts.events):,.0f}/s")
        table.add_row("event time", w, "")
        table.add_row("alerts", f"{totals.alerts:,}", alerts)
        table.add_row(
            "matches", f"{totals.matches:,}", f"errors {totals.errors:,}, dead letters {totals.dead_letters:,}"
        )
        table.add_row("checkpoint", age, status.phase.value)
        if self._note:
            table.add_row("", self._note, "")
        return table


def summary_text(record: dict[str, Any]) -> str:
    """The closing line for a person."""
    return (
        f"{record['events']:,} events in {record['seconds']:.1f} s ({record['events_per_s']:,}/s, "
        f"{counted(record['shards'], 'shard')}): "
        f"{counted(record['alerts'], 'alert')}, {counted(record['matches'], 'match', 'es')}, "
        f"{counted(record['errors'], 'rule error')}, {counted(record['dead_letters'], 'dead letter')}"
    )
