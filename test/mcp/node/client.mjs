// A client of the official SDK that a Go test drives: commands come as lines of
// JSON on standard input, results go to standard output, and so does whatever
// the server says by itself.
//
//   argv[2]: {"command": [...], "env": {...}} or {"url": "http://…"}
//   in:   {"id": 1, "op": "callTool", "args": [...], "abort": at the first progress}
//   out:  {"id": 1, "result": …} or {"id": 1, "error": {"code": …, "message": …, "data": …}}
//         {"heard": method, "params": …}, {"progress": …}, {"closed": true}
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as types from "@modelcontextprotocol/sdk/types.js";
import { createInterface } from "node:readline";

const say = (o) => process.stdout.write(JSON.stringify(o) + "\n");
const options = JSON.parse(process.argv[2]);
const client = new Client(
  { name: "tlsmcp-test", version: "1" },
  { capabilities: { sampling: {}, elicitation: { form: {} }, roots: { listChanged: true } } },
);
client.setRequestHandler(types.CreateMessageRequestSchema, async (r) => {
  say({ heard: r.method, params: r.params });
  return { role: "assistant", model: "m", content: { type: "text", text: "sampled here" } };
});
client.setRequestHandler(types.ElicitRequestSchema, async (r) => {
  say({ heard: r.method, params: r.params });
  return { action: "accept", content: options.elicit ?? { name: "Ada", check: true } };
});
client.setRequestHandler(types.ListRootsRequestSchema, async (r) => {
  say({ heard: r.method, params: r.params });
  return { roots: [{ uri: "file:///r", name: "r" }] };
});
client.fallbackNotificationHandler = async (n) => say({ heard: n.method, params: n.params });
client.onclose = () => say({ closed: true });
client.onerror = (e) => say({ fault: String(e) });

const transport = options.url
  ? new StreamableHTTPClientTransport(new URL(options.url))
  : new StdioClientTransport({ command: options.command[0], args: options.command.slice(1), env: options.env, stderr: "inherit" });

async function run({ id, op, args = [], abort }) {
  try {
    if (op === "connect") {
      await client.connect(transport);
      say({ id, result: { server: client.getServerVersion(), capabilities: client.getServerCapabilities(), pid: transport.pid } });
      return;
    }
    const giveUp = new AbortController();
    const onprogress = (progress) => { say({ progress }); if (abort) giveUp.abort(); };
    const request = { timeout: 60000, onprogress, signal: giveUp.signal };
    const rest = op === "callTool" ? [args[0], undefined, request] : op === "close" ? [] : [...args, request];
    say({ id, result: (await client[op](...rest)) ?? {} });
  } catch (e) {
    say({ id, error: { code: e.code, message: String(e.message ?? e), data: e.data } });
  }
}
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void run(JSON.parse(line)));
lines.on("close", async () => { await client.close(); process.exit(0); });
