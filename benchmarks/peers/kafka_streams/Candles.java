import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.FileReader;
import java.io.IOException;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindows;

/** Candles by Kafka Streams: a windowed aggregation for each timeframe, told of when its window closes. */
public final class Candles {
  private static final ObjectMapper JSON = new ObjectMapper();

  @JsonIgnoreProperties(ignoreUnknown = true)
  public static final class Trade {
    public String symbol;
    public BigDecimal price, size;
    public long traded_at, sequence;
  }

  public static final class Candle {
    public String symbol, timeframe;
    public long open_time, trade_count;
    public BigDecimal open, high, low, close, volume = BigDecimal.ZERO;
    public long first_at, first_sequence, last_at, last_sequence;

    Candle add(Trade trade) {
      if (trade_count == 0 || ranks(trade.traded_at, trade.sequence, first_at, first_sequence) < 0) {
        open = trade.price;
        first_at = trade.traded_at;
        first_sequence = trade.sequence;
      }
      if (trade_count == 0 || ranks(trade.traded_at, trade.sequence, last_at, last_sequence) > 0) {
        close = trade.price;
        last_at = trade.traded_at;
        last_sequence = trade.sequence;
      }
      high = trade_count == 0 ? trade.price : high.max(trade.price);
      low = trade_count == 0 ? trade.price : low.min(trade.price);
      volume = volume.add(trade.size);
      trade_count++;
      return this;
    }

    Candle of(String symbol, String timeframe, long openTime) {
      this.symbol = symbol;
      this.timeframe = timeframe;
      this.open_time = openTime;
      return this;
    }

    private static int ranks(long at, long sequence, long otherAt, long otherSequence) {
      return at != otherAt ? Long.compare(at, otherAt) : Long.compare(sequence, otherSequence);
    }
  }

  private static <T> Serde<T> serde(Class<T> type) {
    ObjectReader reader = JSON.readerFor(type);
    ObjectWriter writer = JSON.writerFor(type);
    return Serdes.serdeFrom(
        (topic, value) -> {
          try {
            return value == null ? null : writer.writeValueAsBytes(value);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        },
        (topic, bytes) -> {
          try {
            return bytes == null ? null : reader.readValue(bytes);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        });
  }

  public static void main(String[] arguments) throws IOException {
    Map<String, String> environment = System.getenv();
    Properties settings = new Properties();
    try (Reader file = new FileReader(arguments[0])) {
      settings.load(file);
    }
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, environment.get("BENCH_KAFKA"));
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, environment.get("BENCH_PARALLELISM"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, environment.get("BENCH_STATE"));

    Serde<Candle> candles = serde(Candle.class);
    StreamsBuilder builder = new StreamsBuilder();
    KGroupedStream<String, Trade> trades =
        builder
            .stream(
                environment.get("BENCH_TRADES"),
                Consumed.with(Serdes.String(), serde(Trade.class))
                    .withTimestampExtractor((record, before) -> ((Trade) record.value()).traded_at / 1000))
            .groupByKey(Grouped.with(Serdes.String(), serde(Trade.class)));
    Map<String, Duration> timeframes = new LinkedHashMap<>();
    timeframes.put("1m", Duration.ofMinutes(1));
    timeframes.put("5m", Duration.ofMinutes(5));
    timeframes.put("1h", Duration.ofHours(1));
    timeframes.forEach(
        (name, length) ->
            trades
                .windowedBy(TimeWindows.ofSizeAndGrace(length, Duration.ofSeconds(2)))
                .aggregate(
                    Candle::new, (key, trade, candle) -> candle.add(trade), Materialized.with(Serdes.String(), candles))
                .suppress(Suppressed.untilWindowCloses(BufferConfig.unbounded()))
                .toStream()
                .map((key, candle) -> KeyValue.pair(key.key(), candle.of(key.key(), name, key.window().start() * 1000)))
                .to(environment.get("BENCH_CANDLES"), Produced.with(Serdes.String(), candles)));
    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }
}
