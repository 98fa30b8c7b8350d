from chatserver.transport.tracing import trace_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_sane_request_id_is_kept() -> None:
    trace = trace_of({"X-Request-Id": "order-17/a:b"})
    assert (trace.request_id, trace.trace_id) == ("order-17/a:b", "order-17/a:b")


def test_an_id_that_could_forge_a_log_line_is_replaced() -> None:
    for bad in ("a b", "a\nb", "é", "x" * 129, "a\x1b[31m", '"', "\ud800"):
        made = trace_of({"X-Request-Id": bad}).request_id
        assert made != bad
        assert len(made) == 32


def test_a_traceparent_names_the_trace() -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-Id": "mine"}
    trace = trace_of(headers)
    assert (trace.request_id, trace.trace_id) == ("mine", TRACE)
    del headers["X-Request-Id"]
    assert trace_of(headers).request_id == TRACE


def test_a_broken_traceparent_is_ignored() -> None:
    for bad in (
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01\n",
    ):
        assert trace_of({"traceparent": bad}).trace_id != TRACE


def test_every_request_without_an_id_gets_one_of_its_own() -> None:
    assert trace_of({}).request_id != trace_of({}).request_id
