"""nginx and Caddy in front of two gateways, with the configurations that deploy/ has for them."""

import contextlib
import os
import re
import shutil
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from conftest import Gateway, free_port, minilm
from machinery import DEPLOY, run, running, unavailable, wait_until

from embedway.config.settings import Settings
from embedway.testing import Upstream

__all__ = ["minilm"]
HOST = "embed.example.com"
DEFAULTS = Settings()
NOTICED_S = 3
"""The time within which Caddy notices that a gateway is ready, as deploy/README.md says."""


@dataclass
class Proxy:
    """A proxy that answers TLS for `embed.example.com`, and what is behind it."""

    name: str
    port: int
    trusted: Path
    """The certificate to check the proxy's against."""
    log: Path
    gateways: list[Gateway]

    def client(self) -> httpx.Client:
        """Return a client that checks the certificate, and connects to this machine."""
        context = ssl.create_default_context(cafile=str(self.trusted))
        headers = {"authorization": f"Bearer {self.gateways[0].key}", "host": HOST}
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}", headers=headers, verify=context, timeout=60
        )

    def embed(self, client: httpx.Client, **fields) -> httpx.Response:
        """Send a request to `/v1/embeddings`, with the name of the site in the TLS handshake."""
        extensions = {"sni_hostname": HOST}
        fields = {"model": "openai:text-embedding-3-small", "input": "a"} | fields
        return client.post("/v1/embeddings", json=fields, extensions=extensions)


def program(name: str) -> str:
    """Return the path of a program; Debian puts nginx where only root's path looks."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if not found:
        unavailable(f"{name} is not installed: apt-get install {name}")
    return str(found)


def replace_once(text: str, replacements: dict[str, str]) -> str:
    """Replace each key, which must be there exactly once."""
    for old, new in replacements.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def nginx(folder: Path, gateways: list[Gateway]) -> Iterator[Proxy]:
    """Run nginx with deploy/nginx.conf, on another port and with a certificate of its own."""
    port, log = free_port(), folder / "access.log"
    certificate, key = folder / "tls.crt", folder / "tls.key"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "2", "-keyout", key, "-out", certificate, "-subj", f"/CN={HOST}",
        "-addext", f"subjectAltName=DNS:{HOST}")  # fmt: skip
    text = (DEPLOY / "nginx.conf").read_text()
    [server] = re.findall(r"server (127\.0\.0\.1:8080) (.+);", text)
    servers = [f"server 127.0.0.1:{each.port} {server[1]};" for each in gateways]
    config = folder / "nginx.conf"
    config.write_text(
        replace_once(
            text,
            {
                f"server {' '.join(server)};": "\n".join(servers),
                "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
                "/etc/nginx/embedway.crt": str(certificate),
                "/etc/nginx/embedway.key": str(key),
                "/var/log/nginx/embedway.log": str(log),
            },
        )
    )
    options = f"daemon off; pid {folder}/nginx.pid;"
    command = [program("nginx"), "-p", folder, "-c", config, "-e", "stderr", "-g", options]
    run(*command, "-t")
    with running(command, folder / "errors.log"):
        yield Proxy("nginx", port, certificate, log, gateways)


@contextlib.contextmanager
def caddy(folder: Path, gateways: list[Gateway]) -> Iterator[Proxy]:
    """Run Caddy with deploy/Caddyfile, with a certificate of its own authority."""
    port, log, config = free_port(), folder / "caddy.log", folder / "Caddyfile"
    # On a machine with a name of its own, Caddy asks a public authority and uses port 443.
    options = f"\tlocal_certs\n\tskip_install_trust\n\thttps_port {port}\n\tauto_https disable_redirects\n\tadmin off\n"  # noqa: E501
    config.write_text(
        replace_once((DEPLOY / "Caddyfile").read_text(), {"\n{\n": f"\n{{\n{options}"})
    )
    env = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "XDG_DATA_HOME": str(folder),
        "EMBEDWAY_SITE": HOST,
        "EMBEDWAY_UPSTREAMS": " ".join(f"127.0.0.1:{each.port}" for each in gateways),
    }  # fmt: skip
    command = [program("caddy"), "run", "--adapter", "caddyfile", "--config", config]
    run(command[0], "validate", *command[2:], env=env)
    trusted = folder / "caddy/pki/authorities/local/root.crt"
    with running(command, log, env=env):
        wait_until(trusted.exists, because=log.read_text)
        yield Proxy("caddy", port, trusted, log, gateways)


@pytest.fixture(scope="module")
def gateways(minilm: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gateway]]:
    """Run two gateways that share a database and a scripted provider."""
    folder = tmp_path_factory.mktemp("gateways")
    made: list[Gateway] = []
    with Upstream() as upstream:
        try:
            for name in ("one", "two"):
                (folder / name).mkdir()
                (folder / name / "embedway.toml").write_text(
                    f'[providers.openai]\nbase_url = "{upstream.url}/openai/v1"\napi_key = "k"\n'
                )
                settings = {"data_dir": folder / "data", "drain_s": DEFAULTS.drain_s}
                made.append(Gateway(folder / name, **settings))
                made[-1].start()
            yield made
        finally:
            for each in made:
                each.kill()


@pytest.fixture(scope="module", params=[nginx, caddy], ids=lambda each: each.__name__)
def proxy(
    request: pytest.FixtureRequest,
    gateways: list[Gateway],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    """Run a proxy in front of both gateways."""
    with request.param(tmp_path_factory.mktemp("proxy"), gateways) as started:
        wait_until(lambda: answers(started), because=started.log.read_text)
        yield started


def answers(proxy: Proxy) -> bool:
    """Return whether the proxy reaches a gateway."""
    with contextlib.suppress(httpx.HTTPError), proxy.client() as client:
        return proxy.embed(client).status_code == 200
    return False


def test_requests_pass(proxy: Proxy) -> None:
    """Ids, large answers and the gateway's own refusals arrive; metrics do not."""
    with proxy.client() as client:
        client.headers["x-request-id"] = "order-4711"
        small = proxy.embed(client)
        assert (small.status_code, small.headers["x-request-id"]) == (200, "order-4711")
        large = proxy.embed(client, input=["text"] * 500)  # 6 MB, more than all buffers hold
        assert len(large.json()["data"]) == 500
        too_large = proxy.embed(client, input="a" * DEFAULTS.max_body_bytes)
        assert too_large.status_code == 413
        assert "max_body_bytes" in too_large.text or str(DEFAULTS.max_body_bytes) in too_large.text
        client.headers["authorization"] = "Bearer wrong"
        assert proxy.embed(client).json()["error"]["code"] == "invalid_api_key"
        extensions = {"sni_hostname": HOST}
        assert client.get("/metrics", extensions=extensions).status_code == 404
        assert client.get("/readyz", extensions=extensions).status_code == 200
    wait_until(lambda: "order-4711" in proxy.log.read_text())


def test_restart_is_not_noticed(proxy: Proxy) -> None:
    """While one gateway after the other is restarted under load, every request is answered."""
    statuses: list[int] = []
    cut_short: list[Exception] = []
    stop = threading.Event()

    def ask() -> None:
        with proxy.client() as client:
            while not stop.is_set():
                try:
                    statuses.append(proxy.embed(client).status_code)
                except httpx.RemoteProtocolError as error:
                    cut_short.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    try:
        for each in proxy.gateways:
            each.signal(signal.SIGTERM)
            assert each.wait() == 0
            each.start()
            time.sleep(NOTICED_S)
            seen = len(statuses)
            wait_until(lambda seen=seen: len(statuses) > seen + 20)
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert set(statuses) == {200}
    assert len(cut_short) <= (len(proxy.gateways) if proxy.name == "caddy" else 0), cut_short


def test_dead_gateway_is_left_out(proxy: Proxy) -> None:
    """Soon after a gateway is gone without a word, the other answers every request."""
    proxy.gateways[0].kill()
    time.sleep(NOTICED_S)
    wait_until(lambda: all(answers(proxy) for _ in range(5)))
    with proxy.client() as client:
        replies = [proxy.embed(client) for _ in range(20)]
    proxy.gateways[0].start()  # the other proxy's tests need it too
    failed = [(each.status_code, each.text) for each in replies if each.status_code != 200]
    assert not failed, proxy.log.read_text()
