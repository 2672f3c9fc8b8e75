package main

import (
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	"cyphers.ai/tlsmcp/pkg/text"
)

// newReload is `tlsmcp reload`.
func newReload(s stdio) *cobra.Command {
	d := new(daemonConn)
	cmd := &cobra.Command{Use: "reload", Short: "Have the sidecar read its configuration again", Args: atMost(0),
		Long: `reload has the sidecar read its configuration again, as systemctl reload does,
and waits until it is in force. When something is wrong with it everything stays
as it was.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := ask(cmd.Context(), d, (*controlclient.Client).Reload, &controlv1.ReloadRequest{})
			if err != nil {
				return err
			}
			return d.print(s, done, func() error {
				fmt.Fprintln(s.out, "reloaded")
				for _, k := range done.GetRestartKeys() {
					fmt.Fprintf(s.out, "%s takes effect at the next restart\n", text.Clean(k))
				}
				for _, w := range done.GetWarnings() {
					fmt.Fprintf(s.err, "tlsmcp: %s\n", text.Clean(w))
				}
				return nil
			})
		}}
	d.flags(cmd)
	return cmd
}

// newDrain is `tlsmcp drain`.
func newDrain(s stdio) *cobra.Command {
	d := new(daemonConn)
	cmd := &cobra.Command{Use: "drain", Short: "Stop the sidecar in good order", Args: atMost(0),
		Long: `drain stops the sidecar as systemctl stop does: no more connections are taken,
and those that are open may finish within listen.drain_timeout.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := ask(cmd.Context(), d, (*controlclient.Client).Drain, &controlv1.DrainRequest{})
			if err != nil {
				return err
			}
			return d.print(s, done, func() error {
				_, err := fmt.Fprintf(s.out, "draining %s\n", text.Plural(done.GetConnections(), "connection"))
				return err
			})
		}}
	d.flags(cmd)
	return cmd
}

// newLogLevel is `tlsmcp log-level`.
func newLogLevel(s stdio) *cobra.Command {
	d := new(daemonConn)
	levels := []string{"debug", "info", "warn", "error"}
	cmd := &cobra.Command{Use: "log-level LEVEL", Short: "Change the sidecar's log level until its next reload", Args: exactly(1, "a level: debug, info, warn or error"),
		ValidArgs: levels,
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := ask(cmd.Context(), d, (*controlclient.Client).SetLogLevel, &controlv1.SetLogLevelRequest{Level: args[0]})
			if err != nil {
				return err
			}
			return d.print(s, done, func() error {
				_, err := fmt.Fprintf(s.out, "the log level was %s and is %s\n", text.Clean(done.GetBefore()), args[0])
				return err
			})
		}}
	d.flags(cmd)
	return cmd
}
