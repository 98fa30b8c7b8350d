import asyncio
from datetime import timedelta

import pytest

from chatserver.api_keys.errors import AuthExpiredError, AuthRevokedError
from chatserver.clients.errors import (
    ClientNotFoundError,
    KeyNotFoundError,
    LastKeyError,
    SlugTakenError,
)
from chatserver.clients.schemas import (
    ClientCreate,
    ClientOut,
    ClientPath,
    ClientUpdate,
    KeyCreate,
    KeyPath,
    KeyRotate,
    Nothing,
    OwnClientUpdate,
)
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import PageRequest
from chatserver.kernel.principal import Principal
from tests.support.keys import OPERATOR, KeyHouse


async def own(house: KeyHouse, master: Principal) -> ClientOut:
    async with house.open_clients() as clients:
        return await clients.own(master, Nothing())


async def patched(house: KeyHouse, master: Principal, **members: object) -> ClientOut:
    async with house.open_clients() as clients:
        return await clients.update_own(master, OwnClientUpdate.model_validate(members))


class TestCreate:
    async def test_the_key_of_the_answer_works_and_is_nowhere_in_the_database(
        self, house: KeyHouse
    ) -> None:
        master, key = await house.new_client()
        assert (await own(house, master)).name == "Acme"
        secret = key.split("_")[2]
        [row] = await house.rows("select to_jsonb(k)::text as kept from client_key k")
        assert secret not in row["kept"]
        assert secret[:43] not in row["kept"]

    async def test_equal_names_get_different_slugs(self, house: KeyHouse) -> None:
        slugs = []
        for _ in range(11):
            async with house.open_clients() as clients:
                slugs.append((await clients.create(OPERATOR, ClientCreate(name="Acme"))).slug)
        assert slugs[:2] == ["acme", "acme-2"]
        assert len(set(slugs)) == 11

    async def test_equal_names_at_once_get_different_slugs(self, house: KeyHouse) -> None:
        made = await asyncio.gather(*(house.new_client() for _ in range(5)))
        assert len({master.client_slug for master, _ in made}) == 5

    async def test_a_slug_that_is_asked_for_and_taken_is_refused(self, house: KeyHouse) -> None:
        await house.new_client("acme")
        with pytest.raises(SlugTakenError):
            async with house.open_clients() as clients:
                await clients.create(OPERATOR, ClientCreate(name="Other", slug="acme"))
        assert await house.rows("select slug from client") == [{"slug": "acme"}]
        assert len(await house.rows("select id from client_key")) == 1


class TestGetAndList:
    async def test_unknown_ids_are_not_found(self, house: KeyHouse) -> None:
        for call in ("get", "disable"):
            with pytest.raises(ClientNotFoundError):
                async with house.open_clients() as clients:
                    await getattr(clients, call)(OPERATOR, ClientPath(id=uuid7()))
        with pytest.raises(ClientNotFoundError):
            async with house.open_clients() as clients:
                await clients.update(OPERATOR, ClientUpdate(id=uuid7(), name="x"))

    async def test_the_list_has_pages(self, house: KeyHouse) -> None:
        for number in range(3):
            await house.new_client(f"c{number}")
        async with house.open_clients() as clients:
            page = await clients.list(OPERATOR, PageRequest(page=2, size=2))
        assert [client.slug for client in page.items] == ["c2"]
        assert (page.total, page.total_is_lower_bound) == (3, None)

    async def test_the_command_line_finds_by_slug_or_id(self, house: KeyHouse) -> None:
        master, _ = await house.new_client()
        async with house.open_clients() as clients:
            assert (await clients.find("acme")).id == master.client_id
            assert (await clients.find(str(master.client_id))).slug == "acme"
            for name in ("nobody", str(uuid7())):
                with pytest.raises(ClientNotFoundError):
                    await clients.find(name)


class TestSettings:
    async def test_what_is_sent_replaces_and_null_takes_away(self, house: KeyHouse) -> None:
        master, _ = await house.new_client()
        await patched(
            house,
            master,
            cors_origins=["https://a.example"],
            room_deactivation={"group": 60, "direct": None},
            limits={"messages_per_s": 5},
        )
        await patched(house, master, name="New", cors_origins=None, room_deactivation={"group": 9})
        shown = await own(house, master)
        assert shown.name == "New"
        assert shown.cors_origins is None
        assert shown.room_deactivation == {"group": 9}
        assert shown.limits == {"messages_per_s": 5}

    async def test_a_patch_of_nothing_changes_nothing(self, house: KeyHouse) -> None:
        master, _ = await house.new_client()
        before = await patched(house, master, limits={"messages_burst": 9})
        after = await patched(house, master)
        assert after.model_dump(exclude={"updated_at"}) == before.model_dump(exclude={"updated_at"})

    async def test_another_client_keeps_its_settings(self, house: KeyHouse) -> None:
        master, _ = await house.new_client("a")
        other, _ = await house.new_client("b")
        await patched(house, master, cors_origins=["https://a.example"])
        assert (await own(house, other)).cors_origins is None

    async def test_the_origins_are_known_to_whoever_checks_them(self, house: KeyHouse) -> None:
        master, key = await house.new_client()
        await patched(house, master, cors_origins=["https://a.example"])
        issued = await house.login(master)
        house.identifier._known.drop(lambda _: True)
        assert (await house.connect(issued.key)).origins == ("https://a.example",)
        again = await house.identifier.identify(key, door="rest")
        assert again.origins == ("https://a.example",)


class TestDisable:
    async def test_its_keys_are_refused_its_sockets_closed_and_it_can_come_back(
        self, house: KeyHouse
    ) -> None:
        master, key = await house.new_client()
        issued = await house.login(master)
        await house.identifier.identify(issued.key, door="rest")
        async with house.open_clients() as clients:
            out = await clients.disable(OPERATOR, ClientPath(id=master.client_id))
        assert out.status == "disabled"
        assert [closing.client_id for closing in house.closings] == [master.client_id]
        for token in (key, issued.key):
            with pytest.raises(AuthRevokedError):
                await house.identifier.identify(token, door="rest")
        with pytest.raises(AuthRevokedError):
            await house.connect(issued.key)
        kid = issued.key.split("_")[1]
        assert await house.identifier.dead_among([kid]) == {kid}

        async with house.open_clients() as clients:
            await clients.update(OPERATOR, ClientUpdate(id=master.client_id, status="active"))
        await house.connect(issued.key)

    async def test_another_client_goes_on(self, house: KeyHouse) -> None:
        master, _ = await house.new_client("a")
        _, key = await house.new_client("b")
        async with house.open_clients() as clients:
            await clients.disable(OPERATOR, ClientPath(id=master.client_id))
        await house.identifier.identify(key, door="rest")


class TestMasterKeys:
    async def test_a_rotated_key_works_for_the_overlap(self, house: KeyHouse) -> None:
        master, old = await house.new_client()
        assert master.key_id
        async with house.open_master_keys() as keys:
            made = await keys.rotate(master, KeyRotate(id=master.key_id))
        for token in (old, made.key):
            assert (await house.identifier.identify(token, door="rest")).is_master
        async with house.open_master_keys() as keys:
            page = await keys.list(master, PageRequest())
        ends = {key.id: key.expires_at for key in page.items}
        assert ends[made.id] is None
        left = ends[master.key_id]
        assert left is not None
        [row] = await house.rows("select clock_timestamp() as now")
        assert timedelta(hours=23) < left - row["now"] <= timedelta(hours=24)

    async def test_after_the_overlap_it_has_expired(self, house: KeyHouse) -> None:
        master, old = await house.new_client()
        assert master.key_id
        async with house.open_master_keys() as keys:
            await keys.rotate(master, KeyRotate(id=master.key_id))
        await house.change("update client_key set expires_at = now() where expires_at is not null")
        house.identifier._known.drop(lambda _: True)
        with pytest.raises(AuthExpiredError):
            await house.identifier.identify(old, door="rest")

    @pytest.mark.parametrize("how", [{"now": True}, {"overlap_s": 0}], ids=["now", "overlap 0"])
    async def test_a_leaked_key_ends_at_once(
        self, house: KeyHouse, how: dict[str, bool | int]
    ) -> None:
        master, old = await house.new_client()
        async with house.open_master_keys() as keys:
            made = await keys.rotate(master, KeyRotate.model_validate({"id": master.key_id, **how}))
        with pytest.raises(AuthRevokedError):
            await house.identifier.identify(old, door="rest")
        await house.identifier.identify(made.key, door="rest")
        assert [closing.kid for closing in house.closings] == [master.kid]

    async def test_a_second_rotation_does_not_prolong_the_first(self, house: KeyHouse) -> None:
        master, _ = await house.new_client()
        assert master.key_id
        for overlap_s in (60, 600):
            async with house.open_master_keys() as keys:
                await keys.rotate(master, KeyRotate(id=master.key_id, overlap_s=overlap_s))
        [row] = await house.rows(
            "select expires_at - clock_timestamp() as left from client_key where id = :id",
            id=master.key_id,
        )
        assert row["left"] <= timedelta(seconds=60)

    async def test_a_key_may_have_an_end(self, house: KeyHouse) -> None:
        master, _ = await house.new_client()
        async with house.open_master_keys() as keys:
            made = await keys.create(master, KeyCreate(name="ci", expires_in_s=3600))
        assert made.expires_at is not None
        assert (await house.identifier.identify(made.key, door="rest")).expires_at == pytest.approx(
            made.expires_at.timestamp()
        )

    async def test_the_last_key_stays(self, house: KeyHouse) -> None:
        master, key = await house.new_client()
        assert master.key_id
        with pytest.raises(LastKeyError):
            async with house.open_master_keys() as keys:
                await keys.delete(master, KeyPath(id=master.key_id))
        await house.identifier.identify(key, door="rest")

    async def test_two_keys_cannot_delete_each_other_at_once(self, house: KeyHouse) -> None:
        master, _ = await house.new_client()
        async with house.open_master_keys() as keys:
            made = await keys.create(master, KeyCreate(name="two"))

        async def delete(key_id: object) -> object:
            async with house.open_master_keys() as keys:
                return await keys.delete(master, KeyPath.model_validate({"id": str(key_id)}))

        results = await asyncio.gather(
            delete(master.key_id), delete(made.id), return_exceptions=True
        )
        assert [isinstance(it, LastKeyError) for it in results].count(True) == 1

    async def test_another_clients_key_is_unknown(self, house: KeyHouse) -> None:
        master, _ = await house.new_client("a")
        other, key = await house.new_client("b")
        assert other.key_id
        async with house.open_master_keys() as keys:
            await keys.create(master, KeyCreate(name="second"))
        for command in ("delete", "rotate"):
            request = (KeyPath if command == "delete" else KeyRotate)(id=other.key_id)
            with pytest.raises(KeyNotFoundError):
                async with house.open_master_keys() as keys:
                    await getattr(keys, command)(master, request)
        await house.identifier.identify(key, door="rest")

    async def test_a_client_whose_keys_are_lost_gets_a_new_one(self, house: KeyHouse) -> None:
        master, old = await house.new_client()
        async with house.open_master_keys() as keys:
            new = await keys.reissue(master.client_id, name="again", overlap=timedelta())
        await house.identifier.identify(new, door="rest")
        with pytest.raises(AuthRevokedError):
            await house.identifier.identify(old, door="rest")

    async def test_use_is_written_down_lazily(self, house: KeyHouse) -> None:
        await house.new_client()
        assert await house.rows("select last_used_at from client_key") == [{"last_used_at": None}]
        await house.master_use.flush()
        [row] = await house.rows("select last_used_at from client_key")
        assert row["last_used_at"] is not None
