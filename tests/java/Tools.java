import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's tools one after the other in one JVM: to start one takes longer than most of them.
 *
 * <p>On standard input: how many arguments, the main class and its arguments, and what the tool
 * shall read, each text with its length before it. On standard output, for each: the exit status,
 * what the tool wrote to its two streams, and the names of the threads that it left behind. The end
 * of standard input is the end of this.
 *
 * <p>Older releases than 0.11 have no way to catch their exit. To run the shutdown hooks of a tool it needs
 * {@code --add-opens java.base/java.lang=ALL-UNNAMED}.
 */
public final class Tools {
    /** Where a tool asked for the end of the JVM. */
    @SuppressWarnings("serial")
    private static final class Ended extends Error {
        Ended() {
            super(null, null, false, false);
        }
    }

    /** One of the two streams. Scala keeps the one that it finds first, so it has to stay. */
    private static final class Output extends OutputStream {
        private ByteArrayOutputStream text = new ByteArrayOutputStream();

        @Override
        public synchronized void write(int octet) {
            text.write(octet);
        }

        @Override
        public synchronized void write(byte[] octets, int from, int count) {
            text.write(octets, from, count);
        }

        /** What was written since the last call. */
        synchronized byte[] taken() {
            byte[] all = text.toByteArray();
            text.reset();
            return all;
        }

        PrintStream printer() {
            return new PrintStream(this, true, StandardCharsets.UTF_8);
        }
    }

    /**
     * Loads a tool and its package anew: some count in static fields how far they are. Not those of
     * kafka.admin, a package that others share.
     */
    private static final class Fresh extends ClassLoader {
        private final String inside;
        private final boolean isFresh;

        Fresh(String main) {
            super(Tools.class.getClassLoader());
            inside = main.substring(0, main.lastIndexOf('.') + 1);
            isFresh = inside.contains("tools.");
        }

        @Override
        protected synchronized Class<?> loadClass(String name, boolean resolve)
                throws ClassNotFoundException {
            if (!isFresh || !name.startsWith(inside) || name.indexOf('.', inside.length()) >= 0) {
                return super.loadClass(name, resolve);
            }
            Class<?> known = findLoadedClass(name);
            if (known != null) {
                return known;
            }
            try (InputStream code = getResourceAsStream(name.replace('.', '/') + ".class")) {
                if (code == null) {
                    throw new ClassNotFoundException(name);
                }
                byte[] all = code.readAllBytes();
                return defineClass(name, all, 0, all.length);
            } catch (IOException unreadable) {
                throw new ClassNotFoundException(name, unreadable);
            }
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
        @SuppressWarnings("resource")
        Output out = new Output(), err = new Output();
        System.setOut(out.printer());
        System.setErr(err.printer());
        Exit.setExitProcedure((wanted, message) -> end(wanted));
        Exit.setHaltProcedure((wanted, message) -> end(wanted));
        while (true) {
            int count;
            try {
                count = asked.readInt();
            } catch (EOFException end) {
                Runtime.getRuntime().halt(0);
                return;
            }
            String[] texts = new String[count];
            for (int i = 0; i < count; i++) {
                texts[i] = new String(read(asked), StandardCharsets.UTF_8);
            }
            System.setIn(new ByteArrayInputStream(read(asked)));
            Set<Thread> before = Thread.getAllStackTraces().keySet();
            told.writeInt(run(texts));
            System.out.flush();
            System.err.flush();
            write(told, out.taken());
            write(told, err.taken());
            write(told, started(before).getBytes(StandardCharsets.UTF_8));
            told.flush();
        }
    }

    private static int run(String[] texts) throws ReflectiveOperationException {
        status = null;
        String[] arguments = Arrays.copyOfRange(texts, 1, texts.length);
        try {
            Fresh loader = new Fresh(texts[0]);
            Thread.currentThread().setContextClassLoader(loader);
            loader.loadClass(texts[0])
                    .getMethod("main", String[].class)
                    .invoke(null, (Object) arguments);
        } catch (InvocationTargetException thrown) {
            if (status == null) {
                thrown.getCause().printStackTrace();
                status = 1;
            }
        }
        int first = status == null ? 0 : status;
        runShutdownHooks();
        return first;
    }

    /** What the tool wanted done at the end of the JVM: to close its client, mostly. */
    private static void runShutdownHooks() throws ReflectiveOperationException {
        Field field = Class.forName("java.lang.ApplicationShutdownHooks").getDeclaredField("hooks");
        field.setAccessible(true);
        @SuppressWarnings("unchecked")
        Map<Thread, Thread> hooks = (Map<Thread, Thread>) field.get(null);
        List<Thread> all = new ArrayList<>(hooks.keySet());
        hooks.clear();
        all.forEach(Thread::start);
        for (Thread hook : all) {
            try {
                hook.join();
            } catch (InterruptedException nobodyDoes) {
                throw new AssertionError(nobodyDoes);
            }
        }
    }

    /**
     * Of admin clients nothing is told, which some tools leave open, for nobody asks them again; nor
     * of the threads that are the metrics' own.
     */
    private static String started(Set<Thread> before) {
        Set<Thread> now = new HashSet<>(Thread.getAllStackTraces().keySet());
        now.removeAll(before);
        now.removeIf(thread -> thread.getName().contains("admin-client"));
        now.removeIf(thread -> thread.getName().startsWith("metrics-meter-tick-thread"));
        List<String> names = new ArrayList<>();
        now.forEach(thread -> names.add(thread.getName()));
        return String.join(", ", names);
    }

    private static byte[] read(DataInputStream asked) throws IOException {
        return asked.readNBytes(asked.readInt());
    }

    private static void write(DataOutputStream told, byte[] text) throws IOException {
        told.writeInt(text.length);
        told.write(text);
    }
}
