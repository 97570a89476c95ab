/**
 * The handshake era (up to 2025-11-25): a session, and a stream for each request.
 *
 * A stream that breaks is no cancellation: it is read on from its last event id. A session that the server no longer
 * knows is opened anew, once for all who meet it. Questions come on the stream; answers are POSTed until they are
 * acknowledged, under whichever id the question was sent last.
 */

import { answers, resultOf } from "./call.js";
import { BadPeer, Dropped, NotSent, OutcomeUnknown, Refused, SessionGone } from "./errors.js";
import { Lanes } from "./retrying.js";
import { HANDSHAKE, cleanId, refusal, traceparent } from "./wire.js";

const STREAMS = 4; // open at a time: a browser has six connections to a server, and answers need one too
const SESSIONS = 5; // in a row that a server may forget at once: one whose replicas don't share them does so for ever
const REFUSED = -32602; // the code under which a Milepost server says that it asks again

export class Handshake {
  #opening = /** @type {Promise<Session> | null} */ (null);
  #lanes = new Lanes(STREAMS);

  /** @param {import("./client.js").Office} office @param {Session | null} session one of before, to go on with */
  constructor(office, session = null) {
    this.office = office;
    this.session = session;
    this.era = "handshake";
  }

  // --- sessions -------------------------------------------------------------------------------------------------

  /** Open a session, unless another caller is at it already. @returns {Promise<Session>} */
  open(/** @type {AbortSignal} */ signal) {
    this.#opening ??= this.#initialize(signal).finally(() => (this.#opening = null));
    return this.#opening;
  }

  /** The session in the place of one that is gone. */
  async #renewed(/** @type {Session} */ gone, /** @type {AbortSignal} */ signal) {
    if (this.session && this.session.id !== gone.id) return this.session;
    const fresh = await this.open(signal);
    if (!gone.replaced) this.office.emit("reinitialized", "", {});
    gone.replaced = true;
    return fresh;
  }

  async #initialize(signal) {
    const { info, capabilities } = this.office;
    const params = { protocolVersion: HANDSHAKE[0], capabilities, clientInfo: info };
    const patience = this.office.patience();
    for (;;) {
      try {
        const session = new Session(null, "");
        const { result, headers } = await this.#plain(session, "initialize", params, signal);
        return await this.#begin(session, result, headers, signal);
      } catch (error) {
        const failed = error instanceof SessionGone ? new Dropped(FORGETFUL, { undone: true }) : error;
        await this.office.orElse(failed, patience, signal, true);
      }
    }
  }

  async #begin(session, result, headers, signal) {
    if (!HANDSHAKE.includes(result.protocolVersion)) {
      throw new Refused(`The server speaks MCP ${result.protocolVersion}, this client ${HANDSHAKE.join(", ")}`);
    }
    const named = headers.get("Mcp-Session-Id");
    if (named !== null && cleanId(named) === null)
      throw new BadPeer("The server's session id isn't made of visible ASCII");
    Object.assign(session, { id: named, version: result.protocolVersion, about: result });
    await this.post(session, { jsonrpc: "2.0", method: "notifications/initialized" }, signal);
    this.session = session;
    this.office.connected(session);
    return session;
  }

  /** Say goodbye: the server may forget the session. */
  async end() {
    if (!this.session?.id) return;
    const options = { keepalive: true, signal: AbortSignal.timeout(2000) };
    await this.office.wire.open("DELETE", this.session.headers, null, options).catch(() => {}); // 405: it may not
  }

  // --- requests -------------------------------------------------------------------------------------------------

  /** One request that asks nothing; it may be sent again. @returns {Promise<any>} */
  async request(/** @type {string} */ method, /** @type {object} */ params, /** @type {AbortSignal} */ signal) {
    const patience = this.office.patience();
    let session = this.session ?? (await this.open(signal));
    for (let gone = 0; ;) {
      try {
        return (await this.#plain(session, method, params, signal)).result;
      } catch (error) {
        if (error instanceof SessionGone && ++gone > SESSIONS) throw new Refused(FORGETFUL, { status: 404 });
        if (error instanceof SessionGone) session = await this.#renewed(session, signal);
        else await this.office.orElse(error, patience, signal, true);
      }
    }
  }

  async #plain(session, method, params, signal) {
    const id = this.office.nextId();
    const body = { jsonrpc: "2.0", id, method, params };
    const incoming = await this.office.wire.open("POST", session.headers, body, { signal, watched: true });
    let response = null;
    await incoming.read(({ data }) => {
      if (answers(data, id)) response = data;
      return response !== null;
    });
    if (response === null) throw new Dropped("the response ended before its message");
    return { result: resultOf(response, refusal, incoming.status), headers: incoming.headers };
  }

  /** A message that wants no response but the status. */
  async post(session, message, signal) {
    await (await this.office.wire.open("POST", session.headers, message, { signal, watched: true })).dismiss();
  }

  // --- calls ----------------------------------------------------------------------------------------------------

  /** A tool's call, with all that is asked on the way. Returns its result. */
  async call(/** @type {import("./call.js").Call} */ call) {
    await this.#lanes.enter(call.signal);
    try {
      return await new Talk(this, call).result();
    } finally {
      this.#lanes.leave();
    }
  }

  /** Tell the server that a call is no longer wanted (closing its stream doesn't say so in this era). */
  async cancel(call) {
    const { stream, session } = call.record;
    if (!stream || !session) return;
    const params = { requestId: stream.requestId, reason: "The user no longer wants it" };
    const message = { jsonrpc: "2.0", method: "notifications/cancelled", params };
    await this.post(Session.of(session), message, AbortSignal.timeout(5000)).catch(() => {});
  }

  /** The session that a call was made on, or the one in its place. */
  async sessionFor(call) {
    const { record } = call;
    if (record.session) return this.session?.id === record.session.id ? this.session : Session.of(record.session);
    const session = this.session ?? (await this.open(call.signal));
    record.session = { id: session.id, version: session.version };
    return session;
  }

  /** The call's session is gone, and its streams with it: it is made again, where that is safe. */
  async moveOn(call, session) {
    await this.#renewed(session, call.signal);
    call.record.session = call.record.stream = null;
    for (const [key, kept] of Object.entries(call.record.questions)) {
      if (kept.runId)
        kept.sending = null; // asked again under another id, and known by its name
      else call.forget(key); // known by its id alone, which the next session may give to another question
    }
    call.save();
  }
}

/** A session as this client knows it. `about`: the server's answer to `initialize`. */
export class Session {
  replaced = false;

  constructor(/** @type {string | null} */ id, /** @type {string} */ version, /** @type {any} */ about = {}) {
    this.id = id;
    this.version = version;
    this.about = about;
  }

  static of({ id, version, about = {} }) {
    return new Session(cleanId(id), HANDSHAKE.includes(version) ? version : HANDSHAKE[0], about);
  }

  get headers() {
    const named = this.id ? { "Mcp-Session-Id": this.id } : {};
    return this.version ? { ...named, "MCP-Protocol-Version": this.version } : named;
  }
}

const FORGETFUL = "The server forgets each session as soon as it is opened (are there replicas that don't share them?)";

/** One call over its streams and sessions, until it has its result. */
class Talk {
  #gone = 0; // sessions in a row that were forgotten
  #response = null;
  #status = 0;
  #heard = false; // the open request was begun to be answered
  #again = new AbortController(); // ends the open stream and the answers on their way, for this reason
  #delivering = new Set();

  constructor(/** @type {Handshake} */ era, call) {
    this.era = era;
    this.office = era.office;
    this.call = call;
    this.patience = era.office.patience();
  }

  async result() {
    try {
      for (;;) await this.#try(await this.era.sessionFor(this.call));
    } catch (done) {
      if (!(done instanceof Done)) throw done;
      return resultOf(done.response, refusal, this.#status);
    } finally {
      this.#startOver();
    }
  }

  /** One stream, to its end. Returns where another is to be tried; raises Done, or what ends the call. */
  async #try(session) {
    const { call } = this;
    try {
      this.#again.signal.throwIfAborted(); // an answer failed while no stream was open
      if (call.record.inFlight && !call.record.stream?.last) this.office.mayRepeat(call); // before an answer does more
      this.#takeUp(session);
      await (call.record.stream?.last ? this.#resume(session) : this.#begin(session));
      if (this.#response) throw new Done(this.#response);
      throw new Dropped("the stream ended before the result", { after: call.record.stream?.retry });
    } catch (error) {
      if (error instanceof SessionGone || this.#again.signal.aborted) this.#startOver();
      if (error instanceof SessionGone) await this.#moveOn(session);
      else await this.#orElse(error);
    }
  }

  async #moveOn(session) {
    if (++this.#gone > SESSIONS) throw new Refused(FORGETFUL, { status: 404 });
    await this.office.turn(this.call.signal);
    await this.era.moveOn(this.call, session);
  }

  /** End what is on its way. */
  #startOver() {
    this.#again.abort(new Dropped("given up for another way"));
    this.#again = new AbortController();
    this.#delivering = new Set();
  }

  get #signal() {
    return AbortSignal.any([this.call.signal, this.#again.signal]);
  }

  /** What was asked before (a reload, a broken stream) and is still open: ask it here, or send what was answered. */
  #takeUp(session) {
    for (const [key, { sending, acked }] of Object.entries(this.call.record.questions)) {
      if (sending !== null && acked !== sending) this.#answer(session, key);
    }
  }

  async #begin(session) {
    const { call, office } = this;
    const id = office.nextId();
    call.record.inFlight = true;
    call.record.stream = { requestId: id, last: null, retry: 0 };
    call.save();
    call.emit("sent", { method: "tools/call", attempt: ++call.attempt });
    const message = { jsonrpc: "2.0", id, method: "tools/call", params: paramsOf(call.record, id) };
    try {
      await this.#follow(await this.#open("POST", session.headers, message), session);
    } catch (error) {
      if (error instanceof SessionGone && !this.#heard) call.record.inFlight = call.record.uncertain; // it wasn't taken
      throw error;
    }
  }

  async #resume(session) {
    const headers = { ...session.headers, "Last-Event-ID": this.call.record.stream.last };
    try {
      await this.#follow(await this.#open("GET", headers, null), session);
    } catch (error) {
      if (!(error instanceof Refused) || error.status === 401) throw error;
      this.call.record.stream = null; // the server can't take this stream up: only calling again is left
      this.call.save();
      throw new Dropped(`the stream is gone (${error.message})`);
    }
  }

  async #open(method, headers, body) {
    this.#heard = false;
    const watched = Boolean(this.call.record.safe || this.call.record.stream?.last);
    const incoming = await this.office.wire.open(method, headers, body, { signal: this.#signal, watched });
    this.#heard = true;
    return incoming;
  }

  async #follow(incoming, session) {
    this.patience.heard();
    this.#status = incoming.status;
    if (this.call.dropped) this.call.emit("reconnected");
    this.call.dropped = false;
    await incoming.read((event) => {
      const done = this.#event(session, event);
      if (!done && this.call.record.stream.last) incoming.watch(); // a silent connection may be left: there is a way back
      return done;
    });
  }

  /** One event; its id is kept after what it says is, so that a reload loses neither. */
  #event(session, { id, data, retry }) {
    const { stream } = this.call.record;
    if (retry !== undefined) stream.retry = retry;
    if (data && typeof data === "object") {
      this.patience.heard(true);
      this.#gone = 0;
      if (answers(data, stream.requestId)) {
        this.#response = data;
        return true;
      }
      this.#message(session, data, stream.requestId);
    }
    const last = cleanId(id);
    if (last !== null && last !== stream.last) {
      stream.last = last;
      this.call.save();
    }
    return false;
  }

  #message(session, message, token) {
    if (typeof message.method !== "string") return; // a response to somebody else's request
    if (!("id" in message)) this.call.notified(message, token);
    else if (this.call.mayAsk(message.method)) this.#question(session, message);
    else this.#decline(session, message);
  }

  /** A courtesy: where it doesn't arrive, the call goes on. */
  #decline(session, { id, method }) {
    const error = { code: -32601, message: `This client doesn't offer ${method}` };
    const reply = method === "ping" ? { result: {} } : { error };
    this.era.post(session, { jsonrpc: "2.0", id, ...reply }, this.#signal).catch(() => {});
  }

  // --- questions ------------------------------------------------------------------------------------------------

  #question(session, { id, method, params = /** @type {any} */ ({}) }) {
    const named = params._meta?.["milepost/question"];
    const key = typeof named === "string" ? named : `id ${JSON.stringify(id)}`;
    this.call.put(key, { method, params, sending: id });
    this.#answer(session, key);
  }

  /** Get the reply and bring it to the server; one at a time for each question. */
  #answer(session, key) {
    const under = this.#delivering;
    if (under.has(key)) return; // it looks for a newer sending when it is done
    under.add(key);
    this.#background(this.#deliver(session, key).finally(() => under.delete(key)));
  }

  async #deliver(session, key) {
    const { call } = this;
    const signal = this.#signal;
    for (;;) {
      const reply = await Promise.race([call.reply(key), ended(signal)]);
      const kept = call.record.questions[key];
      const sending = kept?.sending ?? null;
      if (!reply || sending === null || kept.acked === sending) return;
      const why = await this.#deliverOnce(session, sending, reply, signal);
      if (why) call.refused(key, why, sending);
      else call.acknowledged(key, sending);
      if ((call.record.questions[key].sending ?? sending) === sending) return; // a newer one comes by itself
    }
  }

  /** POST one reply until it is acknowledged. Returns why the server doesn't take it, or null. */
  async #deliverOnce(session, id, reply, signal) {
    const patience = this.office.patience();
    for (;;) {
      try {
        await this.era.post(session, { jsonrpc: "2.0", id, result: reply }, signal);
        return null;
      } catch (error) {
        if (error instanceof Refused && error.code === REFUSED) return error;
        await this.office.orElse(error, patience, signal, true);
      }
    }
  }

  /** Run beside the stream; what goes wrong there ends the stream, and is dealt with where it is read. */
  #background(work) {
    const again = this.#again;
    work.catch((error) => again.abort(error));
  }

  async #orElse(error) {
    const { call } = this;
    const waiting = call.questions.length > 0;
    if (waiting) this.patience.heard(true); // while a person is asked, silence and breaks are expected
    if (error instanceof NotSent && call.record.inFlight) throw new OutcomeUnknown(error.message, { cause: error }); // an answer
    const resumable = Boolean(call.record.stream?.last);
    await this.office.orElse(error, this.patience, call.signal, resumable || Boolean(call.record.safe), call);
  }
}

/** The way out of the loop. */
class Done {
  constructor(response) {
    this.response = response;
  }
}

const ended = (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve(null)));

function paramsOf({ name, args, safe, callId, traceId }, id) {
  const meta = { progressToken: id, traceparent: traceparent(traceId) };
  if (safe === "stateful") meta["milepost/call_id"] = callId;
  return { name, arguments: args, _meta: meta };
}
