package config

import "strings"

// gap is a key whose effect this build lacks. A gap without needs is warned of
// when the file sets the key, or any key of the section that it names; one
// with needs, when the effective configuration does. A gap that blocks cannot
// be served at all: a daemon that started would do something else than what it
// was told to.
type gap struct {
	key    string
	would  string // what it would do; ends the sentence
	hint   string
	needs  func(*Config) bool
	blocks bool
}

// gaps is what is not built yet. Whoever builds one deletes its row.
func gaps() []gap {
	return []gap{
		{key: "mcp", would: "it would configure tlsmcp as an MCP server"},
		{key: "client_cert", would: "it would bound the lifetime of client certificates that are issued"},
		{key: "fips.mode", blocks: true, needs: func(c *Config) bool { return c.FIPS },
			would: "on would refuse to run unless the validated cryptographic module is active",
			hint:  `use fips.mode = "off"`},
	}
}

// gaps warns of what c asks for and this build lacks.
func (r *resolver) gaps(c *Config) {
	for _, g := range gaps() {
		if g.needs == nil && !r.set(g.key) || g.needs != nil && !g.needs(c) {
			continue
		}
		message := "not built into this version yet; " + g.would
		if g.blocks {
			message += "; tlsmcpd will not start like this"
			r.unservable = append(r.unservable, r.about(g.key, message, g.hint))
		}
		r.warn(g.key, g.hint, message)
	}
}

// reloadable reports whether SIGHUP applies a change of the key.
func reloadable(key string) bool {
	return strings.HasPrefix(key, "mtls.") || strings.HasPrefix(key, "server_cert.") ||
		strings.HasPrefix(key, "mcp_gateway.rule") || key == "mcp_gateway.default" || key == "logging.level" || key == "listen.drain_timeout"
}
