"""What strangers may send, taken apart; what we send, written once."""

from typing import Any

import orjson
import pytest
import socketio
from hypothesis import given
from hypothesis import strategies as st

from chatserver.realtime import packets
from chatserver.realtime.errors import ProtocolViolationError
from chatserver.realtime.packets import Received

GOOD = {
    "0/chat,": Received(0, "/chat", None, ""),
    '0/chat,{"token":"k"}': Received(0, "/chat", None, '{"token":"k"}'),
    "0": Received(0, "/", None, ""),
    "1/chat,": Received(1, "/chat", None, ""),
    '2/chat,17["a",{}]': Received(2, "/chat", 17, '["a",{}]'),
    '2["a"]': Received(2, "/", None, '["a"]'),
    '2/chat,0["a"]': Received(2, "/chat", 0, '["a"]'),
    '2/chat?x=1,["a"]': Received(2, "/chat", None, '["a"]'),
    "3/chat,0[]": Received(3, "/chat", 0, "[]"),
    '51-/chat,3["a",{"_placeholder":true,"num":0}]': Received(
        5, "/chat", 3, '["a",{"_placeholder":true,"num":0}]', 1
    ),
}


@pytest.mark.parametrize("text", GOOD)
def test_packets_are_taken_apart(text: str) -> None:
    assert packets.decode(text) == GOOD[text]


@pytest.mark.parametrize("text", ["", "7", "x", "59999999999-[]", "55-[]", "5[]", "21-[]", "-1"])
def test_what_is_no_packet_is_a_violation(text: str) -> None:
    with pytest.raises(ProtocolViolationError):
        packets.decode(text)


@pytest.mark.parametrize("num", [5, "a", True, -1, None, 1.0])
def test_a_placeholder_must_point_at_an_attachment(num: Any) -> None:
    with pytest.raises(ProtocolViolationError):
        packets.check_placeholders(["a", {"x": [{"_placeholder": True, "num": num}]}], 1)


@pytest.mark.parametrize("frame", ["", "0{}", "6", "9", "x", "b!!", "ü"])
def test_what_only_servers_send_or_nobody_is_a_violation(frame: str) -> None:
    with pytest.raises(ProtocolViolationError):
        packets.decode_frame(frame)


def test_json_that_looks_like_json_stays_text() -> None:
    assert packets.decode_frame('4{"a":1}').data == '{"a":1}'


def test_a_payload_has_a_thousand_packets_and_not_sixteen() -> None:
    assert len(packets.decode_payload(b"\x1e".join([b"3"] * 1024))) == 1024
    with pytest.raises(ProtocolViolationError):
        packets.decode_payload(b"\x1e".join([b"3"] * 1025))
    with pytest.raises(ProtocolViolationError):
        packets.decode_payload(b"4\xff")


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{", "[1,]"])
def test_what_no_parser_takes_is_a_violation(text: str) -> None:
    with pytest.raises(ProtocolViolationError):
        packets.parse(text)


@given(st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53), max_size=3))
def test_an_event_is_what_the_stock_library_would_read(data: dict[str, int]) -> None:
    body = orjson.dumps(data)
    written = packets.event_packet("/chat", "message.created", body)
    read = socketio.packet.Packet(encoded_packet=written.encode()[1:])
    assert (read.namespace, read.data) == ("/chat", ["message.created", data])
    assert written.frame.decode() == written.encode() == written.encode(b64=True)


def test_an_ack_and_a_control_packet_are_what_the_protocol_says() -> None:
    assert packets.ack_packet("/chat", 7, b'{"ok":true}').encode() == '43/chat,7[{"ok":true}]'
    assert packets.control_packet(packets.CONNECT, "/", b'{"sid":"a"}').encode() == '40{"sid":"a"}'
    assert packets.control_packet(packets.DISCONNECT, "/chat").encode() == "41/chat,"
