"""The wheel, installed somewhere else: it has all that it needs."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

FOUND = """
import mcpwatch
from mcpwatch.data import shipped
print(mcpwatch.__file__)
for kind in ("themes", "sample_logs"):
    print(kind, *sorted(path.name for path in shipped(kind).iterdir()))
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.xdist_group("wheel")
def test_an_installed_wheel_runs_the_demo_and_has_themes_and_sample_logs(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, CHECKOUT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--disable-pip-version-check"]
    run(*pip, "-q", wheel, cwd=tmp_path)
    package, *shipped = run(python, "-c", FOUND, cwd=tmp_path).splitlines()
    assert package.startswith(str(tmp_path))
    beside = {
        kind: sorted(path.name for path in (CHECKOUT / kind).iterdir() if not path.name.startswith("."))
        for kind in ("themes", "sample_logs")
    }
    found = {kind: names for kind, *names in map(str.split, shipped)}
    for kind, names in beside.items():
        assert set(names) <= set(found[kind])
    program = tmp_path / "venv/bin/mcpwatch"
    assert run(program, "demo", "--headless", cwd=tmp_path).splitlines()[-1].endswith("the story held")
    assert run(program, "--version", cwd=tmp_path).split() == ["mcpwatch", wheel.name.split("-")[1]]
