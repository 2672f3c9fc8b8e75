package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"

	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/text"
)

// refusal is why a call was not done, for a model to read: what, and what to do
// next.
type refusal struct{ code, detail, next string }

func (r *refusal) Error() string { return r.detail }

// refused makes a refusal.
func refused(code, next, format string, args ...any) *refusal {
	return &refusal{code: code, detail: fmt.Sprintf(format, args...), next: next}
}

const noHub = "no_hub"

// explain makes a refusal of what a call to the daemon or the Hub failed with.
func (s *Server) explain(err error) error {
	var r *refusal
	switch {
	case err == nil || errors.As(err, &r):
		return err
	case errors.Is(err, controlclient.ErrNoHub):
		return refused(noHub, "the person sets hub.url in the sidecar's configuration (\"local\" for a Hub on this host)", "%s", err)
	}
	if p := hubclient.Problem(err); p != nil {
		next := p.GetHint()
		if p.GetCode() == "not_found" { // the Hub's is a command of the person's
			next = "tlsmcp_cert_list shows what there is"
		}
		return refused(p.GetCode(), next, "%s", p.GetDetail())
	}
	t, away := s.o.Client.Explain(err)
	if away {
		return refused("no_daemon", t.Hint, "%s", t.Detail)
	}
	return refused("failed", t.Hint, "%s", t.Detail)
}

// explainHub is explain for a call to the Hub, which may be away while the
// daemon is there.
func (s *Server) explainHub(err error) error {
	if hubclient.Unreachable(err) {
		return refused("hub_unreachable", "tlsmcp_proxy_status shows the sidecar's own line to the Hub; on the Hub's host, systemctl status tlsmcp-hub",
			"the Hub does not answer: %s", hubclient.Explain(err))
	}
	return s.explain(err)
}

// ofPage is explain for a call that asked for a page: what is wrong with the
// cursor is said of the cursor.
func (s *Server) ofPage(err error, cursor string) error {
	err = s.explain(err)
	if r, ok := errors.AsType[*refusal](err); ok && cursor != "" && (r.code == "bad_page_token" || strings.Contains(r.detail, "page_token")) {
		return errBadCursor()
	}
	return err
}

func errBadCursor() error {
	return refused("bad_cursor", "leave cursor out to begin again, and keep the other arguments as they were from page to page", "this cursor was not given by this tool, for these arguments")
}

// failure is the answer of a tool that was not done.
func failure(err error) *mcp.CallToolResult {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		r = &refusal{code: "failed", detail: err.Error()}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			r = &refusal{"timeout", "it was not finished in time", "try once more; ask for less with limit"}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Not done (%s): %s", r.code, clean(r.detail, 2000))
	if r.next != "" {
		fmt.Fprintf(&b, "\nWhat to do: %s", clean(r.next, 1000))
	}
	return mcp.NewToolResultError(b.String())
}

// clean makes a text that came from elsewhere harmless and short: one line of at
// most so many bytes, in which nothing is hidden from the person who reads along.
func clean(s string, most int) string { return text.Cut(text.Line(s), most) }

// quoted sets off from our own words what others wrote in several: whoever reads
// it must see where it begins and ends.
func quoted(s string) string {
	if strings.ContainsAny(s, " \"") {
		return strconv.Quote(s)
	}
	return s
}
