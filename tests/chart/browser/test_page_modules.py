"""The pages' modules that compute and draw nothing, in the browser that runs them, against the same said in Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from chromium import Chromium, Watched, needs_chromium
from fake_chart import FakeChart

from ashi_chart.candles.timeframes import ChartTimeframe

pytestmark = [pytest.mark.outside, needs_chromium]

MINUTE_US = 60_000_000
ZONE = "America/New_York"
START_US = 1_732_406_400_000_000
CLOSED, CORRECTED = 1, 2


class Modules:
    """The modules of a page that is open."""

    def __init__(self, browser: Chromium, watched: Watched) -> None:
        self._browser = browser
        self._watched = watched

    def call(self, module: str, body: str, argument: Any) -> Any:
        """What some JavaScript returns that has a module as `it`, and `argument`."""
        results: list[Any] = []

        async def main() -> None:
            source = f"async (argument) => {{ const it = await import('/static/{module}'); {body} }}"
            results.append(await self._watched.page.evaluate(source, argument))

        self._browser.run(main())
        return results[0]


@pytest.fixture(scope="module")
def modules(browser: Chromium) -> Iterator[Modules]:
    """Those of one page for all tests, in New York."""
    server = FakeChart(markets=1, moves=False)
    server.start()
    page = browser.page(f"{server.url}chart", timezone_id=ZONE)
    opened: list[Watched] = []

    async def enter() -> None:
        opened.append(await page.__aenter__())
        await opened[0].until("Boolean(window.ashi)", "the page's modules")

    async def leave() -> None:
        await page.__aexit__(None, None, None)

    browser.run(enter())
    yield Modules(browser, opened[0])
    browser.run(leave())
    server.stop()


def bar(minute: int, version: int, close: int, flags: int = CLOSED) -> list[Any]:
    price = str(close)
    return [START_US + minute * MINUTE_US, price, price, price, price, "1", 1, version, flags, price, "0"]


def test_of_each_window_the_greatest_version_counts_and_of_equals_the_last(modules: Modules) -> None:
    chance = random.Random(16)
    begin = [bar(minute, 10, 100 + minute) for minute in range(5, 40) if minute % 7]
    changes = [
        bar(chance.randrange(60), chance.randrange(8, 14), number, chance.choice((0, CLOSED, CLOSED | CORRECTED)))
        for number in range(400)
    ]
    page = [bar(minute, chance.randrange(5, 14), 900 + minute) for minute in range(20)]
    found = modules.call(
        "series.js",
        """
        const series = new it.Series("x:Y", "1m");
        series.reset(argument.begin, true);
        const kinds = argument.changes.map((bar) => series.apply(bar).kind);
        const changed = structuredClone(series.bars);
        series.prepend(argument.page, false);
        return { kinds, changed, after: series.bars, more: series.more };
        """,
        {"begin": begin, "changes": changes, "page": page},
    )

    held = {each[0]: each for each in begin}
    oldest = min(held)
    kinds = []
    for change in changes:
        open_time = change[0]
        newest = max(held)
        before = held.get(open_time)
        if open_time < oldest or (before is not None and change[7] < before[7]):
            kinds.append("nothing")
            continue
        held[open_time] = change
        if before is None:
            kinds.append("appended" if open_time > newest else "rebuilt")
        else:
            kinds.append("last" if open_time == newest else "older")
    assert found["kinds"] == kinds
    assert set(kinds) == {"nothing", "appended", "rebuilt", "last", "older"}
    assert found["changed"] == [held[open_time] for open_time in sorted(held)]

    for each in page:
        held_now = held.get(each[0])
        if each[0] < oldest or (held_now is not None and each[7] > held_now[7]):
            held[each[0]] = each
    assert found["after"] == [held[open_time] for open_time in sorted(held)]
    assert found["more"] is False


def test_windows_without_bars_have_their_place_and_a_long_stretch_is_shortened(modules: Modules) -> None:
    bars = [bar(minute, 1, 1) for minute in (0, 1, 4, 5, 1_005)]
    found = modules.call(
        "timeline.js",
        """
        const line = new it.Timeline(argument.bars, argument.length);
        return {
          times: line.times, breaks: [...line.breaks], most: it.LONGEST_HOLE,
          places: argument.times.map((time) => line.placeOf(time)),
          back: [-2, 0, 3, line.times.length - 1, line.times.length + 1].map((place) => line.timeAt(place)),
        };
        """,
        {
            "bars": bars,
            "length": MINUTE_US,
            "times": [
                START_US + int(minute * MINUTE_US) for minute in (-2, 0, 0.5, 3, 4.25, 155.5, 600, 1_005, 1_007.5)
            ],
        },
    )
    assert found["most"] == 300
    minutes = [round(second - START_US // 10**6) // 60 for second in found["times"]]
    assert minutes == [*range(6), *range(6, 156), *range(855, 1_005), 1_005]
    assert found["breaks"] == [156]
    last = len(minutes) - 1
    assert found["places"] == [-2, 0, 0.5, 3, 4.25, 155.5, 156, last, last + 2.5]
    assert found["back"] == [START_US + minute * MINUTE_US for minute in (-2, 0, 3, 1_005, 1_007)]


def test_a_difference_is_exact_and_thousands_are_parted(modules: Modules) -> None:
    chance = random.Random(17)

    def amount() -> str:
        whole = str(chance.randrange(10 ** chance.randrange(1, 60)))
        fraction = str(chance.randrange(10**40)).rstrip("0")[: chance.randrange(0, 40)].rstrip("0")
        return f"{whole}.{fraction}" if fraction else whole

    pairs = [[amount(), amount()] for _ in range(300)] + [["0.00000001", "0.00000002"], ["5", "5"], ["10.5", "11"]]
    differences = modules.call("series.js", "return argument.map(([a, b]) => it.difference(a, b));", pairs)
    exact = Context(prec=200)
    assert [Decimal(each) for each in differences] == [
        exact.subtract(Decimal(first), Decimal(second)) for first, second in pairs
    ]

    texts = ["0", "999", "1000", "12345678", "1234567.000012345", "0.00001234"]
    found = modules.call("format.js", "return argument.map((text) => it.grouped(text, 2));", texts)
    assert found == ["0.00", "999.00", "1,000.00", "12,345,678.00", "1,234,567.000012345", "0.00001234"]

    sums = [0, 0.00001234, 9_999, 12_345.6, 7_654_321, 1.5e12, 3e67]
    found = modules.call("format.js", "return argument.map(it.compact);", sums)
    assert found == ["0", "0.00001234", "9999", "12.35K", "7.654M", "1.5T", "3.00e+67"]


def test_windows_begin_where_the_servers_do(modules: Modules) -> None:
    chance = random.Random(18)
    names = ["1s", "1m", "5m", "15m", "4h", "12h", "1d", "1w"]
    cases = [(name, chance.randrange(10**15, 2 * 10**15)) for name in names for _ in range(50)]
    found = modules.call("protocol.js", "return argument.map(([name, at]) => it.openTimeOf(at, name));", cases)
    assert found == [ChartTimeframe.parse(name).open_time(at) for name, at in cases]


def test_averages_are_those_of_the_closes(modules: Modules) -> None:
    chance = random.Random(19)
    closes = [chance.uniform(1, 100) for _ in range(120)]
    found = modules.call(
        "averages.js",
        """
        const whole = (kind) => it.average(argument, 20, kind).map((value) => (Number.isNaN(value) ? null : value));
        const grown = (kind) => {
          const values = [];
          for (let end = 1; end <= argument.length; end += 1) {
            values.push(it.lastAverage(argument.slice(0, end), 20, kind, values[end - 2] ?? NaN));
          }
          return values.map((value) => (Number.isNaN(value) ? null : value));
        };
        return {
          sma: whole("sma"), ema: whole("ema"), grown: [grown("sma"), grown("ema")],
          periods: ["20, 50", "", "1 2 2000 7;7 9 11 13", "none"].map(it.periodsOf),
        };
        """,
        closes,
    )
    simple = [sum(closes[end - 20 : end]) / 20 for end in range(20, 121)]
    assert found["sma"][:19] == [None] * 19
    assert found["sma"][19:] == pytest.approx(simple)
    exponential = [simple[0]]
    for close in closes[20:]:
        exponential.append(exponential[-1] + 2 / 21 * (close - exponential[-1]))
    assert found["ema"][19:] == pytest.approx(exponential)
    assert found["grown"] == [found["sma"], found["ema"]]
    assert found["periods"] == [[20, 50], [], [2, 7, 9, 11], []]


def test_the_wall_clock_is_that_of_the_zone_through_summer_time(modules: Modules) -> None:
    hours = [int(datetime(2026, 10, 31, tzinfo=UTC).timestamp()) + 3_600 * hour for hour in range(60)]
    found = modules.call(
        "format.js",
        "return argument.map((second) => it.wallClock(second * 1e6, 'local').toISOString().slice(0, 16));",
        hours,
    )
    assert found == [datetime.fromtimestamp(second, ZoneInfo(ZONE)).strftime("%Y-%m-%dT%H:%M") for second in hours]
