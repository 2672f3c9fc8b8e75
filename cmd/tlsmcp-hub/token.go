package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"cyphers.ai/tlsmcp/hub/service"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubjson"
)

func newToken() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens for people, automation and joining hosts", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newTokenCreate(), newTokenList(), newTokenRevoke())
	return cmd
}

func newTokenCreate() *cobra.Command {
	var d data
	var r hubv1.CreateTokenRequest
	var join, asJSON bool
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token and print it, this once",
		Long: `create makes a token and prints it alone on standard output; the Hub keeps a
hash of it only. Without --join it is a bearer token, for a role and the
services that --service names (a * stands for any text). With --join it lets one
host join as a sidecar of the service.`,
		Example: `  tlsmcp-hub token create --role operator --ttl 30d
  tlsmcp-hub token create --join --service payment-api --ttl 1h`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r.Kind = "bearer"
			if join {
				r.Kind = "join"
			}
			return d.with(cmd, func(ctx context.Context, s *service.Service) error {
				made, err := s.CreateToken(ctx, &r)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd, made)
				}
				fmt.Fprintln(cmd.OutOrStdout(), made.GetToken())
				return nil
			})
		},
	}
	d.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&r.Role, "role", "", "viewer, operator or admin")
	f.StringVar(&r.Service, "service", "", "which services it is for; empty: all")
	f.StringVar(&r.Ttl, "ttl", "", `how long it is good, such as "12h" or "30d" (default 90d, join tokens 1h)`)
	f.StringVar(&r.Note, "note", "", "what it is for, in words")
	f.BoolVar(&join, "join", false, "make a join token")
	f.BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func printJSON(cmd *cobra.Command, m proto.Message) error {
	out, err := hubjson.MarshalIndent(m)
	if err == nil {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", out)
	}
	return err
}

func newTokenList() *cobra.Command {
	var d data
	var asJSON bool
	cmd := &cobra.Command{Use: "list", Short: "Show the tokens, without their secrets", Args: none, RunE: func(cmd *cobra.Command, _ []string) error {
		return d.with(cmd, func(ctx context.Context, s *service.Service) error {
			list, err := s.ListTokens(ctx, &hubv1.ListTokensRequest{})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tKIND\tROLE\tSERVICE\tSTATUS\tEXPIRES\tNOTE")
			for _, t := range list.GetTokens() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.GetId(), t.GetKind(), t.GetRole(), t.GetService(), t.GetStatus(),
					t.GetExpiresAt().AsTime().Format("2006-01-02 15:04"), t.GetNote())
			}
			return w.Flush()
		})
	}}
	d.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func newTokenRevoke() *cobra.Command {
	var d data
	cmd := &cobra.Command{Use: "revoke ID", Short: "End a token", Args: one("the token's id"), RunE: func(cmd *cobra.Command, args []string) error {
		return d.with(cmd, func(ctx context.Context, s *service.Service) error {
			_, err := s.RevokeToken(ctx, &hubv1.RevokeTokenRequest{Id: args[0]})
			return err
		})
	}}
	d.flags(cmd)
	return cmd
}
