"""Reads every setting, with its default and the source of its value.

The sources, strongest first: command-line options, `EMBEDWAY_*` variables, a `.env` file in the
working folder, `embedway.toml` (or the file that `EMBEDWAY_CONFIG` names), defaults. An empty value
counts as not set. No other module reads the environment.
"""

import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
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

from embedway.config.schema import (
    ConfigError,
    Count,
    SettingsSection,
    explain_reason,
    read_text_file,
    split_url,
    unknown_setting,
)
from embedway.core.request import DEFAULT_MAX_ITEMS
from embedway.observe.logs import LogFormat, LogLevel
from embedway.storage import postgres

PREFIX = "EMBEDWAY_"
CONFIG_VARIABLE = "EMBEDWAY_CONFIG"
DEFAULT_CONFIG = "embedway.toml"
DOTENV = ".env"
NOT_SETTINGS = frozenset({CONFIG_VARIABLE, "EMBEDWAY_API_KEY", "EMBEDWAY_BASE_URL"})
"""The variables with the prefix that are not settings: the file's name, and what clients read."""

MAX_WORKERS = 64
"""The most processes that may share a port."""

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
            "it must be an address such as redis://:password@host:6379/0, or rediss:// for TLS. "
            "In a password, write special characters with %: @ is %40, / is %2F"
        )
    return url


def _file_store(place: object) -> object:
    """Check where files are kept; an `s3://` address stays text."""
    if not isinstance(place, str):
        return place
    parts = split_url(place)
    if "://" not in place:
        return _expanded(Path(place))
    if not parts or parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query:
        raise ValueError(
            "it must be a folder, or an address such as s3://bucket/prefix. The variables "
            "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say where "
            "the bucket is and who asks"
        )
    return place.rstrip("/")


def _workers(value: object) -> object:
    """Check a number of workers, which is text in a variable."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value
    if number == "auto":
        return number
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MAX_WORKERS:
        return number
    raise ValueError(f"it must be a whole number from 1 to {MAX_WORKERS}, or auto")


def _pepper(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", secret.get_secret_value()):
        raise ValueError(
            "it must be 64 hex digits. Print an existing one with `xxd -p -c 32 DATA_DIR/pepper`, "
            "or make a new one with `openssl rand -hex 32`"
        )
    return secret


def _origin(origin: str) -> str:
    parts = split_url(origin)
    host = parts and parts.hostname
    if not parts or not host or "*" in origin or "@" in origin or not origin.isascii():
        raise ValueError(
            f"{origin!r} is not an exact origin: write each as a browser sends it, such as "
            "https://app.example.com or http://localhost:3000"
        )
    canonical = f"{parts.scheme}://[{host}]" if ":" in host else f"{parts.scheme}://{host}"
    if parts.port not in {None, {"http": 80, "https": 443}.get(parts.scheme)}:
        canonical += f":{parts.port}"
    if origin != canonical:
        raise ValueError(f"browsers send {origin!r} as {canonical}, so write it like that")
    return origin


def _split_list(value: object) -> object:
    """Split text at its commas, since variables hold lists so."""
    return [each.strip() for each in value.split(",")] if isinstance(value, str) else value


def check_collector(url: str) -> str:
    """Return the address of a collector without a slash at its end, for use in a setting.

    Raises:
        ValueError: It is no HTTP address, or holds a password.
    """
    parts = split_url(url)
    is_http = parts and parts.scheme in {"http", "https"} and parts.hostname
    if not parts or not is_http or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(
            "it must be an address such as http://localhost:4318. Put keys into "
            "OTEL_EXPORTER_OTLP_HEADERS"
        )
    return url.rstrip("/")


Folder = Annotated[Path, AfterValidator(_expanded)]
_AT_START = "takes effect at the next start"
Value = TypeVar("Value")
AtStart = Annotated[Value, _AT_START]
"""A setting that a reload cannot change, because a running process cannot."""


class Settings(SettingsSection):
    """All settings. `docs/configuration.md` describes them in the same words."""

    host: AtStart[str] = "127.0.0.1"
    """The address to listen on; 0.0.0.0 for all."""
    port: AtStart[Annotated[int, Ge(1), Le(65535)]] = 8080
    """The port to listen on."""
    workers: AtStart[Annotated[int | Literal["auto"], BeforeValidator(_workers)]] = 1
    """The processes that share the port. `auto` is one for each core, at most 8. They divide
    `max_in_flight` and `max_in_flight_bytes` equally."""
    data_dir: AtStart[Folder] = Field(
        default_factory=lambda: user_data_path("embedway", appauthor=False)
    )
    """Where keys, usage and the pepper are kept."""
    database_url: AtStart[Annotated[SecretStr, AfterValidator(_postgres)] | None] = None
    """The Postgres that keeps keys and usage, as `postgresql://user:password@host/database`. If not
    set, a SQLite file in `data_dir` keeps them."""
    redis_url: AtStart[Annotated[SecretStr, AfterValidator(_redis)] | None] = None
    """The Redis that several gateways count rate limits in, as `redis://:password@host:6379/0`. If
    not set, each gateway counts alone."""
    pepper: AtStart[Annotated[SecretStr, AfterValidator(_pepper)] | None] = None
    """The secret that keys are hashed with, as 64 hex digits. If not set, the file `pepper` in
    `data_dir`, which is made on first use."""
    file_store: AtStart[Annotated[Path | str, BeforeValidator(_file_store)] | None] = None
    """Where uploaded files and the results of batches are kept: a folder, or `s3://bucket/prefix`.
    If not set, the folder `files` in `data_dir`."""
    max_project_file_bytes: AtStart[Count] = 10 * 2**30
    """The most bytes that all files of a project may have; another upload gets a 400."""
    cache_dir: AtStart[Folder] = Field(
        default_factory=lambda: user_cache_path("embedway", appauthor=False)
    )
    """Where model weights are kept; safe to delete."""
    precision: AtStart[Literal["auto", "bf16", "f32", "int8"]] = "auto"
    """The precision of local models. `auto` is bf16 where the CPU supports it, else f32. `int8` is
    faster than f32 and less exact, and needs a CPU with VNNI: it serves another model,
    `all-minilm-l6-v2-int8`, in its place."""
    threads: AtStart[Annotated[int, Ge(1), Le(1024)] | None] = None
    """The threads for local models. If not set, one for each core."""
    eu_native: bool = False
    """Declares that an organisation based and regulated in the EU runs this gateway. Its local
    models then serve requests with `eu_native`."""
    max_in_flight: Count = 512
    """The most requests to work on at once; more get a 503. One project may use at most seven
    eighths."""
    max_in_flight_bytes: Count = 256 * 2**20
    """The most bytes of request bodies, providers' replies and answers to hold at once; further
    requests get a 503. One project may use at most seven eighths."""
    max_body_bytes: Count = 16 * 2**20
    """The largest request body; a larger one gets a 413."""
    max_items: Annotated[int, Ge(1), Le(100_000)] = DEFAULT_MAX_ITEMS
    """The most items of one request; more get a 400. The gateway cuts a request into calls that its
    provider takes."""
    header_timeout_s: AtStart[Annotated[float, Ge(0.1), Le(3600)]] = 30
    """How long a request's headers may take to arrive, and how long an idle connection is kept."""
    body_timeout_s: Seconds = 30
    """How long a request's body may take to arrive, and how long a client may take to read each
    256 KiB of its answer."""
    request_timeout_s: Seconds = 60
    """How long an answer may take."""
    drain_s: Annotated[float, Ge(0), Le(3600)] = 2
    """How long to keep serving after SIGTERM while `/readyz` says no. Then the port closes, and
    requests in flight finish."""
    durability: AtStart[Literal["process", "power"]] = "process"
    """What the ledger survives. `process`: `kill -9` and every crash. `power`: a power cut too, at
    the price of one wait for the disk at each commit."""
    local_servers: bool = True
    """Looks at start for Ollama, LM Studio, vLLM, TEI, Infinity and llama.cpp on their default
    ports on this machine."""
    providers_from_environment: bool = True
    """Enables every provider whose usual key is set. If `false`, only those in `embedway.toml`."""
    providers: dict[str, dict[str, Any]] = Field({})
    """In `embedway.toml`: a section `[providers.NAME]` for each provider."""
    token_audiences: Annotated[
        list[Annotated[str, MinLen(1)]], BeforeValidator(_split_list), MinLen(1)
    ] = Field(["embedway"])
    """The audiences for which this gateway makes and accepts its tokens. The first is that of OAuth
    clients. In a variable, separate them with commas."""
    cors_origins: Annotated[
        list[Annotated[str, AfterValidator(_origin)]], BeforeValidator(_split_list)
    ] = Field([])
    """The origins whose web pages may call this gateway from a browser, such as
    `https://app.example.com`; exact ones, never `*`. In a variable, separate them with commas."""
    issuers: dict[str, dict[str, Any]] = Field({})
    """In `embedway.toml`: a section `[issuers.NAME]` for each OpenID Connect issuer whose tokens to
    accept."""
    webhooks: dict[str, dict[str, Any]] = Field({})
    """In `embedway.toml`: a section `[webhooks.NAME]` for each address that receives events."""
    auto: Annotated[str, MinLen(1)] | None = None
    """The model that `auto` stands for, by any of its names. If not set, the built-in model. Choose
    it once: vectors of another model cannot be compared with those you already have."""
    aliases: dict[str, str | list[str]] = Field({})
    """In `embedway.toml`: a section `[aliases]` with a line `NAME = MODEL` for each."""
    models: dict[str, dict[str, Any]] = Field({})
    """In `embedway.toml`: a section `[models."ID"]` for each."""
    canaries: bool = True
    """Proves with a few texts that providers of one model return the same vectors, before one
    stands in for another. If `false`, a bare id means its first provider alone."""
    canary_interval_s: Annotated[float, Ge(1), Le(7 * 86_400)] = 3600
    """How long a proof lasts. The next use after that starts another probe."""
    otlp_endpoint: AtStart[Annotated[str, AfterValidator(check_collector)] | None] = None
    """The OpenTelemetry collector that takes traces and metrics, such as `http://localhost:4318`.
    If not set, `OTEL_EXPORTER_OTLP_ENDPOINT` decides; without either, none are sent."""
    log_format: AtStart[LogFormat] = "auto"
    """`auto` is pretty on a terminal, else JSON."""
    log_level: LogLevel = "info"
    """The lowest level to log."""

    _origins: Mapping[str, str] = PrivateAttr(default={})

    def model_post_init(self, context: Mapping[str, str] | None, /) -> None:
        """Keep the sources of the values."""
        self._origins = context or {}

    @classmethod
    @cache
    def fixed_at_start(cls) -> Collection[str]:
        """Return the settings that a reload cannot change."""
        fields = cls.model_fields.items()
        return [name for name, field in fields if _AT_START in field.metadata]

    def origin(self, name: str) -> str:
        """Return the source of this setting's value."""
        return self._origins.get(name, "default")


Content = TypeVar("Content")

_NAMES = frozenset(Settings.model_fields)
SECRETS = frozenset({"database_url", "redis_url", "pepper"})
"""The settings whose values are never shown."""
SECTIONS = {
    "providers": "a section [providers.NAME] for each",
    "issuers": "a section [issuers.NAME] for each",
    "webhooks": "a section [webhooks.NAME] for each",
    "aliases": "a line NAME = MODEL, or NAME = [MODEL, ...], for each in the section [aliases]",
    "models": 'a section [models."ID"] for each',
}
"""The settings that only the file can set, and how."""


class LoadedSettings(msgspec.Struct, frozen=True):
    """The settings in force and their sources."""

    settings: Settings
    origins: dict[str, str]
    """The source of each setting that was set."""
    unknown: list[str]
    """The `EMBEDWAY_*` variables in the environment that are not settings."""
    variables: Mapping[str, str]
    """All variables of the environment and of `.env`, which hold the keys of providers."""
    file: str | None = None
    """The settings file that was read; None if there is none."""
    dotenv: Mapping[str, str | None] = {}
    """All variables of `.env`."""
    options: Mapping[str, object] = {}
    """The options of the command line, which win over all else whenever the sources are read."""

    def resolve(self, text: str, *, where: str) -> str:
        """Return the value of the variable that `text` names as $NAME, or `text` itself.

        Raises:
            ConfigError: The variable is not set; the message begins with `where`.
        """
        if not text.startswith("$"):
            return text
        value = self.variables.get(text[1:].strip("{}"))
        if value is None:
            raise ConfigError(
                f"{where}: {text} is not set, neither in the environment nor in .env."
            )
        return value


def load_settings(**options: object) -> LoadedSettings:
    """Read all sources; `options` that are not None win.

    Raises:
        ConfigError: A file cannot be read, a name is unknown, or a value is invalid.
    """
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    environment = _prefixed(os.environ)
    in_files = {f"{name}_file": name for name in SECRETS}
    names = _NAMES | in_files.keys()
    # Kubernetes sets variables with this prefix for a service called embedway, so an unknown one is
    # reported but, unlike in a file, not an error.
    unknown = sorted(PREFIX + name.upper() for name in environment.keys() - names)
    dotenv = _dotenv()
    file, toml = _toml(dotenv)
    wrong: list[str] = []
    for origin, source in (
        (str(file), toml),
        (DOTENV, _prefixed(dotenv)),
        (ENVIRONMENT, {name: environment[name] for name in environment.keys() & names}),
        (COMMAND_LINE, options),
    ):
        for name, value in source.items():
            if value and name in in_files:
                secret, path = in_files[name], _expanded(Path(str(value)))
                if source.get(secret):
                    wrong.append(
                        f"{origin}: {_spelled(secret, origin)} and {_spelled(name, origin)} are "
                        "both set. Remove one."
                    )
                try:
                    values[secret], origins[secret] = read_text_file(path), str(path)
                except ConfigError as error:
                    wrong.append(f"{origin}: {_spelled(name, origin)}: {error}")
            elif name not in names:
                spell = partial(_spelled, origin=origin)
                message = unknown_setting(name, Settings.model_fields, spell=spell)
                wrong.append(f"{origin}: {message}")
            elif name in _NAMES and value is not None and value != "":
                values[name], origins[name] = value, origin
    settings = _validate(values, origins, wrong)
    variables = {name: each for name, each in {**dotenv, **os.environ}.items() if each}
    return LoadedSettings(settings, origins, unknown, variables, file, dotenv, options)


def _validate(
    values: Mapping[str, object], origins: Mapping[str, str], wrong: list[str]
) -> Settings:
    """Return the settings, unless one of them is not valid or something is `wrong` already."""
    try:
        settings = Settings.model_validate(values, context=origins)
    except ValidationError as error:
        wrong = [*wrong, *dict.fromkeys(_explained(each, origins) for each in error.errors())]
        raise ConfigError("\n".join(wrong)) from None
    except RuntimeError:  # from platformdirs
        raise ConfigError(
            "This user has no home folder. Set EMBEDWAY_DATA_DIR and EMBEDWAY_CACHE_DIR to folders "
            "that it may write, or HOME to one."
        ) from None
    if wrong:
        raise ConfigError("\n".join(wrong))
    return settings


def settings_file() -> Path:
    """Return the path of the settings file, whether or not it exists."""
    return _file(_dotenv())


def _file(dotenv: Mapping[str, str | None]) -> Path:
    name = os.environ.get(CONFIG_VARIABLE) or dotenv.get(CONFIG_VARIABLE)
    return _expanded(Path(name)) if name else Path(DEFAULT_CONFIG)


def _toml(dotenv: Mapping[str, str | None]) -> tuple[str | None, Mapping[str, object]]:
    """Read the settings file, if there is one; return its name and content."""
    config = _file(dotenv)
    is_named = config != Path(DEFAULT_CONFIG)
    if is_named or config.exists():
        hint = f"{CONFIG_VARIABLE} names it." if is_named else ""
        toml = _read(config, lambda: tomllib.loads(config.read_text("utf-8-sig")), hint)
        return str(config), toml
    return None, {}


def _dotenv() -> Mapping[str, str | None]:
    # Editors on Windows begin files with a byte order mark.
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


def _spelled(name: str, origin: str) -> str:
    """Return the setting's name as this source spells it."""
    if origin == COMMAND_LINE:
        return f"--{name.replace('_', '-')}"
    return PREFIX + name.upper() if origin in {ENVIRONMENT, DOTENV} else name


def _explained(error: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = str(error["loc"][0])
    origin, value = origins[name], error["input"]
    if section := SECTIONS.get(name):
        wrong = ".".join(map(str, error["loc"][:2]))
        return (
            f"{origin}: {wrong} is not valid. Set {name} only in {DEFAULT_CONFIG}, with {section}."
        )
    if name == "port" and origin == ENVIRONMENT and str(value).startswith("tcp://"):
        return (
            f"{origin}: EMBEDWAY_PORT = {value!r} was set by Kubernetes, which does so for a "
            "service called 'embedway'. Put `enableServiceLinks: false` into the pod's spec, or "
            "give the service another name."
        )
    setting = _spelled(name, origin)
    if name in SECRETS or re.search(r"//[^/]*@", str(value)):  # a password may be in it
        return f"{origin}: {setting}: {explain_reason(error)}. Correct it, or remove it."
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    return (
        f"{origin}: {setting} = {value!r}: {explain_reason(error)}. Correct it, or remove it for "
        f"the default, {'none' if default in (None, []) else default}."
    )
