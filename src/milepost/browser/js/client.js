/**
 * A client of MCP for web pages: sessions, expiry and recovery are its business, not the page's.
 *
 *     import { Client } from "/milepost/client.js";
 *     const client = new Client("/mcp");
 *     client.onQuestion = async (question) => ({ action: "accept", content: await showForm(question.fields) });
 *     for (const call of await client.resume()) show(await call.result);     // what a reload interrupted
 *     const result = await client.callTool("change_itinerary", { pnr: "QK7P2M" });
 *
 * It speaks both eras of the protocol. A call whose connection breaks is taken up, or made again where that is safe;
 * where it isn't, its error says what is known. Answers that a person gave are kept until the server has them.
 */

import { Call } from "./call.js";
import { BadPeer, CallError, Dropped, NotSent, OutcomeUnknown, Refused, Unauthorized } from "./errors.js";
import { Handshake, Session } from "./handshake.js";
import { Keeping } from "./keeping.js";
import { Modern } from "./modern.js";
import { POLICY, Pace, Patience } from "./retrying.js";
import { HANDSHAKE, MODERN, Wire, noise, paramHeaders } from "./wire.js";

export { Question } from "./call.js";
export * from "./errors.js";
export { check, formOf, valuesOf } from "./forms.js";
export { MODERN, SseParser, headerValue } from "./wire.js";

const PAGES = 100; // of a tool list: an end for a server that always has one more
const UNREAD = 1000; // events that a slow reader may leave; older ones are dropped
const DEFAULTS = {
  mode: /** @type {"auto" | "modern" | "handshake"} */ ("auto"),
  keep: /** @type {"session" | "local" | "none" | Storage} */ ("session"),
  name: "", // of what is kept; the endpoint's URL where none is given
  info: { name: "milepost-browser", version: "0.1" },
  capabilities: { elicitation: { form: {}, url: {} } },
  headers: {}, // for each request, or a function that makes them, such as one with a fresh token
  credentials: /** @type {RequestCredentials} */ ("same-origin"),
  message: 4 * 1024 * 1024, // characters of one message of the server: what Milepost's endpoint takes itself
  silence: 60_000, // ms; servers give a sign of life every 15 s or oftener
  retry: {}, // see POLICY
  fetch: (/** @type {Parameters<typeof fetch>} */ ...args) => globalThis.fetch(...args),
};

/** Something that happened: `kind` is sent, reconnected, reinitialized, question, answered, stage, resumed, gave-up or
 * not-kept; `callId` is "" where it belongs to no call, `time` is in ms since 1970. The rest depends on the kind. */
export class ClientEvent extends Event {
  constructor(/** @type {string} */ kind, /** @type {string} */ callId, /** @type {object} */ detail) {
    super("event");
    Object.assign(this, { ...detail, kind, callId, time: Date.now() });
  }
}

/** What the parts of a client share: the way out, the ways to tell and to keep, and the rules of trying again. */
export class Office {
  #client;
  #keeping;
  #policy;
  #pace;
  #ids = noise(4);
  #count = 0;

  constructor(client, keeping, wire, options) {
    this.#client = client;
    this.#keeping = keeping;
    this.#policy = { ...POLICY, ...options.retry };
    this.#pace = new Pace(this.#policy.rate);
    this.wire = wire;
    this.info = options.info;
    this.capabilities = options.capabilities;
  }

  get onQuestion() {
    return this.#client.onQuestion;
  }

  /** A JSON-RPC id that no other page of this session has: a reload must not meet its former requests. */
  nextId() {
    this.#count += 1;
    return `${this.#ids}-${this.#count}`;
  }

  patience() {
    return new Patience(this.#policy, this.#pace);
  }

  /** Wait for this client's turn to try something again. */
  turn(/** @type {AbortSignal} */ signal) {
    return this.#pace.turn(signal);
  }

  emit(/** @type {string} */ kind, /** @type {string} */ callId, /** @type {object} */ detail) {
    this.#client.dispatchEvent(new ClientEvent(kind, callId, detail));
  }

  keep(/** @type {import("./call.js").CallRecord} */ record) {
    this.#keeping.put(`call:${record.callId}`, record);
  }

  connected(/** @type {Session} */ { id, version, about }) {
    this.#keeping.put("connection", { id, version, about });
  }

  /** After a failed try: wait for the next, or raise what is known. `safe`: it may be tried again whatever came of it. */
  async orElse(error, patience, signal, safe, call = null) {
    if (!(error instanceof Dropped)) throw error;
    signal.throwIfAborted();
    if (call) {
      call.record.uncertain ||= call.record.inFlight && !error.undone;
      call.record.inFlight = call.record.uncertain;
      call.dropped = true;
      call.save();
    }
    if (safe || error.undone) {
      if (await patience.wait(error, signal)) return;
    } else if (call) {
      this.mayRepeat(call, error);
    }
    const known = call?.record.inFlight ? OutcomeUnknown : NotSent;
    throw new known(`The server could not be reached, or had no room, for as long as was tried: ${error.message}`);
  }

  /** Raises OutcomeUnknown where a call may not be sent again unasked. */
  mayRepeat(/** @type {Call} */ call, cause = null) {
    if (call.record.safe) return;
    throw new OutcomeUnknown(
      `The connection broke under ${call.record.name}, which may have been done. It isn't called again by itself, for ` +
        "nothing says that this is harmless (no workflow, not declared read-only or idempotent, no `reissue: true`)",
      { cause },
    );
  }
}

export class Client extends EventTarget {
  /** Answers questions: `async (question) => ({action: "accept", content})`. Without one, use `answer`.
   * @type {((question: import("./call.js").Question) => Promise<object>) | null} */
  onQuestion = null;
  #options;
  #keeping;
  #office;
  #era = /** @type {Modern | Handshake | null} */ (null);
  #about = /** @type {any} */ (null);
  #connecting = /** @type {Promise<any> | null} */ (null);
  #tools = /** @type {Promise<Map<string, any>> | null} */ (null);
  #calls = /** @type {Map<string, Call>} */ (new Map());
  #closed = new AbortController();

  /** @param {string | URL} endpoint @param {Partial<typeof DEFAULTS>} [options] see docs/browser.md */
  constructor(endpoint, options = {}) {
    super();
    const url = new URL(endpoint, globalThis.location?.href).href;
    this.#options = { ...DEFAULTS, ...options };
    const { fetch, headers, credentials, message, silence, keep, name } = this.#options;
    this.#keeping = new Keeping(keep, name || url, (error) => this.#office?.emit("not-kept", "", { error }));
    const wire = new Wire(url, { fetch, headers, credentials, limit: message, silence });
    this.#office = new Office(this, this.#keeping, wire, this.#options);
  }

  // --- connecting -----------------------------------------------------------------------------------------------

  /** Find out what the server speaks. Returns `{era, version, serverInfo, capabilities, instructions}`; repeatable. */
  connect() {
    this.#closed.signal.throwIfAborted();
    this.#connecting ??= this.#connect().catch((error) => {
      this.#connecting = null;
      throw error;
    });
    return this.#connecting;
  }

  async #connect() {
    const found = (await this.#sessionOfBefore()) ?? (await this.#modern()) ?? (await this.#handshake());
    const { serverInfo, capabilities = {}, instructions = "" } = found.about;
    this.#about = { era: this.#era?.era, version: found.version, serverInfo, capabilities, instructions };
    return this.#about;
  }

  /** Go on with the session of the page before this one; where it is gone, the first request says so. */
  async #sessionOfBefore() {
    const kept = this.#options.mode === "modern" ? null : this.#keeping.get("connection");
    if (!kept?.id || !(await this.#keeping.hold("connection"))) return null;
    const session = Session.of(kept);
    this.#era = new Handshake(this.#office, session);
    return session;
  }

  /** Ask for the modern era. Null where the server says in so many words that it doesn't speak it; a server that is
   * merely out of order says nothing, and is asked again. */
  async #modern() {
    if (this.#options.mode === "handshake") return null;
    const modern = new Modern(this.#office);
    try {
      const about = await modern.request("server/discover", {}, this.#closed.signal);
      if (!about.supportedVersions?.includes(MODERN))
        throw new Refused("", { status: 400, data: { supported: about.supportedVersions } });
      this.#era = modern;
      const serverInfo = about.serverInfo ?? about._meta?.["io.modelcontextprotocol/serverInfo"];
      return { version: MODERN, about: { ...about, serverInfo } };
    } catch (error) {
      if (this.#options.mode === "auto" && saysOlder(error)) return null;
      throw error;
    }
  }

  async #handshake() {
    const era = new Handshake(this.#office);
    const session = await era.open(this.#closed.signal);
    this.#era = era;
    await this.#keeping.hold("connection");
    return session;
  }

  // --- asking the server ----------------------------------------------------------------------------------------

  /** One request that only reads, such as `resources/list`; it is sent again until it is answered. */
  async request(/** @type {string} */ method, /** @type {object} */ params = {}) {
    await this.connect();
    return /** @type {any} */ (this.#era).request(method, params, this.#closed.signal);
  }

  /** All tools of the server. */
  async listTools() {
    this.#tools = this.#list();
    this.#tools.catch(() => (this.#tools = null));
    return [...(await this.#tools).values()];
  }

  async #list() {
    const found = new Map();
    let cursor;
    for (let page = 0; page < PAGES; page++) {
      const { tools = [], nextCursor } = await this.request("tools/list", cursor === undefined ? {} : { cursor });
      for (const tool of tools) found.set(tool.name, tool);
      if (nextCursor === undefined || nextCursor === null) break;
      cursor = nextCursor;
    }
    return found;
  }

  /**
   * Call a tool. Returns its result, as the server says it (`isError` included). Before the first call the tools are
   * listed, for that says which calls may be made again.
   *
   * Raises NotSent, Refused, Unauthorized, Failed, OutcomeUnknown, and the reason of `signal`, which cancels the call.
   * @param {string} name @param {object} [args]
   * @param {{onProgress?: (progress: {progress: number, total?: number, message?: string, stage?: string}) => void,
   *   signal?: AbortSignal, reissue?: boolean, kept?: OutcomeUnknown["kept"]}} [wishes] `reissue`: it may be made again
   *   after a break, whatever it is; `kept`: of an OutcomeUnknown, to go on with
   * @returns {Promise<any>}
   */
  async callTool(name, args = {}, { onProgress, signal, reissue = false, kept = null } = {}) {
    signal?.throwIfAborted();
    await this.connect();
    this.#tools ?? (await this.listTools());
    const tool = (await this.#tools)?.get(name);
    const record = recordOf(name, args, safety(tool, reissue), kept);
    record.headers = paramHeaders(tool?.inputSchema, args);
    return this.#run(new Call(this.#office, record, { onProgress, signal }));
  }

  /**
   * Go on with the calls that a page before this one left unfinished; their open questions are asked (once more on the
   * screen, never once more to a person who has answered).
   * @param {{onProgress?: (progress: any) => void, signal?: AbortSignal}} [wishes]
   * @returns {Promise<{callId: string, name: string, args: object, result: Promise<any>}[]>}
   */
  async resume(wishes = {}) {
    await this.connect();
    const keys = this.#keeping.keys("call:").filter((key) => !this.#calls.has(key.slice(5)));
    const mine = await Promise.all(keys.map((key) => this.#keeping.hold(key)));
    const going = [];
    for (const key of keys.filter((_, n) => mine[n])) {
      const record = this.#keeping.get(key);
      if (!record || `call:${record.callId}` !== key) continue;
      const result = this.#run(new Call(this.#office, fitted(record, this.#era?.era), wishes), true);
      result.catch(() => {}); // a page that looks at none of them has not failed
      going.push({ callId: record.callId, name: record.name, args: record.args, result });
    }
    return going;
  }

  async #run(/** @type {Call} */ call, again = false) {
    const key = `call:${call.id}`;
    this.#calls.set(call.id, call);
    this.#keeping.hold(key);
    call.record.era = this.#era?.era ?? "";
    if (again) call.emit("resumed", { name: call.record.name });
    try {
      const result = await /** @type {any} */ (this.#era).call(call);
      call.close(true);
      this.#keeping.drop(key);
      return result;
    } catch (error) {
      call.close();
      throw this.#lost(call, error);
    } finally {
      this.#calls.delete(call.id);
    }
  }

  /** A call ended without a result. Kept for `resume` where that may still bring it. Returns the error to raise. */
  #lost(/** @type {Call} */ call, error) {
    const { record } = call;
    const wanted = !call.wish?.aborted;
    if (!wanted && !this.#closed.signal.aborted) /** @type {any} */ (this.#era).cancel?.(call);
    const helps =
      error instanceof Unauthorized ||
      ((error instanceof OutcomeUnknown || error instanceof NotSent) && !(error instanceof BadPeer));
    const may = record.safe || record.stream?.last || !record.inFlight;
    const key = `call:${call.id}`;
    if (wanted && helps && may) this.#keeping.release(key);
    else this.#keeping.drop(key);
    if (error instanceof CallError) error.callId = call.id;
    if (error instanceof OutcomeUnknown) error.kept = { state: record.state ?? undefined, answers: answersOf(record) };
    call.emit("gave-up", { reason: String(error?.message ?? error), known: knownBy(error), error });
    return error;
  }

  // --- the person -----------------------------------------------------------------------------------------------

  /** The questions that wait for a person, of all calls. */
  get questions() {
    return [...this.#calls.values()].flatMap((call) => call.questions);
  }

  /**
   * Answer a question. Returns once the server has the answer; until then it is kept. Raises InvalidAnswer (nothing was
   * sent), NotSent (the question is closed), Refused (the server asks again).
   * @param {{callId: string, key: string}} question @param {object} reply
   */
  async answer({ callId, key }, reply) {
    const call = this.#calls.get(callId);
    if (!call) throw new NotSent("This question's call has ended", { callId });
    await call.give(key, reply);
  }

  /** What happens from now on, until the client is closed: `for await (const event of client.events())`.
   * @param {{signal?: AbortSignal}} [options] @returns {AsyncGenerator<any>} */
  async *events({ signal } = {}) {
    const unread = [];
    let wake = () => {};
    const end = signal ? AbortSignal.any([signal, this.#closed.signal]) : this.#closed.signal;
    const hear = (event) => {
      if (unread.push(event) > UNREAD) unread.shift();
      wake();
    };
    end.addEventListener("abort", () => wake());
    this.addEventListener("event", hear);
    try {
      for (;;) {
        while (unread.length) yield unread.shift();
        if (end.aborted) return;
        await new Promise((resolve) => (wake = () => resolve(undefined)));
      }
    } finally {
      this.removeEventListener("event", hear);
    }
  }

  /** End it: the session, and all calls of this client. `keep`: leave them, for another page to `resume`. Idempotent. */
  async close({ keep = false } = {}) {
    if (this.#closed.signal.aborted) return;
    const calls = [...this.#calls.values()];
    this.#closed.abort(new NotSent("The client is closed"));
    for (const call of calls) {
      call.abort(
        call.record.inFlight ? new OutcomeUnknown("The client was closed") : new NotSent("The client was closed"),
      );
    }
    if (keep) return;
    for (const call of calls) this.#keeping.drop(`call:${call.id}`);
    this.#keeping.drop("connection");
    if (this.#era instanceof Handshake) await this.#era.end();
  }
}

// --- small decisions --------------------------------------------------------------------------------------------

/** Whether an answer to the probe says that the server knows only the handshake era. */
function saysOlder(error) {
  if (!(error instanceof Refused) || error instanceof Unauthorized) return false;
  const supported = error.data?.supported;
  if (Array.isArray(supported)) return supported.some((version) => HANDSHAKE.includes(version));
  const modern = error.code <= -32020 && error.code >= -32099; // in its words: it is of the modern era, and says no
  return !modern && (error.status === 200 || [400, 404, 405, 406, 415].includes(error.status));
}

/** Why a call of this tool may be made again after a break, "" where it may not. */
function safety(tool, reissue) {
  if (tool?._meta?.["milepost/lane"] === "stateful") return "stateful";
  const { readOnlyHint, idempotentHint } = tool?.annotations ?? {};
  if (readOnlyHint === true || idempotentHint === true) return "declared";
  return reissue ? "asked" : "";
}

/** A call that was never sent. @returns {import("./call.js").CallRecord} */
function recordOf(name, args, safe, kept) {
  const answers = Object.entries(kept?.answers ?? {});
  const questions = answers.map(([key, reply]) => [
    key,
    { method: "", params: {}, runId: "", sending: null, reply, acked: null },
  ]);
  return {
    ...{ callId: noise(16), traceId: noise(16), era: "", name, args, safe, headers: {} },
    ...{ inFlight: false, uncertain: false, stream: null, session: null },
    state: kept?.state ?? null,
    asks: answers.length ? Object.keys(kept.answers) : null,
    questions: Object.fromEntries(questions),
  };
}

/** A kept call, for a server that may speak another era by now: the run is found by its call id, on either. */
function fitted(record, era) {
  if (record.era === era) return record;
  return { ...record, inFlight: true, stream: null, session: null, state: null, asks: null };
}

const answersOf = ({ questions }) =>
  Object.fromEntries(Object.entries(questions).flatMap(([key, { reply }]) => (reply ? [[key, reply]] : [])));

function knownBy(error) {
  if (error instanceof OutcomeUnknown) return "unknown";
  if (error instanceof NotSent) return "not sent";
  if (error instanceof Refused) return "refused";
  return error instanceof CallError ? "failed" : "cancelled";
}
