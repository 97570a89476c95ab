/**
 * What survives a page's reload: one item of Web Storage for each pending call and one for the connection.
 *
 * An item belongs to one living page, told by a Web Lock of its name, so that two tabs over one `localStorage` (or a
 * duplicated tab, which copies `sessionStorage`) don't go on with the same call. Where storage is full, blocked or off,
 * all goes on in memory, and the client says so.
 */

const GRACE = 1500; // ms in which the lock of a page that was just left may still be let go

export class Keeping {
  #storage;
  #prefix;
  #trouble;
  #held = /** @type {Map<string, () => void>} */ (new Map());
  #wanted = /** @type {Set<string>} */ (new Set());

  /**
   * @param {"session" | "local" | "none" | Storage} where @param {string} name the client's, part of each key
   * @param {(error: unknown) => void} trouble told when something couldn't be kept
   */
  constructor(where, name, trouble) {
    this.#trouble = trouble;
    this.#prefix = `milepost:${name}:`;
    this.#storage = this.#try(() => storageOf(where)) ?? null;
  }

  /** Keep a value under this key, in place of what is there. */
  put(/** @type {string} */ key, /** @type {object} */ value) {
    this.#try(() => this.#storage?.setItem(this.#prefix + key, JSON.stringify(value)));
  }

  drop(/** @type {string} */ key) {
    this.#try(() => this.#storage?.removeItem(this.#prefix + key));
    this.release(key);
  }

  /** The value under this key, or null. One that can't be read is thrown away. */
  get(/** @type {string} */ key) {
    const text = this.#try(() => this.#storage?.getItem(this.#prefix + key));
    if (!text) return null;
    try {
      const value = JSON.parse(text);
      return value && typeof value === "object" ? value : null;
    } catch {
      this.drop(key);
      return null;
    }
  }

  /** The keys that begin so. */
  keys(/** @type {string} */ start) {
    const full = this.#prefix + start;
    const all = this.#try(() =>
      Array.from({ length: this.#storage?.length ?? 0 }, (_, n) => this.#storage?.key(n) ?? ""),
    );
    return (all ?? []).filter((key) => key.startsWith(full)).map((key) => key.slice(this.#prefix.length));
  }

  /** Take an item for this page. Returns false where another living page has it. */
  async hold(/** @type {string} */ key) {
    const locks = this.#storage ? globalThis.navigator?.locks : undefined; // only in secure contexts
    if (!locks || this.#held.has(key)) return true;
    this.#wanted.add(key);
    return new Promise((done) => {
      const keep = () => {
        done(true);
        if (!this.#wanted.has(key)) return undefined; // let go before it was granted
        return new Promise((release) => this.#held.set(key, () => release(undefined)));
      };
      locks
        .request(this.#prefix + key, { signal: AbortSignal.timeout(GRACE) }, keep)
        .catch((error) => done(error?.name !== "TimeoutError"));
    });
  }

  /** Let an item go, for another page to go on with. */
  release(/** @type {string} */ key) {
    this.#wanted.delete(key);
    this.#held.get(key)?.();
    this.#held.delete(key);
  }

  /** @template T @param {() => T} act @returns {T | undefined} */
  #try(act) {
    try {
      return act();
    } catch (error) {
      this.#trouble(error); // QuotaExceededError, SecurityError
      return undefined;
    }
  }
}

function storageOf(where) {
  if (where === "none") return null;
  if (where === "session") return globalThis.sessionStorage ?? null;
  if (where === "local") return globalThis.localStorage ?? null;
  return where;
}
