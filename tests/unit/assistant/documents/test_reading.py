"""Every kind of document, read in a process of its own, as strangers may send them."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

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


NATIVE = {
    "a socket": "libc.socket(2, 1, 0)",
    "a connection": "libc.connect(0, b'', 0)",
    "a child": "libc.fork()",
    "a child by number": "libc.syscall(CLONE, 17, 0, 0, 0, 0)",
    "a program": "libc.execv(b'/bin/true', None)",
    "a signal": "libc.kill(os.getppid(), 0)",
    "a file of a person": "libc.open(b'/etc/passwd', os.O_RDONLY)",
    "its parent": "libc.open(b'/proc/%d/environ' % os.getppid(), os.O_RDONLY)",
    "a directory": "libc.open(b'/', os.O_RDONLY)",
    "a new file": "libc.open(b'/dev/shm/left', os.O_WRONLY | os.O_CREAT, 0o600)",
    "a file of ours": "libc.open(b'/dev/null', os.O_WRONLY)",
    "a name": "libc.unlink(b'/dev/shm/nothing')",
    "rings": "libc.syscall(425, 1, 0)",
    "limits of others": "libc.prlimit(os.getppid(), 7, None, ctypes.create_string_buffer(16))",
}


if sys.platform == "linux":  # whose kernel has the walls

    def test_native_code_that_is_taken_over_can_reach_nothing(tmp_path: Path) -> None:
        """Calls go past Python and its hook, as those of a library would."""
        (tmp_path / "secret").write_text("key")
        steps = NATIVE | {"a secret": f"libc.open({str(tmp_path / 'secret')!r}.encode(), 0)"}
        program = (
            "import ctypes, json, os, platform\n"
            "from chatserver.assistant.reading.confinement import Bounds, confine\n"
            "CLONE = 56 if platform.machine() == 'x86_64' else 220\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            f"steps = {list(steps.values())!r}\n"
            "confine(Bounds())\n"
            "said = [(eval(step), os.strerror(ctypes.get_errno())) for step in steps]\n"
            "print(json.dumps(said))\n"
            "import encodings.koi8_u, threading\n"
            "thread = threading.Thread(target=print, args=('a thread',))\n"
            "thread.start(); thread.join()"
        )
        run = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        said, thread = run.stdout.splitlines()
        found = dict(zip(steps, json.loads(said), strict=True))
        refused = [-1, "Operation not permitted"], [-1, "Permission denied"]
        assert {name: told for name, told in found.items() if told not in refused} == {}
        # What libraries do all the time still works.
        assert thread == "a thread", run.stderr


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
