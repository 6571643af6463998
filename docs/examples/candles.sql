-- A day of a market from PostgreSQL, an hour a row, and how much of it is known to be complete.
--
--   psql "$DATABASE" -v symbol=bitflyer:BTC_JPY -v day=2026-11-02 -f candles.sql
--
-- The one rule: the table holds each candle once, in its greatest `version`, as `ashi sink postgres` keeps it: so never
-- write to it yourself, and look again at what you have copied, since a late trade corrects a candle. Copies keep the greater
-- version: INSERT … ON CONFLICT (symbol, timeframe, open_time) DO UPDATE … WHERE excluded.version > copy.version.

-- Times without a zone would be of the session's.
SET TIME ZONE 'UTC';

SELECT date_trunc('hour', open_time) AS hour,
  (array_agg(open ORDER BY open_time) FILTER (WHERE trade_count > 0))[1] AS open,  -- a flat candle repeats a close
  max(high) FILTER (WHERE trade_count > 0) AS high,
  min(low) FILTER (WHERE trade_count > 0) AS low,
  (array_agg(close ORDER BY open_time DESC) FILTER (WHERE trade_count > 0))[1] AS close,
  sum(volume) AS volume,                                                           -- numeric: exact
  count(*) AS minutes,
  -- Complete: the feed has come past the candle, and no gap overlaps it that is not repaired.
  count(*) FILTER (
    WHERE close_time <= (SELECT complete_until FROM feed_status AS feed WHERE feed.symbol = candles.symbol)
      AND NOT EXISTS (
        SELECT FROM feed_gaps AS gap
        WHERE gap.symbol = candles.symbol AND gap.state <> 'repaired' AND gap.from_time < candles.close_time
          AND (gap.to_time IS NULL OR greatest(gap.to_time, gap.from_time + interval '1 microsecond') > candles.open_time)
      )
  ) AS complete
FROM candles
WHERE symbol = :'symbol' AND timeframe = '1m'
  AND open_time >= :'day'::date AND open_time < :'day'::date + 1
GROUP BY hour
ORDER BY hour;
