package config

import "strings"

// gap is a key whose effect this build lacks. It is warned of when the file sets
// the key, or any key of the section that it names.
type gap struct {
	key string
	why string // it has no effect, and what has; ends the sentence
}

// gaps is what is not built yet. Whoever builds one deletes its row.
func gaps() []gap {
	return []gap{
		{key: "client_cert", why: "it belongs to outbound connections, which come later. How long certificates live is the policy of the Hub: tlsmcp hub policy set --default-ttl, --max-ttl"},
	}
}

// gaps warns of what the file asks for and this build lacks.
func (r *resolver) gaps() {
	for _, g := range gaps() {
		if r.set(g.key) {
			r.warn(g.key, "", "has no effect: "+g.why)
		}
	}
}

// reloadable reports whether SIGHUP applies a change of the key.
func reloadable(key string) bool {
	return strings.HasPrefix(key, "mtls.") || strings.HasPrefix(key, "server_cert.") ||
		strings.HasPrefix(key, "mcp_gateway.rule") || key == "mcp_gateway.default" || key == "logging.level" || key == "listen.drain_timeout"
}
