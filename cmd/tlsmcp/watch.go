package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/ipc/hubjson"
	"cyphers.ai/tlsmcp/pkg/text"
)

// newWatch is `tlsmcp watch`.
func newWatch(s stdio) *cobra.Command {
	d := new(daemonConn)
	r := &controlv1.WatchEventsRequest{}
	var mcp, counters bool
	var count int
	cmd := &cobra.Command{Use: "watch", Short: "Show what happens at the sidecar, as it happens", Args: atMost(0),
		Long: `watch prints a line for each event: connections let in, refused and ended,
revocations, reloads, what operators did, and MCP calls. With --json each line is
a JSON object. A reader that is too slow misses events, and is told how many; the
sidecar never waits for it. When the daemon goes away watch waits for it and goes
on where it was.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := knownKinds(cmd, r.GetKinds()...); err != nil {
				return err
			}
			if mcp {
				r.Kinds = append(r.Kinds, "mcp")
			}
			w := &watcher{s: s, d: d, r: r, left: count, paint: painter(colours(s.out)), width: widthOf(s.out)}
			if counters {
				return w.counters(cmd.Context())
			}
			return w.run(cmd.Context())
		}}
	d.flags(cmd)
	f := cmd.Flags()
	f.Uint32Var(&r.Backlog, "last", 10, "begin with the last `N` events")
	f.Uint64Var(&r.FromSequence, "from", 0, "begin after the event with this sequence `NUMBER`")
	f.StringSliceVar(&r.Kinds, "kind", nil, "only these: accepted, refused, closed, revocation, certificate, reload, policy, control, mcp")
	f.StringVar(&r.Identity, "identity", "", "only of this identity")
	f.BoolVar(&r.RefusedOnly, "refused", false, "only refused connections")
	f.BoolVar(&mcp, "mcp", false, "only MCP calls")
	f.BoolVar(&counters, "counters", false, "the counters, once a second, instead")
	f.IntVar(&count, "count", 0, "end after `N` events; 0: never")
	return cmd
}

// watcher follows a sidecar.
type watcher struct {
	s     stdio
	d     *daemonConn
	r     *controlv1.WatchEventsRequest
	left  int // events to print; 0: all
	paint painter
	width int  // of the terminal; 0: none
	seen  bool // the daemon was there once
}

// enough ends a watch that printed as many events as it should.
var errEnough = fmt.Errorf("enough")

func (w *watcher) run(ctx context.Context) error {
	const pause = time.Second
	for {
		err := w.follow(ctx)
		switch {
		case err == errEnough || ctx.Err() != nil:
			return nil
		case !w.seen:
			return err
		}
		fmt.Fprintf(w.s.err, "tlsmcp: %v; waiting for it\n", err)
		for w.seen = false; !w.seen; { // until it is there again
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
			if _, err := ask(ctx, w.d, (*controlclient.Client).Hello, &controlv1.HelloRequest{}); err == nil {
				w.seen = true
			}
		}
	}
}

func (w *watcher) follow(ctx context.Context) error {
	c := w.d.connect()
	defer c.Close()
	stream, err := c.WatchEvents(ctx, w.r)
	if err != nil {
		return explainControl(c, err)
	}
	defer stream.Close()
	for stream.Receive() {
		w.seen = true
		b := stream.Msg()
		if b.GetDropped() > 0 {
			fmt.Fprintf(w.s.err, "tlsmcp: %s missed\n", text.Plural(b.GetDropped(), "event"))
		}
		for _, e := range b.GetEvents() {
			if err := w.print(e); err != nil {
				return err
			}
		}
		if n := len(b.GetEvents()); n > 0 {
			w.r.FromSequence = b.GetEvents()[n-1].GetSequence()
		}
	}
	if err := explainControl(c, stream.Err()); err != nil {
		return err
	}
	return &failure{exitUnreachable, fmt.Errorf("the daemon at %s ended the stream", c.Socket()), "it was stopped, or started again"}
}

func (w *watcher) print(e *controlv1.Event) error {
	line := eventLine(e, w.paint, w.width)
	if w.d.json {
		raw, err := hubjson.Marshal(e)
		if err != nil {
			return err
		}
		line = string(raw)
	}
	if _, err := fmt.Fprintln(w.s.out, line); err != nil {
		return errEnough // nobody reads any more
	}
	if w.left--; w.left == 0 {
		return errEnough
	}
	return nil
}

func (w *watcher) counters(ctx context.Context) error {
	c := w.d.connect()
	defer c.Close()
	stream, err := c.WatchCounters(ctx, &controlv1.WatchCountersRequest{})
	if err != nil {
		return explainControl(c, err)
	}
	defer stream.Close()
	for stream.Receive() {
		m := stream.Msg()
		line := fmt.Sprintf("%s  %d open  %.1f/s in  %.1f/s refused  %.1f requests/s", m.GetTime().AsTime().Local().Format(time.TimeOnly),
			m.GetConnections(), m.GetAcceptedRate(), m.GetRefusedRate(), m.GetRequestRate())
		if w.d.json {
			raw, err := hubjson.Marshal(m)
			if err != nil {
				return err
			}
			line = string(raw)
		}
		if _, err := fmt.Fprintln(w.s.out, line); err != nil {
			return nil // nobody reads any more
		}
		if w.left--; w.left == 0 {
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return explainControl(c, stream.Err())
}

// eventLine is an event on one line: when, what, who, and why. On a terminal that
// is too narrow for the last, that has a line of its own.
func eventLine(e *controlv1.Event, paint painter, width int) string {
	head, detail := eventParts(e, paint, width)
	head = paint.dim(e.GetTime().AsTime().Local().Format("15:04:05.000")) + "  " + head
	if detail == "" {
		return fit(head, width)
	}
	if width == 0 || ansi.StringWidth(head)+2+ansi.StringWidth(detail) <= width {
		return head + "  " + detail
	}
	const indent = "              "
	return fit(head, width) + "\n" + fit(indent+paint.dim(ansi.Strip(detail)), width)
}

// eventParts is what happened, and what there is to say of it.
func eventParts(e *controlv1.Event, paint painter, width int) (head, detail string) {
	who := text.Clean(shortName(orAnonymous(e.GetIdentity()), width))
	switch e.GetKind() {
	case "accepted":
		return fmt.Sprintf("%s accepted  %s  %s", paint.good("✓"), who, paint.dim(text.Clean(e.GetRemote()))),
			paint.dim(text.Clean(fmt.Sprintf("%s %s  %.1fms", e.GetTlsVersion(), e.GetTlsGroup(), e.GetDurationMs())))
	case "refused":
		return fmt.Sprintf("%s refused   %s  %s  %s", paint.bad("×"), who, paint.bad(text.Clean(e.GetOutcome())), paint.dim(text.Clean(e.GetRemote()))), text.Clean(e.GetDetail())
	case "closed":
		return fmt.Sprintf("%s closed    %s  %s  %s", paint.dim("·"), who, text.Clean(e.GetOutcome()), paint.dim(text.Clean(e.GetRemote()))),
			paint.dim(text.Clean(fmt.Sprintf("%s, %s in, %s out, %s", text.Plural(e.GetRequests(), "request"), text.Bytes(e.GetBytesIn()), text.Bytes(e.GetBytesOut()),
				text.Span(time.Duration(e.GetDurationMs()*float64(time.Millisecond))))))
	}
	glyph := paint.good("•")
	if e.GetOutcome() != "" && e.GetOutcome() != "ok" {
		glyph = paint.warn("!")
	}
	parts := []string{glyph + " " + fmt.Sprintf("%-9s", text.Clean(e.GetKind()))}
	for _, part := range []string{e.GetActor(), shortName(e.GetIdentity(), width), e.GetMethod(), e.GetTarget()} {
		if part != "" {
			parts = append(parts, text.Clean(part))
		}
	}
	switch e.GetOutcome() {
	case "":
	case "ok":
		parts = append(parts, paint.good("ok"))
	default:
		parts = append(parts, paint.warn(text.Clean(e.GetOutcome())))
	}
	detail = text.Clean(e.GetDetail())
	if e.GetCount() > 0 && e.GetKind() == "revocation" {
		detail += " (" + text.Plural(e.GetCount(), "connection") + " cut)"
	}
	return strings.Join(parts, " "), strings.TrimSpace(detail)
}

func orAnonymous(identity string) string {
	if identity == "" {
		return "(no certificate)"
	}
	return identity
}
