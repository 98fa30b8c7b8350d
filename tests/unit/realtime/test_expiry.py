"""When the end of a credential is announced, and what follows."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from chatserver.kernel.clock import utc_now
from chatserver.kernel.principal import Principal
from chatserver.realtime.expiry import MAX_HELD, look_at
from chatserver.realtime.hub import Connection
from chatserver.realtime.packets import Outgoing, event_packet
from chatserver.realtime.ports import Handshake
from chatserver.realtime.session import Session
from tests.support.realtime import principal

ISSUED = 1_000_000.0


class Wire:
    """A socket that keeps what it is given."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.has_ended = False

    def put_nowait(self, item: Any) -> None:
        text = item.frame.decode()
        if text.startswith("42"):
            name, fact = orjson.loads(text[text.index("[") :])
            self.told.append((name, fact["data"]))

    def end(self, *last: Any, after_s: float = 0.0) -> None:
        self.has_ended = True
        for item in last:
            self.put_nowait(item)


class Open:
    """A session of one namespace, accepted with a credential of some life."""

    def __init__(self, life_s: float) -> None:
        self.wire = Wire()
        self.session = Session("eio", self.wire, Handshake({}, "", None))  # type: ignore[arg-type]
        self.end = ISSUED + life_s
        self.accept(replace(principal("alice"), issued_at=ISSUED, expires_at=self.end))

    def accept(self, who: Principal) -> None:
        self.connection = Connection("/chat", who, "sid", self.wire, self.session)
        self.connection.open()
        self.session.connections["/chat"] = self.connection
        self.session.verified = {("token", None): who}

    def at(self, moment: float) -> list[str]:
        look_at(
            self.session,
            moment,
            utc_now,
            lambda session, *why: session.end(utc_now, *why),
        )
        return [name for name, _ in self.wire.told]


@pytest.mark.parametrize(
    ("life_s", "notice_s"),
    [(30, 60), (200, 60), (300, 60), (600, 120), (3600, 720), (90 * 86_400, 18 * 86_400)],
)
def test_it_is_announced_a_minute_or_a_fifth_of_the_life_before(
    life_s: float, notice_s: float
) -> None:
    opened = Open(life_s)
    assert opened.at(opened.end - notice_s - 1) == []
    assert opened.at(opened.end - notice_s) == ["auth.expiring"]
    assert opened.at(opened.end - 1) == ["auth.expiring"], "once"


def test_what_happens_after_the_end_waits_for_the_refresh() -> None:
    opened = Open(600)
    opened.at(opened.end)
    for _ in range(3):
        opened.connection.send(_packet())
    assert [name for name, _ in opened.wire.told] == ["auth.expiring"]
    opened.connection.open()
    assert [name for name, _ in opened.wire.told][1:] == ["x", "x", "x"]


def test_it_is_closed_25_seconds_after_the_end() -> None:
    opened = Open(600)
    opened.at(opened.end + 24)
    assert not opened.wire.has_ended
    opened.at(opened.end + 25)
    assert opened.wire.told[-1][1]["code"] == "auth.expired"
    assert opened.wire.told[-1][1]["reconnect"] == "never"


def test_not_more_than_a_thousand_facts_wait() -> None:
    opened = Open(600)
    opened.at(opened.end)
    for _ in range(MAX_HELD + 1):
        opened.connection.send(_packet())
    opened.at(opened.end + 2)
    assert opened.wire.has_ended


def test_the_credential_that_ends_first_counts() -> None:
    opened = Open(600)
    late = replace(principal("alice"), issued_at=ISSUED, expires_at=opened.end + 9000)
    opened.session.verified["later", None] = late
    assert opened.at(opened.end - 100) == ["auth.expiring"]


def test_a_credential_without_an_end_is_left_alone() -> None:
    opened = Open(600)
    opened.accept(principal("alice"))
    assert opened.at(opened.end + 10_000) == []


def _packet() -> Outgoing:
    return event_packet("/chat", "x", b'{"data":null}')
