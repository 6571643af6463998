"""What was fetched over REST is in a recording, and a replay publishes it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Trade
from ashi_ingest.publish.buffer import PublishBuffer
from ashi_ingest.recording.recorder import Recorder
from ashi_ingest.recording.repaired import TRADES_PER_LINE, read_repaired, repaired_lines
from ashi_ingest.recording.replay import _Replay
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from pathlib import Path

T = 1_700_000_000_000_000


def trades(count: int) -> list[Trade]:
    return [
        Trade("bitflyer:BTC_JPY", str(n), Decimal(n + 1), Decimal("0.01"), "buy", T + n, T + 60 + n, n)
        for n in range(count)
    ]


class Publisher:
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.trades: list[Trade] = []
        self.rejected: list[Any] = []
        self.published = self.dead = 0

    def expect(self, count: int) -> None:
        pass

    async def publish(self, trades: list[Trade]) -> None:
        self.trades += trades

    async def reject(self, rejected: list[Any], source: str) -> None:
        self.rejected += rejected


def replayed(path: Path) -> Publisher:
    publisher = Publisher()
    given: Any = publisher

    async def main() -> None:
        await _Replay(VENUES["bitflyer"].parser(), given, asyncio.Event(), lambda _: None).read(path)

    asyncio.run(main())
    return publisher


def test_what_no_connection_brought_is_recorded_and_replayed_as_it_was_published(tmp_path: Path) -> None:
    async def main() -> None:
        given: Any = Publisher()
        recorder = Recorder(tmp_path, "bitflyer")
        buffer = PublishBuffer(given, recorder.write_fetched)
        buffer.put(trades(3), streamed=False)
        buffer.put(trades(9), streamed=True)  # frames are recorded as they come
        recorder.close()

    asyncio.run(main())
    (path,) = tmp_path.iterdir()
    publisher = replayed(path)
    assert publisher.trades == trades(3)
    assert publisher.rejected == []


def test_many_trades_are_several_lines_and_each_is_read_again() -> None:
    lines = list(repaired_lines(trades(TRADES_PER_LINE + 1)))
    assert [received_ns for received_ns, _ in lines] == [(T + 60) * 1_000, (T + 60 + TRADES_PER_LINE) * 1_000]
    assert [t for _, line in lines for t in read_repaired(line, "bitflyer")] == trades(TRADES_PER_LINE + 1)


@pytest.mark.parametrize("line", [b'{"ashi.repaired":[7]}', b'{"ashi.repaired":[{}', b'{"ashi.repaired":[{}]}'])
def test_a_line_that_cannot_be_read_is_a_dead_letter(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "recording.txt"
    path.write_bytes(b"%d %b\n" % (T * 1_000, line))
    publisher = replayed(path)
    assert publisher.trades == []
    assert [bad.value for bad in publisher.rejected] == [line]


def test_trades_of_another_venue_are_refused() -> None:
    ((_, line),) = repaired_lines(trades(1))
    with pytest.raises(ContractError, match="bitflyer:BTC_JPY in a recording of gmo"):
        read_repaired(line, "gmo")
