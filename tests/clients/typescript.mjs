// One visit of a TypeScript client to the hosted servers: `node typescript.mjs LIBRARY ERA DEMO_URL EXTRAS_URL`.
// LIBRARY is "client" (@modelcontextprotocol/client, both eras) or "sdk" (@modelcontextprotocol/sdk, handshake only).
// Prints one line of JSON for each step, {"step", "value"}; test_typescript_clients.py says what the values should be.

import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const [library, era, demoUrl, extrasUrl] = process.argv.slice(2);
const require = createRequire(`${process.env.NODE_PACKAGES}/`);
const NAME = "Ada";
const SUMMARY = "It is short.";
const ROOT = "file:///srv/ada";

const say = (step, value) => console.log(JSON.stringify({ step, value }));

const answers = {
  "elicitation/create": async () => ({ action: "accept", content: { name: NAME } }),
  "sampling/createMessage": async () => ({
    role: "assistant",
    content: { type: "text", text: SUMMARY },
    model: "none",
  }),
  "roots/list": async () => ({ roots: [{ uri: ROOT }] }),
};

// The two libraries differ in their imports, in how a handler is named and in how an era is chosen.
function makeClient(url) {
  const info = { name: "understudy-tests", version: "1.0.0" };
  const capabilities = { elicitation: {}, sampling: {}, roots: {} };
  const hear = { tools: () => {}, resource: () => {}, log: () => {} };
  let client, transport;
  if (library === "sdk") {
    const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const types = require("@modelcontextprotocol/sdk/types.js");
    client = new Client(info, { capabilities });
    client.setRequestHandler(types.ElicitRequestSchema, answers["elicitation/create"]);
    client.setRequestHandler(types.CreateMessageRequestSchema, answers["sampling/createMessage"]);
    client.setRequestHandler(types.ListRootsRequestSchema, answers["roots/list"]);
    client.setNotificationHandler(types.ToolListChangedNotificationSchema, async () => hear.tools());
    client.setNotificationHandler(types.ResourceUpdatedNotificationSchema, async (n) => hear.resource(n.params.uri));
    client.setNotificationHandler(types.LoggingMessageNotificationSchema, async (n) => hear.log(n.params.data));
    transport = new StreamableHTTPClientTransport(new URL(url));
  } else {
    const { Client, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");
    const mode = era === "modern" ? { pin: "2026-07-28" } : "legacy";
    client = new Client(info, { capabilities, versionNegotiation: { mode } });
    for (const [method, answer] of Object.entries(answers)) client.setRequestHandler(method, answer);
    client.setNotificationHandler("notifications/tools/list_changed", async () => hear.tools());
    client.setNotificationHandler("notifications/resources/updated", async (n) => hear.resource(n.params.uri));
    client.setNotificationHandler("notifications/message", async (n) => hear.log(n.params.data));
    transport = new StreamableHTTPClientTransport(new URL(url));
  }
  const call = (name, args = {}, options = {}) =>
    library === "sdk"
      ? client.callTool({ name, arguments: args }, undefined, options)
      : client.callTool({ name, arguments: args }, options);
  return {
    client,
    transport,
    call,
    connect: () => client.connect(transport),
    ask: async (name, args) => {
      const result = await call(name, args);
      if (result.isError) throw new Error(`${name}: ${JSON.stringify(result.content)}`);
      return result.structuredContent?.result ?? result.structuredContent;
    },
    hear,
  };
}

async function ping(url, session) {
  const answer = await fetch(url, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Accept: "application/json, text/event-stream",
      "Mcp-Session-Id": session,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: "by hand", method: "ping" }),
  });
  await answer.text();
  return answer.status;
}

async function visitDemo() {
  const { client, transport, call, connect, ask } = makeClient(demoUrl);
  await connect();
  say("revision", transport.protocolVersion ?? client.getNegotiatedProtocolVersion());
  const { tools } = await client.listTools();
  say("tools", tools.map((tool) => tool.name));

  const state = era === "modern" ? { session: (await ask("open_session")).session } : {};
  say("increments", [await ask("increment", state), await ask("increment", state)]);
  say("count", await ask("count", state));
  say("failure", (await call("fail")).isError);

  const reports = [];
  const onprogress = ({ progress, total }) => reports.push([progress, total]);
  await call("countdown", { steps: 3, seconds: 0.3 }, { onprogress });
  say("progress", reports);

  say("elicitation", await ask("ask_name", state));
  say("sampling", await ask("summarize", { text: "A long story." }));

  if (era === "modern") {
    await call("close_session", state);
    say("ended", (await call("count", state)).isError);
  } else {
    const session = transport.sessionId;
    const before = await ping(demoUrl, session);
    await transport.terminateSession();
    say("ended", [before, await ping(demoUrl, session)]);
  }
  await client.close();
}

async function visitExtras() {
  const { client, call, connect, ask, hear } = makeClient(extrasUrl);
  await connect();
  await client.listTools();

  const uri = `test://watched/ts/${library}/${era}`;
  const changed = new Promise((resolve) => (hear.tools = () => resolve(true)));
  const updated = new Promise((resolve) => (hear.resource = (which) => resolve(which === uri)));
  let subscription = null;
  if (era === "modern") subscription = await client.listen({ toolsListChanged: true, resourceSubscriptions: [uri] });
  else await client.subscribeResource({ uri });
  const name = `tool_for_ts_${library}_${era}`;
  let heard = false;
  for (let attempt = 0; attempt < 20 && !heard; attempt++) {
    // The stream for notifications opens beside the first calls, so one may be too early for it.
    await ask("add_tool", { name });
    heard = await Promise.race([changed, sleep(500, false)]);
  }
  const { tools } = await client.listTools(undefined, { cacheMode: "refresh" });
  say("list change", [heard, tools.some((tool) => tool.name === name)]);
  await ask("touch", { uri });
  say("resource change", await Promise.race([updated, sleep(10_000, false)]));
  await subscription?.close();

  say("roots", await ask("list_roots"));

  const logged = [];
  hear.log = (data) => logged.push(data);
  if (era === "handshake") await client.setLoggingLevel("warning");
  const _meta = { "io.modelcontextprotocol/logLevel": "warning" };
  if (era === "modern") await client.callTool({ name: "think_aloud", arguments: {}, _meta });
  else await ask("think_aloud");
  say("logged", logged);

  const reports = [];
  const back = await call("go_and_come_back", {}, { onprogress: ({ progress }) => reports.push(progress) });
  say("come back", [back.structuredContent.result, reports]);

  const key = `ts-${library}-${era}`;
  const abort = new AbortController();
  const options = { signal: abort.signal, onprogress: () => abort.abort() };
  const outcome = await call("wait", { key, seconds: 60 }, options).then(
    () => "result",
    () => "rejected",
  );
  say("cancelled", [outcome, await ask("was_cancelled", { key })]);
  await client.close();
}

await visitDemo();
await visitExtras();
say("end", true);
process.exit(0);
