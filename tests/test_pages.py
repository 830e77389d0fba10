"""Every command line in the README and the docs is understood, and runs where that is cheap."""

import hashlib
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
from embedway.testing import Upstream

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
    "serve": "it runs until it is stopped, and all other tests do so",
    "spaces release": "it needs a deployment that has drifted: test_drift.py has one",
    "providers verify": "the scripted provider takes any key and model: test_verify.py says which",
}

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
    (gateway.folder / "catalog.toml").write_text(gateway.cli("catalog", "export").stdout)
    gateway.start()
    assert gateway.embed(input="one", user="alice").status_code == 200
    assert gateway.embed(model="deepinfra:bge-m3", input="one").status_code == 200
    gateway.kill()
    for line in (
        "projects create --name web --budget 25/month",
        "users set alice --project web --budget 2/day", "users block bob --project web",
        "keys create --name shop --project web",
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


def test_clients_of_the_readme(gateway: Gateway, reader: dict[str, str]) -> None:
    """The README's programs that need no provider run."""
    readme = (ROOT / "README.md").read_text()
    programs = [
        block.replace(OURS, gateway.url).replace("sk-gateway-...", reader["EMBEDWAY_API_KEY"])
        for language, block in FENCE.findall(readme)
        if language == "python" and ("import openai" in block or "import SDK" in block)
    ]
    assert len(programs) == 3
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=reader, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
