package main

import (
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
				p := statusPage{w: s.out, st: st, paint: painter(colours(s.out)), width: widthOf(s.out)}
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
	return max(now.AsTime().Sub(t.AsTime()), 0) // clocks differ
}
