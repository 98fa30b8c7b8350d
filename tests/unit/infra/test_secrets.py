import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.infra.secrets import (
    MAX_LENGTH,
    Key,
    KeyHasher,
    SecretBox,
    UnreadableSecretError,
    new_master_key,
    new_scoped_key,
    parse_key,
    same_secret,
)

PEPPER = "p" * 32
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class TestFormat:
    def test_a_scoped_key_has_the_published_shape(self) -> None:
        key = new_scoped_key()
        prefix, kid, gen, rest = key.text.split("_")
        assert (prefix, kid, gen) == ("csu", key.kid, "1")
        assert (len(kid), len(rest)) == (16, 43 + 6)
        assert set(kid + rest) <= set(BASE62)

    def test_a_master_key_has_the_published_shape(self) -> None:
        prefix, kid, rest = new_master_key().text.split("_")
        assert (prefix, len(kid), len(rest)) == ("csm", 16, 49)

    @pytest.mark.parametrize("gen", [1, 9, 10, 999_999_999])
    def test_every_generation_can_be_read_back(self, gen: int) -> None:
        key = new_scoped_key(kid="0123456789abcdEF", gen=gen)
        assert parse_key(key.text) == key
        assert len(key.text) <= MAX_LENGTH

    def test_a_master_key_can_be_read_back(self) -> None:
        key = new_master_key()
        assert parse_key(key.text) == key
        assert key.is_master

    def test_two_keys_share_nothing(self) -> None:
        first, second = new_scoped_key(), new_scoped_key()
        assert first.kid != second.kid
        assert first.secret != second.secret

    def test_the_secret_is_in_no_repr(self) -> None:
        key = new_scoped_key()
        assert key.secret not in repr(key)
        assert key.secret not in f"{key}"

    @given(place=st.integers(4, 71), other=st.sampled_from(BASE62))
    def test_any_single_wrong_character_is_noticed(self, place: int, other: str) -> None:
        text = Key("0123456789abcdEF", 1, "a" * 43).text
        typo = text[:place] + other + text[place + 1 :]
        parsed = parse_key(typo)
        assert (parsed is None) == (typo != text)

    @given(st.text(max_size=200))
    def test_whatever_is_no_key_is_none_and_never_an_error(self, text: str) -> None:
        assert parse_key(text) is None
        assert parse_key("csu_" + text) is None

    @pytest.mark.parametrize(
        ("part", "other"),
        [
            ("csu_", " csu_"),
            ("csu_", "CSU_"),
            ("csu_", "csm_"),
            ("_1_", "_01_"),
            ("_1_", "_0_"),
            ("_1_", "_-1_"),
            ("_1_", "_1111111111_"),
            ("_1_", "_\u0661_"),
            ("_1_", "_1_\n"),
            ("_1_", "__"),
        ],
    )
    def test_a_bent_key_is_none(self, part: str, other: str) -> None:
        text = new_scoped_key().text
        assert parse_key(text)
        assert parse_key(text.replace(part, other)) is None

    def test_nothing_may_follow_a_key(self) -> None:
        text = new_scoped_key().text
        for more in ("\n", " ", "0", "0" * MAX_LENGTH):
            assert parse_key(text + more) is None


class TestKeyHasher:
    def test_the_mac_depends_on_each_part_and_on_the_pepper(self) -> None:
        key = Key("0123456789abcdEF", 1, "a" * 43)
        hasher = KeyHasher(PEPPER)
        others = [
            hasher.mac(Key("0123456789abcdEG", 1, "a" * 43)),
            hasher.mac(Key("0123456789abcdEF", 2, "a" * 43)),
            hasher.mac(Key("0123456789abcdEF", 1, "a" * 42 + "b")),
            KeyHasher("q" * 32).mac(key),
        ]
        assert hasher.mac(key) not in others
        assert len(set(others)) == 4

    def test_a_mac_matches_itself_and_nothing_else(self) -> None:
        hasher = KeyHasher(PEPPER)
        mac = hasher.mac(new_scoped_key())
        assert hasher.matches(mac, mac)
        assert not hasher.matches(mac, hasher.mac(new_scoped_key()))
        assert not hasher.matches(mac, None)

    def test_the_pepper_is_not_in_its_repr(self) -> None:
        assert PEPPER not in repr(KeyHasher(PEPPER))


class TestSecretBox:
    def test_what_was_sealed_opens_in_its_place(self) -> None:
        box = SecretBox.from_text(["one key"])
        sealed = box.seal(b"smtp password", bound_to="client|smtp")
        assert b"smtp password" not in sealed
        assert box.open(sealed, bound_to="client|smtp") == b"smtp password"

    def test_it_does_not_open_elsewhere(self) -> None:
        box = SecretBox.from_text(["one key"])
        sealed = box.seal(b"x", bound_to="client a")
        with pytest.raises(UnreadableSecretError):
            box.open(sealed, bound_to="client b")

    def test_an_older_key_still_opens_and_the_newest_seals(self) -> None:
        old = SecretBox.from_text(["old"])
        both = SecretBox.from_text(["new", "old"])
        assert both.open(old.seal(b"x", bound_to="a"), bound_to="a") == b"x"
        fresh = both.seal(b"y", bound_to="a")
        assert SecretBox.from_text(["new"]).open(fresh, bound_to="a") == b"y"
        with pytest.raises(UnreadableSecretError):
            old.open(fresh, bound_to="a")

    def test_the_same_plain_text_is_sealed_differently_each_time(self) -> None:
        box = SecretBox([os.urandom(32)])
        assert box.seal(b"x", bound_to="a") != box.seal(b"x", bound_to="a")

    @given(place=st.integers(0, 33))
    def test_any_altered_byte_is_noticed(self, place: int) -> None:
        box = SecretBox.from_text(["one key"])
        sealed = bytearray(box.seal(b"x", bound_to="a"))
        sealed[place % len(sealed)] ^= 1
        with pytest.raises(UnreadableSecretError):
            box.open(bytes(sealed), bound_to="a")

    @pytest.mark.parametrize("length", [0, 1, 5, 17, 20])
    def test_a_stump_is_unreadable_and_no_other_error(self, length: int) -> None:
        box = SecretBox.from_text(["one key"])
        with pytest.raises(UnreadableSecretError):
            box.open(box.seal(b"x", bound_to="a")[:length], bound_to="a")

    def test_an_empty_or_short_ring_is_refused_without_quoting_it(self) -> None:
        with pytest.raises(ValueError, match="empty"):
            SecretBox([])
        with pytest.raises(ValueError, match="32 bytes") as refused:
            SecretBox([b"short"])
        assert "short" not in str(refused.value)


def test_texts_of_different_lengths_are_compared_without_an_error() -> None:
    assert same_secret("ünïcode", "ünïcode")
    assert not same_secret("a", "ab")
    assert not same_secret("\ud800", "a")


class TestPeppers:
    def test_a_mac_of_an_older_pepper_matches_and_is_told_of(self) -> None:
        key = new_scoped_key()
        old = KeyHasher("old pepper")
        both = KeyHasher(["new pepper", "old pepper"])
        told: list[tuple[str, bytes, bytes]] = []
        both.outdated = lambda *noted: told.append(noted)

        assert both.matches(both.mac(key), old.mac(key))
        assert told == [(key.kid, bytes(old.mac(key)), bytes(both.mac(key)))]
        assert both.matches(both.mac(key), bytes(both.mac(key)))
        assert len(told) == 1

    def test_another_key_does_not_match_under_an_older_pepper(self) -> None:
        key, other = new_scoped_key(), new_scoped_key()
        both = KeyHasher(["new pepper", "old pepper"])
        assert not both.matches(both.mac(key), KeyHasher("old pepper").mac(other))
        assert not both.matches(both.mac(key), KeyHasher("third pepper").mac(key))

    def test_a_mac_without_a_name_is_of_any_pepper_that_is_set(self) -> None:
        key = new_master_key()
        bare = bytes(KeyHasher("old pepper").mac(key))[4:]
        both = KeyHasher(["new pepper", "old pepper"])
        assert both.matches(both.mac(key), bare)
        assert not KeyHasher("new pepper").matches(KeyHasher("new pepper").mac(key), bare)

    def test_its_name_fits_a_column(self) -> None:
        for number in range(100):
            assert 0 <= KeyHasher(f"pepper {number}").pepper_id < 1 << 31
