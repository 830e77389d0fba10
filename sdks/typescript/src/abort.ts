/** Lets any number of calls listen to one AbortSignal. */

const listened = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `act` when `signal` is aborted, until the function that it returns is called.
 *
 * Each signal gets one listener, because Node warns of a leak at more than ten.
 */
export function onAbort(signal: AbortSignal | undefined, act: () => void): () => void {
  if (!signal) return () => {};
  let acts = listened.get(signal);
  if (!acts) {
    const added = new Set<() => void>();
    signal.addEventListener("abort", () => {
      for (const each of added) each();
    });
    listened.set(signal, added);
    acts = added;
  }
  acts.add(act);
  return () => acts.delete(act);
}
