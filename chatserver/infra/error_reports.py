"""Errors for Sentry: nothing is loaded until `configure` is given a DSN.

Only what we log as an error goes there: its name, the exception's type, its stack without values
and some members of the line, all of it through the same redaction as the log. No text of an
exception, no request, no body, no header, no person.
"""

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from chatserver.infra.redaction import redact_mapping

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

STOP_S: Final = 2.0
# What of a log line goes along: names of ours and numbers.
_TAGS: Final = ("job", "namespace", "socket_event", "part", "channel", "kind", "trace_id")

_handler: "_Reporter | None" = None


def configure(dsn: str | None, *, part: str, node_id: str, environment: str, release: str) -> None:
    """Report errors of this process from now on; without a DSN, report none."""
    global _handler  # noqa: PLW0603 - like logging, one for the process
    stop()
    if not dsn:
        return
    # Loaded here alone: a start that reports nothing must not take longer.
    import sentry_sdk  # noqa: PLC0415

    sentry_sdk.init(
        dsn=dsn,
        environment=environment,
        release=release,
        server_name=node_id,
        # Nothing is looked at but what we hand over ourselves.
        default_integrations=False,
        auto_enabling_integrations=False,
        include_local_variables=False,
        include_source_context=False,
        send_default_pii=False,
        max_breadcrumbs=0,
        traces_sample_rate=None,
        before_send=_scrubbed,
    )
    sentry_sdk.set_tag("part", part)
    _handler = _Reporter()
    logging.getLogger().addHandler(_handler)


def stop() -> None:
    """Send what waits, for some seconds at most, and report nothing more."""
    global _handler
    handler, _handler = _handler, None
    if handler is None:
        return
    logging.getLogger().removeHandler(handler)
    import sentry_sdk  # noqa: PLC0415

    sentry_sdk.get_client().close(timeout=STOP_S)


class _Reporter(logging.Handler):
    """Hands over what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("sentry_sdk", "urllib3")):
            return  # what it says of itself would come back
        import sentry_sdk  # noqa: PLC0415
        from sentry_sdk.utils import event_from_exception  # noqa: PLC0415

        # structlog hands its members over as the message, the libraries a text with arguments.
        line = record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()}
        event: dict[str, Any] = {}
        hint: dict[str, Any] = {}
        error = _error_of(record, line)
        if error is not None:
            event, hint = event_from_exception(  # type: ignore[assignment]  # a dictionary
                error, client_options=sentry_sdk.get_client().options
            )
        event["level"] = record.levelname.lower().replace("critical", "fatal")
        event["logger"] = record.name
        event["message"] = str(line.get("event", ""))
        event["tags"] = {name: str(line[name]) for name in _TAGS if line.get(name) is not None}
        event["fingerprint"] = ["{{ default }}", event["message"]]
        try:
            sentry_sdk.capture_event(event, hint=hint)  # type: ignore[arg-type]  # a dictionary
        except Exception:  # noqa: BLE001 - reporting an error must not make another
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing: the error itself is in the log."""


def _error_of(record: logging.LogRecord, line: dict[str, Any]) -> Any:  # noqa: ANN401 - exc_info
    given = line.get("exc_info") or record.exc_info
    if isinstance(given, BaseException):
        return (type(given), given, given.__traceback__)
    if given is True:
        # `log.exception`: the one that is being handled.
        thrown = sys.exc_info()
        return thrown if thrown[0] is not None else None
    return given


def _scrubbed(event: "Event", _hint: "Hint") -> "Event | None":
    for thrown in (event.get("exception") or {}).get("values", []):
        # PostgreSQL's quote rows, pydantic's what was sent. The log has the text, redacted.
        thrown["value"] = ""
    for name in ("request", "user", "breadcrumbs", "modules", "contexts"):
        event.pop(name, None)  # type: ignore[misc]  # of a typed dictionary
    cleaned: Any = redact_mapping(event)
    return cleaned  # type: ignore[no-any-return]  # as it came
