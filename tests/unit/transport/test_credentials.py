from ipaddress import ip_network

import pytest
from aiohttp.test_utils import make_mocked_request

from chatserver.kernel.principal import Caller, Principal
from chatserver.transport.credentials import (
    address_of,
    check_origin,
    refuse_key_in_query,
    token_of,
)
from chatserver.transport.errors import KeyInQueryError, MalformedRequestError, OriginRefusedError

PROXIES = (ip_network("10.0.0.0/8"), ip_network("::1/128"))


class TestToken:
    @pytest.mark.parametrize(
        ("headers", "token"),
        [
            ({}, None),
            ({"Authorization": "Bearer abc"}, "abc"),
            ({"Authorization": "bearer  abc "}, "abc"),
            ({"X-API-Key": "abc"}, "abc"),
            ({"Authorization": "Bearer abc", "X-API-Key": "abc"}, "abc"),
            ({"Authorization": "Basic YTpi"}, None),
            ({"Authorization": "Basic YTpi", "X-API-Key": "abc"}, "abc"),
            ({"Authorization": "Bearer"}, None),
            ({"X-API-Key": ""}, None),
        ],
    )
    def test_it_is_taken_from_either_header(
        self, headers: dict[str, str], token: str | None
    ) -> None:
        assert token_of(make_mocked_request("GET", "/", headers=headers)) == token

    def test_two_different_keys_are_one_too_many(self) -> None:
        request = make_mocked_request(
            "GET", "/", headers={"Authorization": "Bearer a", "X-API-Key": "b"}
        )
        with pytest.raises(MalformedRequestError):
            token_of(request)


class TestKeyInQuery:
    @pytest.mark.parametrize(
        "query", ["token=x", "API_KEY=x", "x-api-key=x", "q=csm_0123456789abcdef_x", "a=csu_1_2"]
    )
    def test_it_is_refused_without_being_repeated(self, query: str) -> None:
        with pytest.raises(KeyInQueryError) as refused:
            refuse_key_in_query(make_mocked_request("GET", f"/?{query}"), frozenset())
        assert refused.value.issues[0]["field"] == query.partition("=")[0]
        assert query.partition("=")[2] not in {
            refused.value.message,
            refused.value.issues[0]["issue"],
        }

    def test_a_name_that_the_operation_knows_is_no_key(self) -> None:
        request = make_mocked_request("GET", "/?key=colour&page=2")
        refuse_key_in_query(request, frozenset({"key", "page"}))


class TestOrigin:
    LISTED = Principal(caller=Caller.MASTER, origins=("https://app.example",))

    def test_a_listed_origin_and_a_server_pass(self) -> None:
        check_origin(self.LISTED, "https://app.example")
        check_origin(self.LISTED, None)

    def test_without_a_list_every_origin_passes(self) -> None:
        check_origin(Principal(caller=Caller.MASTER), "https://evil.example")
        check_origin(Principal(caller=Caller.MASTER), "null")

    @pytest.mark.parametrize(
        "origin",
        [
            "null",
            "https://evil.example",
            "https://app.example.evil.example",
            "https://app.example:8443",
            "http://app.example",
            "https://sub.app.example",
            "",
        ],
    )
    def test_any_other_origin_is_refused(self, origin: str) -> None:
        with pytest.raises(OriginRefusedError):
            check_origin(self.LISTED, origin)

    def test_null_is_refused_even_if_it_was_listed(self) -> None:
        with pytest.raises(OriginRefusedError):
            check_origin(Principal(caller=Caller.MASTER, origins=("null",)), "null")


class TestAddress:
    def test_a_stranger_may_not_say_where_he_comes_from(self) -> None:
        assert address_of("203.0.113.9", "198.51.100.1", PROXIES) == "203.0.113.9"

    def test_our_proxies_say_it(self) -> None:
        assert address_of("10.0.0.2", "6.6.6.6, 198.51.100.1, 10.0.0.1", PROXIES) == "198.51.100.1"
        assert address_of("::1", "2001:db8::5", PROXIES) == "2001:db8::5"

    def test_without_a_header_it_is_the_peer(self) -> None:
        assert address_of("10.0.0.2", "", PROXIES) == "10.0.0.2"
        assert address_of(None, "1.2.3.4", PROXIES) == ""
