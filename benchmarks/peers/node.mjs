// Node's Socket.IO with the smallest application that does the work: `node node.mjs` prints its port.
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false });

if (process.env.BENCH_REDIS) {
  const publisher = createClient({ url: process.env.BENCH_REDIS });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}

for (const name of ["/rooms", "/chat", "/notifications"]) {
  io.of(name).on("connection", (socket) => {
    socket.join(socket.handshake.auth.rooms ?? []);
    socket.on("say", (payload, ack) => {
      io.of(name).to(payload.room_id).emit("said", payload);
      ack({ ok: true });
    });
  });
}

http.listen(0, "127.0.0.1", () => console.log(`port ${http.address().port}`));
