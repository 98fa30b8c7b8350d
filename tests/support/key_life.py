"""Clients, a thief and three nodes, in any order: a machine for Hypothesis to drive."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from chatserver.api_keys.errors import (
    AuthInvalidError,
    AuthReuseDetectedError,
    AuthRevokedError,
)
from chatserver.api_keys.rotation import HandOut
from chatserver.infra.secrets import new_scoped_key, parse_key
from chatserver.kernel.errors import DomainError

# `make chaos` sets 10,000.
STEPS = int(os.environ.get("KEY_STEPS", "200"))
GRACE_S = 120
NODES = 3
DAY_S = 86_400
# What a slow tab may take from reading the storage to connecting.
HASTE_S = GRACE_S - 1

Result = HandOut | DomainError | None


class Backend(Protocol):
    """Three nodes on one set of families."""

    def login(self, device: str, *, explicit: bool, replace: bool) -> str: ...

    def connect(self, node: int, key: str) -> Result: ...

    def rest(self, node: int, key: str) -> DomainError | None: ...

    def confirm(self, node: int, kid: str, key_id: UUID) -> bool: ...

    def race(self, keys: Sequence[str], schedule: Sequence[int]) -> list[Result]:
        """Connect with all keys at once, each on another node; `schedule` says whose turn it is."""
        ...

    def advance(self, seconds: int) -> None: ...

    def note_use(self) -> None:
        """Write down late what was used, and wipe what is sealed for graces that are over."""
        ...

    def close(self) -> None: ...


@dataclass
class Family:
    """What ought to be true of a family, by the rules alone."""

    cur: int
    pend: int | None = None
    retired: dict[int, tuple[int, str]] = field(default_factory=dict)
    is_dead: bool = False

    def verdict(self, gen: int, now: int) -> type[DomainError] | None:
        if self.is_dead:
            return AuthRevokedError
        if gen in (self.cur, self.pend):
            return None
        until, reason = self.retired[gen]
        if now < until:
            return None
        return AuthReuseDetectedError if reason == "rotated" else AuthRevokedError

    def present(self, gen: int, now: int) -> None:
        """Note what a present does to the family."""
        if self.verdict(gen, now) is AuthReuseDetectedError:
            self.is_dead = True

    def come_into_use(self, gen: int, now: int) -> None:
        if gen == self.pend:
            self.retired[self.cur] = (now + GRACE_S, "rotated")
            self.cur, self.pend = gen, None

    def log_in(self, gen: int, now: int) -> None:
        for old in (self.cur, self.pend):
            if old is not None:
                self.retired[old] = (now + GRACE_S, "replaced")
        self.cur, self.pend = gen, None


@dataclass
class Owner:
    """An honest client on one device, and maybe a thief with him."""

    device: str
    kind: str  # sdk, half (adopts in REST alone), pages (a login for each), pods (explicit)
    storage: str
    handed: HandOut | None = None
    copies: list[tuple[str, int]] = field(default_factory=list)
    old_pages: list[str] = field(default_factory=list)
    loot: list[str] = field(default_factory=list)
    thief_adopted: bool = False

    def keep(self, handed: HandOut | None) -> None:
        """Persist before using, and never overwrite a newer key."""
        if handed is None:
            return
        self.handed = handed
        if self.kind == "sdk" and gen_of(handed.key) > gen_of(self.storage):
            self.storage = handed.key


def gen_of(key: str) -> int:
    parsed = parse_key(key)
    assert parsed is not None
    return parsed.gen


def kid_of(key: str) -> str:
    parsed = parse_key(key)
    assert parsed is not None
    return parsed.kid


NODE = st.integers(0, NODES - 1)
WHO = st.integers(0, 1_000)


class KeyLifeMachine(RuleBasedStateMachine):
    """Every present is compared with the rules, and no honest client is ever refused."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.owners: list[Owner] = []
        self.families: dict[str, Family] = {}
        self.backend = self.make_backend()

    def make_backend(self) -> Backend:
        raise NotImplementedError  # a state machine can't be abstract; each one overrides it

    def _owner(self, who: int) -> Owner:
        return self.owners[who % len(self.owners)]

    def _family(self, key: str) -> Family:
        return self.families[kid_of(key)]

    @initialize()
    def begin(self) -> None:
        for kind in ("sdk", "half", "pages", "pods", "sdk"):
            self._enter(kind)

    def _enter(self, kind: str) -> None:
        device = f"{kind}-{len(self.owners)}"
        key = self.backend.login(device, explicit=kind == "pods", replace=False)
        self.families[kid_of(key)] = Family(cur=gen_of(key))
        self.owners.append(Owner(device, kind, key))

    # What every present comes to.

    def _judge(self, key: str, result: Result, *, door: str) -> HandOut | None:
        """Compare an answer with the rules and note what it changed."""
        family = self._family(key)
        gen = gen_of(key)
        expected = family.verdict(gen, self.now)
        if expected is not None:
            assert isinstance(result, expected), (expected, result)
            family.present(gen, self.now)
            return None
        assert not isinstance(result, DomainError), f"{result!r} for {family} at {gen}"
        if door != "socket":
            return None
        family.come_into_use(gen, self.now)
        if result is None:
            return None
        handed = gen_of(result.key)
        if gen == family.cur:
            assert handed == family.cur + 1
            assert family.pend in (None, handed), "there is one successor"
            family.pend = handed
        else:
            assert handed == family.cur, "a retired key is handed the one in use"
        return result

    def _connect(self, owner: Owner, key: str, node: int) -> HandOut | None:
        result = self.backend.connect(node, key)
        given = self._judge(key, result, door="socket")
        if not owner.loot:
            assert not isinstance(result, DomainError), f"locked out: {result!r}"
            if owner.kind != "pods":
                assert given is not None, "nothing was handed out"
        return given

    # What honest clients do.

    @rule(who=WHO, node=NODE, fates=st.lists(st.booleans(), min_size=1, max_size=6))
    def connects(self, who: int, node: int, fates: list[bool]) -> None:
        """Connect again and again; what is handed out is kept, or lost on its way or in a crash."""
        owner = self._owner(who)
        for turn, is_kept in enumerate(fates):
            given = self._connect(owner, owner.storage, (node + turn) % NODES)
            if is_kept:
                owner.keep(given)

    @rule(who=WHO)
    def a_tab_reads_the_storage(self, who: int) -> None:
        owner = self._owner(who)
        owner.copies.append((owner.storage, self.now))

    @precondition(lambda self: any(owner.copies for owner in self.owners))
    @rule(who=WHO, node=NODE)
    def a_slow_tab_connects(self, who: int, node: int) -> None:
        waiting = [owner for owner in self.owners if owner.copies]
        owner = waiting[who % len(waiting)]
        key, read_at = owner.copies.pop()
        if self.now - read_at >= HASTE_S:
            key = owner.storage  # it slept, and reads again first
        owner.keep(self._connect(owner, key, node))

    @rule(
        who=WHO,
        tabs=st.integers(2, 5),
        schedule=st.lists(st.integers(0, 4), max_size=30),
        is_new=st.booleans(),
    )
    def tabs_connect_at_once(
        self, who: int, tabs: int, schedule: list[int], *, is_new: bool
    ) -> None:
        owner = self._owner(who)
        if is_new:
            owner.keep(self._connect(owner, owner.storage, 0))
        key = owner.storage
        keys = [key] * tabs
        if self._family(key).verdict(gen_of(key), self.now) is not None:
            return
        results = self.backend.race(keys, schedule)
        # Whoever came later in the race saw the key as one in use: judge in the order of gens.
        for result in sorted(results, key=_handed):
            owner.keep(self._judge(key, result, door="socket"))

    @rule(who=WHO, node=NODE)
    def rest(self, who: int, node: int) -> None:
        owner = self._owner(who)
        newest = owner.storage
        if owner.handed is not None and kid_of(owner.handed.key) == kid_of(newest):
            newest = max(newest, owner.handed.key, key=gen_of)
        result = self.backend.rest(node, newest)
        self._judge(newest, result, door="rest")
        if not owner.loot:
            assert result is None, f"locked out of REST: {result!r}"

    @rule(who=WHO, node=NODE)
    def confirm(self, who: int, node: int) -> None:
        owner = self._owner(who)
        handed = owner.handed
        if owner.kind != "sdk" or handed is None or handed.key != owner.storage:
            return
        family = self._family(handed.key)
        done = self.backend.confirm(node, kid_of(handed.key), handed.key_id)
        assert done == (not family.is_dead and gen_of(handed.key) in (family.cur, family.pend))
        if done:
            family.come_into_use(gen_of(handed.key), self.now)

    @rule()
    def a_page_is_rendered(self) -> None:
        owner = next(it for it in self.owners if it.kind == "pages")
        was = owner.storage
        key = self.backend.login(owner.device, explicit=False, replace=False)
        if kid_of(key) in self.families:
            self._family(key).log_in(gen_of(key), self.now)
        else:
            assert self._family(was).is_dead, "a login goes on in the family that lives"
            self.families[kid_of(key)] = Family(cur=gen_of(key))
            owner.loot.clear()
            owner.thief_adopted = False
        owner.old_pages.append(was)
        owner.copies.clear()
        owner.handed = None
        owner.storage = key

    @rule(node=NODE)
    def an_old_page_reconnects(self, node: int) -> None:
        owner = next(it for it in self.owners if it.kind == "pages")
        if owner.old_pages:
            key = owner.old_pages[-1]
            result = self.backend.connect(node, key)
            self._judge(key, result, door="socket")
            if not owner.loot:
                assert not isinstance(result, AuthReuseDetectedError), "a page is no thief"

    @rule(who=WHO)
    def a_login_replaces(self, who: int) -> None:
        owner = self._owner(who)
        key = self.backend.login(owner.device, explicit=owner.kind == "pods", replace=True)
        self._family(owner.storage).is_dead = True
        self.families[kid_of(key)] = Family(cur=gen_of(key))
        self.owners[self.owners.index(owner)] = Owner(owner.device, owner.kind, key)

    # What others do.

    @rule(who=WHO)
    def a_key_is_stolen(self, who: int) -> None:
        owner = self._owner(who)
        if len(owner.loot) < 3:
            owner.loot.append(owner.storage)

    @precondition(lambda self: any(owner.loot for owner in self.owners))
    @rule(who=WHO, node=NODE, keeps=st.lists(st.booleans(), min_size=1, max_size=6))
    def the_thief_connects(self, who: int, node: int, keeps: list[bool]) -> None:
        robbed = [owner for owner in self.owners if owner.loot]
        owner = robbed[who % len(robbed)]
        for turn, is_kept in enumerate(keeps):
            key = max(owner.loot, key=gen_of)
            result = self.backend.connect((node + turn) % NODES, key)
            given = self._judge(key, result, door="socket")
            if is_kept and given is not None:
                owner.loot.append(given.key)
                owner.thief_adopted = True

    @rule(who=WHO, node=NODE, gen=st.integers(1, 9))
    def somebody_guesses(self, who: int, node: int, gen: int) -> None:
        guess = new_scoped_key(kid=kid_of(self._owner(who).storage), gen=gen).text
        assert isinstance(self.backend.connect(node, guess), AuthInvalidError)
        assert isinstance(self.backend.rest(node, guess), AuthInvalidError)

    @rule(seconds=st.sampled_from([1, 30, GRACE_S - 1, GRACE_S, GRACE_S + 1, 3600, DAY_S]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.backend.advance(seconds)

    @rule()
    def use_is_noted(self) -> None:
        self.backend.note_use()

    def teardown(self) -> None:
        for owner in self.owners:
            if owner.thief_adopted and owner.kind != "pods":
                self._is_found_out(owner)
        self.backend.close()

    def _is_found_out(self, owner: Owner) -> None:
        """Let both go on, each keeping what it is handed: one of them meets the alarm.

        Each connects three times before the other does, which is as much as one can be ahead
        unnoticed. Two who take turns in perfect alternation are always handed the same key, and no
        rule about keys can tell them from one with two tabs.
        """
        family = self._family(owner.storage)
        is_inside = True
        for turn in range(12):
            is_thief = turn % 6 < 3
            if turn % 3 == 0:
                self.time_passes(GRACE_S + 1)
            key = max(owner.loot, key=gen_of) if is_thief else owner.storage
            given = self._judge(key, self.backend.connect(turn % NODES, key), door="socket")
            if is_thief:
                is_inside = given is not None
            if given is None:
                continue
            if is_thief:
                owner.loot.append(given.key)
            else:
                owner.storage = given.key
        # A login of the owner puts a thief out without an alarm: he has no key that works.
        assert family.is_dead or not is_inside, "the thief goes on unnoticed"
        if family.is_dead:
            for key in (owner.storage, *owner.loot):
                assert isinstance(self.backend.connect(0, key), AuthRevokedError)


def _handed(result: Result) -> int:
    return gen_of(result.key) if isinstance(result, HandOut) else 0
