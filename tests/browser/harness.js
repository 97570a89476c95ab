/** What the tests drive a page by: one client, what it said, and the outcome of its call. Loaded before each page. */

const plain = (event) => {
  const { kind, callId, time, question, error, ...rest } = event;
  const known = Object.fromEntries(
    ["stage", "mark", "progress", "attempt", "key", "acknowledged", "elsewhere", "reason", "known", "name"]
      .filter((name) => rest[name] !== undefined)
      .map((name) => [name, rest[name]]),
  );
  const asked = question && {
    message: question.message,
    key: question.key,
    fields: question.fields.map(({ name }) => name),
  };
  return {
    kind,
    callId,
    timed: Number.isFinite(time),
    ...known,
    ...(asked ? { question: asked } : {}),
    ...(error ? { error: told(error) } : {}),
  };
};

const told = (error) => ({
  name: error.name,
  message: error.message,
  ...Object.fromEntries(
    ["callId", "status", "code", "errors", "challenge", "kept"]
      .filter((k) => error[k] !== undefined)
      .map((k) => [k, error[k]]),
  ),
});

const settled = (promise) =>
  promise.then(
    (result) => ({ result }),
    (error) => ({ error: told(error) }),
  );

/** Answers of people are what `hold` keeps from the server ("answers"), or keeps the server's word about ("acks"). */
const holding = (hold) => async (url, init) => {
  const body = init?.body ? JSON.parse(init.body) : {};
  const answers = body.params?.inputResponses !== undefined || (body.result !== undefined && !body.method);
  if (answers && hold === "answers") {
    lab.say({ kind: "held" });
    return new Promise(() => {});
  }
  const response = await fetch(url, init);
  if (!answers) return response;
  lab.say({ kind: "held" });
  return new Promise(() => {});
};

globalThis.lab = {
  events: [],
  waiting: [],
  outcomes: [],

  async start({ answers, hold, endpoint = "/mcp", ...options } = {}) {
    this.m = await import("/milepost/client.js");
    this.client = new this.m.Client(endpoint, { ...options, ...(hold ? { fetch: holding(hold) } : {}) });
    this.client.addEventListener("event", (event) => this.say(plain(event)));
    if (answers) this.client.onQuestion = (question) => this.reply(question, answers);
    return settled(this.client.connect());
  },

  async reply(question, answers) {
    const content = {};
    for (const { name } of question.fields) {
      const given = answers[name];
      content[name] = Array.isArray(given) ? given.shift() : given;
      if (content[name] === undefined) return new Promise(() => {}); // this person thinks about it
    }
    return { action: "accept", content };
  },

  say(event) {
    this.events.push(event);
    this.waiting.splice(0).forEach((wake) => wake());
  },

  async seen(kind, count = 1) {
    for (;;) {
      const found = this.events.filter((event) => event.kind === kind);
      if (found.length >= count) return found;
      await new Promise((wake) => this.waiting.push(wake));
    }
  },

  call(name, args, wishes) {
    this.progress = [];
    const promise = this.client.callTool(name, args, { onProgress: (one) => this.progress.push(one), ...wishes });
    return this.outcomes.push(settled(promise)) - 1;
  },

  async resume() {
    const going = await this.client.resume();
    for (const one of going) this.outcomes.push(settled(one.result));
    return going.map(({ name, args }) => ({ name, args }));
  },

  answer(content, n = 0) {
    const reply = content === null ? { action: "decline" } : { action: "accept", content };
    return settled(this.client.answer(this.client.questions[n], reply));
  },

  outcome(n = 0) {
    return this.outcomes[n];
  },

  kept() {
    return Object.fromEntries(
      Object.entries({ ...sessionStorage }).map(([key, value]) => [
        key.replace(/^milepost:.*?:(?=call|conn)/, ""),
        JSON.parse(value),
      ]),
    );
  },
};
