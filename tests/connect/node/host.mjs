// A host of the proxy, made of an official TypeScript client: one call, whose questions are answered by whoever reads us.
//
//     node host.mjs v1|v2-legacy|v2-modern '{"url": URL}' | '{"command": PATH, "args": [...], "env": {...}}'  PNR
//
// Out, a JSON object a line: {"question": text, "fields": [names]} for each question, and {"result"} or {"error"} at last.
// In, a JSON object a line: what is answered.
import { createInterface } from "node:readline";

const [kind, where, pnr] = process.argv.slice(2);
const place = JSON.parse(where);
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const tell = (thing) => process.stdout.write(`${JSON.stringify(thing)}\n`);

const ask = async ({ params }) => {
  tell({ question: params.message, fields: Object.keys(params.requestedSchema.properties) });
  return { action: "accept", content: JSON.parse((await answers.next()).value) };
};

const write = () => ({ role: "assistant", model: kind, content: { type: "text", text: `A letter by ${kind}.` } });

const who = { name: `proxy-host-${kind}`, version: "1" };
const capabilities = { elicitation: {}, sampling: {} };

const first = async () => {
  const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
  const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
  const { StdioClientTransport } = await import("@modelcontextprotocol/sdk/client/stdio.js");
  const { ElicitRequestSchema, CreateMessageRequestSchema } = await import("@modelcontextprotocol/sdk/types.js");
  const client = new Client(who, { capabilities });
  client.setRequestHandler(ElicitRequestSchema, ask);
  client.setRequestHandler(CreateMessageRequestSchema, write);
  await client.connect(place.url ? new StreamableHTTPClientTransport(new URL(place.url)) : new StdioClientTransport(place));
  return { client, call: (tool) => client.callTool(tool, undefined, { timeout: 100_000 }) };
};

const second = async () => {
  const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
  const { StdioClientTransport } = await import("@modelcontextprotocol/client/stdio");
  const mode = kind === "v2-modern" ? { pin: "2026-07-28" } : "legacy";
  const client = new Client(who, { capabilities, versionNegotiation: { mode } });
  client.setRequestHandler("elicitation/create", ask);
  client.setRequestHandler("sampling/createMessage", write);
  await client.connect(place.url ? new StreamableHTTPClientTransport(new URL(place.url)) : new StdioClientTransport(place));
  return { client, call: (tool) => client.callTool(tool, { timeout: 100_000 }) };
};

try {
  const { client, call } = await (kind === "v1" ? first() : second());
  tell({ result: await call({ name: "change_itinerary", arguments: { pnr } }) });
  await client.close();
  process.exit(0);
} catch (error) {
  tell({ error: String(error?.stack ?? error) });
  process.exit(1);
}
