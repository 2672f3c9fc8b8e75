package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/pkg/text"
)

// statusPage is the picture of a sidecar: who it is, how it is and what it does,
// side by side where there is room; then what is not well and who was refused.
type statusPage struct {
	w     io.Writer
	st    *controlv1.Status
	paint painter
	width int // of the terminal; 0: none, and lines are as long as they are
	lines []string
}

// sideBySide is from how many columns on two blocks stand beside each other.
const sideBySide = 120

func (p *statusPage) print() {
	p.head()
	p.emit(p.facts()...)
	if late := p.unwell(); len(late) > 0 {
		p.emit("", p.paint.bold("Not well"))
		for _, l := range late { // whole, however long
			fmt.Fprintln(p.w, text.Painted(l))
		}
	}
	if refused := p.refusals(); len(refused) > 0 {
		p.emit("", p.paint.bold("Refused last"))
		p.emit(refused...)
	}
}

// emit prints lines. What others named has been made printable.
func (p *statusPage) emit(lines ...string) {
	for _, l := range lines {
		fmt.Fprintln(p.w, fit(text.Painted(strings.TrimRight(l, " ")), p.width))
	}
}

// row is a label and what there is to say of it.
func (p *statusPage) row(label, format string, args ...any) {
	p.lines = append(p.lines, "  "+p.paint.dim(fmt.Sprintf("%-12s", label))+" "+fmt.Sprintf(format, args...))
}

// more is another line of a row.
func (p *statusPage) more(text string) {
	p.lines = append(p.lines, strings.Repeat(" ", 15)+text)
}

// block takes the rows that were made since the last.
func (p *statusPage) block() []string {
	lines := p.lines
	p.lines = nil
	return lines
}

func (p *statusPage) head() {
	st := p.st
	state := p.paint.good("● ready")
	switch {
	case st.GetDraining():
		state = p.paint.warn("● draining")
	case !st.GetReady():
		state = p.paint.bad("● not ready")
	}
	title := p.paint.bold("tlsmcpd "+text.Clean(st.GetServiceId())) + "  " + state
	about := p.paint.dim(text.Clean(fmt.Sprintf("%s, up %s, pid %d", st.GetVersion(), text.Span(since(st.GetNow(), st.GetStartedAt())), st.GetPid())))
	if p.width == 0 {
		p.emit(title+"  "+about, "")
		return
	}
	p.emit(pad(title, p.width-ansi.StringWidth(about))+about, p.paint.dim(strings.Repeat("─", p.width)))
}

// facts are the two blocks.
func (p *statusPage) facts() []string {
	st := p.st
	p.row("listens", "%s  mTLS %s", strings.Join(st.GetListeners(), " "), p.mode(st.GetMode()))
	p.row("backend", "%s", st.GetBackend())
	p.crypto()
	p.certificate()
	p.hub()
	p.trust()
	p.audit()
	standing := p.block()
	p.doing()
	if p.width < sideBySide {
		return slices.Concat(standing, []string{""}, p.block())
	}
	return columns(standing, p.block(), p.width*11/20)
}

// crypto is the module of FIPS mode, and what a handshake can be made with.
func (p *statusPage) crypto() {
	if p.st.GetFips() == "" {
		return
	}
	p.row("crypto", "FIPS 140-3 mode, %s", p.paint.good("uses validated module "+text.Clean(p.st.GetFips())))
	o := p.st.GetOffered()
	switch {
	case o == nil:
		p.more(p.paint.warn("what it offers has not been measured yet"))
	case len(o.GetUnapproved()) > 0:
		p.more(p.paint.bad("offers what is not approved: " + text.Clean(strings.Join(o.GetUnapproved(), ", "))))
	default:
		p.more(fmt.Sprintf("offers %s and %s, %s", text.Plural(len(o.GetSuites()), "suite"), text.Plural(len(o.GetGroups()), "group"), p.paint.good("all approved")) +
			p.paint.dim(", seen "+text.Span(since(p.st.GetNow(), o.GetMeasuredAt()))+" ago"))
	}
}

func (p *statusPage) mode(m string) string {
	if m == "required" {
		return p.paint.good(m)
	}
	return p.paint.warn(m)
}

func (p *statusPage) doing() {
	c := p.st.GetCounters()
	refused := text.Count(c.GetRefused())
	if c.GetRefused() > 0 {
		refused = p.paint.warn(refused)
	}
	p.row("connections", "%s open of %s", p.paint.bold(text.Count(uint64(c.GetConnections()))), text.Plural(c.GetIdentities(), "identity"))
	p.row("let in", "%s  %s", text.Count(c.GetAccepted()), p.rate(c.GetAcceptedRate()))
	p.row("refused", "%s  %s", refused, p.rate(c.GetRefusedRate()))
	p.row("requests", "%s  %s", text.Count(c.GetRequests()), p.rate(c.GetRequestRate()))
	p.row("traffic", "%s in, %s out", text.Bytes(c.GetBytesIn()), text.Bytes(c.GetBytesOut()))
	if c.GetMcpCalls() > 0 {
		refused := ""
		if n := c.GetMcpRefused(); n > 0 {
			refused = ", " + p.paint.warn(text.Count(n)+" refused")
		}
		p.row("MCP calls", "%s  %s%s", text.Count(c.GetMcpCalls()), p.rate(c.GetMcpRate()), refused)
	}
	minutes := c.GetHandshakesPerMinute()
	if len(minutes) > 1 && slices.Max(minutes) > 0 {
		p.row("handshakes", "%s", p.paint.good(text.Spark(minutes, 0, text.Bars())))
		p.more(p.paint.dim(fmt.Sprintf("a minute, the last %d; %s at most", len(minutes), text.Count(uint64(slices.Max(minutes))))))
	}
}

func (p *statusPage) rate(r float64) string { return p.paint.dim(fmt.Sprintf("%.1f/s", r)) }

func (p *statusPage) certificate() {
	c := p.st.GetCertificate()
	if c == nil {
		p.row("certificate", "%s", p.paint.bad("none yet: nobody can connect"))
		return
	}
	left, life := c.GetNotAfter().AsTime().Sub(p.st.GetNow().AsTime()), c.GetNotAfter().AsTime().Sub(c.GetNotBefore().AsTime())
	said, colour := text.Span(left)+" left", p.paint.good
	switch {
	case left <= 0:
		said, colour = "expired "+text.Span(-left)+" ago", p.paint.bad
	case left < life/10:
		colour = p.paint.bad
	case left < life/3:
		colour = p.paint.warn
	}
	p.row("certificate", "%s  %s", text.Clean(shortName(c.GetIdentity(), p.width)), p.paint.dim("from "+c.GetProvider()))
	if life > 0 {
		p.more(colour(meter(float64(left)/float64(life), 20)) + " " + colour(said) + p.paint.dim(" of "+text.Span(life)))
	}
	p.troubles(p.paint.warn, c.GetError(), c.GetWarning())
}

// troubles are sentences about a row.
func (p *statusPage) troubles(colour func(string) string, all ...string) {
	for _, t := range all {
		if t != "" {
			p.more(colour(text.Clean(t)))
		}
	}
}

func (p *statusPage) hub() {
	h := p.st.GetHub()
	where := text.Clean(cmp.Or(h.GetUrl(), h.GetSocket()))
	switch {
	case h.GetKind() == "none":
		p.row("hub", "%s", p.paint.dim("none"))
	case h.GetConnected():
		p.row("hub", "%s  %s", p.paint.good("connected"), where)
		p.more(fmt.Sprintf("revocations at %d, %s", h.GetSequence(), p.paint.dim("heard of "+text.Span(since(p.st.GetNow(), h.GetFreshAt()))+" ago")))
	default:
		p.row("hub", "%s since %s  %s", p.paint.bad("away"), when(h.GetSince()), where)
		p.more(fmt.Sprintf("revocations at %d", h.GetSequence()))
	}
	p.troubles(p.paint.warn, h.GetError())
}

func (p *statusPage) trust() {
	t := p.st.GetTrust()
	entries, late := 0, 0
	var due *timestamppb.Timestamp // when the first of them is
	for _, s := range t.GetSources() {
		entries += int(s.GetEntries())
		if !s.GetOk() {
			late++
		}
		if at := s.GetNextUpdate(); at != nil && (due == nil || at.AsTime().Before(due.AsTime())) {
			due = at
		}
	}
	said := fmt.Sprintf("%s, %s with %s", t.GetRevocationMode(), text.Plural(len(t.GetSources()), "source"), text.Plural(entries, "revocation"))
	if late > 0 {
		said += ", " + p.paint.bad(fmt.Sprintf("%d not current", late))
	}
	if t.GetOcsp() != "off" && t.GetOcsp() != "" {
		said += ", OCSP " + t.GetOcsp()
	}
	p.row("trust", "%s", said)
	if due == nil {
		return
	}
	if left := due.AsTime().Sub(p.st.GetNow().AsTime()); left > 0 {
		p.more(p.paint.dim("the next list is due in " + text.Span(left)))
	} else {
		p.more(p.paint.bad("the next list was due " + text.Span(-left) + " ago"))
	}
}

func (p *statusPage) audit() {
	a := p.st.GetAudit()
	if a == nil {
		return
	}
	said := fmt.Sprintf("%s in %s", text.Plural(a.GetSequence(), "entry"), text.Clean(a.GetDir()))
	if a.GetLost() > 0 {
		said += ", " + p.paint.bad(text.Count(a.GetLost())+" lost")
	}
	p.row("audit", "%s", said)
	p.troubles(p.paint.bad, a.GetError())
	for _, sink := range a.GetSinks() {
		if !sink.GetOk() {
			p.troubles(p.paint.warn, "sink "+sink.GetName()+": "+sink.GetDetail())
		}
	}
}

// unwell shows what is not well: what is, has been shown above.
func (p *statusPage) unwell() (lines []string) {
	for _, c := range p.st.GetChecks() {
		if !c.GetOk() {
			lines = append(lines, fmt.Sprintf("  %s %s: %s %s", p.paint.mark(false, c.GetRequired()), text.Clean(c.GetName()), text.Clean(c.GetDetail()), p.paint.dim(sinceText(c.GetSince()))))
		}
	}
	return lines
}

// refusals shows who was refused last, those of one kind together.
func (p *statusPage) refusals() (lines []string) {
	const most = 5
	type group struct {
		last  *controlv1.Event
		count int
	}
	var groups []group
	for _, e := range p.st.GetRefusals() { // newest first
		i := slices.IndexFunc(groups, func(g group) bool {
			return g.last.GetIdentity() == e.GetIdentity() && g.last.GetOutcome() == e.GetOutcome()
		})
		if i < 0 {
			i, groups = len(groups), append(groups, group{last: e})
		}
		groups[i].count++
	}
	who, why := 0, 0
	for _, g := range groups[:min(len(groups), most)] {
		who = max(who, ansi.StringWidth(p.who(g.last)))
		why = max(why, len(g.last.GetOutcome()))
	}
	for _, g := range groups[:min(len(groups), most)] {
		e := g.last
		lines = append(lines, fmt.Sprintf("  %s %s %s  %s  %s  %s", p.paint.bad("×"), p.clock(e.GetTime()), p.paint.warn(fmt.Sprintf("%4s", times(g.count))),
			pad(p.who(e), who), p.paint.bad(pad(text.Clean(e.GetOutcome()), why)), p.paint.dim(text.Clean(e.GetDetail()))))
	}
	if more := len(groups) - most; more > 0 {
		lines = append(lines, p.paint.dim(fmt.Sprintf("  and %s; tlsmcp watch --refused shows them", text.Plural(more, "other"))))
	}
	return lines
}

func (p *statusPage) who(e *controlv1.Event) string {
	return text.Clean(shortName(orAnonymous(e.GetIdentity()), p.width))
}

func (p *statusPage) clock(t *timestamppb.Timestamp) string {
	return p.paint.dim(t.AsTime().Local().Format(time.TimeOnly))
}

// times is how often, when it was more than once.
func times(n int) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf("%d×", n)
}
