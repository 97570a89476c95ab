// One call of change_itinerary by an official TypeScript client; the questions are answered by whoever reads our output.
//
//     node client.mjs v1|v2-legacy|v2-modern URL PNR
//
// Out, one JSON object a line: {"question": text, "fields": schema's properties}, then {"result": ...} or {"error": text}.
// In, one JSON object a line: the content of each answer.
import { createInterface } from "node:readline";

const [kind, url, pnr] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (object) => process.stdout.write(JSON.stringify(object) + "\n");

async function answer(request) {
  const { message, requestedSchema } = request.params;
  say({ question: message, fields: requestedSchema.properties });
  const { value } = await lines.next();
  return { action: "accept", content: JSON.parse(value) };
}

function draft() {
  return { role: "assistant", model: "typescript", content: { type: "text", text: "A letter from TypeScript." } };
}

async function connected() {
  const info = { name: `typescript-${kind}`, version: "1" };
  const capabilities = { elicitation: {}, sampling: {} };
  if (kind === "v1") {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const types = await import("@modelcontextprotocol/sdk/types.js");
    const client = new Client(info, { capabilities });
    client.setRequestHandler(types.ElicitRequestSchema, answer);
    client.setRequestHandler(types.CreateMessageRequestSchema, draft);
    await client.connect(new StreamableHTTPClientTransport(new URL(url)));
    return client;
  }
  const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
  const mode = kind === "v2-modern" ? { pin: "2026-07-28" } : "legacy";
  const client = new Client(info, { capabilities, versionNegotiation: { mode } });
  client.setRequestHandler("elicitation/create", answer);
  client.setRequestHandler("sampling/createMessage", draft);
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  return client;
}

async function main() {
  const client = await connected();
  const call = { name: "change_itinerary", arguments: { pnr } };
  const result = kind === "v1" ? await client.callTool(call, undefined, { timeout: 60_000 }) : await client.callTool(call, { timeout: 60_000 });
  say({ result });
  await client.close();
}

main().then(
  () => process.exit(0),
  (error) => {
    say({ error: String(error?.stack ?? error) });
    process.exit(1);
  },
);
