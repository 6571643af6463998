import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.math.BigDecimal;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * The closed candles of a market by kafka-clients alone, written from docs/messages.md; its jars, and jackson-databind:
 *
 *   java -cp 'jars/*' Candles.java 127.0.0.1:9092 bitflyer:BTC_JPY 1m
 *
 * The one rule: of each (symbol, timeframe, open_time) the greatest `version` counts, and the first of equals.
 */
public class Candles {
    static final String TOPIC = "candles", SCHEMA = "ashi.candle.v1";

    /** What counts of the topic now, the oldest first. */
    static Collection<JsonNode> candlesNow(String bootstrap, String symbol, String timeframe) throws Exception {
        Map<String, Object> options = Map.of(
                "bootstrap.servers", bootstrap,
                "isolation.level", "read_committed", // what a transaction has aborted never happened
                "enable.auto.commit", false); // no group: all partitions, from the beginning
        ObjectMapper json = new ObjectMapper();
        Map<Long, JsonNode> kept = new TreeMap<>();
        StringDeserializer text = new StringDeserializer();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(options, text, text)) {
            List<TopicPartition> partitions = consumer.partitionsFor(TOPIC).stream()
                    .map(each -> new TopicPartition(TOPIC, each.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(each -> consumer.position(each) < ends.get(each))) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                    if (!isCandle(record)) {
                        System.err.println(TOPIC + "/" + record.partition() + "/" + record.offset() + " is passed over");
                        continue;
                    }
                    JsonNode candle = json.readTree(record.value());
                    if (candle.get("symbol").asText().equals(symbol)
                            && candle.get("timeframe").asText().equals(timeframe)) {
                        kept.merge(candle.get("open_time").asLong(), candle, Candles::greater);
                    }
                }
            }
        }
        return kept.values();
    }

    static JsonNode greater(JsonNode known, JsonNode next) {
        return next.get("version").asLong() > known.get("version").asLong() ? next : known;
    }

    /** Another message's fields may mean anything; a record without the header is of the version that is known here. */
    static boolean isCandle(ConsumerRecord<String, String> record) {
        Header schema = record.headers().lastHeader("schema");
        return schema == null || new String(schema.value()).equals(SCHEMA);
    }

    public static void main(String[] arguments) throws Exception {
        for (JsonNode candle : candlesNow(arguments[0], arguments[1], arguments[2])) {
            StringBuilder line = new StringBuilder(
                    Instant.EPOCH.plus(candle.get("open_time").asLong(), ChronoUnit.MICROS).toString());
            for (String field : List.of("open", "high", "low", "close", "volume")) {
                line.append('\t').append(new BigDecimal(candle.get(field).asText()).toPlainString()); // exact, as text
            }
            System.out.println(line);
        }
    }
}
