"""Tenants with something of everything, so that others can try to get at it."""

from typing import Any, Final

from tests.support.scene import Scene
from tests.support.uploads import upload
from tests.support.vendors import BASIC_SOURCE, Vendor

UNKNOWN_ID: Final = "018f0000-0000-7000-8000-0123456789ab"
UNKNOWN: Final = {
    "client": UNKNOWN_ID,
    "master key": UNKNOWN_ID,
    "user": "nobody-at-all",
    "user key": UNKNOWN_ID,
    "room": UNKNOWN_ID,
    "room name": "no-such-room",
    "message": UNKNOWN_ID,
    "hold": UNKNOWN_ID,
    "invite": UNKNOWN_ID,
    "code": "n" * 32,
    "rule": UNKNOWN_ID,
    "flag": UNKNOWN_ID,
    "provider": UNKNOWN_ID,
    "webhook endpoint": UNKNOWN_ID,
    "delivery": UNKNOWN_ID,
    "inbound source": UNKNOWN_ID,
    "source secret": UNKNOWN_ID,
    "inbound event": UNKNOWN_ID,
    "file": UNKNOWN_ID,
    "suppression": UNKNOWN_ID,
    "bot": UNKNOWN_ID,
    "document": UNKNOWN_ID,
    "training job": UNKNOWN_ID,
    "retrieval": UNKNOWN_ID,
    "session": UNKNOWN_ID,
    "answer": UNKNOWN_ID,
    "notification": UNKNOWN_ID,
    "notification batch": UNKNOWN_ID,
}


class House:
    """A tenant with something of everything, and its canary in every text of it."""

    def __init__(self, scene: Scene, canary: str) -> None:
        self.scene = scene
        self.canary = canary
        self.ids: dict[str, str] = {}

    async def furnish(self, person: str) -> "House":
        scene = self.scene
        who = {"display_name": f"{self.canary} name", "metadata": {"secret": self.canary}}
        (await scene.api.put(f"/users/{person}", who)).ok()
        await scene.people(person, "stranger")
        master = (await scene.api.post("/client/keys", {"name": f"{self.canary} key"})).ok()
        issued = await scene.login(person, device_id="desk")
        name = f"named-by-{person}"
        room = (
            await scene.api.post(
                "/rooms",
                {
                    "type": "group",
                    "title": f"{self.canary} title",
                    "external_id": name,
                    "member_ids": [person],
                    "metadata": {"secret": self.canary},
                },
            )
        ).ok()
        place = f"/rooms/{room['id']}/members/{person}"
        (await scene.api.patch(place, {"role": "owner"})).ok()
        message = (
            await scene.api.post(
                f"/rooms/{room['id']}/messages",
                {"content": f"{self.canary} text", "sender_id": person},
            )
        ).ok()["message"]
        invite = (await scene.api.post(f"/rooms/{room['id']}/invites", {})).ok()
        rule = {"kind": "word", "values": [f"{self.canary}-word"], "action": "flag"}
        made = (await scene.api.post("/moderation/rules", rule)).ok()
        reason = {"reason": f"{self.canary} reason"}
        (await scene.api.post(f"/messages/{message['id']}/flag", reason)).ok()
        flags = (await scene.api.get("/moderation/flags")).ok()["items"]
        source = (
            await scene.api.post(
                "/webhooks/sources",
                {"slug": "shop", "description": self.canary, **BASIC_SOURCE},
            )
        ).ok()
        event = await Vendor(scene.api, scene.client["slug"], "shop").basic({"x": self.canary})
        provider = {"channel": "webhook", "kind": "standard", "name": f"{self.canary} provider"}
        way = (await scene.api.post("/providers", {**provider, "config": {}})).ok()
        hook = {"url": f"https://8.8.8.8/{self.canary}", "events": ["room.deleted"]}
        endpoint = (await scene.api.post("/webhooks/endpoints", hook)).ok()
        tested = (await scene.api.post(f"/webhooks/endpoints/{endpoint['id']}/test", {})).ok()
        address = {"channel": "email", "address": f"a@{self.canary}.example"}
        access = {"mode": "listed", "user_ids": [person]}
        bot = {"name": f"{self.canary} bot", "access": access}
        bot = (await scene.api.post("/bots", bot)).ok()
        session = {"user_id": person, "title": f"{self.canary} session", "bot_id": bot["id"]}
        session = (await scene.api.post("/sessions", session)).ok()
        talk = f"/sessions/{session['id']}"
        asked = (await scene.api.post(f"{talk}/messages", {"content": self.canary})).ok()
        (await scene.api.post(f"{talk}/cancel")).ok()
        self.ids = {
            "notification": (
                await scene.api.post(
                    "/notifications",
                    {
                        "recipients": [{"email": f"a@{self.canary}.example"}],
                        "channels": {"email": {"subject": self.canary, "text": "x"}},
                    },
                )
            ).ok()["id"],
            "notification batch": (
                await scene.api.post(
                    "/notifications/batches",
                    {
                        "notification": {
                            "channels": {"email": {"subject": self.canary, "text": "x"}}
                        },
                        "lines": f'{{"email": "a@{self.canary}.example"}}',
                    },
                )
            ).ok()["id"],
            "suppression": (await scene.api.post("/suppressions", address)).ok()["id"],
            "webhook endpoint": endpoint["id"],
            "delivery": tested["delivery_id"],
            "inbound source": source["id"],
            "source secret": source["secrets"][0]["id"],
            "inbound event": event.ok()["id"],
            **await self._documents(bot["id"], room["id"]),
            "session": session["id"],
            "answer": asked["message_id"],
            "client": scene.client["id"],
            "master key": master["id"],
            "user": person,
            "user key": issued["key_id"],
            "room": room["id"],
            "room name": name,
            "message": message["id"],
            "hold": await self._hold(room["id"]),
            "invite": invite["id"],
            "code": invite["code"],
            "rule": made["id"],
            "flag": flags[0]["id"],
            "provider": way["id"],
            "file": await upload(await scene.as_user(person), f"{self.canary} file"),
        }
        return self

    async def _hold(self, room_id: str) -> str:
        hold = {"room_id": room_id, "reason": f"{self.canary} case"}
        made: str = (await self.scene.api.post("/client/legal-holds", hold)).ok()["id"]
        return made

    async def _documents(self, bot: str, room: str) -> dict[str, str]:
        """A document that nobody reads, its job, the receipt of a search, and the bot in a room."""
        api = self.scene.api
        text = {"bot_id": bot, "title": f"{self.canary} document", "text": self.canary}
        (document,) = (await api.post("/documents", text)).ok()["items"]
        (job,) = (await api.get("/training/queue", source_id=document["id"])).ok()["items"]
        found = (await api.get(f"/bots/{bot}/search", q=self.canary, receipt="true")).ok()
        (await api.put(f"/rooms/{room}/bots/{bot}", {"answers": "mentioned"})).ok()
        return {
            "bot": bot,
            "document": document["id"],
            "training job": job["id"],
            "retrieval": found["retrieval_id"],
        }

    async def state(self) -> list[Any]:
        """Everything that an intruder might have changed."""
        api, room = self.scene.api, self.ids["room"]
        own = await (await self.scene.as_user(self.ids["user"])).get("/me")
        return [
            (await api.get("/client")).body,
            (await api.get(f"/users/{self.ids['user']}")).body,
            (await api.get("/rooms/all")).body,
            (await api.get("/webhooks/sources")).body,
            (await api.get("/suppressions")).body,
            (await api.get("/webhooks/endpoints")).body,
            (await api.get(f"/deliveries/{self.ids['delivery']}")).body,
            (await api.get(f"/rooms/{room}/events")).body,
            (await api.get(f"/rooms/{room}/members")).body,
            [key["id"] for key in (await api.get("/client/keys")).body["items"]],
            (await api.get("/client/legal-holds")).body,
            (await api.get("/bots")).body,
            (await api.get("/documents")).body,
            (await api.get(f"/rooms/{room}/bots")).body,
            own.body["key"]["device_id"],
            (await api.get(f"/rooms/{room}/invites")).body,
            (await api.get("/moderation/rules")).body,
            (await api.get("/moderation/flags")).body,
            (await api.get("/providers")).body,
        ]
