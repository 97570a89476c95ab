/**
 * The wire: header values, ids, server-sent events, and HTTP exchanges of which every part is bounded.
 *
 * Nothing here knows what a call is. A server is taken for hostile: what it may make us hold has a limit, what it may
 * make us say in a header is checked, and no redirect is followed, so that no answer or token goes to another origin.
 */

import { BadPeer, Dropped, Failed, Refused, SessionGone, Unauthorized } from "./errors.js";

export const MODERN = "2026-07-28";
export const HANDSHAKE = ["2025-11-25", "2025-06-18", "2025-03-26"];
const ENVELOPE = "io.modelcontextprotocol/";
const NAMED = { "tools/call": "name", "prompts/get": "name", "resources/read": "uri" };
const LONGEST_ID = 1024; // of a session or an event: such an id goes into a header of each of our requests
const LONGEST_WAIT = 300_000; // ms; a server that says more is taken to mean this

// --- values -----------------------------------------------------------------------------------------------------

/** A value that survives an HTTP header: as it is, or as `=?base64?...?=` (2026-07-28, streamable-http.mdx). */
export function headerValue(/** @type {string} */ text) {
  const plain = /^[\x20-\x7e]*$/.test(text) && text === text.trim() && !/^=\?base64\?.*\?=$/.test(text);
  if (plain) return text;
  const bytes = new TextEncoder().encode(text);
  return `=?base64?${btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""))}?=`;
}

/** The `Mcp-Param-*` headers that a tool's input schema asks for by `x-mcp-header`. */
export function paramHeaders(schema, values, found = {}) {
  for (const [name, one] of Object.entries(schema?.properties ?? {})) {
    const value = Object.hasOwn(values ?? {}, name) ? values[name] : undefined;
    if (value === undefined || value === null || !one || typeof one !== "object") continue;
    const token = one["x-mcp-header"];
    if (typeof token === "string" && /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(token) && typeof value !== "object") {
      found[`Mcp-Param-${token}`] = headerValue(String(value));
    } else if (typeof value === "object") {
      paramHeaders(one, value, found);
    }
  }
  return found;
}

/** So many random bytes as hex digits. */
export function noise(/** @type {number} */ bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join(
    "",
  );
}

/** A W3C trace context for one request (SEP-414); the trace is the interaction's, the span this request's. */
export const traceparent = (/** @type {string} */ traceId) => `00-${traceId}-${noise(8)}-01`;

/** An id that may stand in a header of ours, or null: a server's control characters go nowhere. */
export const cleanId = (/** @type {unknown} */ id) =>
  typeof id === "string" && id.length <= LONGEST_ID && /^[\x21-\x7e]+$/.test(id) ? id : null;

/** Milliseconds that a `Retry-After` header asks for, 0 where it can't be read. */
export function retryAfter(/** @type {string | null} */ value, now = Date.now()) {
  const ms = /^\d+$/.test(value ?? "") ? Number(value) * 1000 : Date.parse(value ?? "") - now;
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), LONGEST_WAIT) : 0;
}

/** A request in its 2026-07-28 envelope, and the headers that go with it. */
export function enveloped(message, { info, capabilities }) {
  const params = message.params ?? {};
  const meta = {
    ...params._meta,
    [`${ENVELOPE}protocolVersion`]: MODERN,
    [`${ENVELOPE}clientCapabilities`]: capabilities,
    [`${ENVELOPE}clientInfo`]: info,
  };
  const headers = { "MCP-Protocol-Version": MODERN, "Mcp-Method": message.method };
  const name = params[NAMED[message.method]];
  if (typeof name === "string") headers["Mcp-Name"] = headerValue(name);
  return { body: { ...message, params: { ...params, _meta: meta } }, headers };
}

// --- server-sent events -----------------------------------------------------------------------------------------

/** Reads an event stream (WHATWG HTML, 9.2), however it is cut. Holds at most `limit` characters of one event. */
export class SseParser {
  #limit;
  #rest = "";
  #scanned = 0;
  #skipLineFeed = false;
  #event = fresh();
  #size = 0;

  constructor(/** @type {number} */ limit) {
    this.#limit = limit;
  }

  /** The events that `text` completes: `{id, data, retry}`, each undefined where it wasn't said. Raises BadPeer. */
  feed(/** @type {string} */ text) {
    if (!text) return [];
    if (this.#skipLineFeed && text[0] === "\n") text = text.slice(1);
    this.#skipLineFeed = text.endsWith("\r");
    this.#rest += text;
    const events = [];
    const ends = /\r\n|\r|\n/g;
    ends.lastIndex = this.#scanned;
    let start = 0;
    for (let end = ends.exec(this.#rest); end; end = ends.exec(this.#rest)) {
      const event = this.#line(this.#rest.slice(start, end.index));
      if (event) events.push(event);
      start = ends.lastIndex;
    }
    this.#rest = this.#rest.slice(start);
    this.#scanned = this.#rest.length;
    this.#bound(this.#rest.length);
    return events;
  }

  #line(/** @type {string} */ line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") {
      this.#size += value.length + 1;
      this.#bound(0);
      this.#event.data.push(value);
    } else if (field === "id" && !value.includes("\0")) {
      this.#event.id = value.slice(0, LONGEST_ID + 1);
    } else if (field === "retry" && /^\d+$/.test(value)) {
      this.#event.retry = Math.min(Number(value), LONGEST_WAIT);
    }
    return null;
  }

  #dispatch() {
    const { id, data, retry } = this.#event;
    this.#event = fresh();
    this.#size = 0;
    const empty = id === undefined && retry === undefined && data.length === 0;
    return empty ? null : { id, data: data.length ? data.join("\n") : undefined, retry };
  }

  #bound(/** @type {number} */ more) {
    if (this.#size + more > this.#limit)
      throw new BadPeer(`The server sent more than ${this.#limit} characters as one event`);
  }
}

const fresh = () => ({ id: undefined, data: /** @type {string[]} */ ([]), retry: undefined });

// --- HTTP -------------------------------------------------------------------------------------------------------

/** Exchanges with one endpoint. */
export class Wire {
  /**
   * @param {string} url
   * @param {{fetch: typeof fetch, headers: object | (() => object | Promise<object>), credentials: RequestCredentials,
   *          limit: number, silence: number}} options `limit`: of one message; `silence`: ms, see `open`
   */
  constructor(url, options) {
    this.url = url;
    this.options = options;
  }

  /**
   * Send one request; returns its response once it has begun with success.
   *
   * `watched`: a connection of which nothing is heard for `silence` is given up (it may be half open). Raises Dropped,
   * Refused, Unauthorized, SessionGone (404 under a session id), BadPeer, and the reason of `signal`.
   * @param {"POST" | "GET" | "DELETE"} method @param {object} headers @param {object | null} body
   * @param {{signal?: AbortSignal, watched?: boolean, keepalive?: boolean}} [how]
   */
  async open(method, headers, body, { signal, watched = false, keepalive = false } = {}) {
    const watch = new Watch(this.options.silence, watched);
    const { fetch, headers: own, credentials, limit } = this.options;
    const either = signal ? AbortSignal.any([signal, watch.signal]) : watch.signal;
    try {
      either.throwIfAborted();
      if (globalThis.navigator?.onLine === false) throw new Dropped("the browser is offline", { undone: true });
      const response = await fetch(this.url, {
        method,
        headers: { ...ACCEPT[method], ...(typeof own === "function" ? await own() : own), ...headers },
        body: body && JSON.stringify(body),
        signal: either,
        redirect: "manual",
        cache: "no-store",
        credentials,
        keepalive,
      });
      const incoming = new Incoming(response, limit, watch, either);
      await incoming.judge("Mcp-Session-Id" in headers);
      return incoming;
    } catch (error) {
      watch.end();
      throw told(error, either);
    }
  }
}

const ACCEPT = {
  POST: { Accept: "application/json, text/event-stream", "Content-Type": "application/json" },
  GET: { Accept: "text/event-stream" },
  DELETE: {},
};

/** What a failed `fetch` or read means: browsers say TypeError for whatever went wrong beneath. */
function told(error, signal) {
  if (signal.aborted) return signal.reason;
  return error instanceof TypeError ? new Dropped(`the connection failed (${error.message})`) : error;
}

/** A response that is coming in. */
class Incoming {
  #limit;
  #watch;
  #signal;

  constructor(response, limit, watch, signal) {
    this.response = response;
    this.status = response.status;
    this.headers = response.headers;
    this.#limit = limit;
    this.#watch = watch;
    this.#signal = signal;
  }

  /** Raises what the status stands for, unless it is a success. */
  async judge(/** @type {boolean} */ inSession) {
    this.#watch.beat();
    const { status, response } = this;
    if (response.ok) return;
    if (response.type === "opaqueredirect") throw new Refused("The server redirects elsewhere, which is not followed");
    if (status === 401) throw new Unauthorized(this.headers.get("WWW-Authenticate") ?? "");
    if (TRANSIENT.has(status)) {
      const after = retryAfter(this.headers.get("Retry-After"));
      await response.body?.cancel();
      throw new Dropped(`the server said ${status}`, { undone: status === 429 || status === 503, after, status });
    }
    const error = (await this.#json().catch(() => null))?.error;
    if (status === 404 && inSession && error?.code !== -32601) throw new SessionGone();
    throw refusal(error ?? { message: `HTTP status ${status}` }, status);
  }

  /**
   * Read the messages, as `take({id, data, retry})` with `data` decoded, until it returns true or they end.
   * Returns whether it was `take` that ended it. Raises Dropped, BadPeer, and what `take` raises.
   * @param {(event: {id?: string, data?: any, retry?: number}) => boolean} take
   */
  async read(take) {
    try {
      const kind = (this.headers.get("Content-Type") ?? "").split(";")[0].trim().toLowerCase();
      if (kind === "application/json") return take({ data: await this.#json() });
      if (kind === "text/event-stream") return await this.#events(take);
      this.response.body?.cancel().catch(() => {});
      throw new BadPeer(`The server answered with ${kind || "nothing"}, which is not MCP`);
    } catch (error) {
      throw told(error, this.#signal);
    } finally {
      this.#watch.end();
    }
  }

  /** From now on it is given up when nothing is heard of it for long. */
  watch() {
    this.#watch.begin();
  }

  /** Let go of a response whose body is of no interest. */
  async dismiss() {
    this.#watch.end();
    await this.response.body?.cancel().catch(() => {});
  }

  async #events(take) {
    const parser = new SseParser(this.#limit);
    for await (const text of this.#texts()) {
      for (const event of parser.feed(text)) {
        if (take({ ...event, data: event.data ? decoded(event.data) : undefined })) return true;
      }
    }
    return false;
  }

  async #json() {
    const parts = [];
    let size = 0;
    for await (const text of this.#texts()) {
      size += text.length;
      if (size > this.#limit) throw new BadPeer(`The server sent more than ${this.#limit} characters as one message`);
      parts.push(text);
    }
    try {
      return JSON.parse(parts.join(""));
    } catch {
      throw new Dropped("the answer was cut short");
    }
  }

  /** The body as text, piece by piece; however the reading ends, the rest of it is let go. */
  async *#texts() {
    if (!this.response.body) return;
    const reader = this.response.body.getReader();
    const decoder = new TextDecoder();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        this.#watch.beat();
        yield decoder.decode(value, { stream: true });
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }
}

const TRANSIENT = new Set([408, 425, 429, 500, 502, 503, 504]);

/** A JSON-RPC error as an error of ours: refused before anything was done, or tried and failed. */
export function refusal(error, status = 0) {
  const code = Number.isInteger(error.code) ? error.code : 0;
  const early =
    status >= 400 || (code >= -32602 && code <= -32600) || code === -32700 || (code >= -32099 && code <= -32020);
  return new (early ? Refused : Failed)(String(error.message ?? "error"), { status, code, data: error.data });
}

function decoded(/** @type {string} */ data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new BadPeer("The server sent an event that is no JSON");
  }
}

/** Aborts its signal when nothing is heard for so many ms, once it is `on`. */
class Watch {
  #controller = new AbortController();
  #timer = 0;

  constructor(/** @type {number} */ ms, /** @type {boolean} */ on) {
    this.ms = ms;
    this.on = on;
    this.signal = this.#controller.signal;
    this.beat();
  }

  begin() {
    this.on = true;
    this.beat();
  }

  beat() {
    clearTimeout(this.#timer);
    if (this.on)
      this.#timer = setTimeout(() => this.#controller.abort(new Dropped("nothing was heard for long")), this.ms);
  }

  end() {
    clearTimeout(this.#timer);
    this.on = false;
  }
}
