package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/text"
)

// quickCall is one call of MCP, in the revision that has no sessions: each says
// everything, so that it can be made by curl as well.
type quickCall struct{ method, tool, arguments string }

const (
	mcpRevision   = "2026-07-28"
	agentIdentity = "spiffe://quickstart.local/agent/" + agentName
)

func (c quickCall) headers() [][2]string {
	all := [][2]string{{"Content-Type", "application/json"}, {"Accept", "application/json, text/event-stream"},
		{"MCP-Protocol-Version", mcpRevision}, {"Mcp-Method", c.method}}
	if c.tool != "" {
		all = append(all, [2]string{"Mcp-Name", c.tool})
	}
	return all
}

func (c quickCall) body() string {
	const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"` + mcpRevision + `",` +
		`"io.modelcontextprotocol/clientInfo":{"name":"quickstart","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}`
	params := meta
	if c.tool != "" {
		params = fmt.Sprintf(`"name":%q,"arguments":{%s},%s`, c.tool, c.arguments, meta)
	}
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":{%s}}`, c.method, params)
}

// quickAnswer is what came of a call.
type quickAnswer struct {
	Result struct {
		Content []struct{ Text string }
		Tools   []struct{ Name string }
	}
	Error struct {
		Message string
		Data    struct{ Reason event.Reason }
	}
}

// text is what was answered: what a tool said, or the names of tools.
func (a *quickAnswer) text() string {
	var all []string
	for _, c := range a.Result.Content {
		all = append(all, c.Text)
	}
	for _, t := range a.Result.Tools {
		all = append(all, t.Name)
	}
	return strings.Join(all, ", ")
}

// ask makes one call as an agent.
func (s *sidecar) ask(ctx context.Context, client *http.Client, c quickCall) (*quickAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s.listen+"/mcp", strings.NewReader(c.body()))
	if err != nil {
		return nil, err
	}
	for _, h := range c.headers() {
		r.Header.Set(h[0], h[1])
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	// A call that takes long is answered as a stream, whose last event it is.
	if i := strings.LastIndex(string(raw), "data: "); i >= 0 && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		raw = raw[i+len("data: "):]
	}
	a := new(quickAnswer)
	if err := json.Unmarshal(raw, a); err != nil {
		return nil, fmt.Errorf("%s: %q is no answer: %w", resp.Status, raw, err)
	}
	return a, nil
}

// agentSteps are what the agent does; reason is why it may not.
func (q *quick) agentSteps() []agentStep {
	return []agentStep{
		{"claude asks which tools there are", quickCall{method: "tools/list"}, "add, who_am_i", "", "; the server has a third, which claude may not use"},
		{"claude adds 20 and 22", quickCall{"tools/call", "add", `"a":20,"b":22`}, "42", "", ""},
		{"claude asks the server who calls", quickCall{"tools/call", "who_am_i", ""}, agentIdentity, "", ""},
		{"claude deletes all orders", quickCall{"tools/call", "delete_orders", ""}, "", event.MCPForbidden, "; the server was not asked"},
	}
}

type agentStep struct {
	who    string
	call   quickCall
	want   string
	reason event.Reason
	note   string
}

// showAgent has an agent use the MCP server's tools, and others try.
func (q *quick) showAgent(ctx context.Context) error {
	transport := &http.Transport{TLSClientConfig: q.client(agentName, tls.VersionTLS13)}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for _, s := range q.agentSteps() {
		started := time.Now()
		a, err := q.tools.ask(ctx, client, s.call)
		if err != nil {
			return fmt.Errorf("%s: %w", s.who, err)
		}
		took := time.Since(started)
		if a.text() != s.want || a.Error.Data.Reason != s.reason {
			return fmt.Errorf("%s: the answer is %q, %q; it must be %q, %q", s.who, a.text(), a.Error.Message, s.want, s.reason)
		}
		if s.reason == "" {
			q.show.step(true, s.who, "let in", took)
		} else {
			q.show.step(false, s.who, "refused: "+string(s.reason), took)
		}
		q.show.notes("the answer: " + a.text() + a.Error.Message + s.note)
	}
	for _, r := range []struct {
		who, cert string
		reason    event.Reason
	}{
		{"an agent without a certificate", "", event.NoCertificate},
		{"payment-api: no agent that is on the list", allowedName, event.NotAllowed},
	} {
		if err := q.tools.showRefused(ctx, q.show, r.who, q.client(r.cert, tls.VersionTLS13), r.reason); err != nil {
			return err
		}
	}
	return nil
}

// showRecord finds the agent's calls in the sidecar's audit log, and checks it.
func (q *quick) showRecord(ctx context.Context) error {
	want := len(q.agentSteps())
	found, err := q.awaitRecord(ctx, want)
	if err != nil {
		return err
	}
	for i := len(found) - 1; i >= 0; i-- { // it comes newest first
		if found[i].GetIdentity() != agentIdentity {
			return fmt.Errorf("the record names %q as who called; it must be %s", found[i].GetIdentity(), agentIdentity)
		}
		q.show.line("  %s", eventLine(found[i], q.show.paint, 0))
	}
	started := time.Now()
	v, err := ask(ctx, &q.tools.ctl, (*controlclient.Client).VerifyAudit, &controlv1.VerifyAuditRequest{})
	if err != nil {
		return err
	}
	if !v.GetOk() {
		return fmt.Errorf("the record cannot be verified: %s", strings.Join(v.GetFaults(), "; "))
	}
	q.show.step(true, fmt.Sprintf("all %d entries are chained by hash, and signed", v.GetEntries()), "verified", time.Since(started))
	return nil
}

// awaitRecord waits until the calls are in the record, which is written behind
// them.
func (q *quick) awaitRecord(ctx context.Context, want int) ([]*controlv1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	for {
		found, err := ask(ctx, &q.tools.ctl, (*controlclient.Client).SearchAudit, &controlv1.SearchAuditRequest{Kind: "mcp"})
		if err != nil {
			return nil, err
		}
		if n := len(found.GetEvents()); n >= want {
			return found.GetEvents(), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %s are in the record", len(found.GetEvents()), text.Plural(want, "call"))
		case <-time.After(10 * time.Millisecond):
		}
	}
}
