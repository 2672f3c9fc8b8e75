package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// writeTryables writes what makes the commands of whatNext short: the
// environment, and calls of the MCP server for curl.
func (q *quick) writeTryables(self string) error {
	env := fmt.Sprintf(`# Made by tlsmcp quickstart. In a shell: cd %[1]s && . ./env
export PATH=%[2]s:"$PATH"
export TLSMCP_SOCKET=%[3]s  # the sidecar that commands ask; the other one's is %[4]s
unset TLSMCP_HUB TLSMCP_TOKEN TLSMCP_TOKEN_FILE # the Hub is the sidecar's
`, shellWord(q.dir), shellWord(filepath.Dir(self)), shellWord(q.tools.ctl.socket), shellWord(q.orders.ctl.socket))
	if err := pki.WriteFileAtomic(q.file("env"), []byte(env), 0o600); err != nil {
		return err
	}
	for name, c := range map[string]quickCall{
		"list.curl": {method: "tools/list"}, "add.curl": {"tools/call", "add", `"a":20,"b":22`}, "delete.curl": {"tools/call", "delete_orders", ""},
	} {
		if err := pki.WriteFileAtomic(q.file(name), []byte(q.curlConfig(c)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// curlConfig is a call of the MCP server as curl --config reads it.
func (q *quick) curlConfig(c quickCall) string {
	var b strings.Builder
	set := func(key, value string) {
		fmt.Fprintf(&b, "%s = \"%s\"\n", key, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value))
	}
	set("url", "https://"+q.tools.listen+"/mcp")
	set("cacert", "ca.crt")
	set("cert", agentName+".crt")
	set("key", agentName+".key")
	for _, h := range c.headers() {
		set("header", h[0]+": "+h[1])
	}
	set("data", c.body())
	set("write-out", `\n`)
	return b.String()
}

// whatNext prints commands that work as they stand.
func (q *quick) whatNext() {
	curl := func(cert, more string) string {
		s := "curl --cacert ca.crt"
		if cert != "" {
			s += " --cert " + cert + ".crt --key " + cert + ".key"
		}
		return s + more + " https://" + q.orders.listen + "/hello"
	}
	orders := " --socket orders.sock"
	if q.sockets != q.dir {
		orders = " --socket " + shellWord(q.orders.ctl.socket)
	}
	q.show.section("It stays up. Try, in another terminal")
	q.show.command("first, once", "cd "+shellWord(q.dir)+" && . ./env")
	q.show.command("orders: let in; refused: no_certificate, not_allowed, revoked, tls_version",
		curl(allowedName, ""), curl("", ""), curl(strangerName, ""), curl(lostName, ""), curl(allowedName, " --tls-max 1.2"))
	q.show.command("tools, as claude: what there is, a call that is let in, one that is refused",
		"curl --config list.curl", "curl --config add.curl", "curl --config delete.curl")
	q.show.command("all of it on one screen, and of orders; q leaves", "tlsmcp console", "tlsmcp console"+orders)
	q.show.command("how the sidecars are, who calls the tools, and what happens", "tlsmcp status", "tlsmcp status"+orders, "tlsmcp agents", "tlsmcp watch")
	q.show.command("how well each is protected, and how orders looks from outside", "tlsmcp score", "tlsmcp score"+orders, "tlsmcp scan --expect-mtls --ca ca.crt "+q.orders.listen)
	q.show.command("the record", "tlsmcp audit tail", "tlsmcp audit verify --hub-checkpoints")
	q.show.command("the Hub: its certificates, its fleet; cut claude off, and let it come back with a new certificate",
		"tlsmcp cert list", "tlsmcp hub fleet", "tlsmcp cert revoke --identity "+agentIdentity+" --wait", "tlsmcp cert lift --identity "+agentIdentity,
		"tlsmcp cert issue --type agent --service "+agentName+" --force")
	q.show.command("the configuration in effect; edit the file, then have it read again", "tlsmcp config show tools.toml", "tlsmcp reload")
	q.show.command("the handshake, as openssl sees it", fmt.Sprintf("openssl s_client -connect %s -CAfile ca.crt -cert %s.crt -key %s.key -brief </dev/null", q.orders.listen, allowedName, allowedName))
	q.show.line("\n%s What clients get shows here as it happens:\n", q.show.paint.bold("Ctrl-C stops everything and cleans up."))
}
