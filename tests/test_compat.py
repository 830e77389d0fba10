"""Other people's clients: those that are installed here run, and the page says what was found."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat import environments, page
from compat.cases import CASES, MANY
from compat.reference import Reference
from compat.registry import CLIENTS, Client
from compat.server import Servers, serving
from compat.trial import try_client

SHORT = [case for case in CASES if case.texts is not MANY]
HERE = ("openai", "langchain-openai", "langchain-openai-texts")
MISTAKEN = """
LACKS = {}

def embed(case):
    if case.name == "wrong key":
        raise ValueError("no such key")
    return [[1.0] * 384 for _ in case.texts]

def search(case):
    return case.texts[0]
"""


@pytest.fixture(scope="module")
def servers(minilm: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The gateways that `make compat` tries clients on."""
    with serving(tmp_path_factory.mktemp("compat")) as running:
        yield running


@pytest.fixture(scope="module")
def reference(servers: Servers) -> Reference:
    """The plain answers of those gateways."""
    return Reference(servers)


def test_clients(servers: Servers, reference: Reference) -> None:
    """Each client that is installed here does in every case what is expected of it."""
    for client in map(CLIENTS.get, HERE):
        command = environments.command_here(client)
        trial = try_client(client, command, servers, reference, SHORT)
        assert [result for result in trial.results if result.wrong] == []
        assert len(trial.tried) > len(SHORT) / 2


def test_mistakes_are_found(servers: Servers, reference: Reference, tmp_path: Path) -> None:
    """Wrong vectors, a wrong text, a wrong exception and none at all are all noticed."""
    driver = tmp_path / "mistaken.py"
    driver.write_text(MISTAKEN)
    client = Client("mistaken", "Mistaken", ("openai",), {}, driver=str(driver))
    mistaken = {"list", "shorter", "too long", "wrong key", "search"}
    cases = [case for case in CASES if case.name in mistaken]
    trial = try_client(client, environments.command_here(client), servers, reference, cases)
    assert set(trial.wrong) == mistaken


def test_page() -> None:
    """The page is the one that the results make, with every client and every case."""
    results = page.load_results()
    assert page.page(results) == page.PAGE.read_text(), "run: make compat"
    assert list(results["clients"]) == list(CLIENTS)
    for found in results["clients"].values():
        assert list(found["cases"]) == [case.name for case in CASES]


@pytest.mark.parametrize("name", CLIENTS)
def test_pins(name: str) -> None:
    """The version on the page is the one that is pinned."""
    client = CLIENTS[name]
    version = page.load_results()["clients"][name]["versions"][client.distributions[0]]
    assert version == environments.pinned_version(client)


def test_configurations() -> None:
    """What the page shows of each driver names gateway and key, and is a program of its own."""
    for client in CLIENTS.values():
        shown = page.configuration(client)
        assert page.BASE_URL in shown
        assert '"sk-gateway-..."' in shown
        assert not re.search(r"\b(case|given|options)\b", shown), client.name
        if not client.is_javascript:
            compile(shown, client.name, "exec")
