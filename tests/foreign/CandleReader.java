import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.utils.Utils;

/**
 * A reader of topic `candles` by kafka-clients, written from docs/messages.md alone: java CandleReader.java BOOTSTRAP.
 *
 * It prints the candles that count, a line of tab-separated fields each. As the one in Python it is stricter than a
 * reader should be: a field that the page does not name ends it.
 */
public class CandleReader {
    static final String SCHEMA = "ashi.candle.v1";
    static final long EARLIEST = 1_000_000_000_000_000L;
    static final long LIMIT = 1L << 53;
    static final Map<Character, Long> SECONDS = Map.of('s', 1L, 'm', 60L, 'h', 3_600L, 'd', 86_400L);

    record Key(String symbol, String timeframe, long openTime) implements Comparable<Key> {
        @Override
        public int compareTo(Key other) {
            int bySymbol = symbol.compareTo(other.symbol);
            int byTimeframe = bySymbol != 0 ? bySymbol : timeframe.compareTo(other.timeframe);
            return byTimeframe != 0 ? byTimeframe : Long.compare(openTime, other.openTime);
        }
    }

    record Candle(
            String symbol, String timeframe, long openTime, long closeTime,
            BigDecimal open, BigDecimal high, BigDecimal low, BigDecimal close,
            BigDecimal volume, BigDecimal quoteVolume, long tradeCount,
            BigDecimal takerBuyVolume, BigDecimal takerBuyQuoteVolume,
            String firstTradeId, String lastTradeId, long version) {

        Candle {
            int last = timeframe.length() - 1;
            long length = Long.parseLong(timeframe.substring(0, last)) * SECONDS.get(timeframe.charAt(last)) * 1_000_000;
            require(openTime % length == 0 && closeTime == openTime + length, "times of " + timeframe);
            require(low.compareTo(open.min(close)) <= 0 && high.compareTo(open.max(close)) >= 0, "prices");
            boolean flat = tradeCount == 0;
            require(flat == (firstTradeId == null) && flat == (lastTradeId == null), "trade ids");
            require(!flat || volume.signum() == 0 && quoteVolume.signum() == 0 && low.equals(high), "a flat candle");
        }

        Key key() {
            return new Key(symbol, timeframe, openTime);
        }

        String line() {
            return List.of(symbol, timeframe, openTime, closeTime, open.toPlainString(), high.toPlainString(),
                            low.toPlainString(), close.toPlainString(), volume.toPlainString(),
                            quoteVolume.toPlainString(), tradeCount, takerBuyVolume.toPlainString(),
                            takerBuyQuoteVolume.toPlainString(), String.valueOf(firstTradeId),
                            String.valueOf(lastTradeId), version)
                    .stream().map(String::valueOf).collect(Collectors.joining("\t"));
        }
    }

    /** The fields of a message, each of which must be taken. */
    static final class Fields {
        private final JsonNode message;
        private final Set<String> left = new HashSet<>();

        Fields(JsonNode message) {
            require(message.isObject(), "no object: " + message);
            this.message = message;
            message.fieldNames().forEachRemaining(left::add);
        }

        private JsonNode take(String name) {
            require(left.remove(name), name + " is missing");
            return message.get(name);
        }

        String text(String name) {
            JsonNode value = take(name);
            require(value.isTextual(), name + " is " + value);
            return value.textValue();
        }

        String textOrNull(String name) {
            if (message.path(name).isNull()) {
                take(name);
                return null;
            }
            return text(name);
        }

        BigDecimal decimal(String name) {
            String text = text(name);
            require(text.matches("(0|[1-9][0-9]*)(\\.[0-9]*[1-9])?"), name + " is " + text);
            return new BigDecimal(text);
        }

        long integer(String name) {
            JsonNode value = take(name);
            require(value.isIntegralNumber() && value.canConvertToLong(), name + " is " + value);
            require(value.longValue() >= 0 && value.longValue() < LIMIT, name + " is " + value);
            return value.longValue();
        }

        long micros(String name) {
            long time = integer(name);
            require(time >= EARLIEST, name + " is " + time);
            return time;
        }

        void end() {
            require(left.isEmpty(), "the page does not name " + left);
        }
    }

    static void require(boolean holds, String otherwise) {
        if (!holds) {
            throw new IllegalArgumentException(otherwise);
        }
    }

    static Candle candle(JsonNode message) {
        Fields fields = new Fields(message);
        Candle candle = new Candle(
                fields.text("symbol"), fields.text("timeframe"), fields.micros("open_time"), fields.micros("close_time"),
                fields.decimal("open"), fields.decimal("high"), fields.decimal("low"), fields.decimal("close"),
                fields.decimal("volume"), fields.decimal("quote_volume"), fields.integer("trade_count"),
                fields.decimal("taker_buy_volume"), fields.decimal("taker_buy_quote_volume"),
                fields.textOrNull("first_trade_id"), fields.textOrNull("last_trade_id"), fields.integer("version"));
        fields.end();
        return candle;
    }

    static void checkPlace(ConsumerRecord<String, String> record, Candle candle, int partitions) {
        require(candle.symbol().equals(record.key()), "key " + record.key());
        byte[] key = record.key().getBytes(java.nio.charset.StandardCharsets.UTF_8);
        require(record.partition() == Utils.toPositive(Utils.murmur2(key)) % partitions, "partition of " + record.key());
        Header schema = record.headers().lastHeader("schema");
        require(schema == null || schema.value() == null || new String(schema.value()).equals(SCHEMA), "schema");
    }

    public static void main(String[] arguments) throws Exception {
        ObjectMapper json = JsonMapper.builder().enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION).build();
        Map<Key, Candle> kept = new TreeMap<>();
        Map<String, Object> options = Map.of(
                "bootstrap.servers", arguments[0],
                "isolation.level", "read_committed",
                "enable.auto.commit", false);
        StringDeserializer text = new StringDeserializer();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(options, text, text)) {
            List<TopicPartition> all = consumer.partitionsFor("candles").stream()
                    .map(one -> new TopicPartition("candles", one.partition())).toList();
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            while (all.stream().anyMatch(one -> consumer.position(one) < ends.get(one))) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                    Candle candle = candle(json.readTree(record.value()));
                    checkPlace(record, candle, all.size());
                    kept.merge(candle.key(), candle, (known, next) -> next.version() > known.version() ? next : known);
                }
            }
        }
        kept.values().forEach(candle -> System.out.println(candle.line()));
    }
}
