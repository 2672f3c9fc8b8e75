package daemon

import (
	"context"
	"slices"
	"strings"

	"cyphers.ai/tlsmcp/daemon/control"
	"cyphers.ai/tlsmcp/daemon/edge"
	"cyphers.ai/tlsmcp/daemon/mcpgate"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/hub"
	"cyphers.ai/tlsmcp/ipc/problem"
)

func (a *api) ListAgents(context.Context, *controlv1.ListAgentsRequest) (*controlv1.ListAgentsResponse, error) {
	if err := a.needsGateway(); err != nil {
		return nil, err
	}
	out := &controlv1.ListAgentsResponse{Agents: a.d.agents.list()}
	open := map[string]uint32{}
	a.d.conns.Select(func(c *edge.Conn) bool {
		if c.Peer != nil {
			open[c.Peer.ID]++
		}
		return false
	})
	sessions := a.d.gateway.SessionsByAgent()
	for _, g := range out.GetAgents() {
		g.Connections, g.Sessions = open[g.GetIdentity()], uint32(sessions[g.GetIdentity()])
	}
	return out, nil
}

func (a *api) needsGateway() error {
	if a.d.gateway == nil {
		return problem.New(problem.NotFound, "no_gateway", `set backend.protocol = "mcp"`, "no MCP server is behind this sidecar: the backend is %s", a.d.backendName())
	}
	return nil
}

func (a *api) ListTools(context.Context, *controlv1.ListToolsRequest) (*controlv1.ListToolsResponse, error) {
	if err := a.needsGateway(); err != nil {
		return nil, err
	}
	out := &controlv1.ListToolsResponse{Pinning: a.d.config().MCPGateway.PinTools}
	for _, p := range a.d.gateway.Pins() {
		out.Tools = append(out.Tools, tool(&p))
	}
	slices.SortFunc(out.GetTools(), func(a, b *controlv1.Tool) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out, nil
}

func tool(p *mcpgate.Pin) *controlv1.Tool {
	t := &controlv1.Tool{Name: p.Tool, Digest: p.Digest, Offered: p.Digest, State: "approved", ApprovedAt: hub.Stamp(p.Since), ChangedAt: hub.Stamp(p.ChangeAt)}
	if p.Changed != "" {
		t.State, t.Offered, t.Definition = "changed", p.Changed, string(p.Definition)
	}
	return t
}

// ApproveTools approves what was looked at: a tool whose definition has changed
// once more meanwhile is not approved.
func (a *api) ApproveTools(ctx context.Context, r *controlv1.ApproveToolsRequest) (*controlv1.ApproveToolsResponse, error) {
	if err := a.needsGateway(); err != nil {
		return nil, err
	}
	if r.GetAll() == (len(r.GetNames()) > 0) {
		return nil, problem.New(problem.Invalid, "one_of", "tlsmcp mcp tools lists them", "say which tools: names, or all")
	}
	out := &controlv1.ApproveToolsResponse{}
	for _, p := range a.d.gateway.Pins() {
		named := slices.Contains(r.GetNames(), p.Tool)
		if p.Changed == "" || !named && !r.GetAll() || named && r.GetDigest() != "" && r.GetDigest() != p.Changed {
			continue
		}
		if err := a.d.gateway.Approve(p.Tool, p.Changed); err != nil {
			return nil, err
		}
		t := tool(&mcpgate.Pin{Tool: p.Tool, Digest: p.Changed, Since: a.d.now()})
		t.ApprovedBy = control.From(ctx).String()
		out.Tools = append(out.Tools, t)
	}
	if len(out.GetTools()) == 0 {
		return nil, problem.New(problem.NotFound, "no_such_change", "tlsmcp mcp tools lists them", "no tool of that name has a change that waits for approval")
	}
	return out, nil
}
