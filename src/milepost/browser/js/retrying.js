/**
 * Trying again: how often, how soon, and when no more. Delays are full-jitter exponential backoff; a server's
 * `Retry-After` or `retry` is a floor under them; a request that hears nothing of its server for `deadline` ends.
 */

/** @typedef {{first: number, longest: number, deadline: number, budget: number, failures: number, rate: number}} Policy */

/** Milliseconds and counts, each with its reason. @type {Policy} */
export const POLICY = {
  first: 250, // the ceiling of the first delay, doubled by each further one
  longest: 10_000, // ... up to this
  deadline: 120_000, // without a sign of life: longer than a rolling update, shorter than a person's patience
  budget: 100, // tries in a row that bring no message: a server that is alive, and of no use
  failures: 4, // ... of which the server may say 500 so often: a bug rarely mends itself
  rate: 5, // retries per second of all calls of a client together: a page must not storm a server that comes back
};

/** The patience of one request. Raises through `spent` (a function that makes the error) when it is used up. */
export class Patience {
  #policy;
  #pace;
  #tries = 0;
  #failures = 0;
  #sign = performance.now();

  constructor(/** @type {Policy} */ policy, /** @type {Pace} */ pace) {
    this.#policy = policy;
    this.#pace = pace;
  }

  /** The server lives; `message`: it also said something, so the count begins anew. */
  heard(message = false) {
    this.#sign = performance.now();
    if (message) this.#tries = this.#failures = 0;
  }

  /** Wait for the right moment of the next try. Returns false, at once, where there will be none. */
  async wait(/** @type {{after: number, status?: number}} */ dropped, /** @type {AbortSignal} */ signal) {
    const { first, longest, deadline, budget, failures } = this.#policy;
    if (dropped.status === 500) this.#failures += 1;
    const delay = Math.max(dropped.after, Math.random() * Math.min(longest, first * 2 ** this.#tries));
    const over = performance.now() - this.#sign + delay > deadline;
    if (over || this.#tries >= budget || this.#failures > failures) return false;
    this.#tries += 1;
    await pause(delay, signal);
    await this.#pace.turn(signal);
    return true;
  }
}

/** Lets so many retries a second pass, those of all calls together; the others wait their turn. */
export class Pace {
  #gap;
  #next = 0;

  constructor(/** @type {number} */ rate) {
    this.#gap = 1000 / rate;
  }

  async turn(/** @type {AbortSignal} */ signal) {
    const now = performance.now();
    const mine = Math.max(now, this.#next);
    this.#next = mine + this.#gap;
    if (mine > now) await pause(mine - now, signal);
  }
}

/** Wait so many ms; less when the browser comes back online meanwhile. Raises the reason of `signal`. */
export async function pause(/** @type {number} */ ms, /** @type {AbortSignal} */ signal) {
  signal.throwIfAborted();
  let stop = () => {};
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    addEventListener("online", resolve);
    signal.addEventListener("abort", resolve);
    stop = () => {
      clearTimeout(timer);
      removeEventListener("online", resolve);
      signal.removeEventListener("abort", resolve);
    };
  });
  stop();
  signal.throwIfAborted();
}

/** Wait for a promise, or for the end of `signal`, whose reason is raised then. @template T @param {Promise<T>} promise */
export async function within(promise, /** @type {AbortSignal} */ signal) {
  signal.throwIfAborted();
  let stop = () => {};
  const aborted = new Promise((_, reject) => {
    const end = () => reject(signal.reason);
    signal.addEventListener("abort", end);
    stop = () => signal.removeEventListener("abort", end);
  });
  try {
    return /** @type {T} */ (await Promise.race([promise, aborted]));
  } finally {
    stop();
  }
}

/** At most so many at the same time; the others wait in line. */
export class Lanes {
  #free;
  #line = /** @type {(() => void)[]} */ ([]);

  constructor(/** @type {number} */ size) {
    this.#free = size;
  }

  async enter(/** @type {AbortSignal} */ signal) {
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    let go = () => {};
    const turn = new Promise((resolve) => this.#line.push((go = () => resolve(undefined))));
    try {
      await within(turn, signal);
    } catch (error) {
      const place = this.#line.indexOf(go);
      if (place >= 0) this.#line.splice(place, 1);
      else this.leave(); // our turn had come in the same moment
      throw error;
    }
  }

  leave() {
    const next = this.#line.shift();
    if (next) next();
    else this.#free += 1;
  }
}
