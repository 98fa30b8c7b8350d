from chatserver.infra.expiring import Expiring


class Watch:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_entry_ends_when_its_time_is_over() -> None:
    watch = Watch()
    cache: Expiring[str, int] = Expiring(size=10, ttl_s=15, clock=watch)
    cache.put("a", 1)
    cache.put("b", 2, at_most_s=3)
    cache.put("c", 3, at_most_s=300)
    watch.now += 3
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    watch.now += 12
    assert (cache.get("a"), cache.get("c")) == (None, None)
    assert len(cache) == 0


def test_what_has_no_time_left_is_not_kept() -> None:
    cache: Expiring[str, int] = Expiring(size=10, ttl_s=15)
    cache.put("a", 1, at_most_s=0)
    cache.put("b", 1, at_most_s=-1)
    assert len(cache) == 0


def test_the_least_recently_used_leaves_first() -> None:
    cache: Expiring[str, int] = Expiring(size=2, ttl_s=15)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_what_was_read_before_a_drop_is_not_kept_after_it() -> None:
    cache: Expiring[str, int] = Expiring(size=2, ttl_s=15)
    drops = cache.drops
    cache.drop(lambda _: True)
    cache.put("a", 1, drops=drops)
    assert cache.get("a") is None
    cache.put("a", 1, drops=cache.drops)
    assert cache.get("a") == 1


def test_a_drop_takes_only_what_is_concerned() -> None:
    cache: Expiring[str, int] = Expiring(size=5, ttl_s=15)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.drop(lambda value: value == 1)
    assert (cache.get("a"), cache.get("b")) == (None, 2)
