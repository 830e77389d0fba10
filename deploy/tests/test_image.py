"""The image: its Dockerfile is built, and the result runs as a container engine would run it.

No container engine is needed. buildah builds in a chroot, from a Debian that mmdebstrap makes in
place of `debian:trixie-slim`. The gateway then runs in namespaces of its own, as the image's user,
on a read-only root. With systemd added, the same root boots and runs the gateway as its unit says.
"""

import ast
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import free_port, get
from machinery import DEPLOY, ROOT, run, run_any, running, unavailable, wait_until

import embedway

BASE = "docker.io/library/debian:trixie-slim"
SLIM = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
"""What Debian's slim images leave out."""
PACKAGES = "buildah mmdebstrap systemd-container"
BUNDLE = "/run/certificates.crt"
"""Where the build finds the certificates that this machine's pip trusts."""
TEST_LIMIT_S = 1500
"""The longest that a build may take, in seconds, where a quiet machine takes one minute."""


@dataclass
class Image:
    """A built image: its files, and how a container engine starts it."""

    root: Path
    config: dict[str, Any]
    buildah: Callable[..., str]
    """Runs buildah on the image's store, and returns what it prints."""

    def command(self, *words: str, **variables: object) -> list[str]:
        """Return the command line that runs `words` in the root, as the image's user."""
        env = [*self.config["Env"], *(f"{name}={value}" for name, value in variables.items())]
        folder = f"--chdir={self.config['WorkingDir']}"
        user = f"--userspec={self.config['User']}"
        return ["chroot", user, str(self.root), "env", "-i", folder, *env, *words]

    def health(self, port: int) -> int:
        """Return the status of the image's health check."""
        kind, *words = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return run_any(*self.command(*words, EMBEDWAY_PORT=port)).returncode


def pip_conf(folder: Path) -> tuple[Path, list[str]]:
    """Return a pip.conf for the build, made of this machine's, and the volume that it needs."""
    options: dict[str, str] = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").stdout.splitlines():
        name, _, value = line.partition("=")
        options[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    known = {
        name: options[name] for name in ("index-url", "trusted-host", "proxy") if name in options
    }
    volume = []
    if "cert" in options:
        volume = ["--volume", f"{options['cert']}:{BUNDLE}:ro"]
        known["cert"] = BUNDLE
    path = folder / "pip.conf"
    path.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in known.items()))
    return path, volume


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Build the image from a new Debian, and give it away at the end."""
    for each in ("buildah", "mmdebstrap", "systemd-nspawn"):
        if not shutil.which(each):
            unavailable(f"{each} is not installed: apt-get install {PACKAGES}")
    if os.getuid():
        pytest.skip("only root can build an image without a container engine")
    folder = tmp_path_factory.mktemp("image")
    store = ["buildah", "--root", folder / "store", "--runroot", folder / "run"]
    env = os.environ | {"BUILDAH_ISOLATION": "chroot"}

    def buildah(*words: object) -> str:
        return run(*store, *words, env=env).stdout.strip()

    try:
        base = buildah("from", "scratch")
        excluded = [f"--dpkgopt=path-exclude={each}" for each in SLIM]
        run("mmdebstrap", "--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io", *excluded,
            "--format=directory", "trixie", buildah("mount", base))  # fmt: skip
        buildah("commit", "--quiet", "--rm", base, BASE)
        secret, volume = pip_conf(folder)
        buildah("bud", "--quiet", "--pull-never", "--format=docker", f"--file={DEPLOY}/Dockerfile",
                f"--secret=id=pip,src={secret}", f"--build-arg=VERSION={embedway.__version__}",
                *volume, "--tag=embedway", ROOT)  # fmt: skip
        described = json.loads(buildah("inspect", "--type=image", "embedway"))
        root = Path(buildah("mount", buildah("from", "--pull-never", "embedway")))
        yield Image(root, described["Docker"]["config"], buildah)
    finally:
        run_any(*store, "rm", "--all", env=env)
        run_any(*store, "rmi", "--all", "--force", env=env)
        shutil.rmtree(folder / "store", ignore_errors=True)


def is_ready(url: str) -> bool:
    """Return whether /readyz says that the gateway is ready."""
    with contextlib.suppress(httpx.HTTPError):
        return get(f"{url}/readyz", timeout=5).status_code == 200
    return False


@contextlib.contextmanager
def container(
    image: Image, folder: Path, **settings: object
) -> Iterator[tuple[int, subprocess.Popen]]:
    """Run the image's command as process 1 on a read-only root; yield its process id outside.

    Writable are /tmp and the folder of data, which the operator mounts.
    """
    data = folder / "data"
    data.mkdir()
    uid, gid = map(int, image.config["User"].split(":"))
    os.chown(data, uid, gid)
    words = [*image.config["Entrypoint"], *image.config["Cmd"]]
    script = """
        set -e
        root=$1 data=$2
        shift 2
        mount --bind "$root" "$root"
        mount -o remount,bind,ro "$root"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/tmp"
        mount --bind "$data" "$root/var/lib/embedway"
        exec "$@"
    """
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh",
               image.root, data, *image.command(*words, **settings)]  # fmt: skip
    with running(command, folder / "log") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: bool(children.read_text()) or process.poll() is not None)
        yield int(children.read_text()), process


@pytest.mark.timeout(TEST_LIMIT_S)
def test_runs(image: Image, tmp_path: Path) -> None:
    """It embeds on a read-only root as another user than root, and SIGTERM lets requests finish."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path / "log"
    assert image.health(port) != 0
    settings = {"EMBEDWAY_PORT": port, "EMBEDWAY_LOCAL_SERVERS": "false"}
    with container(image, tmp_path, **settings) as (pid, process):
        wait_until(lambda: is_ready(url) or process.poll() is not None, because=log.read_text)
        assert process.poll() is None, log.read_text()
        assert image.health(port) == 0
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^Uid:\t10001\t10001\t10001\t10001$", status, re.MULTILINE)
        assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
        [key] = set(re.findall(r"sk-gateway-[\w-]+", log.read_text()))
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        answer = httpx.post(
            f"{url}/v1/embeddings", headers=headers, json={"input": "a"}, timeout=60
        )
        assert len(answer.json()["data"][0]["embedding"]) == 384

        # A request is in flight once its headers are here and its body is not.
        body = json.dumps({"input": "The quick brown fox"}).encode()
        slow = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        slow.putrequest("POST", "/v1/embeddings")
        for name, value in headers.items():
            slow.putheader(name, value)
        slow.putheader("content-length", str(len(body)))
        slow.endheaders(body[:10])
        wait_until(lambda: "embedway_requests_in_flight 1" in get(f"{url}/metrics").text)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_ready(url))
        slow.send(body[10:])
        assert slow.getresponse().status == 200
        slow.close()
        assert process.wait(60) == 0, log.read_text()
    assert (tmp_path / "data/embedway.db").exists()
    assert image.health(port) != 0


@pytest.mark.timeout(TEST_LIMIT_S)
def test_holds_only_what_is_needed(image: Image) -> None:
    """The image has the command, the weights and labels; no compiler, no cache and no pip.conf."""
    shown = run(*image.command("embedway", "models", "list", "--json"))
    local = [each for each in json.loads(shown.stdout) if each["weights"]]
    assert [each["weights"] for each in local] == ["here"] * len(local)
    assert local
    assert image.config["Labels"]["org.opencontainers.image.version"] == run(
        *image.command("embedway", "--version")
    ).stdout.strip().removeprefix("embedway ")
    for each in ("etc/pip.conf", "build", "usr/bin/gcc", "root/.cache", "context"):
        assert not (image.root / each).exists(), each
    writable = run(
        *image.command("find", "/opt", "/etc/embedway", "-writable", "-not", "-type", "l")
    )
    assert writable.stdout == ""


@pytest.mark.timeout(TEST_LIMIT_S)
def test_systemd_runs_it(image: Image, tmp_path: Path) -> None:
    """The unit runs with all its restrictions and credentials, and stops cleanly."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    machine = image.buildah("from", "--pull-never", "embedway")
    root = Path(image.buildah("mount", machine))
    image.buildah("run", "--user=root", machine, "sh", "-ec",
                  "apt-get update -qq; apt-get install -y -qq --no-install-recommends systemd; "
                  "userdel embedway")  # fmt: skip
    shutil.rmtree(root / "var/lib/embedway")  # as on a machine that never had an image
    units = root / "etc/systemd/system"
    shutil.copy(DEPLOY / "systemd/embedway.service", units)
    # Nothing is downloaded: the weights are where the image has them.
    (units / "embedway.service.d").mkdir()
    (units / "embedway.service.d/weights.conf").write_text(
        "[Service]\nEnvironment=EMBEDWAY_CACHE_DIR=/opt/embedway/cache\n"
    )
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/embedway.service").symlink_to("../embedway.service")
    (root / "etc/embedway/embedway.toml").write_text('log_level = "warning"\n')
    secrets = root / "etc/embedway/secrets.env"
    secrets.write_text(f"EMBEDWAY_PORT={port}\nEMBEDWAY_PEPPER={'5a' * 32}\n")
    secrets.chmod(0o600)
    log = tmp_path / "log"
    command = ["systemd-nspawn", "--quiet", f"--directory={root}", "--register=no", "--keep-unit",
               "--boot", "systemd.log_target=console", "systemd.journald.forward_to_console=1"]  # fmt: skip  # noqa: E501
    with running(command, log) as process:
        wait_until(lambda: is_ready(url) or process.poll() is not None, because=log.read_text)
        assert process.poll() is None, log.read_text()
        wait_until(lambda: "sk-gateway-" in log.read_text())
        key = re.findall(r"sk-gateway-[\w-]+", log.read_text())[0]
        headers = {"authorization": f"Bearer {key}"}
        answer = httpx.post(
            f"{url}/v1/embeddings", headers=headers, json={"input": "a"}, timeout=60
        )
        assert len(answer.json()["data"][0]["embedding"]) == 384
        data = root / "var/lib/private/embedway"
        assert (data / "embedway.db").stat().st_uid == data.stat().st_uid != 0
        assert not (data / "pepper").exists()  # it is in the credential
        process.terminate()  # powers the machine off, which stops its units
        assert process.wait(60) == 0
    assert "embedway.service: Deactivated successfully" in log.read_text()
