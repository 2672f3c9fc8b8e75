package daemon

import (
	"fmt"
	"slices"

	"cyphers.ai/tlsmcp/daemon/link"
	"cyphers.ai/tlsmcp/daemon/mcpgate"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/audit"
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
		Call: d.called, Ask: d.mayStay, ToolChanged: d.toolChanged,
	})
	if err != nil {
		return err
	}
	d.gateway = g
	d.proxy.Answer(g.Handler)
	d.applyRules()
	return nil
}

// toolChanged alerts of a tool that is not what was approved: the record and the
// Hub's webhooks.
func (d *Daemon) toolChanged(tool, agent string) {
	const code = "tool_changed"
	now := d.now()
	detail := fmt.Sprintf("the MCP server describes the tool %q otherwise than it is pinned", tool)
	d.log.Warn("alert", event.KeyCode, code, event.KeyDetail, detail)
	if d.link != nil {
		d.link.Record(&hubv1.Event{Id: link.EventID(now), Time: hub.Stamp(now), Kind: "alert", Outcome: code, Detail: detail, Identity: agent,
			Attributes: map[string]string{"tool": tool}})
	}
}

// called notes a call that has ended.
func (d *Daemon) called(c event.Call) {
	if c.Detail == "" && c.Reason != "" {
		c.Detail = c.Reason.Sentence()
	}
	d.events.takeCall(c)
	d.agents.called(&c)
	d.record(audit.FromCall(&c))
}

// applyRules makes the gateway follow the rules of the file and, behind them, the
// Hub's.
func (d *Daemon) applyRules() {
	if d.gateway == nil {
		return
	}
	cfg := d.config().MCPGateway
	cfg.Rules = slices.Clone(cfg.Rules)
	for _, r := range d.policy.Load().GetMcpRules() {
		cfg.Rules = append(cfg.Rules, config.MCPRule{Agents: r.GetAgents(), Tools: r.GetTools(), Resources: r.GetResources(),
			Prompts: r.GetPrompts(), Methods: r.GetMethods(), Allow: r.GetEffect() == "allow"})
	}
	d.gateway.SetPolicy(cfg)
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
