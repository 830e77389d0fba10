"""A reload takes in a new configuration under load, and refuses a broken one, without a failure."""

import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Gateway
from raw_http import load, until
from test_ledger import ask, rows

from embedway.testing import Upstream

RELOAD = "/v1/organization/configuration/reload"


def provider(
    name: str, upstream: Upstream, *, key: str = 'api_key = "k"', price: object = 1, more: str = ""
) -> str:
    """Return the section of a provider with one model."""
    return (
        f'[providers.{name}]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n{key}\n'
        f'catalog = false\n{more}[[providers.{name}.models]]\nid = "m"\ndimensions = 64\n'
        f"price_per_mtok_usd = {price}\n"
    )


class Reloadable:
    """A gateway whose settings file the tests rewrite."""

    def __init__(self, gateway: Gateway, text: str) -> None:
        self.gateway = gateway
        self.file = gateway.folder / "embedway.toml"
        self.write(text)
        gateway.env["EMBEDWAY_PROVIDERS_FROM_ENVIRONMENT"] = "false"
        self.admin_key = gateway.new_key("admin", "--admin")["key"]

    def write(self, text: str) -> None:
        self.file.write_text(text)
        self.file.chmod(0o600)

    def post(self, **query: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.admin_key}"}
        url = self.gateway.url + RELOAD
        return httpx.post(url, headers=headers, params=query, timeout=120, verify=False)

    def reload(self, text: str | None = None) -> list[dict[str, Any]]:
        if text is not None:
            self.write(text)
        answer = self.post()
        assert answer.status_code == 200, answer.text
        return answer.json()["changes"]

    def events(self, event: str) -> list[Mapping[str, Any]]:
        lines = self.gateway.log.read_text().splitlines()
        parsed = [json.loads(each) for each in lines if each.startswith("{")]
        return [each for each in parsed if each["event"] == event]


@pytest.fixture
def reloadable(new_gateway: Callable[..., Gateway]) -> Callable[..., Reloadable]:
    """Return a function that starts a gateway with a settings file."""

    def start(text: str, **settings: object) -> Reloadable:
        made = Reloadable(new_gateway(**settings), text)
        made.gateway.start()
        return made

    return start


def test_first(reloadable: Callable[..., Reloadable], upstream: Upstream):
    """Basic."""
    g = reloadable(provider("one", upstream))
    assert g.gateway.embed(model="one:m", input="a").status_code == 200
    changes = g.reload(provider("two", upstream, price=2) + 'port = 1\n')
    print(changes)
    raise AssertionError
