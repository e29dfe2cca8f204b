import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.util.Arrays;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's tools one after the other in one JVM: to start one takes longer than most of them.
 *
 * <p>On standard input: how many arguments, the main class and its arguments, and what the tool
 * shall read, each text with its length before it. On standard output, for each: the exit status
 * and what the tool wrote to its two streams.
 */
public final class Tools {
    /** Where a tool asked for the end of the JVM. */
    @SuppressWarnings("serial")
    private static final class Ended extends Error {
        Ended() {
            super(null, null, false, false);
        }
    }

    /** The status with which it asked first; some catch what is thrown and ask again. */
    private static volatile Integer status;

    private static void end(int wanted) {
        if (status == null) {
            status = wanted;
        }
        throw new Ended();
    }

    public static void main(String[] none) throws Exception {
        DataInputStream asked = new DataInputStream(System.in);
        DataOutputStream told = new DataOutputStream(System.out);
        Exit.setExitProcedure((wanted, message) -> end(wanted));
        Exit.setHaltProcedure((wanted, message) -> end(wanted));
        while (true) {
            int count = asked.readInt();
            String[] texts = new String[count];
            for (int i = 0; i < count; i++) {
                texts[i] = new String(read(asked));
            }
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            ByteArrayOutputStream err = new ByteArrayOutputStream();
            System.setIn(new ByteArrayInputStream(read(asked)));
            System.setOut(new PrintStream(out, true));
            System.setErr(new PrintStream(err, true));
            told.writeInt(run(texts));
            System.out.flush();
            write(told, out);
            write(told, err);
            told.flush();
        }
    }

    private static int run(String[] texts) throws ReflectiveOperationException {
        status = null;
        String[] arguments = Arrays.copyOfRange(texts, 1, texts.length);
        try {
            Class.forName(texts[0])
                    .getMethod("main", String[].class)
                    .invoke(null, (Object) arguments);
        } catch (InvocationTargetException thrown) {
            if (status == null) {
                thrown.getCause().printStackTrace();
                return 1;
            }
        }
        return status == null ? 0 : status;
    }

    private static byte[] read(DataInputStream asked) throws IOException {
        return asked.readNBytes(asked.readInt());
    }

    private static void write(DataOutputStream told, ByteArrayOutputStream text)
            throws IOException {
        told.writeInt(text.size());
        text.writeTo(told);
    }
}
