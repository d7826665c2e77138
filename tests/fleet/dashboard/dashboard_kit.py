"""A page of the dashboard in a browser, and what is watched while it is open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge_fleet.store.sql import SqlStore

WAIT_MS = 120_000
"""How long a condition is waited for; a loaded machine needs a few seconds."""
PAGES = ["", "devices", "alarms", "events"]


@dataclass(frozen=True)
class Served:
    """A service: its store, its address, and a token of each role."""

    store: SqlStore
    url: str
    tokens: dict[str, str] = field(repr=False)


class Browsing:
    """One browser context with one page. ``faults``: errors, dialogs and refusals by the policy."""

    def __init__(self, browser: Any, url: str, token: str, options: dict[str, Any]) -> None:
        self.url, self.token = url, token
        self.faults: list[str] = []
        self.expected: tuple[str, ...] = ()
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("console", self._said)
        self.page.on("dialog", self._asked)
        if token:
            self.page.goto(f"{url}/dashboard/#token={token}")
            self.page.get_by_role("navigation", name="Pages").wait_for()

    def _said(self, message: Any) -> None:
        harmless = any(each in message.text for each in self.expected)
        if message.type in ("error", "warning") and not harmless:
            self.faults.append(f"{message.type}: {message.text}")

    def _asked(self, dialog: Any) -> None:
        self.faults.append(f"a script ran: {dialog.message}")
        dialog.dismiss()

    def to(self, path: str, title: str = "") -> Any:
        """The page at ``#/path``, once its heading is there and nothing is loading."""
        self.page.goto(f"{self.url}/dashboard/#/{path}")
        heading = self.page.get_by_role("heading", level=1)
        (heading.filter(has_text=title) if title else heading).wait_for()
        self.settled()
        return self.page

    def settled(self) -> None:
        """Nothing on the page is loading."""
        self.page.wait_for_function("() => !document.querySelector('main .loading')")

    def text(self) -> str:
        """What a person reads in the page's main part."""
        return str(self.page.inner_text("main"))

    def close(self) -> None:
        """End it."""
        self.context.close()
