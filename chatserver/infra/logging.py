"""Structured logs of the whole process: our events and the libraries' lines, through one renderer.

Whatever is bound with `structlog.contextvars` (`request_id`, `trace_id`, ...) stands on every line
of that task, and the id of `TRACE`.
"""

import fcntl
import glob
import logging
import re
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, TextIO
from uuid import uuid4

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from chatserver.infra.redaction import redact_mapping
from chatserver.kernel.errors import OperatorError

LogFormat = Literal["console", "json"]

KEPT_FILES: Final = 14
_ANY_DAY: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"

# At INFO or DEBUG these write whole packets, SQL parameters, request bodies: people's messages.
_TALKATIVE: Final = (
    "aiosmtplib",
    "asyncio",
    "boto3",
    "botocore",
    "dramatiq",
    "engineio",
    "httpcore",
    "httpx",
    "openai",
    "opentelemetry",
    "sentry_sdk",
    "socketio",
    "sqlalchemy",
    "urllib3",
)

# Controls (a forged second line, a terminal escape), line separators, directions, surrogates.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_TRACE_KEYS: Final = ("exception", "stack")


class Trace:
    """The id of one command. It is made when somebody asks for it: most are never logged."""

    __slots__ = ("_id",)

    def __init__(self, trace_id: str = "") -> None:
        self._id = trace_id

    @property
    def id(self) -> str:
        if not self._id:
            self._id = uuid4().hex
        return self._id


# Which command this task runs. Binding it to structlog would cost more than most commands do.
TRACE: Final[ContextVar[Trace | None]] = ContextVar("trace", default=None)


class LogFileError(OperatorError):
    """`LOG_FILE` cannot be written; the message says what to do."""


def configure(level: str, log_format: LogFormat, file: Path | None = None) -> None:
    """Set up logging for this process; a second call replaces the first.

    Args:
        level: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`, in any case.
        log_format: of stderr; the file always holds JSON lines.
        file: also write there, one file a day (UTC), 14 ended ones kept; processes may share it.

    Raises:
        LogFileError: the file cannot be opened for writing.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    handlers: list[logging.Handler] = [_StderrHandler()]
    handlers[0].setFormatter(_formatter(log_format))
    if file is not None:
        handlers.append(_open_file(file))
        handlers[1].setFormatter(_formatter("json"))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(number)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def configure_command() -> None:
    """Let a command of the program say on stderr what goes wrong, and on stdout only its answer."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_safely(*_for_people(colors=False)),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        cache_logger_on_first_use=False,
    )


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        add_trace,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Say on a line which command it belongs to."""
    trace = TRACE.get()
    if trace is not None:
        event.setdefault("trace_id", trace.id)
    return event


def _formatter(log_format: LogFormat) -> logging.Formatter:
    last: list[Processor]
    if log_format == "json":
        last = [structlog.processors.JSONRenderer(sort_keys=False)]
    else:
        last = _for_people(colors=sys.stderr.isatty())
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_safely(*last),
        ],
    )


def _safely(*last: Processor) -> list[Processor]:
    # Redaction stands after everything that adds text and before everything that renders it.
    return [structlog.processors.format_exc_info, _redact_event, *last]


def _for_people(*, colors: bool) -> list[Processor]:
    return [
        _escape_controls,
        structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        ),
    ]


def _redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return dict(redact_mapping(event))


def _escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    safe: EventDict = {}
    for name, value in event.items():
        if name in _TRACE_KEYS and isinstance(value, str):
            # The bar keeps a line inside an exception's message from passing for a log line.
            safe[name] = "\n".join(f"  | {_escape(line)}" for line in value.split("\n"))
        elif isinstance(value, str):
            safe[_escape(name)] = _escape(value)
        else:
            # Nested values are printed by repr, which escapes the same characters.
            safe[_escape(name)] = value
    return safe


def _escape(text: str) -> str:
    return _UNSAFE.sub(lambda found: ascii(found.group())[1:-1], text)


class _DiscreetHandler(logging.Handler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        # The inherited one prints message and arguments as they are, past the redaction.
        error = sys.exc_info()[0]
        sys.stderr.write(
            f"A log line of {record.name} ({record.filename}:{record.lineno}) could not be "
            f"written: {error.__name__ if error else 'unknown error'}\n"
        )


class _StderrHandler(_DiscreetHandler, logging.StreamHandler[TextIO]):
    """Writes to stderr."""


class DailyFileHandler(_DiscreetHandler, logging.FileHandler):
    """One file a day; several processes may write to the same one.

    The standard library's rotation deletes a target that exists, so the second process to notice
    midnight would delete the day that the first has just put aside.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self._file = Path(self.baseFilename)
        self._day = _day(self._file.stat().st_mtime)

    def emit(self, record: logging.LogRecord) -> None:
        today = _day(record.created)
        if today > self._day:
            ended, self._day = self._day, today
            try:
                self._put_aside(ended)
            except OSError:
                self.handleError(record)  # and goes on in the file it has
        super().emit(record)

    def _put_aside(self, ended: str) -> None:
        target = self._file.with_name(f"{self._file.name}.{ended}")
        with self._file.with_name(f".{self._file.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._file.exists() and not target.exists():
                self._file.rename(target)
            days = sorted(self._file.parent.glob(f"{glob.escape(self._file.name)}.{_ANY_DAY}"))
            for outdated in days[:-KEPT_FILES]:
                outdated.unlink(missing_ok=True)
        fresh = self._open()
        previous = self.setStream(fresh)
        if previous is not None:
            previous.close()


def _day(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).date().isoformat()


def _open_file(file: Path) -> logging.Handler:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return DailyFileHandler(file)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise LogFileError(
            f"LOG_FILE {file} cannot be written ({reason}). Name a file in a directory that this "
            "process may write to, or leave LOG_FILE empty: logs go to stderr in any case."
        ) from error


def _log_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger(__name__).critical("process_crashed", exc_info=(kind, error, trace))


def _log_thread_crash(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is None or issubclass(crash.exc_type, SystemExit):
        return
    structlog.get_logger(__name__).critical(
        "thread_crashed",
        thread=crash.thread.name if crash.thread else None,
        exc_info=(crash.exc_type, crash.exc_value, crash.exc_traceback),
    )
