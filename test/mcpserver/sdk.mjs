// A client of the official SDK that uses all of a server once: every tool that it
// is given arguments for, every resource, every prompt, completion, a
// subscription. It prints what it got as one line of JSON.
//
//   argv[2]: {"command": [...]} or {"url": "http://…", "sse": bool}, and
//            "tools": {name: arguments}, "prompts": {name: arguments}, "revoke": service
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const o = JSON.parse(process.argv[2]);
const got = { tools: {}, resources: {}, prompts: {}, asked: [] };
const client = new Client({ name: "sdk", version: "1" }, { capabilities: { elicitation: { form: {} } } });
client.setRequestHandler(ElicitRequestSchema, async (r) => {
  got.asked.push(r.params.message);
  return { action: "accept", content: { revoke: true } };
});
let transport;
if (o.command) transport = new StdioClientTransport({ command: o.command[0], args: o.command.slice(1), env: process.env, stderr: "inherit" });
else if (o.sse) transport = new SSEClientTransport(new URL(o.url));
else transport = new StreamableHTTPClientTransport(new URL(o.url));
await client.connect(transport);
got.server = client.getServerVersion();
got.listed = (await client.listTools()).tools.map((t) => t.name);
const call = async (name, args) => {
  const r = await client.callTool({ name, arguments: args });
  got.tools[name] = { isError: r.isError === true, text: r.content.map((c) => c.text).join(""), structured: r.structuredContent ?? null };
  return r;
};
for (const [name, args] of Object.entries(o.tools)) await call(name, args);
if (o.revoke) {
  const issued = await call("tlsmcp_cert_issue", { type: "client", service_id: o.revoke, dir: o.revoke + Date.now() });
  const id = issued.structuredContent.certificate.id;
  const preview = await call("tlsmcp_revoke_preview", { id });
  await call("tlsmcp_cert_revoke", { id, confirm_token: preview.structuredContent.confirm_token });
}
for (let cursor; ; ) {
  const page = await client.listResources({ cursor });
  for (const r of page.resources) got.resources[r.uri] = (await client.readResource({ uri: r.uri })).contents[0].text.length;
  if (!(cursor = page.nextCursor)) break;
}
got.templates = (await client.listResourceTemplates()).resourceTemplates.map((t) => t.uriTemplate);
for (const p of (await client.listPrompts()).prompts) {
  got.prompts[p.name] = (await client.getPrompt({ name: p.name, arguments: o.prompts[p.name] })).messages[0].content.text.length;
}
got.completed = (await client.complete({ ref: { type: "ref/resource", uri: got.templates[0] }, argument: { name: "service_id", value: "sh" } })).completion.values;
await client.subscribeResource({ uri: "tlsmcp://score" });
await client.unsubscribeResource({ uri: "tlsmcp://score" });
console.log(JSON.stringify(got));
await client.close();
