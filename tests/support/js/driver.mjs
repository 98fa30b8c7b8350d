// Drives stock Socket.IO clients for the tests: one JSON object a line, commands in, events out.
//
// A command is {id, do, client, ...} and is answered by {id, result} or {id, failed}; what happens
// by itself comes as {client, namespace, event, args}, {…, disconnect} or {…, refused}.
import { createInterface } from "node:readline";
import { Manager } from "socket.io-client";

const clients = new Map();
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const socketOf = ({ client, namespace }) => {
  const socket = clients.get(client).sockets.get(namespace);
  if (socket === undefined) throw new Error(`${client} has no socket in ${namespace}`);
  return socket;
};

const listen = (client, namespace, socket) => {
  socket.onAny((event, ...args) => say({ client, namespace, event, args }));
  socket.on("disconnect", (reason) => say({ client, namespace, disconnect: reason }));
  // A network that is away refuses, too, but says nothing.
  socket.on("connect_error", ({ data }) => data && say({ client, namespace, refused: data }));
};

const outcome = (socket) =>
  new Promise((resolve) => {
    const connected = () => settle({ connected: true, recovered: socket.recovered === true });
    const refused = (error) =>
      settle({ connected: false, message: error.message, data: error.data ?? null });
    const settle = (found) => {
      socket.off("connect", connected);
      socket.off("connect_error", refused);
      resolve(found);
    };
    socket.on("connect", connected);
    socket.on("connect_error", refused);
  });

const commands = {
  // A manager of one's own for each client: `io()` would share one between all users of a process.
  open({ client, url, options }) {
    const manager = new Manager(url, { autoConnect: false, ...options });
    clients.set(client, { manager, sockets: new Map() });
    return true;
  },

  connect({ client, namespace, auth }) {
    const { manager, sockets } = clients.get(client);
    const socket = manager.socket(namespace, { auth });
    sockets.set(namespace, socket);
    listen(client, namespace, socket);
    const found = outcome(socket);
    socket.connect();
    return found;
  },

  // Emitted before the connection stands, as an application does that does not wait.
  async connect_and_emit({ client, namespace, auth, event, payloads, timeout }) {
    const connected = commands.connect({ client, namespace, auth });
    const socket = socketOf({ client, namespace });
    const acks = payloads.map((payload) => socket.timeout(timeout).emitWithAck(event, payload));
    return { ...(await connected), acks: await Promise.all(acks) };
  },

  call: ({ event, args, timeout, ...where }) =>
    socketOf(where).timeout(timeout).emitWithAck(event, ...args),

  call_many: ({ event, payloads, timeout, ...where }) =>
    Promise.all(
      payloads.map((payload) => socketOf(where).timeout(timeout).emitWithAck(event, payload)),
    ),

  transport: ({ client }) => clients.get(client).manager.engine?.transport?.name ?? null,

  // As a lost network does: no goodbye, and the client connects again by itself.
  lose({ client }) {
    clients.get(client).manager.engine.close();
    return true;
  },

  // The same, and it comes back by another node.
  move({ client, url }) {
    const { manager } = clients.get(client);
    manager.uri = url;
    manager.engine.close();
    return true;
  },

  state(where) {
    const { connected, recovered, id } = socketOf(where);
    return { connected, recovered: recovered === true, id: id ?? null };
  },

  // What the next connect is tried with, as an application does that was handed another key.
  use({ auth, ...where }) {
    socketOf(where).auth = auth;
    return true;
  },

  // After a refusal the client does not come back by itself.
  again(where) {
    const found = outcome(socketOf(where));
    socketOf(where).connect();
    return found;
  },

  // Somebody else's recovery data, as a thief would use it.
  steal({ client, namespace, from }) {
    const { _pid, _lastOffset } = socketOf({ client: from, namespace });
    Object.assign(socketOf({ client, namespace }), { _pid, _lastOffset });
    return true;
  },

  close({ client }) {
    const { manager, sockets } = clients.get(client);
    for (const socket of sockets.values()) socket.disconnect();
    manager.reconnection(false);
    clients.delete(client);
    return true;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  Promise.resolve()
    .then(() => commands[command.do](command))
    .then((result) => say({ id: command.id, result }))
    .catch((error) => say({ id: command.id, failed: String(error) }));
}
process.exit(0);
