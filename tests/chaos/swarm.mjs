// Many clients in one process: reference clients, and stock ones beside them that only listen.
// Commands come as JSON lines; what the clients see goes as JSON lines into the history file.
import { createWriteStream } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { ReferenceClient } from "../support/reference_client.mjs";

const require = createRequire(new URL("../support/js/", import.meta.url));
const { Manager } = require("socket.io-client");

const history = createWriteStream(process.argv[2], { flags: "a" });
const clients = new Map();
const heads = new Map(); // what each client has, for the question whether all is there
const note = (line) => history.write(JSON.stringify({ t: performance.now(), ...line }) + "\n");
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const told = ({ room_id, seq, id, type, epoch, data }) => {
  const message = data?.message;
  const said = message && { message: message.id, content: message.content.slice(0, 60) };
  return { room: room_id, seq, id, type, epoch, ...said };
};

const options = (transports) => ({
  autoConnect: false,
  reconnectionDelay: 200,
  reconnectionDelayMax: 1000,
  ...(transports && { transports }),
});

const commands = {
  reference({ client, url, key, transports }) {
    const store = { key, save: (next) => (store.key = next) };
    const seen = new Map();
    heads.set(client, seen);
    const on = {
      applied: (fact) => {
        seen.set(fact.room_id, fact.seq);
        note({ op: "applied", client, ...told(fact) });
      },
      reset: (room, { as_of_seq: seq, epoch }) => {
        seen.set(room, seq);
        note({ op: "reset", client, room, seq, epoch });
      },
      left: (room, reason) => {
        seen.delete(room);
        note({ op: "left", client, room, reason });
      },
      refused: (error) => note({ op: "refused", client, code: error.code }),
    };
    const manager = new Manager(url, options(transports));
    const made = new ReferenceClient({ manager, url, store, on });
    made.socket.on("disconnect", (reason) => note({ op: "disconnect", client, reason }));
    made.socket.on("connect", () => note({ op: "connect", client }));
    clients.set(client, made);
    made.connect();
  },

  stock({ client, url, key, transports, recovery }) {
    const auth = { token: key, ...(recovery && { recovery }) };
    const socket = new Manager(url, options(transports)).socket("/chat", { auth });
    const seen = new Map();
    heads.set(client, seen);
    let connection = 0;
    socket.on("connect", () => {
      // Who takes himself for recovered goes on where he was: one line, without a hole.
      if (!socket.recovered) connection += 1;
      note({ op: "connect", client, connection, recovered: socket.recovered });
    });
    socket.onAny((event, fact) => {
      if (fact.seq === undefined) return;
      seen.set(fact.room_id, fact.seq);
      note({ op: "heard", client, connection, ...told(fact) });
    });
    // After a refusal the stock client waits to be told; every application has to.
    socket.on("connect_error", () => socket.active || setTimeout(() => socket.connect(), 1000));
    socket.on("disconnect", (reason) => note({ op: "disconnect", client, reason }));
    clients.set(client, { socket, close: () => socket.disconnect() });
    socket.connect();
  },

  async send({ client, room, content, cmid }) {
    note({ op: "send", client, room, cmid, status: "invoke" });
    try {
      const { message, duplicate } = await clients.get(client).send(room, content, cmid);
      note({ op: "send", client, room, cmid, status: "ok", seq: message.seq, duplicate });
      return { ok: true, seq: message.seq, message: message.id };
    } catch (error) {
      note({ op: "send", client, room, cmid, status: "fail", code: error.message });
      return { ok: false, code: error.message };
    }
  },

  // One attempt by someone who is then gone.
  try_connect({ url, key }) {
    const manager = new Manager(url, { ...options(["websocket"]), reconnection: false });
    const socket = manager.socket("/chat", { auth: { token: key } });
    return new Promise((resolve) => {
      socket.on("connect", () => resolve({ connected: true }));
      socket.on("connect_error", (error) =>
        resolve({ connected: false, code: error.data?.code ?? error.message }),
      );
      socket.connect();
    }).finally(() => socket.disconnect());
  },

  heads: () => Object.fromEntries([...heads].map(([c, seen]) => [c, Object.fromEntries(seen)])),

  connected: () => [...clients.values()].filter(({ socket }) => socket.connected).length,

  // As a network that fails for everyone at once.
  lose_all() {
    for (const { socket } of clients.values()) socket.io.engine?.close();
  },

  async close() {
    for (const each of clients.values()) each.close();
    await new Promise((resolve) => history.end(resolve));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  Promise.resolve()
    .then(() => commands[command.do](command))
    .then((result) => say({ id: command.id, result: result ?? null }))
    .catch((error) => say({ id: command.id, failed: String(error?.stack ?? error) }));
}
process.exit(0);
