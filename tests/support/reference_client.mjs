// What a client has to do so that it shows every room without a hole, whatever breaks: the rules of
// the protocol in one place. It is given npm's Manager, and lets it reconnect; it adds the rest.
import { randomUUID } from "node:crypto";

const HOLE_MS = 500;
const ANSWER_MS = 5000;
const FAR_BEHIND = 1000;
const MOST_ROOMS = 500;
const RELOAD = new Set(["epoch.mismatch", "history.truncated"]);

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const jittered = (ms) => ms * (0.5 + Math.random());

// `store` keeps the key: `key` to read, `save(key)` when the server gave a new one.
// `on.applied(fact)` is called once for each sequenced fact, in order; `on.reset(room_id, snapshot)`
// instead of those before `as_of_seq`; `on.left(room_id, reason)` when a room is none of ours.
export class ReferenceClient {
  constructor({ manager, url, store, on, namespace = "/chat" }) {
    this.url = url;
    this.store = store;
    this.on = on;
    this.rooms = new Map();
    this.cursor = undefined;
    this.early = []; // what came before sync has said where we are
    this.turn = 0; // which connection this is: what an older one began is given up
    this.manager = manager;
    this.socket = manager.socket(namespace, { auth: (give) => give({ token: store.key }) });
    this.socket.onAny((event, fact) => this.hear(event, fact));
    this.socket.on("connect_error", (error) => this.refused(error));
    this.socket.on("disconnect", (reason) => {
      this.turn += 1;
      this.early = [];
      if (reason === "io server disconnect" && this.again !== "never") this.later(jittered(1000));
    });
  }

  connect() {
    this.stopped = false;
    this.socket.connect();
  }

  close() {
    this.stopped = true;
    for (const room of this.rooms.values()) clearTimeout(room.timer);
    this.socket.disconnect();
  }

  // Sends until the server has said yes or a no that stays: the id makes every retry safe.
  async send(room_id, content, client_msg_id = randomUUID()) {
    for (let wait = 200; !this.stopped; wait = Math.min(wait * 2, 5000)) {
      const ack = await this.ask("message.send", { room_id, content, client_msg_id });
      if (ack.ok) return ack.data;
      if (!ack.error.retryable) throw Object.assign(new Error(ack.error.code), ack.error);
      await pause(ack.error.retry_after_ms ?? jittered(wait));
    }
    throw new Error("closed");
  }

  later(ms) {
    setTimeout(() => this.stopped || this.socket.active || this.socket.connect(), ms);
  }

  // After a refusal of ours the stock client gives up; after a lost line it goes on by itself.
  refused(error) {
    if (error.data?.retryable) this.later(error.data.retry_after_ms ?? jittered(1000));
    else if (error.data) this.on.refused?.(error.data);
  }

  async ask(event, payload) {
    try {
      return await this.socket.timeout(ANSWER_MS).emitWithAck(event, payload);
    } catch {
      return { ok: false, error: { code: "unknown", retryable: true } };
    }
  }

  hear(event, fact) {
    if (event === "session.ready") {
      this.me = fact.data.user?.user_id;
      return void this.sync();
    }
    if (event === "session.closing") return void (this.again = fact.data.reconnect);
    if (event === "auth.rotated") return void this.store.save(fact.data.key);
    if (event === "sync.tips") return this.compare(fact.data.rooms ?? {});
    if (fact.seq === undefined) return void this.on.heard?.(fact);
    if (this.early !== null) this.early.push(fact);
    else this.take(fact, true);
  }

  async sync() {
    const turn = this.turn;
    this.early ??= [];
    this.again = undefined;
    let more = true;
    while (more) {
      const known = [...this.rooms].slice(0, MOST_ROOMS);
      const rooms = Object.fromEntries(
        known.map(([id, { epoch, have }]) => [id, { epoch, seq: have }]),
      );
      const ack = await this.ask("sync", { rooms, ...(this.cursor && { cursor: this.cursor }) });
      if (turn !== this.turn) return;
      if (!ack.ok) {
        await pause(ack.error.retry_after_ms ?? jittered(1000));
        if (turn !== this.turn) return;
        continue;
      }
      this.cursor = ack.data.cursor;
      more = ack.data.more;
      for (const { room_id, reason } of ack.data.removed) this.forget(room_id, reason);
      for (const [id, found] of Object.entries(ack.data.rooms)) this.settle(id, found);
    }
    const early = this.early;
    this.early = null;
    for (const fact of early) this.take(fact);
    // What was asked for on a line that broke is asked for again.
    for (const [id, room] of this.rooms) if (room.wanted > room.have) this.fill(id, room);
  }

  settle(id, found) {
    const room = this.room(id);
    room.member_at = Math.max(room.member_at, found.last_seq ?? 0);
    if (found.error && RELOAD.has(found.error.code)) return void this.reload(id, room);
    if (found.error) return this.forget(id, found.error.code);
    room.epoch ??= found.epoch;
    if (room.epoch !== found.epoch) return void this.reload(id, room);
    for (const fact of found.events ?? []) this.take(fact);
    if (found.last_seq - room.have > FAR_BEHIND) return void this.reload(id, room);
    this.want(id, room, found.last_seq);
  }

  compare(tips) {
    for (const [id, { last_seq }] of Object.entries(tips)) {
      const room = this.room(id);
      room.member_at = Math.max(room.member_at, last_seq);
      this.want(id, room, last_seq);
    }
  }

  // `member_at`: how far in the log we are known to have been members.
  room(id) {
    const empty = { have: 0, wanted: 0, member_at: 0, waiting: new Map() };
    if (!this.rooms.has(id)) this.rooms.set(id, empty);
    return this.rooms.get(id);
  }

  ends({ type, data }) {
    return type === "room.deleted" || (type === "member.left" && data.user_id === this.me);
  }

  take(fact, live = false) {
    let last;
    const room = this.room(fact.room_id);
    room.epoch ??= fact.epoch;
    if (fact.epoch !== room.epoch) return void this.reload(fact.room_id, room);
    if (fact.seq <= room.have) return;
    if (live && !this.ends(fact)) room.member_at = Math.max(room.member_at, fact.seq);
    room.waiting.set(fact.seq, fact);
    for (let next; (next = room.waiting.get(room.have + 1)); ) {
      room.waiting.delete(next.seq);
      room.have = next.seq;
      this.on.applied(next);
      last = next;
    }
    // One who is let in again reads in the log how he once left, and stays; one who reads in a
    // replay how he left just now is told of it nowhere else.
    if (last && room.waiting.size === 0 && this.ends(last) && (live || last.seq > room.member_at)) {
      return this.forget(last.room_id, last.type);
    }
    if (room.waiting.size === 0) return;
    room.wanted = Math.max(room.wanted, fact.seq);
    room.timer ??= setTimeout(() => this.fill(fact.room_id, room), HOLE_MS);
  }

  want(id, room, seq) {
    room.wanted = Math.max(room.wanted, seq);
    if (room.wanted > room.have) this.fill(id, room);
  }

  async fill(room_id, room) {
    clearTimeout(room.timer);
    room.timer = undefined;
    if (room.filling || room.wanted <= room.have || this.rooms.get(room_id) !== room) return;
    room.filling = true;
    const turn = this.turn;
    while (room.wanted > room.have && turn === this.turn && this.rooms.get(room_id) === room) {
      const where = { room_id, epoch: room.epoch, after_seq: room.have };
      const ack = await this.ask("room.replay", where);
      if (this.rooms.get(room_id) !== room) break;
      if (ack.ok) for (const fact of ack.data.events) this.take(fact);
      else if (RELOAD.has(ack.error.code)) await this.reload(room_id, room);
      else if (ack.error.retryable) await pause(ack.error.retry_after_ms ?? jittered(500));
      else this.forget(room_id, ack.error.code);
    }
    room.filling = false;
    if (turn !== this.turn && this.early === null) this.fill(room_id, room);
  }

  // The room as it is now takes the place of everything up to its `as_of_seq`.
  async reload(room_id, room) {
    if (room.reloading) return;
    room.reloading = true;
    const headers = { authorization: `Bearer ${this.store.key}` };
    for (let wait = 500; this.rooms.get(room_id) === room && !this.stopped; wait *= 2) {
      const url = `${this.url}/api/v1/rooms/${room_id}/snapshot`;
      const answer = await fetch(url, { headers }).catch(() => undefined);
      if (answer?.ok) {
        const snapshot = await answer.json();
        const { epoch, as_of_seq } = snapshot;
        Object.assign(room, { epoch, have: as_of_seq, member_at: as_of_seq, wanted: 0 });
        room.waiting = new Map();
        this.on.reset(room_id, snapshot);
        break;
      }
      if (answer && answer.status < 500 && answer.status !== 429) {
        this.forget(room_id, `snapshot ${answer.status}`);
        break;
      }
      await pause(jittered(Math.min(wait, 5000)));
    }
    room.reloading = false;
  }

  forget(room_id, reason) {
    clearTimeout(this.rooms.get(room_id)?.timer);
    if (this.rooms.delete(room_id)) this.on.left?.(room_id, reason);
  }
}
