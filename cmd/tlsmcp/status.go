package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
)

// newStatus is `tlsmcp status`.
func newStatus(s stdio) *cobra.Command {
	d := new(daemonConn)
	cmd := &cobra.Command{Use: "status", Short: "Show how the sidecar is", Args: atMost(0),
		Long: `status shows how this host's sidecar is: health, listeners, certificate, Hub,
revocation data, connections, and who was refused last.

Exit codes: 0 ready, 1 not ready, 3 no daemon is there.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := ask(cmd.Context(), d, (*controlclient.Client).GetStatus, &controlv1.GetStatusRequest{})
			if err != nil {
				return err
			}
			err = d.print(s, st, func() error {
				p := statusPage{w: s.out, st: st, paint: painter(colours(s.out))}
				p.print()
				return nil
			})
			if err == nil && !st.GetReady() {
				return &failure{code: exitRefused}
			}
			return err
		}}
	d.flags(cmd)
	return cmd
}

// painter colours text by what it says; false: not at all.
type painter bool

func (p painter) as(code, text string) string {
	if !p || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p painter) good(t string) string { return p.as("32", t) }
func (p painter) bad(t string) string  { return p.as("31", t) }
func (p painter) warn(t string) string { return p.as("33", t) }
func (p painter) dim(t string) string  { return p.as("2", t) }
func (p painter) bold(t string) string { return p.as("1", t) }

// mark is a glyph with a colour: state is told by shape as well.
func (p painter) mark(ok, grave bool) string {
	switch {
	case ok:
		return p.good("✓")
	case grave:
		return p.bad("×")
	}
	return p.warn("!")
}

// statusPage is the picture of a sidecar.
type statusPage struct {
	w     io.Writer
	st    *controlv1.Status
	paint painter
}

func (p *statusPage) line(label, format string, args ...any) {
	fmt.Fprintf(p.w, "  %s %s\n", p.paint.dim(fmt.Sprintf("%-12s", label)), printable2(fmt.Sprintf(format, args...)))
}

// printable2 is printable for text that may be coloured already.
func printable2(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\x1b' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func (p *statusPage) print() {
	st := p.st
	state := p.paint.good("● ready")
	switch {
	case st.GetDraining():
		state = p.paint.warn("● draining")
	case !st.GetReady():
		state = p.paint.bad("● not ready")
	}
	fmt.Fprintf(p.w, "%s  %s  %s\n\n", p.paint.bold("tlsmcpd "+printable(st.GetServiceId())), state,
		p.paint.dim(fmt.Sprintf("%s, up %s, pid %d", st.GetVersion(), span(since(st.GetNow(), st.GetStartedAt())), st.GetPid())))
	p.line("listens", "%s  mTLS %s", strings.Join(st.GetListeners(), " "), p.mode(st.GetMode()))
	p.line("backend", "%s", st.GetBackend())
	if m := st.GetFips(); m != "" {
		p.line("crypto", "FIPS 140-3 mode, %s: AES-GCM, NIST curves and ML-KEM hybrids only", p.paint.good("uses validated module "+m))
	}
	p.certificate()
	p.hub()
	p.revocation()
	c := st.GetCounters()
	p.line("connections", "%d open of %d identities; %d accepted (%.1f/s), %s refused (%.1f/s)", c.GetConnections(), c.GetIdentities(),
		c.GetAccepted(), c.GetAcceptedRate(), p.refusedCount(c.GetRefused()), c.GetRefusedRate())
	p.line("traffic", "%d requests (%.1f/s), %s in, %s out", c.GetRequests(), c.GetRequestRate(), bytesOf(c.GetBytesIn()), bytesOf(c.GetBytesOut()))
	if m := sparkline(c.GetHandshakesPerMinute()); m != "" {
		p.line("handshakes", "%s per minute", m)
	}
	p.audit()
	p.checks()
	p.refusals()
}

func (p *statusPage) mode(m string) string {
	if m == "required" {
		return p.paint.good(m)
	}
	return p.paint.warn(m)
}

func (p *statusPage) refusedCount(n uint64) string {
	if n == 0 {
		return "0"
	}
	return p.paint.warn(fmt.Sprint(n))
}

func (p *statusPage) certificate() {
	c := p.st.GetCertificate()
	if c == nil {
		p.line("certificate", "%s", p.paint.bad("none yet: nobody can connect"))
		return
	}
	left, life := c.GetNotAfter().AsTime().Sub(p.st.GetNow().AsTime()), c.GetNotAfter().AsTime().Sub(c.GetNotBefore().AsTime())
	text := span(left) + " left"
	switch {
	case left <= 0:
		text = p.paint.bad("expired " + span(-left) + " ago")
	case left < life/10:
		text = p.paint.bad(text)
	case left < life/3:
		text = p.paint.warn(text)
	default:
		text = p.paint.good(text)
	}
	p.line("certificate", "%s  %s  %s", c.GetIdentity(), text, p.paint.dim("from "+c.GetProvider()))
	for _, trouble := range []string{c.GetError(), c.GetWarning()} {
		if trouble != "" {
			p.line("", "%s", p.paint.warn(trouble))
		}
	}
}

func (p *statusPage) hub() {
	h := p.st.GetHub()
	where := cmp.Or(h.GetUrl(), h.GetSocket())
	switch {
	case h.GetKind() == "none":
		p.line("hub", "%s", p.paint.dim("none"))
	case h.GetConnected():
		p.line("hub", "%s %s  revocations at %d, heard of %s ago", where, p.paint.good("connected"), h.GetSequence(), span(since(p.st.GetNow(), h.GetFreshAt())))
	default:
		p.line("hub", "%s %s since %s; revocations at %d", where, p.paint.bad("away"), when(h.GetSince()), h.GetSequence())
	}
	if h.GetError() != "" {
		p.line("", "%s", p.paint.warn(h.GetError()))
	}
}

func (p *statusPage) revocation() {
	t := p.st.GetTrust()
	entries, late := 0, 0
	for _, s := range t.GetSources() {
		entries += int(s.GetEntries())
		if !s.GetOk() {
			late++
		}
	}
	text := fmt.Sprintf("%s, %d sources with %d entries", t.GetRevocationMode(), len(t.GetSources()), entries)
	if late > 0 {
		text += ", " + p.paint.bad(fmt.Sprintf("%d not current", late))
	}
	if t.GetOcsp() != "off" && t.GetOcsp() != "" {
		text += ", OCSP " + t.GetOcsp()
	}
	p.line("trust", "%s", text)
}

func (p *statusPage) audit() {
	a := p.st.GetAudit()
	if a == nil {
		return
	}
	text := fmt.Sprintf("%d entries in %s", a.GetSequence(), a.GetDir())
	if a.GetLost() > 0 {
		text += ", " + p.paint.bad(fmt.Sprintf("%d lost", a.GetLost()))
	}
	p.line("audit", "%s", text)
	if a.GetError() != "" {
		p.line("", "%s", p.paint.bad(a.GetError()))
	}
	for _, sink := range a.GetSinks() {
		if !sink.GetOk() {
			p.line("", "%s", p.paint.warn("sink "+sink.GetName()+": "+sink.GetDetail()))
		}
	}
}

// checks shows what is not well: what is, has been shown above.
func (p *statusPage) checks() {
	head := false
	for _, c := range p.st.GetChecks() {
		if c.GetOk() {
			continue
		}
		if !head {
			fmt.Fprintf(p.w, "\n%s\n", p.paint.bold("Not well"))
			head = true
		}
		fmt.Fprintf(p.w, "  %s %s: %s %s\n", p.paint.mark(false, c.GetRequired()), printable(c.GetName()), printable(c.GetDetail()), p.paint.dim(sinceText(c.GetSince())))
	}
}

func (p *statusPage) refusals() {
	const most = 5
	all := p.st.GetRefusals()
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(p.w, "\n%s\n", p.paint.bold("Refused last"))
	for _, e := range all[:min(len(all), most)] {
		fmt.Fprintf(p.w, "  %s\n", eventLine(e, p.paint))
	}
}

func sinceText(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return "(since " + when(t) + ")"
}

func since(now, t *timestamppb.Timestamp) time.Duration {
	if t == nil {
		return 0
	}
	return now.AsTime().Sub(t.AsTime())
}

// span writes how long something lasts, in its two largest units.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd %dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm %ds", d/time.Minute, d%time.Minute/time.Second)
	case d >= time.Second:
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return fmt.Sprintf("%dms", d/time.Millisecond)
}

// bytesOf writes a number of bytes in the unit that fits.
func bytesOf(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[u])
}

// sparkline draws numbers as a row of bars; empty when there is nothing to see.
func sparkline(values []uint32) string {
	bars := []rune("▁▂▃▄▅▆▇█")
	var most uint32
	for _, v := range values {
		most = max(most, v)
	}
	if most == 0 || len(values) < 2 {
		return ""
	}
	var b strings.Builder
	for _, v := range values {
		b.WriteRune(bars[int(uint64(v)*uint64(len(bars)-1)/uint64(most))])
	}
	return b.String()
}
