package daemon

import (
	"cyphers.ai/tlsmcp/daemon/mcpgate"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// newGateway puts the MCP gateway between the front and the backend, if the
// backend speaks MCP.
func (d *Daemon) newGateway(cfg *config.Config) error {
	if cfg.Backend.Protocol != config.ProtocolMCP && cfg.Backend.Protocol != config.ProtocolMCPStdio {
		return nil
	}
	g, err := mcpgate.New(mcpgate.Options{
		Log: d.log, Now: d.now, Backend: cfg.Backend, Gateway: cfg.MCPGateway, StateDir: cfg.StateDir,
		Call: d.events.takeCall, Ask: d.mayStay,
	})
	if err != nil {
		return err
	}
	d.gateway = g
	d.proxy.Answer(g.Handler)
	return nil
}

// recheckSessions ends the MCP sessions that were used with a certificate that
// may not be in any more, whether or not it has a connection open.
func (d *Daemon) recheckSessions() {
	if d.gateway != nil {
		d.logSessions(d.gateway.Recheck())
	}
}

// recheckExpiredSessions is recheckSessions for certificates that expired.
func (d *Daemon) recheckExpiredSessions() {
	if d.gateway != nil {
		d.logSessions(d.gateway.RecheckExpired())
	}
}

func (d *Daemon) logSessions(n int) {
	if n > 0 {
		d.log.Info("mcp sessions ended", event.KeyCount, n)
	}
}
