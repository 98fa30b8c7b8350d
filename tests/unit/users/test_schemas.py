from typing import Any

import pytest

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.transport.registry import parse
from chatserver.users.schemas import MAX_DETAILS_BYTES, UserPatch, UserPut


def put(**members: Any) -> UserPut:
    request = parse(UserPut, {"external_id": "u1", **members})
    assert isinstance(request, UserPut)
    return request


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Ada", "Ada"),
        ("  Ada  ", "Ada"),
        ("e\u0301", "\u00e9"),
        ("a\u202eb", "ab"),
        ("a\nb", "ab"),
        ("👩\u200d💻", "👩\u200d💻"),
    ],
)
def test_a_name_is_kept_as_it_is_seen(given: str, kept: str) -> None:
    assert put(display_name=given).display_name == kept


@pytest.mark.parametrize("given", ["", " ", "\u200b", "\u200d", "x" * 257, 1])
def test_a_name_that_nobody_sees_is_refused(given: object) -> None:
    with pytest.raises(PayloadInvalidError) as refused:
        put(display_name=given)
    assert refused.value.issues[0]["field"] == "display_name"


@pytest.mark.parametrize("url", ["https://a.example/b.png?c=d", "HTTP://a.example"])
def test_a_web_address_is_taken(url: str) -> None:
    assert put(avatar_url=url).avatar_url == url


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "//a.example", "https://", "https://a b", "data:,x", "x" * 2049]
)
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(PayloadInvalidError):
        put(avatar_url=url)


def test_metadata_is_bounded_in_bytes() -> None:
    room = MAX_DETAILS_BYTES - len('{"a":""}')
    assert put(metadata={"a": "x" * room}).metadata
    with pytest.raises(PayloadInvalidError) as refused:
        put(metadata={"a": "x" * (room + 1)})
    assert refused.value.issues[0]["field"] == "metadata"


@pytest.mark.parametrize("external_id", ["", "a b", "a\n", "ü", "x" * 129, "a/b", 7])
def test_what_is_no_external_id_is_refused(external_id: object) -> None:
    with pytest.raises(PayloadInvalidError):
        put(external_id=external_id)


def test_an_unknown_member_is_refused() -> None:
    with pytest.raises(PayloadInvalidError):
        put(role="admin")


def test_a_patch_changes_what_was_sent_and_null_clears() -> None:
    patch = UserPatch.model_validate({"external_id": "u1", "display_name": None, "metadata": None})
    assert patch.changes() == {"display_name": None, "details": {}}
    assert UserPatch(external_id="u1").changes() == {}
