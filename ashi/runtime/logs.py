"""Logs: short sentences with key=value, as JSON lines in a container and readable on a terminal, to stderr."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from ashi.runtime.library_logs import LIBRARIES, WEATHER, LibraryFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

    from ashi.runtime.settings import Settings

# Until `configure_logging`, and in commands that never call it: warnings to stderr, and nothing to stdout, where
# structlog writes by default and commands print their results.
structlog.configure(
    processors=[structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=False,
)


class _Handler(logging.StreamHandler[Any]):
    """The one handler of Ashi; its type tells it apart from handlers that others have set."""

    repetitions: LibraryFilter | None = None

    def limit(self) -> None:
        """Write what libraries repeat only now and then."""
        self.repetitions = LibraryFilter(_tell_held_back)
        self.addFilter(self.repetitions)


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger: `log.info("candles written", count=3)`. May be called before `configure_logging`."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def get_weather_logger(name: str) -> FilteringBoundLogger:
    """A logger of warnings that come again and again while something lasts, as Kafka that is away.

    Each sentence is written at most once a minute, with how often it was held back, and one line says when it is over.
    """
    return get_logger(f"{WEATHER}.{name}")


def configure_logging(settings: Settings, service: str) -> None:
    """Send the logs of Ashi and of all libraries to stderr in one form, with `service` in each."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _add_service(service),
    ]
    as_text = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                _add_held_back,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(as_text),
            ],
        )
    )
    if level > logging.DEBUG:
        handler.limit()
    root = logging.getLogger()
    for other in root.handlers:
        if isinstance(other, _Handler) and other.repetitions is not None:
            other.repetitions.close()
    root.handlers = [other for other in root.handlers if not isinstance(other, _Handler)] + [handler]
    root.setLevel(level)
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def flush_logs() -> None:
    """Write out what is buffered, and how much was held back, before a process ends."""
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, _Handler) and handler.repetitions is not None:
            handler.repetitions.close()
        handler.flush()


def _tell_held_back(sentence: str, count: int, causes: Mapping[str, int]) -> None:
    get_logger(__name__).warning(sentence, held_back=count, causes=dict(causes))


def _add_held_back(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """How many records like it were not written since the one before."""
    held_back = getattr(event.get("_record"), "held_back", 0)
    if held_back:
        event["held_back"] = held_back
    return event


def _add_service(service: str) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    return add


def _renderers(as_text: bool) -> list[Processor]:
    if as_text:
        return [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                timestamp_key="time",
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    return [structlog.processors.format_exc_info, _in_order, structlog.processors.JSONRenderer(serializer=_to_json)]


def _in_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    first = {key: event[key] for key in ("time", "level", "service", "event") if key in event}
    return {**first, **event}


def _to_json(event: EventDict, **_: Any) -> str:
    # A dataclass, such as Settings, by its own repr: it knows which of its fields are not to be shown.
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS).decode()
