import pytest
from pydantic import ValidationError

from chatserver.kernel.ids import uuid7
from chatserver.rooms.schemas import (
    AddMembers,
    CreateRoom,
    InviteMembers,
    ListAllRooms,
    UpdateMember,
    UpdateRoom,
)

ROOM = str(uuid7())


class TestCreateRoom:
    def test_a_type_is_enough(self) -> None:
        made = CreateRoom.model_validate({"type": "group"})
        assert made.model_dump() == {
            "type": "group",
            "title": None,
            "external_id": None,
            "member_ids": [],
            "history": "all",
            "metadata": {},
        }

    @pytest.mark.parametrize(
        ("members", "field"),
        [
            ({}, ("type",)),
            ({"type": "Group"}, ("type",)),
            ({"type": "lobby"}, ("type",)),
            ({"type": "group", "title": ""}, ("title",)),
            ({"type": "group", "title": "x" * 257}, ("title",)),
            ({"type": "group", "external_id": "a b"}, ("external_id",)),
            ({"type": "group", "member_ids": ["a", "a b"]}, ("member_ids", 1)),
            ({"type": "group", "member_ids": "alice"}, ("member_ids",)),
            ({"type": "group", "member_ids": ["a"] * 1001}, ("member_ids",)),
            ({"type": "group", "history": "none"}, ("history",)),
            ({"type": "group", "metadata": []}, ("metadata",)),
            ({"type": "group", "members": ["a"]}, ("members",)),
        ],
    )
    def test_bad_input_is_refused_with_the_field_named(
        self, members: dict[str, object], field: tuple[object, ...]
    ) -> None:
        with pytest.raises(ValidationError) as caught:
            CreateRoom.model_validate(members)
        assert caught.value.errors()[0]["loc"] == field


class TestUpdateRoom:
    def test_removing_the_title_is_a_change(self) -> None:
        asked = UpdateRoom.model_validate({"room_id": ROOM, "title": None})
        assert "title" in asked.model_fields_set

    def test_changing_nothing_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="at least one member"):
            UpdateRoom.model_validate({"room_id": ROOM})


class TestInviteMembers:
    @pytest.mark.parametrize("members", [{}, {"user_id": "a", "user_ids": ["b"]}])
    def test_either_one_or_many_are_named(self, members: dict[str, object]) -> None:
        with pytest.raises(ValidationError, match="either user_id or user_ids"):
            InviteMembers.model_validate({"room_id": ROOM} | members)

    @pytest.mark.parametrize(
        ("members", "people"),
        [
            ({"user_id": "a"}, ["a"]),
            ({"user_ids": ["b", "a", "b", "c", "a"]}, ["b", "a", "c"]),
        ],
    )
    def test_everyone_is_named_once_in_the_order_of_the_request(
        self, members: dict[str, object], people: list[str]
    ) -> None:
        assert InviteMembers.model_validate({"room_id": ROOM} | members).people == people

    @pytest.mark.parametrize("people", [[], ["a"] * 1001, ["a\n"]])
    def test_none_too_many_and_impossible_people_are_refused(self, people: list[str]) -> None:
        for model in (InviteMembers, AddMembers):
            with pytest.raises(ValidationError):
                model.model_validate({"room_id": ROOM, "user_ids": people})


class TestOthers:
    def test_an_unknown_role_or_level_is_refused(self) -> None:
        member = {"room_id": ROOM, "user_id": "alice"}
        for change in ({"role": "god"}, {"notification_level": "some"}, {"is_muted": 1}):
            with pytest.raises(ValidationError):
                UpdateMember.model_validate(member | change)
        assert UpdateMember.model_validate(member | {"role": "admin"}).role == "admin"

    def test_an_empty_or_long_search_is_refused(self) -> None:
        for q in ("", "x" * 129):
            with pytest.raises(ValidationError):
                ListAllRooms.model_validate({"q": q})
