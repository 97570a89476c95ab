/**
 * One pending call: what is kept of it, what its server asked, and what a person answered.
 *
 * The rules that hold on both eras: a question is put to the person once, however often and wherever it is sent; an
 * answer is kept before it is sent and until its call has ended; whatever is needed to go on after a reload is in
 * `record`, which is written before anything is said to the server that depends on it.
 */

import { BadPeer, Failed, InvalidAnswer, NotSent } from "./errors.js";
import { check, formOf } from "./forms.js";

const KINDS = { "elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots" };
const MOST_OPEN = 64; // questions of one call at a time: each is held in memory and in storage
const MOST = 1000; // questions of one call in all: far more than any person answers

/**
 * @typedef {{method: string, params: any, runId: string, sending: any, reply: any, acked: any}} Kept a question as kept:
 *   `sending` is its newest JSON-RPC id, `acked` the one under which the answer was acknowledged (handshake era)
 * @typedef {{callId: string, name: string, args: object, safe: "stateful" | "declared" | "asked" | "",
 *   headers: Record<string, string>, traceId: string, era: string, inFlight: boolean, uncertain: boolean, state: string | null, asks: string[] | null,
 *   stream: {requestId: string, last: string | null, retry: number} | null, session: {id: string | null, version: string} | null,
 *   questions: Record<string, Kept>}} CallRecord `safe`: why it may be sent again, "" where it may not;
 *   `inFlight`: a request is out that may have been taken; `uncertain`: an earlier one was; `asks`: the open round
 */

/** A question as a page sees it. */
export class Question {
  /** @param {string} callId @param {string} key @param {Kept} kept @param {AbortSignal} signal aborted when it is closed */
  constructor(callId, key, kept, signal) {
    this.id = `${callId}/${key}`;
    this.callId = callId;
    this.key = key;
    this.runId = kept.runId;
    this.method = kept.method;
    this.params = kept.params;
    this.message = String(kept.params?.message ?? "");
    this.mode = kept.method === "elicitation/create" ? String(kept.params?.mode ?? "form") : "";
    this.url = this.mode === "url" ? String(kept.params?.url ?? "") : "";
    this.schema = this.mode === "form" ? (kept.params?.requestedSchema ?? {}) : null;
    this.fields = formOf(this.schema);
    this.signal = signal;
  }
}

/** The open question of one key: who waits for its reply, and for the server's word that it has it. */
class Open {
  controller = new AbortController();
  question = /** @type {Question | null} */ (null);
  reply = Promise.withResolvers();
  acknowledged = Promise.withResolvers();

  constructor() {
    for (const { promise } of [this.reply, this.acknowledged]) promise.catch(() => {}); // not everybody listens
  }
}

export class Call {
  #office;
  #open = /** @type {Map<string, Open>} */ (new Map());
  #ended = new AbortController();
  #over = false;

  /**
   * @param {any} office the client's: `keep`, `forget`, `emit`, `onQuestion`, `capabilities`
   * @param {CallRecord} record @param {{onProgress?: (progress: any) => void, signal?: AbortSignal}} [wishes]
   */
  constructor(office, record, { onProgress, signal } = {}) {
    this.#office = office;
    this.record = record;
    this.onProgress = onProgress;
    this.wish = signal;
    this.signal = signal ? AbortSignal.any([signal, this.#ended.signal]) : this.#ended.signal;
    this.attempt = 0;
    this.dropped = false; // a try failed, and none has begun to be answered since
  }

  get id() {
    return this.record.callId;
  }

  /** The questions that wait for a person. */
  get questions() {
    return [...this.#open.values()].map((open) => open.question).filter((question) => question !== null);
  }

  /** Once the call is over, nothing of it is kept any more, whatever still comes in. */
  save() {
    if (!this.#over) this.#office.keep(this.record);
  }

  emit(/** @type {string} */ kind, /** @type {object} */ detail = {}) {
    this.#office.emit(kind, this.id, detail);
  }

  /** End it from our side, with this reason. */
  abort(/** @type {unknown} */ reason) {
    this.#ended.abort(reason);
  }

  // --- questions ------------------------------------------------------------------------------------------------

  /** Whether this client said that it can be asked this. */
  mayAsk(/** @type {unknown} */ method) {
    return typeof method === "string" && Object.hasOwn(KINDS, method) && KINDS[method] in this.#office.capabilities;
  }

  /** Write down a question of the server. `anew`: the answer that is kept, if any, is not for this one. */
  put(/** @type {string} */ key, { method, params, sending = null, anew = false }) {
    if (key === "__proto__") throw new BadPeer("The server names a question __proto__");
    if (anew) this.#close(key, "asked again");
    const before = Object.hasOwn(this.record.questions, key) && !anew ? this.record.questions[key] : null;
    if (!before) this.#bound();
    const runId = String(params?._meta?.["milepost/run_id"] ?? "");
    this.record.questions[key] = { reply: null, acked: null, ...before, method, params, runId, sending };
    this.save();
  }

  #bound() {
    const all = Object.values(this.record.questions);
    const many = all.length >= MOST || all.filter(({ reply }) => !reply).length >= MOST_OPEN;
    if (many) throw new BadPeer(`The server asks more than ${MOST_OPEN} questions at once, or ${MOST} in all`);
  }

  /** The reply to a question that was put: the one that is kept, or the person's, who is asked now if not before. */
  async reply(/** @type {string} */ key) {
    const { reply } = this.record.questions[key];
    return reply ?? this.#ask(key).reply.promise;
  }

  #ask(/** @type {string} */ key) {
    const known = this.#open.get(key);
    if (known?.question) return known;
    const open = known ?? new Open();
    this.#open.set(key, open);
    open.question = new Question(this.id, key, this.record.questions[key], open.controller.signal);
    this.emit("question", { question: open.question });
    if (this.#office.onQuestion) this.#handle(open.question, this.#office.onQuestion);
    return open;
  }

  /** Let the page's handler answer. Where it fails, the question stays open, for `client.answer`. */
  async #handle(/** @type {Question} */ question, onQuestion) {
    try {
      const reply = await onQuestion(question);
      if (!question.signal.aborted) this.give(question.key, reply);
    } catch (error) {
      if (!question.signal.aborted) this.emit("question", { question, error });
    }
  }

  /**
   * Take the person's reply. Returns a promise of the server's having it. Raises InvalidAnswer, and NotSent where the
   * question is closed.
   */
  give(/** @type {string} */ key, /** @type {any} */ reply) {
    const open = this.#open.get(key);
    if (!open?.question)
      throw new NotSent("This question is closed: it was answered, or its call has ended", { callId: this.id });
    checkReply(open.question, reply);
    open.question = null;
    this.record.questions[key].reply = reply;
    this.save();
    this.emit("answered", { key, acknowledged: false });
    open.reply.resolve(reply);
    return open.acknowledged.promise;
  }

  /** The server has the answer for good; `sending`: under which id. */
  acknowledged(/** @type {string} */ key, sending = null) {
    this.record.questions[key].acked = sending;
    this.save();
    this.emit("answered", { key, acknowledged: true });
    this.#open.get(key)?.acknowledged.resolve(undefined);
    this.#open.delete(key);
  }

  /** The server doesn't take the answer, and will ask again. */
  refused(/** @type {string} */ key, /** @type {unknown} */ why, /** @type {unknown} */ sending) {
    const kept = this.record.questions[key];
    kept.reply = null;
    if (kept.sending === sending) kept.sending = null;
    this.save();
    this.#open.get(key)?.acknowledged.reject(why);
    this.#open.delete(key);
  }

  /** The server has taken back what it sent under this id: closed another way. */
  withdraw(/** @type {unknown} */ sending) {
    for (const [key, kept] of Object.entries(this.record.questions)) {
      if (kept.sending !== sending || kept.reply) continue;
      this.#close(key, "answered elsewhere");
      delete this.record.questions[key];
      this.save();
      this.emit("answered", { key, acknowledged: true, elsewhere: true });
    }
  }

  /** The call is over: nothing of it is asked any more. `told`: it has its result, so its server has what was answered. */
  close(told = false) {
    this.#over = true;
    for (const key of [...this.#open.keys()]) {
      if (told && this.record.questions[key]?.reply) this.#open.get(key)?.acknowledged.resolve(undefined);
      this.#close(key, "the call has ended");
    }
  }

  /** Forget a question altogether. */
  forget(/** @type {string} */ key) {
    this.#close(key, "it can't be answered any more");
    delete this.record.questions[key];
  }

  #close(/** @type {string} */ key, /** @type {string} */ why) {
    const open = this.#open.get(key);
    this.#open.delete(key);
    open?.controller.abort(new NotSent(`The question is closed: ${why}`));
    open?.acknowledged.reject(new NotSent(`The question is closed: ${why}`));
  }

  // --- what is said on the way ----------------------------------------------------------------------------------

  /** A notification on this call's stream; `token`: the progress token of its request. */
  notified(/** @type {any} */ message, /** @type {string} */ token) {
    const params = message.params ?? {};
    if (message.method === "notifications/cancelled") this.withdraw(params.requestId);
    if (message.method !== "notifications/progress" || params.progressToken !== token) return;
    const { progress, total, message: text } = params;
    const stage = params._meta?.["milepost/stage"];
    if (typeof stage === "string")
      this.emit("stage", { stage, mark: params._meta["milepost/mark"], progress, total, message: text });
    try {
      this.onProgress?.({ progress, total, message: text, ...(typeof stage === "string" ? { stage } : {}) });
    } catch (error) {
      reportError(error); // the page's mistake ends no call
    }
  }
}

/** Raises InvalidAnswer where a reply to a form can't be what was asked; Failed replies (errors) pass. */
function checkReply(/** @type {Question} */ question, /** @type {any} */ reply) {
  if (!reply || typeof reply !== "object")
    throw new InvalidAnswer({ answer: 'must be an object, such as {action: "accept", content: {...}}' });
  if (question.method !== "elicitation/create") return;
  if (!["accept", "decline", "cancel"].includes(reply.action))
    throw new InvalidAnswer({ action: "must be accept, decline or cancel" });
  if (reply.action !== "accept" || question.mode !== "form") return;
  const errors = check(question.fields, reply.content ?? {});
  if (Object.keys(errors).length) throw new InvalidAnswer(errors);
}

/** The result or the error of a JSON-RPC response, the latter raised through `refusal`. */
export function resultOf(message, refusal, status) {
  if (message.error && typeof message.error === "object") throw refusal(message.error, status);
  if (!message.result || typeof message.result !== "object")
    throw new Failed("The server's response has neither a result nor an error");
  return message.result;
}

/** Whether a message is the response to this request: others' are nobody's business here. */
export const answers = (message, id) =>
  message !== null &&
  typeof message === "object" &&
  message.id === id &&
  !("method" in message) &&
  ("result" in message || "error" in message);
