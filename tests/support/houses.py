"""Tenants with something of everything, so that others can try to get at it."""

from typing import Any, Final

from tests.support.scene import Scene
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
    "provider": UNKNOWN_ID,
    "webhook endpoint": UNKNOWN_ID,
    "delivery": UNKNOWN_ID,
    "inbound source": UNKNOWN_ID,
    "source secret": UNKNOWN_ID,
    "inbound event": UNKNOWN_ID,
    "suppression": UNKNOWN_ID,
    "notification": UNKNOWN_ID,
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
            "suppression": (await scene.api.post("/suppressions", address)).ok()["id"],
            "webhook endpoint": endpoint["id"],
            "delivery": tested["delivery_id"],
            "inbound source": source["id"],
            "source secret": source["secrets"][0]["id"],
            "inbound event": event.ok()["id"],
            "client": scene.client["id"],
            "master key": master["id"],
            "user": person,
            "user key": issued["key_id"],
            "room": room["id"],
            "room name": name,
            "message": message["id"],
            "provider": way["id"],
        }
        return self

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
            own.body["key"]["device_id"],
            (await api.get("/providers")).body,
        ]
