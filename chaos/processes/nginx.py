"""Runs nginx with the very lines that docs/operations.md recommends."""

import re
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.servers import Server, binary

PAGE = Path(__file__).parents[2] / "docs/operations.md"
_FENCE = re.compile(r"^```nginx\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVER = re.compile(r"^    server \S+:\d+", re.MULTILINE)
AROUND = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {documented}
}}
"""


def documented_lines(ports: Sequence[int], *, listen: int) -> str:
    """Return the lines of the page, for gateways on these ports of this machine.

    Raises:
        ValueError: The page shows another number of gateways.
    """
    [lines] = _FENCE.findall(PAGE.read_text())
    if len(_SERVER.findall(lines)) != len(ports):
        raise ValueError(f"{PAGE} does not show nginx in front of {len(ports)} gateways.")
    remaining = iter(ports)
    lines = _SERVER.sub(lambda _: f"    server 127.0.0.1:{next(remaining)}", lines)
    return re.sub(r"\blisten \d+;", f"listen 127.0.0.1:{listen};", lines)


class Nginx(Server):
    """An nginx in front of gateways, stopped at first."""

    def __init__(self, ports: Sequence[int]) -> None:
        program = binary("nginx")
        super().__init__()
        config = self.folder / "nginx.conf"
        config.write_text(AROUND.format(documented=documented_lines(ports, listen=self.port)))
        config.chmod(0o644)
        self._command = [program, "-p", str(self.folder), "-c", str(config), "-e", "stderr"]

    def command(self) -> list[str]:
        """Return the command that runs it."""
        return self._command

    def answers(self) -> bool:
        """Whether it takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
