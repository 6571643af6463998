import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.UncheckedIOException;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Candles joined with what their venue says of the market, by Kafka Streams: turnovers with their currency, into a topic.
 *
 *   java -cp 'jars/*' TurnoverStream.java 127.0.0.1:9092 turnovers
 *
 * `candles` and `instruments` have the same key, `symbol`, the Java client's partitioner and as many partitions: what
 * belongs together is in partitions of one number, and joins without a topic in between.
 *
 * The one rule: of each (symbol, timeframe, open_time) the greatest `version` counts, and the first of equals. A store
 * remembers them; the key stays the symbol, since with another key a record would be of another partition.
 */
public class TurnoverStream {
    static final ObjectMapper JSON = new ObjectMapper();
    static final String VERSIONS = "versions";

    /** Passes on the candles that are newer than all before them of the same time. */
    static class Newest implements FixedKeyProcessor<String, String, String> {
        private FixedKeyProcessorContext<String, String> context;
        private KeyValueStore<String, Long> versions;

        @Override
        public void init(FixedKeyProcessorContext<String, String> context) {
            this.context = context;
            this.versions = context.getStateStore(VERSIONS);
        }

        @Override
        public void process(FixedKeyRecord<String, String> record) {
            Header schema = record.headers().lastHeader("schema");
            if (schema != null && !new String(schema.value()).equals("ashi.candle.v1")) {
                System.err.println("a record is passed over: " + new String(schema.value()));
                return; // another message, whose fields may mean anything
            }
            JsonNode candle = parse(record.value());
            String window = String.join(" ", record.key(), text(candle, "timeframe"), text(candle, "open_time"));
            Long known = versions.get(window);
            long version = candle.get("version").asLong();
            if (known == null || version > known) {
                versions.put(window, version);
                context.forward(record);
            }
        }
    }

    static Topology topology(String output) {
        var text = Consumed.with(Serdes.String(), Serdes.String());
        var builder = new StreamsBuilder();
        builder.addStateStore(Stores.keyValueStoreBuilder(
                Stores.inMemoryKeyValueStore(VERSIONS), Serdes.String(), Serdes.Long())); // with a changelog in Kafka
        var instruments = builder.table("instruments", text); // compacted: the last message of a symbol is how it is now
        builder.stream("candles", text)
                .processValues(Newest::new, VERSIONS)
                // A left one: a candle whose market nothing is known of is not lost without a word.
                .leftJoin(instruments, TurnoverStream::turnover, Joined.with(Serdes.String(), Serdes.String(), null))
                .to(output, Produced.with(Serdes.String(), Serdes.String()));
        return builder.build();
    }

    static String turnover(String candle, String instrument) {
        JsonNode from = parse(candle);
        ObjectNode to = JSON.createObjectNode();
        for (String field : new String[] {"symbol", "timeframe", "open_time", "quote_volume", "version"}) {
            to.set(field, from.get(field)); // the decimals are text, and stay it; whoever reads this keeps the rule, too
        }
        to.set("currency", instrument == null ? null : parse(instrument).get("quote"));
        return to.toString();
    }

    static String text(JsonNode message, String field) {
        return message.get(field).asText();
    }

    static JsonNode parse(String message) {
        try {
            return JSON.readTree(message);
        } catch (java.io.IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.putAll(Map.of(
                "application.id", "turnovers",
                "bootstrap.servers", arguments[0],
                "auto.offset.reset", "earliest",
                "consumer.isolation.level", "read_committed", // what a transaction has aborted never happened
                "commit.interval.ms", 1_000,
                "state.dir", System.getProperty("java.io.tmpdir") + "/turnovers"));
        Topology topology = topology(arguments[1]);
        System.out.println(topology.describe());
        KafkaStreams streams = new KafkaStreams(topology, settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
