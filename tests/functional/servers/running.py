"""Starts the programs of this folder, and what stands in front of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from tests.functional.program import PATIENCE, wait_until

ROOT: Final = Path(__file__).parents[3]
NGINX: Final = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CADDY: Final = shutil.which("caddy")


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def command_of(program: str, *args: object, python: str = sys.executable) -> list[str]:
    """The command line of a program of this folder."""
    return [python, "-m", f"tests.functional.servers.{program}", *map(str, args)]


def run_client(
    command: list[str], *, stderr: IO[bytes], env: Mapping[str, str] | None = None
) -> list[tuple[str, bool]]:
    """Run a client to its end; what came of each call, as the client saw it.

    Args:
        stderr: Where what it prints there goes, and what a server prints that it starts itself.
    """
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=stderr,
        cwd=ROOT,
        env=os.environ | (env or {}),
        timeout=4 * PATIENCE,  # it may have to start a server of its own
        check=True,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return [(record["tool"], record["worked"]) for record in told]


@contextmanager
def serving(
    command: list[str], port: int, *, output: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program at work that listens on a port; all that it prints goes to a file."""
    with output.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT, env=os.environ | (env or {})
        )

    def listening() -> bool:
        assert process.poll() is None, output.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listening, f"{command[:3]} to listen")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_NGINX: Final = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{}}
http {{
  {log_format}
  limit_req_zone $binary_remote_addr zone=calls:1m rate=1r/m;
  access_log {folder}/nginx.jsonl {name};
  access_log {folder}/nginx-combined.log combined;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_buffering off; proxy_set_header Host $http_host; }}
    location /limited {{ limit_req zone=calls; limit_req_status 429; proxy_pass http://127.0.0.1:{upstream}/mcp; }}
    location /private {{ deny all; }}
  }}
}}
"""

_CADDY: Final = """\
{{
  admin off
}}
http://127.0.0.1:{port} {{
  log {{
    output file {folder}/caddy.jsonl
  }}
  reverse_proxy 127.0.0.1:{upstream}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: int, log_format: str) -> Iterator[int]:
    """nginx in front of a server; its port. It logs in the given form, in its usual one, and its errors."""
    assert NGINX is not None
    port, name = free_port(), log_format.split()[1]
    conf = folder / "nginx.conf"
    text = _NGINX.format(folder=folder, upstream=upstream, port=port, log_format=log_format, name=name)
    conf.write_text(("user root;\n" if os.geteuid() == 0 else "") + text)
    errors = folder / "nginx-error.log"
    with serving(
        [NGINX, "-p", str(folder), "-e", str(errors), "-c", str(conf)], port, output=folder / "nginx.out"
    ):
        yield port


@contextmanager
def caddy(folder: Path, upstream: int) -> Iterator[int]:
    """Caddy in front of a server, with its default log; its port."""
    assert CADDY is not None
    port = free_port()
    conf = folder / "Caddyfile"
    conf.write_text(_CADDY.format(folder=folder, upstream=upstream, port=port))
    home = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
    command = [CADDY, "run", "--config", str(conf), "--adapter", "caddyfile"]
    with serving(command, port, output=folder / "caddy.out", env=home):
        yield port


def status_of_post(url: str, headers: Mapping[str, str] | None = None, *, method: str = "POST") -> int:
    """The HTTP status of a request without a client's help."""
    request = urllib.request.Request(
        url, b"{}" if method == "POST" else None, {"Content-Type": "application/json", **(headers or {})},
        method=method,
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            status: int = answer.status
    except urllib.error.HTTPError as refused:
        status = refused.code
    return status


def environment_with(*requirements: str) -> str:
    """The Python of an environment that has these packages; made once, under the user's cache folder.

    Raises:
        subprocess.CalledProcessError: It can't be made: there is no package index, most likely.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcpwatch-tests"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = cache / "-".join([version, *requirements]).translate(dict.fromkeys(map(ord, "<>=* "), "_"))
    python = folder / "bin/python"
    made = folder / ".made"
    if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True, capture_output=True)
        made.touch()
    return str(python)
