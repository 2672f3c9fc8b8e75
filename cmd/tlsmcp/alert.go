package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/text"
)

// newAlert is `tlsmcp alert`.
func newAlert(s stdio) *cobra.Command {
	h := new(hubConn)
	cmd := &cobra.Command{Use: "alert", Short: "See that alerts arrive",
		Long: `The Hub alerts of certificates that end or are refused, of an audit chain that does
not verify, of revocations that do not arrive or do not work, of keys that
everybody can read, of scores that fall, services that fall silent, and pinned
tools that change: to its log, to the events, and to the webhooks that take alerts.`}
	h.flags(cmd)
	test := &cobra.Command{Use: "test", Short: "Send a test alert to the webhooks, and see whether it arrives",
		Long: `test sends an alert that says it is a test to each webhook that takes alerts, and
waits for what becomes of it. One that arrived is noted for the score.

Exit codes: 0 every webhook took it, 1 one did not or there is none, 3 no Hub is there.`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := call(cmd.Context(), h, (*hubclient.Client).TestAlert, &hubv1.TestAlertRequest{})
			if err != nil {
				return err
			}
			paint := painter(colours(s.out))
			err = h.print(s, m, func() error {
				for _, d := range m.GetDeliveries() {
					said := "delivered"
					if !d.GetDelivered() {
						said = d.GetError()
					}
					fmt.Fprintf(s.out, "%s %s  %s\n", paint.mark(d.GetDelivered(), true), text.Clean(d.GetUrl()), text.Clean(said))
				}
				return nil
			})
			if err == nil && slices.ContainsFunc(m.GetDeliveries(), func(d *hubv1.AlertDelivery) bool { return !d.GetDelivered() }) {
				err = &failure{exitRefused, errors.New("a webhook did not take the alert"), "tlsmcp hub webhook list shows them; the Hub goes on trying for a day"}
			}
			return err
		}}
	cmd.AddCommand(test)
	return group(cmd)
}
