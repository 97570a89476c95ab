/**
 * The modern era (2026-07-28): every POST stands for itself. A response is the result, or `input_required`: then the
 * person is asked while nothing is open, and the call is made again with the answers and the `requestState`.
 *
 * A stream that drops is a cancellation here, so going on means calling again, under a new id.
 */

import { answers, resultOf } from "./call.js";
import { BadPeer, Dropped, Refused } from "./errors.js";
import { within } from "./retrying.js";
import { enveloped, refusal, traceparent } from "./wire.js";

const ROUNDS = 1000; // questions in a row: far more than any person answers, and an end for a server that only asks

export class Modern {
  /** @param {import("./client.js").Office} office */
  constructor(office) {
    this.office = office;
    this.era = "modern";
  }

  /** One request that asks nothing; it may be sent again. @returns {Promise<any>} */
  async request(/** @type {string} */ method, /** @type {object} */ params, /** @type {AbortSignal} */ signal) {
    const patience = this.office.patience();
    for (;;) {
      try {
        const id = this.office.nextId();
        return await this.#exchange({ jsonrpc: "2.0", id, method, params }, { signal, watched: true });
      } catch (error) {
        await this.office.orElse(error, patience, signal, true);
      }
    }
  }

  /** A tool's call, with all its rounds. Returns its result. */
  async call(/** @type {import("./call.js").Call} */ call) {
    const patience = this.office.patience();
    for (let round = 0; round < ROUNDS; round++) {
      if (call.record.asks) await within(Promise.all(call.record.asks.map((key) => call.reply(key))), call.signal);
      const result = await this.#send(call, patience);
      if ((result.resultType ?? "complete") === "complete") return result;
      if (result.resultType !== "input_required") throw new BadPeer(`The server answered with a ${result.resultType}`);
      await this.#take(call, result, patience);
    }
    throw new BadPeer(`The server asked ${ROUNDS} times in a row`);
  }

  /** The answers of a round are in the server's hands as soon as it answers: until then they are sent again. */
  async #send(call, patience) {
    for (;;) {
      try {
        if (call.record.inFlight) this.office.mayRepeat(call);
        return await this.#once(call, patience);
      } catch (error) {
        if (this.#stateLost(error, call)) continue;
        await this.office.orElse(error, patience, call.signal, Boolean(call.record.safe), call);
      }
    }
  }

  async #once(call, patience) {
    const { record } = call;
    const id = this.office.nextId();
    record.inFlight = true;
    call.save();
    call.emit("sent", { method: "tools/call", attempt: ++call.attempt });
    const message = { jsonrpc: "2.0", id, method: "tools/call", params: paramsOf(record, id) };
    return this.#exchange(message, {
      signal: call.signal,
      watched: Boolean(record.safe),
      headers: record.headers,
      begun: () => {
        patience.heard();
        if (call.attempt > 1 && call.dropped) call.emit("reconnected");
        call.dropped = false;
        for (const key of record.asks ?? []) if (!record.questions[key].acked) call.acknowledged(key, true);
      },
      said: (notification) => {
        patience.heard(true);
        call.notified(notification, id);
      },
    });
  }

  /** The response to one POST. Raises what the wire does, and Dropped where the stream ends without it. */
  async #exchange(message, { signal, watched, headers = {}, begun = () => {}, said = (/** @type {any} */ _) => {} }) {
    const { body, headers: own } = enveloped(message, this.office);
    const incoming = await this.office.wire.open("POST", { ...own, ...headers }, body, { signal, watched });
    begun();
    let response = null;
    await incoming.read(({ data }) => {
      if (answers(data, message.id)) response = data;
      else if (typeof data?.method === "string" && !("id" in data)) said(data);
      return response !== null;
    });
    if (response === null) throw new Dropped("the response ended before its message");
    return resultOf(response, refusal, incoming.status);
  }

  /** Take what the server asks for the next round. */
  async #take(call, result, patience) {
    const { record } = call;
    const given = new Set(record.asks ?? []); // these were in its hands, so a question of the same name asks anew
    for (const key of given) delete record.questions[key];
    const requests = Object.entries(result.inputRequests ?? {});
    for (const [key, asked] of requests) {
      if (!call.mayAsk(asked?.method))
        throw new BadPeer(`The server asks for ${asked?.method}, which this client never offered`);
      call.put(key, { method: asked.method, params: asked.params ?? {}, anew: given.has(key) });
    }
    record.state = typeof result.requestState === "string" ? result.requestState : null;
    record.asks = requests.map(([key]) => key);
    record.inFlight = record.uncertain = false;
    call.save();
    if (requests.length) patience.heard(true);
    else await this.#later(call, result, patience);
  }

  /** Nothing is asked: the server only says "not yet" (it drains, or nobody goes on with the run). */
  async #later(call, result, patience) {
    const seconds = Number(result._meta?.["milepost/retry_after"]) || 0;
    const dropped = new Dropped("the server goes on saying: not yet", {
      undone: true,
      after: Math.min(Math.max(seconds, 0), 60) * 1000,
    });
    await this.office.orElse(dropped, patience, call.signal, true, call);
  }

  /** A state that the server no longer takes: a Milepost server finds the run by its call id as well. */
  #stateLost(error, call) {
    const { record } = call;
    if (!(error instanceof Refused) || error.code !== -32602 || record.state === null || record.safe !== "stateful")
      return false;
    record.state = record.asks = null;
    call.save();
    return true;
  }
}

function paramsOf(record, id) {
  const { name, args, state, asks, questions } = record;
  const meta = { progressToken: id, traceparent: traceparent(record.traceId) };
  if (record.safe === "stateful") meta["milepost/call_id"] = record.callId;
  const params = { name, arguments: args, _meta: meta };
  if (asks?.length) params.inputResponses = Object.fromEntries(asks.map((key) => [key, questions[key].reply]));
  return state === null ? params : { ...params, requestState: state };
}
