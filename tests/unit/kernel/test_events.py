from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg.pgproto.pgproto as pg
import orjson
import pytest

from chatserver.kernel.events import NO_EFFECT, SYSTEM, Actor, Effect, encode
from chatserver.kernel.ids import uuid7

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ROOM = uuid7()
FACT = uuid7()


def encoded(**more: Any) -> dict[str, Any]:
    members: dict[str, Any] = {
        "type": "message.created",
        "id": FACT,
        "room_id": ROOM,
        "epoch": "1.1",
        "seq": 7,
        "ts": NOON,
        "actor": Actor("user", "alice"),
        "data": {"x": 1},
    }
    made: dict[str, Any] = orjson.loads(encode(**(members | more)))
    return made


class TestEncode:
    def test_a_sequenced_fact_has_all_members_of_the_contract(self) -> None:
        assert encoded(client_msg_id="c-1") == {
            "v": 1,
            "type": "message.created",
            "id": str(FACT),
            "room_id": str(ROOM),
            "epoch": "1.1",
            "seq": 7,
            "ts": "2026-11-20T12:00:00.000Z",
            "actor": {"type": "user", "id": "alice"},
            "data": {"x": 1},
            "client_msg_id": "c-1",
        }

    def test_a_fact_without_a_seq_has_no_epoch_either(self) -> None:
        assert not {"seq", "epoch", "client_msg_id"} & set(encoded(seq=None))

    def test_a_fact_about_a_person_alone_has_no_room(self) -> None:
        assert "room_id" not in encoded(room_id=None, seq=None)

    def test_the_system_acts_under_no_name(self) -> None:
        assert encoded(actor=SYSTEM)["actor"] == {"type": "system", "id": None}

    def test_extra_members_stand_beside_the_others(self) -> None:
        assert encoded(extra={"superseded": True})["superseded"] is True

    def test_ids_of_the_driver_are_written_as_ours(self) -> None:
        assert encoded(id=pg.UUID(FACT.bytes), data={"at": pg.UUID(ROOM.bytes)})["data"] == {
            "at": str(ROOM)
        }

    def test_what_is_no_json_is_a_bug_and_not_sent(self) -> None:
        with pytest.raises(TypeError):
            encoded(data={"x": object()})


class TestEffect:
    @pytest.mark.parametrize(
        "effect",
        [
            NO_EFFECT,
            Effect(entered=(UUID(int=1), UUID(int=2))),
            Effect(left=(UUID(int=3),), closed=True),
        ],
    )
    def test_it_comes_back_from_the_log_as_it_went(self, effect: Effect) -> None:
        assert Effect.from_json(effect.as_json()) == effect

    def test_no_effect_takes_no_place_in_the_log(self) -> None:
        assert NO_EFFECT.as_json() is None
