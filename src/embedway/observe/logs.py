"""Configures structured logs on stderr. They hold events and ids, never inputs or secrets."""

import logging
import sys
import threading
from types import TracebackType
from typing import Any, Literal

import orjson
import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

LogFormat = Literal["auto", "json", "pretty"]
LogLevel = Literal["debug", "info", "warning", "error"]


class _Logger(structlog.make_filtering_bound_logger("info")):
    """The class of all loggers, whose base decides the level."""


def set_level(level: LogLevel) -> None:
    """Change the lowest level to log."""
    # Loggers are cached, and all are of this class, so this reaches every one at no cost to them.
    _Logger.__bases__ = (structlog.make_filtering_bound_logger(level),)
    logging.getLogger().setLevel(_level_of_libraries(level))


def configure_logs(*, format: LogFormat, level: LogLevel, for_good: bool = False) -> None:
    """Set up logging for the process.

    Args:
        format: The format of lines; `auto` is pretty on a terminal and JSON elsewhere.
        level: The lowest level to log.
        for_good: Whether this set-up is final, so that loggers may cache it, which is faster.
    """
    _Logger.__bases__ = (structlog.make_filtering_bound_logger(level),)
    pretty = format == "pretty" or (format == "auto" and sys.stderr.isatty())
    stamps: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _rendering(pretty=pretty)
    structlog.configure(
        cache_logger_on_first_use=for_good,
        wrapper_class=_Logger,
        processors=[*stamps, *rendering],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    _take_over(
        ProcessorFormatter(
            foreign_pre_chain=stamps,
            processors=[ProcessorFormatter.remove_processors_meta, *rendering],
        ),
        level=_level_of_libraries(level),
    )


def _level_of_libraries(level: LogLevel) -> int:
    return max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])


def _rendering(*, pretty: bool) -> list[Processor]:
    if pretty:
        # structlog's default would show local variables, such as inputs and keys.
        traceback = structlog.dev.plain_traceback
        colors = sys.stderr.isatty()
        return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]


def _json(event: object, **options: Any) -> str:
    return orjson.dumps(event, **options).decode()


def _take_over(formatter: logging.Formatter, *, level: int) -> None:
    """Format what libraries log, and uncaught exceptions, like all other lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _crashed
    threading.excepthook = lambda args: _crashed(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )


def _crashed(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    structlog.get_logger("embedway").critical("crashed", exc_info=error)
