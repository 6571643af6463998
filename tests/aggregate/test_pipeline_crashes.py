"""The checkpoint's order, proven by crashing it at every place: the candles are the oracle's whatever happens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from simulation import make_plain

from ashi.contracts import StateError, Trade, encode_trade, parse_timeframes
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
from ashi.runtime.metrics import aggregate as metrics
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.partition import PartitionOffsets
from kafka_topics.simulated_log import Broker, Crash, Worker
from oracle import candles_of, closed, stored, timely
from samples.hypothesis_strategies import START, drawn_trade

NAMES = ["1m", "5m", "1h"]
TIMEFRAMES = parse_timeframes(",".join(NAMES))
RULES = WindowRules(TIMEFRAMES[0])
SYMBOLS = [f"binance:S{number}" for number in range(5)]


def disordered_trades(seed: int, count: int) -> list[Trade]:
    """A log with disorder, late trades within and beyond the horizon, and quiet symbols."""
    rng = random.Random(seed)
    log = []
    clock = START
    for sequence in range(count):
        clock += rng.choice([0, 10_000, 900_000, 20_000_000])
        behind = rng.choice([0, 0, 0, rng.randint(0, 2_000_000), rng.randint(0, 200_000_000)])
        traded_at = max(clock - behind, START)
        log.append(drawn_trade(rng, SYMBOLS, str(sequence), traded_at, sequence))
    return log


def expected(log: list[Trade]) -> dict:
    return closed(candles_of(timely(log, "1m", RULES.horizon_us), NAMES), log, RULES.lateness_us)


async def crash_again_and_again(seed: int, *, zombies: bool = False) -> None:
    rng = random.Random(seed)
    log = disordered_trades(seed, 120)
    broker = Broker(partitions=3)
    broker.publish(log)
    undead: list[Worker] = []
    for life in range(12):
        worker = Worker(broker, TIMEFRAMES, RULES, seed=seed + life, crash_after=rng.randint(0, 60))
        await worker.start()
        try:
            for _ in range(rng.randint(1, 12)):
                for partition in list(worker.next):
                    await worker.read(partition, rng.randint(1, 9))
                for zombie in undead:  # declared dead, and writes on
                    for partition in list(zombie.next):
                        await zombie.read(partition, rng.randint(1, 5))
                    await zombie.pipeline.checkpoint()
                if rng.random() < 0.5:
                    await worker.pipeline.checkpoint()
            if zombies:
                worker.crash_after = None
                undead = [worker]
        except Crash:
            continue
    last = Worker(broker, TIMEFRAMES, RULES, seed=seed)
    await last.start()
    await last.run_to_end()
    assert stored(broker.candles()) == expected(log)
    assert len(broker.late_places()) == len(log) - len(timely(log, "1m", RULES.horizon_us))


@pytest.mark.parametrize("seed", range(60))
def test_a_worker_killed_at_any_send_leaves_the_oracles_candles(seed):
    asyncio.run(crash_again_and_again(seed))


@pytest.mark.parametrize("seed", range(60))
def test_a_worker_declared_dead_that_writes_on_does_no_harm(seed):
    asyncio.run(crash_again_and_again(seed, zombies=True))


def test_a_late_trade_says_in_headers_of_its_own_where_its_record_stands():
    async def scenario() -> None:
        broker = Broker(partitions=1)
        on_time, late = make_plain(1, START + 10**9), make_plain(2, START)
        broker.publish([on_time])
        broker.append(0, b"binance:A", b"garbage")
        broker.publish([late])
        worker = Worker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.run_to_end()
        for topic, offset, value in (("trades.dead", 1, b"garbage"), ("trades.late", 2, encode_trade(late))):
            ((key, quoted, headers),) = broker.messages(topic)
            assert (key, quoted) == (b"binance:A", value)
            names, texts = [name for name, _ in headers], dict(headers)
            assert texts["ashi.source"] == f"trades/0/{offset}".encode()
            common = ["content-type", "ashi.reason", "ashi.source", "ashi.consumer", "ashi.failed_at"]
            if topic == "trades.dead":
                assert names == common
            else:
                assert names == [*common, "ashi.partition", "ashi.offset"]
                assert (texts["ashi.partition"], texts["ashi.offset"]) == (b"0", str(offset).encode())
        assert dict(broker.messages("trades.late")[0][2])["ashi.reason"].decode() == (
            f"traded_at {START} is beyond the correction horizon of 2m: "
            f"trades of binance:A had already reached {START + 10**9}"
        )

    asyncio.run(scenario())


def test_a_crash_at_each_single_send_of_one_run_leaves_the_oracles_candles():
    log = disordered_trades(1, 60)

    async def crash_at(place: int) -> bool:
        broker = Broker(partitions=2)
        broker.publish(log)
        worker = Worker(broker, TIMEFRAMES, RULES, seed=place, crash_after=place)
        await worker.start()
        try:
            await worker.run_to_end()
        except Crash:
            after = Worker(broker, TIMEFRAMES, RULES)
            await after.start()
            await after.run_to_end()
            crashed = True
        else:
            crashed = False
        assert stored(broker.candles()) == expected(log)
        return crashed

    places = 0
    while asyncio.run(crash_at(places)):
        places += 1
    assert places > 100


def test_candles_and_letters_go_to_the_partitions_of_their_keys_however_many_their_topics_have():
    class WithOther(Worker):
        async def partitions_of(self, topic: str) -> int:
            return 5

    async def scenario() -> None:
        log = disordered_trades(6, 200)
        broker = Broker(partitions=2)
        broker.publish(log)
        for partition in (0, 1):
            broker.append(partition, None, b"garbage")
        worker = WithOther(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.run_to_end()
        assert stored(broker.candles()) == expected(log)
        assert len(broker.late_places()) == len(log) - len(timely(log, "1m", RULES.horizon_us)) > 0
        places = {
            (topic, key, partition)
            for (topic, partition), messages in broker.topics.items()
            for key, _, _ in messages
            if not topic.endswith("-changelog")
        }
        assert {(topic, partition) for topic, key, partition in places if key is None} == {
            ("trades.dead", 0),
            ("trades.dead", 1),
        }, "one without a key is at home where it came from"
        assert len({partition for topic, _, partition in places if topic == "candles"}) > 2
        assert all(key is None or partition == partition_of(key, 5) for _, key, partition in places)

    asyncio.run(scenario())


class SlowWorker(Worker):
    """One that waits at a send, the so-many-th, as where too much is on its way; its task is cancelled there."""

    waits_after = 0
    waits: asyncio.Event

    async def send(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> Any:
        self.waits_after -= 1
        if self.waits_after == 0:
            self.waits.set()
            await asyncio.Event().wait()
        return await super().send(topic, partition, records)


@pytest.mark.parametrize("step", ["chunk", "checkpoint"])
def test_a_step_that_is_cancelled_while_it_waits_to_send_is_the_last(step):
    """What it has closed and not sent would else be written as sent, by the checkpoint before the worker ends."""

    async def cancelled_at(place: int) -> bool:
        log = disordered_trades(3, 60)
        broker = Broker(partitions=2)
        broker.publish(log)
        worker = SlowWorker(broker, TIMEFRAMES, RULES)
        worker.waits = asyncio.Event()
        await worker.start()
        for partition in list(worker.next):
            await worker.read(partition, 10)
        await worker.pipeline.checkpoint()
        if step == "checkpoint":
            for partition in list(worker.next):
                await worker.read(partition, 15)
        worker.waits_after = place
        task = asyncio.create_task(worker.read(0, 15) if step == "chunk" else worker.pipeline.checkpoint())
        waiting = asyncio.create_task(worker.waits.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        was_waiting = waiting.done()
        waiting.cancel()
        task.cancel()
        await asyncio.wait([task])
        worker.waits_after = 0
        await worker.pipeline.checkpoint()
        after = Worker(broker, TIMEFRAMES, RULES)
        await after.start()
        await after.run_to_end()
        assert stored(broker.candles()) == expected(log)
        return was_waiting

    places = 1
    while asyncio.run(cancelled_at(places)):
        places += 1
    assert places > (1 if step == "chunk" else 8)


def test_a_chunk_from_before_a_rebalance_is_refused_and_read_again():
    async def scenario() -> None:
        log = disordered_trades(2, 40)
        broker = Broker(partitions=1)
        broker.publish(log)
        worker = Worker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.read(0, 10)
        worker.next[0] = 25  # as if a fetch from before the seek had been delivered
        await worker.read(0, 5)
        assert worker.rewound == [(0, 10)]
        await worker.run_to_end()
        assert stored(broker.candles()) == expected(log)

    asyncio.run(scenario())


def test_the_sweep_closes_windows_of_a_quiet_symbol_and_a_trade_that_comes_after_all_corrects_it():
    async def scenario() -> None:
        broker = Broker(partitions=1)
        appended_ms = (START + 5_000_000) // 1000
        first = Trade("binance:A", "1", Decimal(5), Decimal(1), "buy", START + 5_000_000, START + 5_000_000, 1)
        broker.publish([first], appended_ms)
        worker = Worker(broker, TIMEFRAMES, RULES, quiet_close=True, now_us=START + 61_999_000)
        await worker.start()
        await worker.run_to_end()
        assert broker.candles() == []
        broker.now_us = START + 62_000_000
        await worker.pipeline.checkpoint()
        assert {(candle.timeframe, candle.trade_count, candle.version) for candle in broker.candles()} == {
            ("1m", 1, 0),
            ("5m", 1, 0),  # this minute is the last of its five
        }

        again = Worker(broker, TIMEFRAMES, RULES, quiet_close=True, now_us=START + 70_000_000)
        await again.start()
        broker.publish(
            [Trade("binance:A", "2", Decimal(7), Decimal(1), "buy", START + 6_000_000, START + 6_000_000, 2)],
            appended_ms,
        )
        await again.run_to_end()
        assert broker.candles()[-1].trade_count == 2
        assert broker.candles()[-1].version == 1

    asyncio.run(scenario())


def test_the_sweep_waits_while_anything_is_unread():
    async def scenario() -> None:
        broker = Broker(partitions=1)
        trades = [Trade("binance:A", str(n), Decimal(5), Decimal(1), "buy", START + n, START + n, n) for n in range(3)]
        broker.publish(trades, START // 1000)
        worker = Worker(broker, TIMEFRAMES, RULES, quiet_close=True, now_us=START + 10**9)
        await worker.start()
        await worker.read(0, 2)
        await worker.pipeline.checkpoint()
        assert broker.candles() == []
        await worker.read(0, 1)
        await worker.pipeline.checkpoint()
        assert {candle.trade_count for candle in broker.candles()} == {3, 0}

    asyncio.run(scenario())


def test_where_topics_of_the_state_take_no_append_time_the_trades_that_come_tell_the_brokers_clock():
    async def scenario() -> None:
        broker = Broker(partitions=1, takes_append_time=False)
        broker.publish([Trade("binance:A", "1", Decimal(5), Decimal(1), "buy", START, START, 1)], START // 1000)
        worker = Worker(broker, TIMEFRAMES, RULES, quiet_close=True, now_us=START)
        await worker.start()
        await worker.run_to_end()
        broker.now_us = START + 62_000_000
        await worker.pipeline.checkpoint()
        assert len(broker.candles()) == 2  # by the wall clock, as there is no other
        broker.publish(
            [Trade("binance:A", "2", Decimal(5), Decimal(1), "buy", broker.now_us, broker.now_us, 2)],
            broker.append_time_ms(),
        )
        worker.clock_ahead_us = 3_600 * 10**6
        await worker.run_to_end()
        broker.now_us += 62_000_000
        await worker.pipeline.checkpoint()
        assert broker.candles()[-1].trade_count == 1
        assert not broker.early

    asyncio.run(scenario())


def test_without_quiet_close_wall_time_closes_nothing():
    async def scenario() -> None:
        broker = Broker(partitions=1)
        broker.publish([Trade("binance:A", "1", Decimal(5), Decimal(1), "buy", START, START, 1)], START // 1000)
        worker = Worker(broker, TIMEFRAMES, RULES, quiet_close=False, now_us=START + 10**12)
        await worker.start()
        await worker.run_to_end()
        assert broker.candles() == []

    asyncio.run(scenario())


def test_a_state_whose_log_has_expired_or_was_made_anew_is_an_error_that_says_so():
    async def scenario() -> None:
        broker = Broker(partitions=1)
        broker.publish(disordered_trades(3, 20))
        worker = Worker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.run_to_end()
        behind = Worker(broker, TIMEFRAMES, RULES)
        with pytest.raises(StateError, match="expired before they were aggregated"):
            await behind.pipeline.resume({0: PartitionOffsets(20, 25, 40)})
        with pytest.raises(StateError, match="made anew"):
            await behind.pipeline.resume({0: PartitionOffsets(20, 0, 5)})

    asyncio.run(scenario())


def test_a_state_that_begins_where_the_log_has_expired_emits_no_window_from_before():
    async def scenario() -> None:
        broker = Broker(partitions=1)
        log = [
            Trade("binance:A", str(n), Decimal(5), Decimal(1), None, START + n * 20_000_000, START + n * 20_000_000, n)
            for n in range(40)
        ]
        for trade in log:
            broker.publish([trade], trade.traded_at // 1000)
        worker = Worker(broker, TIMEFRAMES, RULES)
        worker.next = await worker.pipeline.resume({0: PartitionOffsets(None, 10, 40)})
        await worker.run_to_end()
        complete_from = log[10].traded_at + 60_000_000  # when it was appended, and a minute for clocks that are ahead
        kept = {key: value for key, value in expected(log).items() if key[2] >= complete_from}
        assert stored(broker.candles()) == kept
        assert kept

    asyncio.run(scenario())


def test_a_new_epoch_builds_the_state_anew_from_the_log_with_greater_versions():
    async def scenario() -> None:
        log = disordered_trades(5, 80)
        broker = Broker(partitions=3)
        broker.publish(log)
        old = Worker(broker, TIMEFRAMES, RULES)
        await old.start()
        for partition in list(old.next):
            await old.read(partition, 20)
        await old.pipeline.checkpoint()
        before = {(c.symbol, c.timeframe, c.open_time): c.version for c in broker.candles()}

        longer = WindowRules(TIMEFRAMES[0], horizon_us=300_000_000, epoch=1)
        new = Worker(broker, TIMEFRAMES, longer)
        await new.start()
        assert set(new.next.values()) == {0}
        await new.run_to_end()
        for partition in list(old.next):  # a worker of the old epoch that writes on does no harm
            await old.read(partition, 50)
        await old.pipeline.checkpoint()
        again = Worker(broker, TIMEFRAMES, longer)
        await again.start()
        await again.run_to_end()
        counted = timely(log, "1m", longer.horizon_us)
        assert stored(broker.candles()) == closed(candles_of(counted, NAMES), log, RULES.lateness_us)
        after = {(c.symbol, c.timeframe, c.open_time): c.version for c in broker.candles() if c.version >= 2**40}
        assert before.keys() <= after.keys()
        with pytest.raises(StateError, match="reconfigured meanwhile"):
            await Worker(broker, TIMEFRAMES, RULES).start()

    asyncio.run(scenario())


def test_a_state_that_begins_in_an_old_recording_goes_by_the_trades_own_times():
    async def scenario() -> None:
        broker = Broker(partitions=1)
        log = [make_plain(number, START + number * 20_000_000) for number in range(90)]
        broker.publish(log, START // 1000 + 10**12)  # years later
        worker = Worker(broker, TIMEFRAMES, RULES)
        worker.next = await worker.pipeline.resume({0: PartitionOffsets(None, 10, 90)})
        await worker.run_to_end()
        complete_from = log[10].traded_at + RULES.horizon_us + 60_000_000
        kept = {key: value for key, value in expected(log).items() if key[2] >= complete_from}
        assert stored(broker.candles()) == kept
        assert kept

    asyncio.run(scenario())


def test_a_new_epoch_may_begin_in_the_middle_of_the_log():
    async def scenario() -> None:
        log = [make_plain(number, START + number * 20_000_000) for number in range(90)]
        broker = Broker(partitions=1)
        for trade in log:
            broker.publish([trade], trade.traded_at // 1000)
        worker = Worker(broker, TIMEFRAMES, RULES, begin={0: 25})
        await worker.start()
        assert worker.next == {0: 25}
        await worker.run_to_end()
        complete_from = log[25].traded_at + 60_000_000
        kept = {key: value for key, value in expected(log).items() if key[2] >= complete_from}
        assert stored(broker.candles()) == kept

    asyncio.run(scenario())


def test_partitions_that_have_grown_stop_the_worker():
    async def scenario() -> None:
        broker = Broker(partitions=2)
        worker = Worker(broker, TIMEFRAMES, RULES)
        with pytest.raises(StateError, match=r"grown beyond 2 partitions.*reconfigure"):
            await worker.pipeline.resume({2: PartitionOffsets(None, 0, 0)})

    asyncio.run(scenario())


def test_a_feed_that_was_down_for_hours_and_is_repaired_in_order_gives_complete_candles():
    async def scenario() -> None:
        broker = Broker(partitions=1)
        before = [make_plain(number, START + number * 10**6) for number in range(100)]
        hours = 3 * 3600 * 10**6
        repaired = [make_plain(100 + n, START + 10**8 + n * hours // 500) for n in range(500)]
        after = [make_plain(600 + number, START + 10**8 + hours + number * 10**6) for number in range(200)]
        broker.publish(before, START // 1000 + 100_000)
        worker = Worker(broker, TIMEFRAMES, RULES, quiet_close=True, now_us=START + 10**8)
        await worker.start()
        await worker.run_to_end()
        for minute in range(180):  # the sweep goes on by wall time: flat candles
            broker.now_us = START + 10**8 + minute * 60_000_000
            await worker.pipeline.checkpoint()
        assert sum(candle.trade_count == 0 for candle in broker.candles()) > 150
        broker.publish(repaired + after, (START + 10**8 + hours) // 1000)
        await worker.run_to_end()
        assert not broker.messages("trades.late")
        log = before + repaired + after
        result = stored(broker.candles())
        for key, value in expected(log).items():
            assert result[key] == value

    asyncio.run(scenario())


@pytest.mark.slow
def test_where_a_state_begins_does_not_depend_on_chunks_nor_on_garbage_nor_on_other_symbols():
    async def begin(size: int, *, restart: bool) -> dict:
        log = [make_plain(number, START + number * 10**6) for number in range(1200)]
        slower = [
            msgspec.structs.replace(
                trade, symbol="binance:B", trade_id=f"b{trade.trade_id}", traded_at=trade.traded_at - 31 * 10**6
            )
            for trade in log
        ]
        broker = Broker(partitions=1)
        for number, pair in enumerate(zip(log, slower, strict=True)):
            if number == 300:
                for _ in range(8):
                    broker.append(0, b"binance:A", b"garbage", log[300].traded_at // 1000)
            broker.publish(list(pair), pair[0].traded_at // 1000)
        worker = Worker(broker, TIMEFRAMES, RULES)
        worker.next = await worker.pipeline.resume({0: PartitionOffsets(None, 600, 2408)})
        if restart:
            await worker.read(0, 3)
            await worker.pipeline.checkpoint()
            worker = Worker(broker, TIMEFRAMES, RULES)
            worker.next = await worker.pipeline.resume({0: PartitionOffsets(None, 600, 2408)})
        while await worker.read(0, size):
            await worker.pipeline.checkpoint()
        await worker.pipeline.checkpoint()
        result = stored(broker.candles())
        right = closed(candles_of(log + slower, NAMES), log + slower, RULES.lateness_us)
        assert result
        assert all(right[key] == value for key, value in result.items())
        return result

    async def scenario() -> None:
        results = [await begin(size, restart=restart) for size in (1, 2, 7, 1000) for restart in (False, True)]
        assert all(result == results[0] for result in results)

    asyncio.run(scenario())


def test_an_append_time_that_is_wrong_closes_no_window_of_the_future():
    async def scenario() -> None:
        broker = Broker(partitions=1)
        broker.publish([make_plain(1, START)], -1)
        worker = Worker(broker, TIMEFRAMES, RULES, quiet_close=True, now_us=START + 130_000_000)
        await worker.start()
        await worker.run_to_end()
        assert broker.candles()
        assert all(candle.close_time <= START + 130_000_000 for candle in broker.candles())

    asyncio.run(scenario())


def test_records_that_no_worker_survives_elsewhere_are_dead_letters_here():
    async def scenario() -> None:
        broker = Broker(partitions=1)
        deep = b'{"x":' + b"[" * 100_000
        sound = make_plain(1, START)
        halves = encode_trade(sound)[:40], encode_trade(sound)[40:]
        for value in (deep, *halves, encode_trade(sound) + b"," + encode_trade(sound)):
            broker.append(0, b"binance:A", value)
        broker.append(0, b"k" * 10**6, encode_trade(sound))
        broker.publish(
            [msgspec.structs.replace(sound, trade_id="9" * 129), msgspec.structs.replace(sound, trade_id="9" * 128)]
        )
        worker = Worker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.run_to_end()
        dead = broker.messages("trades.dead")
        assert len(dead) == 6
        assert all(key is not None and len(key) <= 1000 for key, _, _ in dead)

    asyncio.run(scenario())


def test_the_position_metric_shows_the_partitions_that_are_owned_and_no_others():
    def shown() -> dict[str, float]:
        (family,) = metrics.position.collect()
        return {sample.labels["partition"]: sample.value for sample in family.samples}

    async def scenario() -> None:
        broker = Broker(partitions=2)
        broker.publish(disordered_trades(4, 30))
        ends = {str(number): len(broker.trades[number]) - 1.0 for number in (0, 1)}
        worker = Worker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.run_to_end()
        assert shown() == ends
        await worker.start([1])
        assert shown() == {"1": ends["1"]}
        await worker.pipeline.release()
        assert shown() == {}

    asyncio.run(scenario())
