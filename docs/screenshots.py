"""Redraws the pictures of the README and the docs from the real console on the demo: `make screenshots`.

The fleet runs on a clock of its own, so the pictures are the same every time but for the policy's author.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from mcpwatch.console.app import ConsoleApp
from mcpwatch.demo.story import Stage, set_up
from mcpwatch.monitor.live import Live
from mcpwatch.times import SECOND, parse_rfc3339

HERE: Final = Path(__file__).parent / "images"
STEP: Final = SECOND // 10
WIDE, NARROW = (120, 40), (80, 24)


class Scene:
    """The demo, moved on by hand."""

    def __init__(self, folder: Path) -> None:
        found = parse_rfc3339("2026-11-20T03:13:40Z")
        assert found is not None
        self.now = found[0]
        self.stage: Stage = set_up(folder, seed=7, start_ns=self.now, clock=lambda: self.now)
        self.live = Live(self.stage.monitor, self.stage.sources)

    def go_on(self, seconds: float) -> None:
        """Let that much time pass in the fleet."""
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            self.now += STEP
            self.stage.fleet.step(self.now)
            self.live.tick()
        self.stage.monitor.publish()


async def _incident(folder: Path) -> None:
    """The main screen in the incident, the incident, the dialog, and the main screen once the key is gone."""
    scene = Scene(folder)
    app = ConsoleApp(scene.stage.monitor)
    async with app.run_test(size=WIDE) as pilot:
        scene.go_on(44)
        await pilot.pause(0.6)
        await pilot.press("a")
        await _draw(app, "console")
        await pilot.press("enter")
        await pilot.pause(0.3)
        await _draw(app, "incident")
        await pilot.press("r")
        await pilot.pause(0.6)
        for letter in "stolen key":
            await pilot.press("space" if letter == " " else letter)
        await pilot.pause(0.4)
        await _draw(app, "revoke")
        await pilot.press("tab")
        for letter in app.screen.code:  # type: ignore[attr-defined]
            await pilot.press(letter)
        await pilot.press("enter")
        scene.go_on(12)
        await pilot.pause(0.6)
        await pilot.press("escape")
        await pilot.press("escape")
        await pilot.pause(0.4)
        await _draw(app, "in-force")


async def _narrow(folder: Path) -> None:
    """The main screen in a small terminal."""
    scene = Scene(folder)
    app = ConsoleApp(scene.stage.monitor)
    async with app.run_test(size=NARROW) as pilot:
        scene.go_on(44)
        await pilot.pause(0.6)
        await _draw(app, "narrow")


async def _draw(app: ConsoleApp, name: str) -> None:
    HERE.mkdir(exist_ok=True)
    svg = app.export_screenshot(title="mcpwatch", simplify=True)
    (HERE / f"{name}.svg").write_text(svg)


def main() -> None:
    """Draw all of them."""
    for scene in (_incident, _narrow):
        with tempfile.TemporaryDirectory(prefix="mcpwatch-") as folder:
            asyncio.run(scene(Path(folder)))


if __name__ == "__main__":
    main()
