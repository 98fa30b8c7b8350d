from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from chatserver.kernel.wire import (
    Answer,
    Empty,
    ExternalId,
    Id,
    Metadata,
    Request,
    ShortText,
    Timestamp,
    left_out,
)

ID = "019a9c1e-0000-7000-8000-00000000000a"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@+-"


class Numbers(Request):
    count: int = 0
    flag: bool = False
    text: str = ""


class Named(Request):
    id: Id | None = None
    who: ExternalId | None = None
    title: ShortText | None = None
    metadata: Metadata = Field(default_factory=dict)


class Told(Answer):
    id: Id
    at: Timestamp
    more: int | None = left_out()
    other: int | None = None


class TestRequest:
    @pytest.mark.parametrize(
        "members",
        [
            {"count": "1"},
            {"count": 1.0},
            {"count": True},
            {"count": None},
            {"flag": 1},
            {"flag": "true"},
            {"text": 1},
            {"text": b"x"},
            {"text": None},
        ],
    )
    def test_types_are_not_bent(self, members: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            Numbers.model_validate(members)

    def test_an_unknown_member_is_refused_and_named(self) -> None:
        with pytest.raises(ValidationError) as caught:
            Numbers.model_validate({"count": 1, "cuont": 2})
        assert [found["loc"] for found in caught.value.errors()] == [("cuont",)]

    def test_a_request_is_not_changed_afterwards(self) -> None:
        asked = Numbers(count=1)
        with pytest.raises(ValidationError):
            asked.count = 2  # type: ignore[misc]  # the point


class TestId:
    def test_the_canonical_form_is_taken_and_given_back(self) -> None:
        assert Named.model_validate({"id": ID}).id == UUID(ID)
        assert Named.model_validate({"id": UUID(ID)}).model_dump(mode="json")["id"] == ID

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ID.upper(),
            f"{{{ID}}}",
            f"urn:uuid:{ID}",
            ID.replace("-", ""),
            f"{ID}\n",
            f" {ID}",
            ID[:-1],
            ID[:-1] + "g",
            ID.replace("0", "\u0660"),
            1,
            b"019a9c1e-0000-7000",
        ],
    )
    def test_every_other_form_is_refused(self, text: object) -> None:
        with pytest.raises(ValidationError) as caught:
            Named.model_validate({"id": text})
        assert caught.value.errors()[0]["loc"] == ("id",)


class TestExternalId:
    @given(st.text(LETTERS, min_size=1, max_size=128))
    def test_any_name_of_the_contract_is_taken(self, name: str) -> None:
        assert Named.model_validate({"who": name}).who == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "a" * 129,
            "a\n",
            "\na",
            "a b",
            "a/b",
            "grün",
            "a\x00",
            "a#",
            "a?b",
            "%41",
            "\u0430lice",
            7,
        ],
    )
    def test_every_other_name_is_refused(self, name: object) -> None:
        with pytest.raises(ValidationError) as caught:
            Named.model_validate({"who": name})
        assert caught.value.errors()[0]["loc"] == ("who",)


class TestOtherShapes:
    @pytest.mark.parametrize("title", ["", "x" * 257])
    def test_short_texts_have_bounds(self, title: str) -> None:
        with pytest.raises(ValidationError):
            Named(title=title)
        assert Named(title="x" * 256).title is not None

    def test_metadata_has_at_most_64_members(self) -> None:
        assert len(Named(metadata={str(n): n for n in range(64)}).metadata) == 64
        with pytest.raises(ValidationError):
            Named(metadata={str(n): n for n in range(65)})

    def test_an_answer_writes_times_and_leaves_out_what_does_not_apply(self) -> None:
        told = Told(id=UUID(ID), at=datetime(2026, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC))
        assert told.model_dump(mode="json") == {
            "id": ID,
            "at": "2026-05-06T07:08:09.123Z",
            "other": None,
        }
        assert Told(id=UUID(ID), at=told.at, more=0).model_dump(mode="json")["more"] == 0

    def test_a_time_that_was_written_before_is_not_written_twice(self) -> None:
        row: dict[str, Any] = {"id": ID, "at": "2026-05-06T07:08:09.123Z", "more": None}
        told = Told.model_construct(**row)
        assert told.model_dump(mode="json")["at"] == "2026-05-06T07:08:09.123Z"

    def test_an_answer_is_new_unless_it_says_otherwise(self) -> None:
        assert Empty().is_repeat is False
