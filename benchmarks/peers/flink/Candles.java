import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.Map;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.CoreOptions;
import org.apache.flink.configuration.GlobalConfiguration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.WindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;

/** Candles by Flink: minutes of trades, five minutes of minutes, hours of those; closed by watermarks. */
public final class Candles {
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

    Candle add(BigDecimal o, BigDecimal h, BigDecimal l, BigDecimal c, BigDecimal v, long count, long[] first, long[] last) {
      if (trade_count == 0 || first[0] < first_at || first[0] == first_at && first[1] < first_sequence) {
        open = o;
        first_at = first[0];
        first_sequence = first[1];
      }
      if (trade_count == 0 || last[0] > last_at || last[0] == last_at && last[1] > last_sequence) {
        close = c;
        last_at = last[0];
        last_sequence = last[1];
      }
      high = trade_count == 0 ? h : high.max(h);
      low = trade_count == 0 ? l : low.min(l);
      volume = volume.add(v);
      trade_count += count;
      return this;
    }

    Candle add(Trade trade) {
      long[] at = {trade.traded_at, trade.sequence};
      return add(trade.price, trade.price, trade.price, trade.price, trade.size, 1, at, at);
    }

    Candle add(Candle of) {
      long[] first = {of.first_at, of.first_sequence};
      long[] last = {of.last_at, of.last_sequence};
      return add(of.open, of.high, of.low, of.close, of.volume, of.trade_count, first, last);
    }
  }

  static final class OfTrades implements AggregateFunction<Trade, Candle, Candle> {
    public Candle createAccumulator() {
      return new Candle();
    }

    public Candle add(Trade trade, Candle candle) {
      return candle.add(trade);
    }

    public Candle getResult(Candle candle) {
      return candle;
    }

    public Candle merge(Candle one, Candle other) {
      return one.add(other);
    }
  }

  static final class OfCandles implements AggregateFunction<Candle, Candle, Candle> {
    public Candle createAccumulator() {
      return new Candle();
    }

    public Candle add(Candle part, Candle candle) {
      return candle.add(part);
    }

    public Candle getResult(Candle candle) {
      return candle;
    }

    public Candle merge(Candle one, Candle other) {
      return one.add(other);
    }
  }

  record Named(String timeframe) implements WindowFunction<Candle, Candle, String, TimeWindow> {
    public void apply(String symbol, TimeWindow window, Iterable<Candle> candles, Collector<Candle> out) {
      for (Candle candle : candles) {
        candle.symbol = symbol;
        candle.timeframe = timeframe;
        candle.open_time = window.getStart() * 1000;
        out.collect(candle);
      }
    }
  }

  static final class TradeSchema extends AbstractDeserializationSchema<Trade> {
    private transient ObjectReader reader;

    @Override
    public void open(InitializationContext context) {
      reader = new ObjectMapper().readerFor(Trade.class);
    }

    @Override
    public Trade deserialize(byte[] message) throws IOException {
      return reader.readValue(message);
    }
  }

  static final class CandleSchema implements SerializationSchema<Candle> {
    private transient ObjectMapper json;

    @Override
    public void open(InitializationContext context) {
      json = new ObjectMapper();
    }

    @Override
    public byte[] serialize(Candle candle) {
      try {
        return json.writeValueAsBytes(candle);
      } catch (IOException error) {
        throw new IllegalStateException(error);
      }
    }
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, String> environment = System.getenv();
    Configuration settings = GlobalConfiguration.loadConfiguration(arguments[0]);
    settings.set(CoreOptions.DEFAULT_PARALLELISM, Integer.valueOf(environment.get("BENCH_PARALLELISM")));
    settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + environment.get("BENCH_STATE"));
    StreamExecutionEnvironment flink = StreamExecutionEnvironment.getExecutionEnvironment(settings);
    KafkaSource<Trade> source =
        KafkaSource.<Trade>builder()
            .setBootstrapServers(environment.get("BENCH_KAFKA"))
            .setTopics(environment.get("BENCH_TRADES"))
            .setGroupId("flink")
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setValueOnlyDeserializer(new TradeSchema())
            .build();
    DataStream<Trade> trades =
        flink.fromSource(
            source,
            WatermarkStrategy.<Trade>forBoundedOutOfOrderness(Duration.ofSeconds(2))
                .withTimestampAssigner((trade, before) -> trade.traded_at / 1000),
            "trades");
    DataStream<Candle> minutes =
        trades
            .keyBy(trade -> trade.symbol)
            .window(TumblingEventTimeWindows.of(Duration.ofMinutes(1)))
            .aggregate(new OfTrades(), new Named("1m"));
    DataStream<Candle> fives =
        minutes
            .keyBy(candle -> candle.symbol)
            .window(TumblingEventTimeWindows.of(Duration.ofMinutes(5)))
            .aggregate(new OfCandles(), new Named("5m"));
    DataStream<Candle> hours =
        fives
            .keyBy(candle -> candle.symbol)
            .window(TumblingEventTimeWindows.of(Duration.ofHours(1)))
            .aggregate(new OfCandles(), new Named("1h"));
    minutes
        .union(fives, hours)
        .sinkTo(
            KafkaSink.<Candle>builder()
                .setBootstrapServers(environment.get("BENCH_KAFKA"))
                .setProperty("compression.type", "zstd")
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .setRecordSerializer(
                    KafkaRecordSerializationSchema.<Candle>builder()
                        .setTopic(environment.get("BENCH_CANDLES"))
                        .setKeySerializationSchema((Candle candle) -> candle.symbol.getBytes())
                        .setValueSerializationSchema(new CandleSchema())
                        .build())
                .build());
    flink.execute("candles");
  }
}
