// Null pointers and stack overflows are found by faults, which the virtual machine turns into exceptions.
public class Faults {
    static int depth;
    static void deep() { depth++; deep(); }
    static class Node { int value; Node next; }
    static int read(Node node) { return node.value; }
    public static void main(String[] args) throws Exception {
        int caught = 0;
        // Often enough that the access is compiled and the exception comes from a fault.
        for (int i = 0; i < 60000; i++) {
            Node node = i % 1000 == 999 ? null : new Node();
            try { read(node); } catch (NullPointerException e) { caught++; }
        }
        System.out.println("null " + caught);
        try { deep(); } catch (StackOverflowError e) { System.out.println("stack " + (depth > 1000)); }
        Thread thread = new Thread(() -> { depth = 0; try { deep(); } catch (StackOverflowError e) { System.out.println("thread " + (depth > 1000)); } });
        thread.start();
        thread.join();
    }
}
