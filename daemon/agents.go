package daemon

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/pkg/event"
)

// agents is who called the MCP server since the daemon started.
type agents struct {
	mu sync.Mutex // guards what follows
	by map[string]*controlv1.Agent
}

const (
	agentsMost  = 10_000 // remembered at once
	serialsMost = 8      // of one agent: the last ones
)

func (a *agents) called(c *event.Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.by[c.Identity]
	if g == nil {
		if a.by == nil || len(a.by) >= agentsMost {
			a.by = map[string]*controlv1.Agent{} // who calls again is seen again
		}
		g = &controlv1.Agent{Identity: c.Identity, FirstSeen: timestamppb.New(c.Time)}
		a.by[c.Identity] = g
	}
	g.Calls++
	switch c.Outcome {
	case event.CallRefused, event.CallCut:
		g.Refused++
	case event.CallToolError, event.CallProtocolError:
		g.Failed++
	}
	g.LastSeen, g.LastMethod = timestamppb.New(c.Time), c.Method
	if c.Method == "tools/call" {
		g.LastTool = c.Target
	}
	if c.Serial != "" && !slices.Contains(g.GetSerials(), c.Serial) {
		g.Serials = append(g.Serials, c.Serial)
		g.Serials = g.Serials[max(0, len(g.Serials)-serialsMost):]
	}
}

// list is a copy, last seen first.
func (a *agents) list() []*controlv1.Agent {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*controlv1.Agent, 0, len(a.by))
	for _, g := range a.by {
		all = append(all, &controlv1.Agent{Identity: g.GetIdentity(), Serials: slices.Clone(g.GetSerials()), Calls: g.GetCalls(), Refused: g.GetRefused(), Failed: g.GetFailed(),
			FirstSeen: g.GetFirstSeen(), LastSeen: g.GetLastSeen(), LastMethod: g.GetLastMethod(), LastTool: g.GetLastTool()})
	}
	slices.SortFunc(all, func(a, b *controlv1.Agent) int {
		return cmp.Or(b.GetLastSeen().AsTime().Compare(a.GetLastSeen().AsTime()), strings.Compare(a.GetIdentity(), b.GetIdentity()))
	})
	return all
}
