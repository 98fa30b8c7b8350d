from chatserver.infra.cursors import CursorSeal
from chatserver.infra.secrets import SecretBox

SEAL = CursorSeal(SecretBox.from_text(["k" * 32]))


class TestCursorSeal:
    def test_what_was_sealed_opens_for_its_purpose_alone(self) -> None:
        for content in (b"", b"x", b"\x00\xff" * 50):
            text = SEAL.seal(content, "sync:alice")
            assert text.isascii()
            assert "=" not in text
            assert SEAL.open(text, "sync:alice") == content
            assert SEAL.open(text, "sync:bob") is None

    def test_nothing_of_the_content_can_be_read_and_no_two_are_the_same(self) -> None:
        texts = {SEAL.seal(b"2026-11-20", "p") for _ in range(10)}
        assert len(texts) == 10

    def test_another_key_ring_opens_nothing(self) -> None:
        other = CursorSeal(SecretBox.from_text(["o" * 32]))
        assert other.open(SEAL.seal(b"x", "p"), "p") is None

    def test_a_newer_key_in_front_still_opens_old_ones(self) -> None:
        newer = CursorSeal(SecretBox.from_text(["n" * 32, "k" * 32]))
        assert newer.open(SEAL.seal(b"x", "p"), "p") == b"x"

    def test_whatever_is_not_ours_is_just_not_opened(self) -> None:
        good = SEAL.seal(b"x", "p")
        for text in ("", "x", "====", "ü", "\x00", "%%%", good[:-3], good + "AAAA", good[::-1]):
            assert SEAL.open(text, "p") is None
