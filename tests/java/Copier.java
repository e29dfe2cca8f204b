import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ApplicationRecoverableException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Copies a topic in transactions, of which it aborts some on purpose, and tells all that it does.
 *
 * <p>Arguments: bootstrap servers, input, output, group, number of copiers, settings of their
 * consumers (name=value). A copier gives every copy a mark of its own, so that no two are equal. A
 * reader of committed records reads the output beside them. When standard input ends the copiers
 * stop, and readers of both isolation levels read the output to its end.
 *
 * <p>A line of the report: nanoseconds of the steady clock, who, what, partition, offset (-1 where
 * there is none) and value, with tabulators between them.
 */
public final class Copier implements Runnable {
    private static final Duration POLL = Duration.ofMillis(100);
    private static final int TRANSACTION = 10; // records at most
    private static final int ABORTED = 5; // one of so many transactions

    private static String bootstrap;
    private static String input;
    private static String output;
    private static String group;
    private static final Properties settings = new Properties();
    private static volatile boolean stopping;

    private final int index;
    private final Random random;
    private String who; // the copier and its life
    private int transactions;

    private Copier(int index) {
        this.index = index;
        this.random = new Random(index);
    }

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        input = arguments[1];
        output = arguments[2];
        group = arguments[3];
        for (int i = 5; i < arguments.length; i++) {
            String[] setting = arguments[i].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        List<Thread> copiers = new ArrayList<>();
        for (int i = 0; i < Integer.parseInt(arguments[4]); i++) {
            copiers.add(new Thread(new Copier(i)));
        }
        Thread reader = new Thread(() -> read("read_committed"));
        copiers.forEach(Thread::start);
        reader.start();
        while (System.in.read() >= 0) {}
        stopping = true;
        for (Thread copier : copiers) {
            copier.join();
        }
        reader.join();
        read("read_uncommitted");
    }

    private static void say(String who, String what) {
        say(who, what, -1, -1, "");
    }

    private static synchronized void say(
            String who, String what, int partition, long offset, String text) {
        Object[] fields = {System.nanoTime(), who, what, partition, offset, text};
        System.out.println(
                Arrays.stream(fields).map(Object::toString).collect(Collectors.joining("\t")));
        System.out.flush();
    }

    // -- copying -----------------------------------------------------------------------------

    @Override
    public void run() {
        for (int life = 1; !stopping; life++) {
            who = group + "-" + index + "." + life + "." + ProcessHandle.current().pid();
            try {
                live();
            } catch (KafkaException failure) {
                say(who, "died", -1, -1, failure.toString());
            }
        }
    }

    private void live() {
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(ofProducer());
                KafkaConsumer<String, String> consumer = new KafkaConsumer<>(ofConsumer())) {
            producer.initTransactions();
            consumer.subscribe(List.of(input), new Moved(who));
            while (!stopping) {
                ConsumerRecords<String, String> records = consumer.poll(POLL);
                if (!records.isEmpty() && !copy(records, consumer, producer)) {
                    goBack(consumer);
                }
            }
        }
    }

    /** Whether the copies are there. If not, they never will be; an exception leaves it open. */
    private boolean copy(
            ConsumerRecords<String, String> records,
            KafkaConsumer<String, String> consumer,
            KafkaProducer<String, String> producer) {
        String mark = "/" + who + "." + ++transactions;
        say(who, "begin");
        for (ConsumerRecord<String, String> record : records) {
            say(who, "polled", record.partition(), record.offset(), record.value());
        }
        try {
            producer.beginTransaction();
            for (ConsumerRecord<String, String> record : records) {
                send(producer, record.partition(), record.value() + mark);
            }
            producer.sendOffsetsToTransaction(after(records), consumer.groupMetadata());
            if (random.nextInt(ABORTED) == 0) {
                producer.flush();
                producer.abortTransaction();
                say(who, "aborted");
                return false;
            }
            say(who, "committing");
            commit(producer);
            say(who, "committed");
            return true;
        } catch (ApplicationRecoverableException fatal) {
            throw fatal; // fenced: only another producer can go on
        } catch (KafkaException failure) {
            say(who, "failed", -1, -1, failure.toString());
            producer.abortTransaction();
            say(who, "aborted");
            return false;
        }
    }

    private void send(KafkaProducer<String, String> producer, int partition, String value) {
        say(who, "send", partition, -1, value);
        String sender = who;
        producer.send(
                new ProducerRecord<>(output, partition, null, value),
                (metadata, failure) -> {
                    if (failure == null) {
                        say(sender, "sent", partition, metadata.offset(), value);
                    }
                });
    }

    private static Map<TopicPartition, OffsetAndMetadata> after(
            ConsumerRecords<String, String> records) {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (ConsumerRecord<String, String> record : records) {
            offsets.put(
                    new TopicPartition(input, record.partition()),
                    new OffsetAndMetadata(record.offset() + 1));
        }
        return offsets;
    }

    /** A commit that takes too long is on its way all the same: it can only be waited for. */
    private static void commit(KafkaProducer<String, String> producer) {
        while (true) {
            try {
                producer.commitTransaction();
                return;
            } catch (TimeoutException slow) {
                say("commit", "slow", -1, -1, slow.toString());
            }
        }
    }

    /** To the offsets committed last. */
    private static void goBack(KafkaConsumer<String, String> consumer) {
        Map<TopicPartition, OffsetAndMetadata> committed =
                consumer.committed(consumer.assignment());
        for (TopicPartition partition : consumer.assignment()) {
            OffsetAndMetadata offset = committed.get(partition);
            consumer.seek(partition, offset == null ? 0 : offset.offset());
        }
    }

    private record Moved(String who) implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            for (TopicPartition partition : partitions) {
                say(who, "moved", partition.partition(), -1, "");
            }
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {}
    }

    // -- reading -----------------------------------------------------------------------------

    /** Read the output from its beginning, and once the copiers are through to its very end. */
    private static void read(String isolation) {
        Properties properties = ofClient();
        properties.put("isolation.level", isolation);
        String who = isolation + "." + ProcessHandle.current().pid();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties)) {
            List<TopicPartition> partitions = partitionsOf(consumer);
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            while (!stopping) {
                readOnce(consumer, who);
            }
            Map<TopicPartition, Long> ends = ends();
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                readOnce(consumer, who);
            }
        }
    }

    private static void readOnce(KafkaConsumer<String, String> consumer, String who) {
        for (ConsumerRecord<String, String> record : consumer.poll(POLL)) {
            say(who, "read", record.partition(), record.offset(), record.value());
        }
    }

    /** Where the logs end, be there open transactions or not. */
    private static Map<TopicPartition, Long> ends() {
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(ofClient())) {
            return consumer.endOffsets(partitionsOf(consumer));
        }
    }

    private static List<TopicPartition> partitionsOf(KafkaConsumer<String, String> consumer) {
        return consumer.partitionsFor(output).stream()
                .map(found -> new TopicPartition(output, found.partition()))
                .collect(Collectors.toList());
    }

    // -- settings ----------------------------------------------------------------------------

    private static Properties ofClient() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("reconnect.backoff.max.ms", "200");
        properties.put("key.deserializer", StringDeserializer.class.getName());
        properties.put("value.deserializer", StringDeserializer.class.getName());
        properties.put("key.serializer", StringSerializer.class.getName());
        properties.put("value.serializer", StringSerializer.class.getName());
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        return properties;
    }

    private static Properties ofConsumer() {
        Properties properties = ofClient();
        properties.put("group.id", group);
        properties.put("isolation.level", "read_committed");
        properties.put("max.poll.records", TRANSACTION);
        properties.putAll(settings);
        return properties;
    }

    private Properties ofProducer() {
        Properties properties = ofClient();
        properties.put("transactional.id", group + "-" + index);
        properties.put("transaction.timeout.ms", "20000");
        return properties;
    }
}
