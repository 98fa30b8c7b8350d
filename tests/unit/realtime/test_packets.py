"""What strangers may send, taken apart; what we send, written once."""

import asyncio
import json
from typing import Any

import orjson
import pytest
import socketio
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.base_protocol import BaseProtocol
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
    assert packets.decode_frame('4{"a":1}') == ("4", '{"a":1}')


def test_bytes_come_in_frames_of_their_own_or_in_base64() -> None:
    assert packets.decode_frame(b"4ab") == packets.decode_frame("bNGFi") == ("4", b"4ab")


def test_a_payload_has_a_thousand_packets_and_not_sixteen() -> None:
    assert len(packets.split_payload(b"\x1e".join([b"3"] * 1024))) == 1024
    with pytest.raises(ProtocolViolationError):
        packets.split_payload(b"\x1e".join([b"3"] * 1025))
    with pytest.raises(ProtocolViolationError):
        packets.split_payload(b"4\xff")
    assert len(packets.split_payload(b"\x1e" * 5000, max_packets=None)) == 5001


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{", "[1,]"])
def test_what_no_parser_takes_is_a_violation(text: str) -> None:
    with pytest.raises(ProtocolViolationError):
        packets.parse(text)


@given(st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53), max_size=3))
def test_an_event_is_what_the_stock_library_would_read(data: dict[str, int]) -> None:
    body = orjson.dumps(data)
    written = packets.event_packet("/chat", "message.created", body)
    read = socketio.packet.Packet(encoded_packet=written.frame.decode()[1:])
    assert (read.namespace, read.data) == ("/chat", ["message.created", data])
    assert written.polled == written.frame


def test_an_ack_and_a_control_packet_are_what_the_protocol_says() -> None:
    assert packets.ack_packet("/chat", 7, b'{"ok":true}').frame == b'43/chat,7[{"ok":true}]'
    assert packets.control_packet(packets.CONNECT, "/", b'{"sid":"a"}').frame == b'40{"sid":"a"}'
    assert packets.control_packet(packets.DISCONNECT, "/chat").frame == b"41/chat,"


def read_frames(wire: bytes) -> list[Any]:
    """Have aiohttp's own parser read what we wrote."""

    class Queue(WebSocketDataQueue):
        def __init__(self) -> None:
            loop = asyncio.get_running_loop()
            super().__init__(BaseProtocol(loop), 1 << 30, loop=loop)

    queue = Queue()
    WebSocketReader(queue, 0, compress=False, decode_text=True).feed_data(wire)
    return [message.data for message, _ in queue._buffer]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
async def test_a_frame_is_what_any_websocket_reads(size: int) -> None:
    text = "x" * size
    assert read_frames(packets.websocket_frame(text.encode())) == [text]


@pytest.mark.parametrize("namespace", ["/", "/chat"])
@pytest.mark.parametrize("ack_id", [None, 0, 12])
async def test_bytes_in_an_event_travel_as_attachments(namespace: str, ack_id: int | None) -> None:
    data = ["a", {"x": b"\x00\x01", "y": [bytearray(b"z")]}, 7]
    written = packets.data_packet(packets.EVENT, namespace, data, ack_id)
    head, *attachments = read_frames(written.wire)
    assert written.frame == head.encode()
    assert attachments == [b"\x00\x01", b"z"]
    read = socketio.packet.Packet(encoded_packet=head[1:])
    for attachment in attachments:
        read.add_attachment(attachment)
    assert (read.namespace or "/", read.id, read.data) == (namespace, ack_id, data)
    polled = [packets.decode_frame(part) for part in written.polled.decode().split("\x1e")]
    assert polled == [("4", head[1:]), ("4", b"\x00\x01"), ("4", b"z")]
    assert written.count == 3


@pytest.mark.parametrize("odd", ["\ud83d", 1 << 70, {1: 2}, (1, 2)])
def test_what_json_can_say_is_said(odd: Any) -> None:
    written = packets.data_packet(packets.ACK, "/", [odd], 1)
    assert json.loads(written.frame[3:]) == json.loads(json.dumps([odd]))


def test_what_json_can_not_say_is_refused() -> None:
    with pytest.raises(TypeError):
        packets.data_packet(packets.EVENT, "/", ["a", object()])


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "[-Infinity]", "{", "[" * 100_000])
def test_strict_json_is_javascripts(text: str) -> None:
    with pytest.raises(ProtocolViolationError):
        packets.parse_strict(text)
    assert packets.parse_strict(r'["\ud83d",1e3]') == ["\ud83d", 1000.0]
