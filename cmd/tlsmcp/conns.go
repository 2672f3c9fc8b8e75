package main

import (
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/pkg/text"
)

// newConns is `tlsmcp conns`.
func newConns(s stdio) *cobra.Command {
	d := new(daemonConn)
	r := &controlv1.ListConnectionsRequest{}
	cmd := &cobra.Command{Use: "conns", Short: "List the open connections, or close some", Args: atMost(0), RunE: func(cmd *cobra.Command, _ []string) error {
		all, err := ask(cmd.Context(), d, (*controlclient.Client).ListConnections, r)
		if err != nil {
			return err
		}
		return d.print(s, all, func() error {
			rows := [][]string{{"ID", "IDENTITY", "REMOTE", "SINCE", "PROTOCOL", "REQUESTS", "IN", "OUT", "STATE", "SERIAL"}}
			for _, c := range all.GetConnections() {
				rows = append(rows, []string{fmt.Sprint(c.GetId()), orAnonymous(c.GetIdentity()), c.GetRemote(), when(c.GetStartedAt()), c.GetAlpn(),
					fmt.Sprint(c.GetRequests()), text.Bytes(c.GetBytesIn()), text.Bytes(c.GetBytesOut()), c.GetPhase(), c.GetSerial()})
			}
			if err := table(s, rows); err != nil {
				return err
			}
			if more := int(all.GetTotal()) - len(all.GetConnections()); more > 0 {
				fmt.Fprintf(s.err, "tlsmcp: %d more; --limit N shows them\n", more)
			}
			return nil
		})
	}}
	d.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&r.Identity, "identity", "", "of this identity")
	f.StringVar(&r.Serial, "serial", "", "of the certificate with this serial number")
	f.Uint32Var(&r.Limit, "limit", 1000, "at most `N`")
	cmd.AddCommand(newConnsClose(s, d))
	return cmd
}

func newConnsClose(s stdio, d *daemonConn) *cobra.Command {
	r := &controlv1.CloseConnectionsRequest{}
	cmd := &cobra.Command{Use: "close", Short: "Close connections; the client may come again", Args: atMost(0),
		Long: `close cuts connections at once. It does not keep the client out: tlsmcp cert
revoke does.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.GetId() == 0 && r.GetIdentity() == "" && r.GetSerial() == "" {
				return usageError(cmd, "say which: --id, --identity or --serial")
			}
			done, err := ask(cmd.Context(), d, (*controlclient.Client).CloseConnections, r)
			if err != nil {
				return err
			}
			return d.print(s, done, func() error {
				_, err := fmt.Fprintf(s.out, "closed %d\n", done.GetClosed())
				return err
			})
		}}
	f := cmd.Flags()
	f.Uint64Var(&r.Id, "id", 0, "the connection with this number")
	f.StringVar(&r.Identity, "identity", "", "all of this identity")
	f.StringVar(&r.Serial, "serial", "", "all of the certificate with this serial number")
	cmd.MarkFlagsMutuallyExclusive("id", "identity", "serial")
	return cmd
}
