"""What `chatserver dev` says: for people in colour, for programs as one line of JSON."""

import json
import queue
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from rich.console import Console
from rich.status import Status
from rich.text import Text

from chatserver.dev.demo import Demo

# Beyond this many waiting lines the output of children is dropped: whoever started us may have
# stopped reading, and the server must not come to a halt because of it.
WAITING_LINES: Final = 5_000
LAST_WORDS_SECONDS: Final = 1.0

COLOURS: Final = {
    "serve": "cyan",
    "worker": "magenta",
    "scheduler": "blue",
    "migrate": "yellow",
    "postgres": "green",
    "valkey": "red",
}
WIDTH: Final = max(len(name) for name in COLOURS)


@dataclass(frozen=True)
class Ready:
    url: str
    operator_key: str
    demo: Demo
    database_url: str
    redis_url: str

    def as_json(self) -> str:
        client = self.demo.client
        return json.dumps(
            {
                "event": "ready",
                "url": self.url,
                "operator_key": self.operator_key,
                "client": {"id": client.id, "slug": client.slug},
                "master_key": client.master_key,
                "users": [asdict(user) for user in self.demo.users],
                "database_url": self.database_url,
                "redis_url": self.redis_url,
            }
        )

    def __repr__(self) -> str:
        return f"Ready(url={self.url!r})"


class Reporter(Protocol):
    def step(self, text: str) -> None:
        """The start-up is at this point now."""

    def line(self, name: str, text: str) -> None:
        """A part wrote a line; called from many threads, never waits."""

    def problem(self, text: str) -> None: ...

    def ready(self, ready: Ready) -> None: ...


class ConsoleReporter:
    """One thread writes everything, so nobody else waits for a slow terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._queue: queue.SimpleQueue[Text | None] = queue.SimpleQueue()
        self._dropped = 0
        self._status: Status | None = None
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        self._writer = threading.Thread(target=self._write, name="console", daemon=True)
        self._writer.start()

    def step(self, text: str) -> None:
        if self._status is None:
            self._queue.put(Text(f"{text} …"))
        else:
            self._status.update(f"{text} …")

    def line(self, name: str, text: str) -> None:
        if self._queue.qsize() >= WAITING_LINES:
            self._dropped += 1
            return
        if self._dropped:
            self._queue.put(Text(f"({self._dropped} lines were not read in time and are left out)"))
            self._dropped = 0
        self._queue.put(_prefixed(name, text))

    def problem(self, text: str) -> None:
        self._queue.put(_prefixed("dev", text, style="bold red"))

    def ready(self, ready: Ready) -> None:
        self._end_status()
        self._queue.put(Text(introduction(ready)))
        self._queue.put(Text(f"ready {ready.url}", style="bold green"))

    def close(self) -> bool:
        """Whether everything has been written; False when nobody reads it."""
        self._end_status()
        self._queue.put(None)
        self._writer.join(LAST_WORDS_SECONDS)
        return not self._writer.is_alive()

    def _end_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _write(self) -> None:
        readable = True
        while (text := self._queue.get()) is not None:
            if not readable:
                continue
            try:
                self._console.print(text)
            except (OSError, SystemExit):
                # The reader is gone (`chatserver dev | head`); the server is not. Rich would end
                # the program for a broken pipe.
                readable = False


class JsonReporter:
    """One line on stdout when all is ready; problems on stderr; the rest in a file."""

    def __init__(self, log_file: Path) -> None:
        if log_file.exists():
            log_file.replace(log_file.with_suffix(".log.1"))
        self._log = log_file.open("w", buffering=1, errors="replace")
        self._lock = threading.Lock()

    def step(self, text: str) -> None:
        self.line("dev", text)

    def line(self, name: str, text: str) -> None:
        # A full disk must not stop the children, whose output this is.
        with self._lock, suppress(OSError):
            if not self._log.closed:
                self._log.write(f"{name:<{WIDTH}} | {text}\n")

    def problem(self, text: str) -> None:
        self.line("dev", text)
        print(text, file=sys.stderr, flush=True)

    def ready(self, ready: Ready) -> None:
        print(ready.as_json(), flush=True)

    def close(self) -> bool:
        """Nothing waits to be written here."""
        with self._lock, suppress(OSError):
            self._log.close()
        return True


def introduction(ready: Ready) -> str:
    """What somebody who sees this for the first time can do next."""
    alice, bob = ready.demo.users[0], ready.demo.users[1]
    return f"""
client      {ready.demo.client.slug}
master key  {ready.demo.client.master_key}
alice       {alice.key}
bob         {bob.key}

Try it: `npm install socket.io-client`, then save this as chat.mjs and run `node chat.mjs`

import {{ io }} from "socket.io-client";
const as = (key, namespace) => io("{ready.url}" + namespace, {{ auth: {{ token: key }} }});
const rooms = as("{alice.key}", "/rooms");
const alice = as("{alice.key}", "/chat");
const bob = as("{bob.key}", "/chat");
const heard = new Promise((done) => bob.on("message.created", done));
await new Promise((done) => bob.on("connect", done));
const room = await rooms.emitWithAck("room.create", {{ type: "group", member_ids: ["bob"] }});
const message = {{ room_id: room.data.id, content: "Hello!", client_msg_id: `hi-${{Date.now()}}` }};
console.log("alice:", await alice.emitWithAck("message.send", message));
console.log("bob:", (await heard).data.message.content);
process.exit();
"""


def _prefixed(name: str, text: str, style: str = "") -> Text:
    return Text.assemble(
        (f"{name:<{WIDTH}} | ", COLOURS.get(name, "bold")), Text.from_ansi(text, style=style)
    )
