import pytest

from chatserver.kernel.errors import (
    DomainError,
    ErrorKind,
    PayloadInvalidError,
    ScopeMissingError,
    UnavailableError,
)
from chatserver.kernel.principal import Caller, Principal, Scope


class SeatTakenError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "example.seat_taken"
    title = "The seat is taken."


class TestDomainError:
    def test_the_title_is_said_where_there_is_nothing_better_to_say(self) -> None:
        assert str(SeatTakenError()) == SeatTakenError().message == "The seat is taken."
        assert str(SeatTakenError("Seat 5 is taken.")) == "Seat 5 is taken."

    def test_details_and_the_time_to_wait_travel_with_it(self) -> None:
        error = SeatTakenError(retry_after_ms=5, row=3)
        assert (error.retry_after_ms, error.details, error.issues) == (5, {"row": 3}, ())

    def test_an_invalid_payload_names_its_field(self) -> None:
        error = PayloadInvalidError.of("a.b", "is odd")
        assert error.message == "a.b: is odd"
        assert error.issues == ({"field": "a.b", "issue": "is odd"},)

    def test_an_outage_says_when_to_come_back(self) -> None:
        assert UnavailableError().retry_after_ms == 1000
        assert UnavailableError(retry_after_ms=7).retry_after_ms == 7


class TestRequire:
    def test_a_master_key_has_every_scope(self) -> None:
        Principal(caller=Caller.MASTER).require(Scope.CHAT_WRITE)

    @pytest.mark.parametrize("caller", [Caller.USER, Caller.OPERATOR])
    def test_others_need_the_scope_itself(self, caller: Caller) -> None:
        Principal(caller=caller, scopes=frozenset({Scope.CHAT_READ})).require(Scope.CHAT_READ)
        with pytest.raises(ScopeMissingError) as caught:
            Principal(caller=caller, scopes=frozenset({Scope.CHAT_READ})).require(Scope.CHAT_WRITE)
        assert caught.value.details == {"scope": "chat:write"}

    def test_who_acts_is_named_by_the_external_id_or_by_the_kind_of_key(self) -> None:
        assert Principal(caller=Caller.USER, external_id="alice").name == "alice"
        assert Principal(caller=Caller.MASTER).name == "master"
