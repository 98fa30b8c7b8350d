"""Notifications reach every device of a person, on every node, in their own namespace alone."""

import secrets

from tests.support.clients import CHAT
from tests.support.inbox import put_in_inbox
from tests.support.nodes import Cluster, eventually
from tests.support.scene import Scene

INBOX = "/notifications"


async def test_what_one_device_reads_is_read_on_all(pair: Cluster, scene: Scene) -> None:
    name = f"ann-{secrets.token_hex(3)}"
    await scene.people(name, "bob")
    phone = await scene.device(name, 0, namespaces=(CHAT, INBOX))
    desk = await scene.device(name, 1, namespaces=(INBOX,))
    other = await scene.device("bob", 1, namespaces=(INBOX,))
    made = [
        await put_in_inbox(pair.database.admin_url, scene.client["id"], name, f"n{n}")
        for n in range(3)
    ]
    listed = await phone.call(INBOX, "notification.list", {"limit": 2})
    assert [it["id"] for it in listed["items"]] == [made[2], made[1]]
    assert (listed["unread"], listed["next_cursor"]) == (3, made[1])
    assert await phone.call(INBOX, "notification.ack", {"ids": made}) == {"acked": 3}

    answer = await phone.call(INBOX, "notification.read", {"ids": made[:1]})
    assert answer == {"read": 1, "unread": 2}
    for device in (phone, desk):
        await eventually(lambda d=device: d.of_type("notification.unread", INBOX), why="it is told")  # type: ignore[misc]
        [told] = device.of_type("notification.read", INBOX)
        assert (told["data"]["ids"], "seq" in told) == ([made[0]], False)
        assert device.of_type("notification.unread", INBOX)[0]["data"] == {"unread": 2}
    assert phone.of_type("notification.read", CHAT) == []
    assert other.of_type("notification.read", INBOX) == []

    api = await scene.as_user(name, 1)
    assert (await api.post("/me/notifications/read_all")).ok() == {"read": 2, "unread": 0}
    await eventually(
        lambda: len(phone.of_type("notification.unread", INBOX)) == 2, why="REST is told as well"
    )
    assert (await api.get("/me/notifications", unread_only="true")).ok()["items"] == []
    refused = await phone.emit(INBOX, "notification.read", {"ids": []})
    assert refused["error"]["code"] == "payload.invalid"


async def test_a_person_s_copy_has_what_was_told_and_chosen(pair: Cluster, scene: Scene) -> None:
    name = f"ann-{secrets.token_hex(3)}"
    await scene.people(name)
    await put_in_inbox(pair.database.admin_url, scene.client["id"], name, "your order")
    api = await scene.as_user(name)
    (await api.put("/me/preferences", {"preferences": {"news": {"email": False}}})).ok()
    (await api.put("/me/devices", {"kind": "fcm", "token": "token-of-a-phone"})).ok()
    copy = (await scene.api.get(f"/users/{name}/export")).ok()
    assert "your order" in copy
    assert '"type":"preference"' in copy
    assert '"type":"device"' in copy
    assert "token-of-a-phone" not in copy
