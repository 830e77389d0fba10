"""The one reader of the environment: every setting, its default, and where its value came from.

Strongest first: command-line options, `EMBEDWAY_*` variables, a `.env` file in the working folder,
`embedway.toml` (or the file `EMBEDWAY_CONFIG` names), defaults. An empty value counts as none.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from annotated_types import Ge, Gt, Le, MinLen
from dotenv import dotenv_values
from platformdirs import user_cache_path, user_data_path
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)
from pydantic_core import ErrorDetails

from embedway.catalog.catalog import AUTO_MODEL, LOCAL
from embedway.config.schema import (
    ConfigError,
    Count,
    SettingsSection,
    explain_reason,
    split_url,
    unknown_setting,
)
from embedway.observe.logs import LogFormat, LogLevel
from embedway.storage import postgres

PREFIX = "EMBEDWAY_"
CONFIG_VARIABLE = "EMBEDWAY_CONFIG"
DEFAULT_CONFIG = "embedway.toml"
DOTENV = ".env"
# Where the settings file is, and the key that clients of the gateway use.
NOT_SETTINGS = frozenset({CONFIG_VARIABLE, "EMBEDWAY_API_KEY"})

ENVIRONMENT = "environment"
COMMAND_LINE = "command line"

Seconds = Annotated[float, Gt(0), Le(3600)]


def _expanded(path: Path) -> Path:
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111  # Path's fails for ~unknown


def _postgres(url: SecretStr) -> SecretStr:
    postgres.parse_url(url.get_secret_value())
    return url


def _redis(url: SecretStr) -> SecretStr:
    parts = split_url(url.get_secret_value())
    network = parts and parts.scheme in {"redis", "rediss"} and parts.hostname
    if not (parts and (network or parts.scheme == "unix")):
        raise ValueError(
            "it must be an address such as redis://:password@host:6379/0, or rediss:// for TLS, "
            "and what is special in a password is written with %: @ is %40, / is %2F"
        )
    return url


def _pepper(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", secret.get_secret_value()):
        raise ValueError(
            "it must be 64 hex digits: those of an existing one are in `xxd -p -c 32 "
            "DATA_DIR/pepper`, a new one is made by `openssl rand -hex 32`"
        )
    return secret


def _origin(origin: str) -> str:
    parts = split_url(origin)
    host = parts and parts.hostname
    if not parts or not host or "*" in origin or "@" in origin or not origin.isascii():
        raise ValueError(
            f"{origin!r} is no exact origin: list each as a browser sends it, such as "
            "https://app.example.com or http://localhost:3000"
        )
    sent = f"{parts.scheme}://[{host}]" if ":" in host else f"{parts.scheme}://{host}"
    if parts.port not in {None, {"http": 80, "https": 443}.get(parts.scheme)}:
        sent += f":{parts.port}"
    if origin != sent:
        raise ValueError(f"browsers send {origin!r} as {sent}, so write it like that")
    return origin


def _listed(value: object) -> object:
    """A list, which a variable holds as text joined by commas."""
    return [each.strip() for each in value.split(",")] if isinstance(value, str) else value


Folder = Annotated[Path, AfterValidator(_expanded)]


class Settings(SettingsSection):
    """Everything that can be set."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 for all."""
    port: Annotated[int, Ge(1), Le(65535)] = 8080
    """The port to listen on."""
    data_dir: Folder = Field(default_factory=lambda: user_data_path("embedway", appauthor=False))
    """Where keys, usage and the pepper are kept."""
    database_url: Annotated[SecretStr, AfterValidator(_postgres)] | None = None
    """A Postgres, as postgresql://user:password@host/database, to keep keys and usage in; if
    not set, they are in a SQLite file in data_dir."""
    redis_url: Annotated[SecretStr, AfterValidator(_redis)] | None = None
    """A Redis, as redis://:password@host:6379/0, that several gateways count rate limits in; if
    not set, each counts alone."""
    pepper: Annotated[SecretStr, AfterValidator(_pepper)] | None = None
    """The secret that keys are hashed with, as 64 hex digits; if not set, the file `pepper` in
    data_dir, made on first use."""
    cache_dir: Folder = Field(default_factory=lambda: user_cache_path("embedway", appauthor=False))
    """Where the weights of models are kept; safe to delete."""
    precision: Literal["auto", "bf16", "f32"] = "auto"
    """The precision of local models; auto is bf16 where the CPU has it, else f32."""
    threads: Annotated[int, Ge(1), Le(1024)] | None = None
    """Threads for local models; as many as there are cores if not set."""
    eu_native: bool = False
    """Declares that this gateway is run by an organisation based and regulated in the EU; its
    local models then serve requests with eu_native."""
    max_in_flight: Count = 512
    """Requests worked on at once; more get a 503. One project may have seven eighths of them."""
    max_in_flight_bytes: Count = 256 * 2**20
    """Bytes of request bodies and answers held at once; more bodies get a 503. Shared as
    max_in_flight is."""
    max_body_bytes: Count = 16 * 2**20
    """The largest request body; a larger one gets a 413."""
    header_timeout_s: Annotated[float, Ge(0.1), Le(3600)] = 30
    """The longest wait for a request's head, and for an idle connection."""
    body_timeout_s: Seconds = 30
    """The longest wait for a request's body, and for 256 KiB of an answer to be taken."""
    request_timeout_s: Seconds = 60
    """The longest wait for an answer to be ready."""
    drain_s: Annotated[float, Ge(0), Le(3600)] = 2
    """After SIGTERM: how long to go on serving while /readyz says no, before the port is closed
    and what is in flight is finished."""
    durability: Literal["process", "power"] = "process"
    """What the bill survives: process is kill -9 and every crash; power is a power cut too, for
    one wait for the disk at each commit."""
    local_servers: bool = True
    """Looks, at start, for Ollama, LM Studio, vLLM, TEI, Infinity and llama.cpp on their
    default ports of this machine."""
    providers_from_environment: bool = True
    """Enables every provider whose usual key is found; if false, those of embedway.toml alone."""
    providers: dict[str, dict[str, Any]] = Field({})
    """In embedway.toml: a section [providers.NAME] for each; see docs/providers.md."""
    token_audiences: Annotated[
        list[Annotated[str, MinLen(1)]], BeforeValidator(_listed), MinLen(1)
    ] = Field(["embedway"])
    """Audiences that tokens of this gateway are made and accepted for; the first is that of
    OAuth clients. In a variable, joined by commas."""
    cors_origins: Annotated[
        list[Annotated[str, AfterValidator(_origin)]], BeforeValidator(_listed)
    ] = Field([])
    """Origins whose web pages may call this gateway from a browser, such as
    https://app.example.com; exact ones, never `*`. In a variable, joined by commas."""
    issuers: dict[str, dict[str, Any]] = Field({})
    """In embedway.toml: a section [issuers.NAME] for each OpenID Connect issuer whose tokens
    are taken; see docs/authentication.md."""
    auto: Annotated[str, MinLen(1)] = f"{LOCAL}:{AUTO_MODEL}"
    """The model that `auto` names, by any of its names; a pinned choice, for another one gives
    vectors that cannot be compared with those one has."""
    aliases: dict[str, str | list[str]] = Field({})
    """In embedway.toml: a section [aliases] with a line NAME = MODEL for each; see
    docs/configuration.md."""
    models: dict[str, dict[str, Any]] = Field({})
    """In embedway.toml: a section [models."ID"] for each; see docs/configuration.md."""
    canaries: bool = True
    """Proves, with a few texts, that providers of one model give the same vectors before one
    stands in for another; if false, a bare id means its first provider alone."""
    canary_interval_s: Annotated[float, Ge(1), Le(7 * 86_400)] = 3600
    """How old a proof may be before the next use of it asks for another."""
    log_format: LogFormat = "auto"
    """auto is pretty on a terminal, else json."""
    log_level: LogLevel = "info"
    """The lowest level that is logged."""

    _origins: Mapping[str, str] = PrivateAttr(default={})

    def model_post_init(self, context: Mapping[str, str] | None, /) -> None:
        """Keeps where the values came from."""
        self._origins = context or {}

    def origin(self, name: str) -> str:
        """Where the value of this setting came from."""
        return self._origins.get(name, "default")


Content = TypeVar("Content")

_NAMES = frozenset(Settings.model_fields)
# Nobody is shown their values.
SECRETS = frozenset({"database_url", "redis_url", "pepper"})
# What nothing but the file sets, and how.
_SECTIONS = {
    "providers": "a section [providers.NAME] for each",
    "issuers": "a section [issuers.NAME] for each",
    "aliases": "a line NAME = MODEL, or NAME = [MODEL, ...], for each in the section [aliases]",
    "models": 'a section [models."ID"] for each',
}


class LoadedSettings(msgspec.Struct, frozen=True):
    """The settings in force and, for each that was set, where its value came from."""

    settings: Settings
    origins: dict[str, str]
    unknown: list[str]
    """`EMBEDWAY_*` variables of the environment that are no setting."""
    variables: Mapping[str, str]
    """Everything in the environment and in `.env`, for the keys of providers."""
    file: str | None = None
    """The settings file that was read, `embedway.toml` or the one that is named instead."""
    dotenv: Mapping[str, str | None] = {}
    """Everything in `.env`."""


def load_settings(**options: object) -> LoadedSettings:
    """Reads all sources; `options` that are not None beat them.

    Raises:
        ConfigError: A file cannot be read, a name is unknown, or a value is not possible.
    """
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    environment = _prefixed(os.environ)
    # Kubernetes puts variables of its own under this prefix for a service called embedway, so an
    # unknown one is reported but, unlike in a file, no error.
    unset = sorted(PREFIX + name.upper() for name in environment.keys() - _NAMES)
    dotenv = _dotenv()
    file, toml = _toml(dotenv)
    for origin, source in (
        (str(file), toml),
        (DOTENV, _prefixed(dotenv)),
        (ENVIRONMENT, {name: environment[name] for name in environment.keys() & _NAMES}),
        (COMMAND_LINE, options),
    ):
        for name, value in source.items():
            if name not in _NAMES:
                written = partial(_written, origin=origin)
                told = unknown_setting(name, Settings.model_fields, written=written)
                raise ConfigError(f"{origin}: {told}")
            if value is not None and value != "":
                values[name], origins[name] = value, origin
    try:
        settings = Settings.model_validate(values, context=origins)
    except ValidationError as error:
        told = dict.fromkeys(_explained(each, origins) for each in error.errors())
        raise ConfigError("\n".join(told)) from None
    variables = {name: each for name, each in {**dotenv, **os.environ}.items() if each}
    return LoadedSettings(settings, origins, unset, variables, file, dotenv)


def _toml(dotenv: Mapping[str, str | None]) -> tuple[str | None, Mapping[str, object]]:
    """The settings file, if there is one, and what is in it."""
    named = os.environ.get(CONFIG_VARIABLE) or dotenv.get(CONFIG_VARIABLE)
    config = _expanded(Path(named)) if named else Path(DEFAULT_CONFIG)
    if named or config.exists():
        hint = f"{CONFIG_VARIABLE} names it." if named else ""
        toml = _read(config, lambda: tomllib.loads(config.read_text("utf-8-sig")), hint)
        return str(config), toml
    return None, {}


def _dotenv() -> Mapping[str, str | None]:
    # With the mark that editors on Windows put first.
    return _read(DOTENV, lambda: dotenv_values(DOTENV, encoding="utf-8-sig"))


def _read(file: str | Path, read: Callable[[], Content], hint: str = "") -> Content:
    try:
        return read()
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise ConfigError(f"{file} cannot be read: {why}. {hint}".rstrip()) from None


def _prefixed(variables: Mapping[str, str | None]) -> dict[str, object]:
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in variables.items()
        if name.startswith(PREFIX) and name not in NOT_SETTINGS
    }


def _written(name: str, origin: str) -> str:
    """The setting's name as it is written there."""
    if origin == COMMAND_LINE:
        return f"--{name.replace('_', '-')}"
    return PREFIX + name.upper() if origin in {ENVIRONMENT, DOTENV} else name


def _explained(error: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = str(error["loc"][0])
    origin, value = origins[name], error["input"]
    if section := _SECTIONS.get(name):
        wrong = ".".join(map(str, error["loc"][:2]))
        return (
            f"{origin}: {wrong} cannot be this. What sets {name} is {section} of {DEFAULT_CONFIG}, "
            "and nothing else."
        )
    if name == "port" and origin == ENVIRONMENT and str(value).startswith("tcp://"):
        return (
            f"{origin}: EMBEDWAY_PORT = {value!r} was set by Kubernetes, which does so for a "
            "service called 'embedway'. Put `enableServiceLinks: false` into the pod's spec, or "
            "name the service otherwise."
        )
    if name in SECRETS:
        written = _written(name, origin)
        return f"{origin}: {written}: {explain_reason(error)}. Correct it, or take it out."
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    return (
        f"{origin}: {_written(name, origin)} = {value!r}: {explain_reason(error)}. "
        "Correct it, or take "
        f"it out for the default, {'none' if default in (None, []) else default}."
    )
