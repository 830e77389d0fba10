"""`embedway config diff` and `embedway config reload` ask a running gateway."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from conftest import Gateway
from test_reload import Reloadable, provider

from embedway.testing import Upstream


@pytest.fixture(scope="module")
def running(
    minilm: object, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[Reloadable]:
    """Run a gateway with one provider."""
    gateway = Gateway(tmp_path_factory.mktemp("config"))
    made = Reloadable(gateway, provider("one", upstream))
    gateway.start()
    gateway.env["EMBEDWAY_API_KEY"] = made.admin_key
    yield made
    gateway.kill()


def config(running: Reloadable, *arguments: str) -> subprocess.CompletedProcess:
    return running.gateway.cli("config", *arguments)


def test_diff_then_reload(running: Reloadable, upstream: Upstream) -> None:
    """Both show the same; `diff` ends with 1 while something differs, and no key is shown."""
    running.reload(provider("one", upstream))
    same = config(running, "diff")
    assert (same.returncode, same.stdout) == (0, "Nothing differs.\n")
    running.write(
        'durability = "power"\n' + provider("one", upstream, key='api_key = "s3cret"', price=3)
    )
    differs = config(running, "diff")
    assert differs.returncode == 1
    lines = [line.split() for line in differs.stdout.splitlines()[1:]]
    assert lines == [
        ["setting", "durability", "process", "power", "restart"],
        ["provider", "one", "keys", "changed", "reload"],
        ["deployment", "one:m", "price_per_mtok_usd", "1", "3", "reload"],
    ]
    assert "s3cret" not in differs.stdout
    as_json = json.loads(config(running, "diff", "--json").stdout)
    reloaded = config(running, "reload")
    assert reloaded.returncode == 0
    assert "2 changes in force" in reloaded.stdout
    assert "Restart the gateway for 1 more change." in reloaded.stdout
    assert [each["name"] for each in as_json] == ["durability", "one", "one:m"]
    assert [each["needs_restart"] for each in as_json] == [True, False, False]


def test_refused(running: Reloadable, upstream: Upstream) -> None:
    """What the gateway refuses is shown with its reasons, and so is a key without the right."""
    running.write('[aliases]\ndocs = "nobody:m"\n' + provider("one", upstream))
    for command in ("diff", "reload"):
        refused = config(running, command)
        assert refused.returncode == 1
        assert "docs" in refused.stderr
        assert refused.stdout == ""
    running.write(provider("one", upstream))
    running.gateway.env["EMBEDWAY_API_KEY"] = running.gateway.key
    forbidden = config(running, "reload")
    running.gateway.env["EMBEDWAY_API_KEY"] = running.admin_key
    assert forbidden.returncode == 1
    assert "Use an admin key" in forbidden.stderr


def test_nobody_to_ask(running: Reloadable) -> None:
    """Without a key, or without a gateway at the address, the command says what to do."""
    gone = config(running, "diff", "--url", "http://127.0.0.1:9")
    assert gone.returncode == 1
    assert "--url" in gone.stderr
    wrong = config(running, "diff", "--url", "127.0.0.1:9")
    assert wrong.returncode == 2
    key = running.gateway.env.pop("EMBEDWAY_API_KEY")
    without = config(running, "reload")
    running.gateway.env["EMBEDWAY_API_KEY"] = key
    assert without.returncode == 1
    assert "EMBEDWAY_API_KEY" in without.stderr
