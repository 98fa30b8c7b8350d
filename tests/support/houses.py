"""Tenants with something of everything, so that others can try to get at it."""

from typing import Any, Final

from tests.support.scene import Scene

UNKNOWN_ID: Final = "018f0000-0000-7000-8000-0123456789ab"
UNKNOWN: Final = {
    "client": UNKNOWN_ID,
    "master key": UNKNOWN_ID,
    "user": "nobody-at-all",
    "user key": UNKNOWN_ID,
    "room": UNKNOWN_ID,
    "room name": "no-such-room",
    "message": UNKNOWN_ID,
    "bot": UNKNOWN_ID,
    "document": UNKNOWN_ID,
    "training job": UNKNOWN_ID,
    "retrieval": UNKNOWN_ID,
    "session": UNKNOWN_ID,
    "answer": UNKNOWN_ID,
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
        access = {"mode": "listed", "user_ids": [person]}
        bot = {"name": f"{self.canary} bot", "access": access}
        bot = (await scene.api.post("/bots", bot)).ok()
        session = {"user_id": person, "title": f"{self.canary} session", "bot_id": bot["id"]}
        session = (await scene.api.post("/sessions", session)).ok()
        talk = f"/sessions/{session['id']}"
        asked = (await scene.api.post(f"{talk}/messages", {"content": self.canary})).ok()
        (await scene.api.post(f"{talk}/cancel")).ok()
        self.ids = {
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
        }
        return self

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
            (await api.get(f"/rooms/{room}/events")).body,
            (await api.get(f"/rooms/{room}/members")).body,
            [key["id"] for key in (await api.get("/client/keys")).body["items"]],
            (await api.get("/bots")).body,
            (await api.get("/documents")).body,
            (await api.get(f"/rooms/{room}/bots")).body,
            own.body["key"]["device_id"],
        ]
