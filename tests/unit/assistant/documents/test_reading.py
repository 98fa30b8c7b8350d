"""Every kind of document, read in a process of its own, as strangers may send them."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from chatserver.assistant.reading.confinement import Bounds
from chatserver.assistant.reading.shapes import Refused
from tests.support import documents

SENTENCE = "The warranty of the kettle lasts seven years, and returns are taken for thirty days."
PAGE = b"""<html><head><title>Shipping</title><script>alert('no')</script></head><body>
<nav>Home | About</nav><article><h1>Times</h1><p>Parcels to Norway take five working days, and the
customs office may add two more days to that in winter.</p></article></body></html>"""


async def text_of(content: bytes, name: str) -> str:
    found = await documents.read(content, name)
    return "".join(chunk.text for chunk in found.chunks)


async def reason_of(content: bytes, name: str = "x", bounds: Bounds | None = None) -> str:
    with pytest.raises(Refused) as refused:
        await documents.read(content, name, bounds=bounds)
    return refused.value.reason


async def test_each_kind_is_known_by_its_content_and_read() -> None:
    rows = [["Country", "Days"], ["Norway", "35"]]
    kinds = {
        "pdf": (documents.pdf(SENTENCE), "seven years"),
        "word": (documents.word("Handbook", "Leave", SENTENCE, rows), "| Norway | 35 |"),
        "slides": (
            documents.slides(("Plan", "ship in May"), ("Budget", "two million")),
            "# Budget",
        ),
        "sheet": (documents.sheet("Prices", [["Product", "Price"], ["Kettle", 49]]), "| Kettle |"),
        "book": (documents.book("Whale", ("One", "Loomings."), ("Two", "Ishmael.")), "# Two"),
        "page": (PAGE, "five working days"),
        "text": (SENTENCE.encode(), SENTENCE),
    }
    read = await asyncio.gather(
        *(text_of(content, f"{name}.bin") for name, (content, _) in kinds.items())
    )
    for name, text in zip(kinds, read, strict=True):
        assert kinds[name][1] in text, name
    page = dict(zip(kinds, read, strict=True))["page"]
    assert "alert" not in page


async def test_pages_headings_and_titles_are_kept() -> None:
    show, letter, handbook = await asyncio.gather(
        documents.read(documents.slides(("Plan", "May"), ("Budget", "two")), "s.pptx"),
        documents.read(documents.pdf(SENTENCE, SENTENCE.upper()), "letter.pdf"),
        documents.read(documents.word("Handbook", "Leave", SENTENCE), "h.docx"),
    )
    assert (show.pages, show.chunks[0].pages) == (2, (1, 2))
    assert (letter.pages, letter.chunks[-1].pages, letter.title) == (2, (1, 2), "letter.pdf")
    assert (handbook.title, handbook.chunks[0].heading) == ("Handbook", "Leave")
    assert handbook.chunks[0].parts[0].header == "Handbook"


async def test_what_gives_no_text_says_why() -> None:
    asked = {
        "needs_ocr": documents.pdf("", "", "", "Fig. 1"),
        "unsupported": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "empty": b" \r\n\t",
        "too_large": documents.bomb("word/document.xml", 400 * 2**20),
    }
    said = await asyncio.gather(*(reason_of(content, "a.pdf") for content in asked.values()))
    assert list(said) == list(asked)
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le")
    others = await asyncio.gather(
        reason_of(ole, "locked.docx"),
        reason_of(b"%PDF-1.4\n garbage", "broken.pdf"),
        reason_of(documents.pdf(*[""] * 2001), "long.pdf"),
        reason_of(b"PK\x03\x04 and nothing else", "a.docx"),
        reason_of(bytes(range(256)) * 50, "a.txt"),
    )
    expected = ["encrypted", "unsupported", "too_large", "unsupported", "unsupported"]
    assert list(others) == expected


async def test_what_goes_too_far_is_cut_off() -> None:
    slow = Bounds(wall_s=0.05)
    assert await reason_of(SENTENCE.encode(), bounds=slow) == "timeout"
    # Little memory: a library that can't get any must not take the worker with it.
    poor = Bounds(memory=120 * 2**20)
    packed = documents.bomb("word/document.xml", 250 * 2**20)
    assert await reason_of(packed, "a.docx", bounds=poor) in {"too_large", "unsupported"}


@pytest.mark.parametrize(
    "step",
    [
        "__import__('socket').socket().connect(('127.0.0.1', 1))",
        "open('/tmp/left-behind', 'w')",
        "__import__('subprocess').run(['true'])",
        "__import__('os').system('true')",
    ],
)
def test_a_library_that_is_taken_over_can_reach_nothing(step: str) -> None:
    program = (
        "import socket, subprocess\n"
        "from chatserver.assistant.reading.confinement import Bounds, confine\n"
        f"confine(Bounds())\ntry:\n    {step}\nexcept PermissionError:\n    print('refused')"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.stdout == "refused\n", run.stderr


def test_the_reading_process_says_what_it_found_as_lines() -> None:
    asked = json.dumps({"name": "a.md", "title": None, "memory": 2**29, "cpu_s": 20})
    run = subprocess.run(
        [sys.executable, "-m", "chatserver.assistant.reading", asked],
        input=b"# Care\n\nRinse it.",
        capture_output=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    said = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["event"] for each in said] == ["read", "chunk", "end"]
    assert said[1]["heading"] == "Care"
