/**
 * What a call may end with, other than its result. Each says what is known of the call, for that decides what its
 * caller may do next:
 *
 *     NotSent         nothing reached the server            call again
 *     Refused         the server had it, and did nothing    mend what it says, then call again
 *     Failed          the server tried, and failed          its own words are in the message
 *     OutcomeUnknown  it was sent; nobody can tell whether it was done, and it isn't safe to send it again unasked
 */

export class CallError extends Error {
  /** @param {string} message @param {{callId?: string, cause?: unknown}} [about] `callId` is filled in on the way. */
  constructor(message, { callId = "", cause } = {}) {
    super(message, { cause });
    this.name = new.target.name;
    this.callId = callId;
  }
}

export class NotSent extends CallError {}

/** An error that the server put in words: `code` and `data` are JSON-RPC's, `status` is HTTP's (0: none). */
class Said extends CallError {
  /** @param {string} message @param {{status?: number, code?: number, data?: unknown}} [said] */
  constructor(message, { status = 0, code = 0, data } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.data = /** @type {any} */ (data);
  }
}

export class Failed extends Said {}

export class Refused extends Said {}

/** 401: authorize, then call again (or `resume()`: what was pending is kept). `challenge`: WWW-Authenticate. */
export class Unauthorized extends Refused {
  /** @param {string} challenge */
  constructor(challenge) {
    super("The server wants to know who calls (401): authorize, then call again", { status: 401 });
    this.challenge = challenge;
  }
}

/** `kept`: what a person answered on the way, to go on with if you know better (`callTool(..., {kept, reissue})`). */
export class OutcomeUnknown extends CallError {
  kept = /** @type {{state?: string, answers?: Record<string, object>} | null} */ (null);
}

/** The peer broke the protocol or a limit of ours. It is not tried again. */
export class BadPeer extends OutcomeUnknown {}

/** An answer that doesn't fit its question; nothing was sent. `errors`: a sentence by field. */
export class InvalidAnswer extends Error {
  /** @param {Record<string, string>} errors */
  constructor(errors) {
    super(
      `The answer doesn't fit: ${Object.entries(errors)
        .map(([name, why]) => `${name} ${why}`)
        .join("; ")}`,
    );
    this.name = "InvalidAnswer";
    this.errors = errors;
  }
}

// --- within the client only: tries that failed, which no caller ever sees ---------------------------------------

/** A try failed and another may do. `undone`: surely nothing was done; `after`: ms that the server wants us to wait. */
export class Dropped extends Error {
  /** @param {string} why @param {{undone?: boolean, after?: number, status?: number}} [more] */
  constructor(why, { undone = false, after = 0, status = 0 } = {}) {
    super(why);
    this.undone = undone;
    this.after = after;
    this.status = status;
  }
}

/** The session is unknown to the server. */
export class SessionGone extends Error {}
