"""What fails again and again is told at most once a minute, and when it is over."""

from __future__ import annotations

from structlog.testing import capture_logs

from ashi.runtime.outage_log import OutageLog


def test_an_outage_has_a_line_a_minute_and_one_when_it_is_over() -> None:
    now_s = 1000.0
    log = OutageLog("it fails", "it works again", lambda: now_s)
    with capture_logs() as lines:
        log.worked()
        for _ in range(10):  # 200 s, in which it fails every 20
            log.failed("banned", symbol="toy:A")
            now_s += 20
        log.worked()
        now_s += 20
        log.worked()
        now_s += 25
        log.worked()
        log.worked()
        log.failed("banned again")
    assert [(line["event"], line.get("held_back"), line.get("failures")) for line in lines] == [
        ("it fails", None, None),
        ("it fails", 2, None),
        ("it fails", 2, None),
        ("it fails", 2, None),
        ("it works again", None, 10),
        ("it fails", None, None),
    ]
    assert (lines[0]["reason"], lines[0]["symbol"], lines[0]["log_level"]) == ("banned", "toy:A", "warning")


def test_what_fails_now_and_then_among_what_works_is_one_outage() -> None:
    now_s = 0.0
    log = OutageLog("it fails", "it works again", lambda: now_s)
    with capture_logs() as lines:
        for _ in range(300):
            log.failed("a row is bad")
            now_s += 0.5
            log.worked()
            now_s += 0.5
    assert [line["event"] for line in lines] == ["it fails"] * 5
