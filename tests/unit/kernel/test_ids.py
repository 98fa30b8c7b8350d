import time
from uuid import RFC_4122

from chatserver.kernel.ids import uuid7


class TestUuid7:
    def test_it_is_a_version_7_uuid_of_now(self) -> None:
        before = time.time_ns() // 1_000_000
        made = uuid7()
        after = time.time_ns() // 1_000_000
        assert made.version == 7
        assert made.variant == RFC_4122
        assert before <= made.int >> 80 <= after

    def test_ids_of_later_milliseconds_sort_later_in_every_form(self) -> None:
        made = []
        for _ in range(5):
            made.append(uuid7())
            time.sleep(0.002)
        assert made == sorted(made)
        assert [str(each) for each in made] == sorted(str(each) for each in made)
        assert [each.bytes for each in made] == sorted(each.bytes for each in made)

    def test_many_at_once_differ_in_all_random_bits(self) -> None:
        made = {uuid7() for _ in range(20_000)}
        assert len(made) == 20_000
        seen_set = seen_clear = 0
        for each in made:
            seen_set |= each.int
            seen_clear |= ~each.int
        random = (1 << 62) - 1 | ((1 << 12) - 1) << 64
        assert seen_set & random == random
        assert seen_clear & random == random
