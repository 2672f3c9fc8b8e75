package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/pkg/version"
)

// newVersion is `tlsmcp version`.
func newVersion(s stdio) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show which build this is",
		Args:  atMost(0),
		RunE: func(*cobra.Command, []string) error {
			v := version.Get()
			if asJSON {
				return json.NewEncoder(s.out).Encode(v)
			}
			_, err := fmt.Fprintf(s.out, "tlsmcp %s\n", v)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}
