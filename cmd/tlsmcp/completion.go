package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/audit"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/pkg/scan"
)

// completionPatience is how long the shell may wait for words that only the Hub
// or the sidecar knows.
const completionPatience = 2 * time.Second

// completer gives the words that a flag or an argument may have.
type completer func(ctx context.Context, cmd *cobra.Command) []string

// addCompletions gives the flags of all commands their words, by their names: a
// flag that is called the same means the same everywhere.
func addCompletions(root *cobra.Command) {
	flags := map[string]completer{
		"service":   serviceNames,
		"identity":  identities,
		"reason":    reasons,
		"type":      words("client", "server", "agent", "node"),
		"status":    words("valid", "expired", "revoked"),
		"role":      words("viewer", "operator", "admin"),
		"sort":      words("issued_at", "-issued_at", "not_after", "-not_after", "service_id", "-service_id"),
		"kind":      words(audit.Kinds()...),
		"topic":     words("revocation", "certificate", "policy", "alert"),
		"profile":   words(scan.Profiles()...),
		"fail-on":   words("critical", "high", "medium", "low", "none"),
		"transport": words("stdio", "http", "sse"),
		"starttls":  words("smtp", "postgres"),
		"web":       words("auto", "on", "off"),
	}
	arguments := map[string]completer{
		"tlsmcp cert show":          certificateIDs,
		"tlsmcp cert revoke":        certificateIDs,
		"tlsmcp hub policy get":     serviceNames,
		"tlsmcp hub policy set":     serviceNames,
		"tlsmcp hub fleet remove":   nodeIDs,
		"tlsmcp hub token revoke":   tokenIDs,
		"tlsmcp hub webhook delete": webhookIDs,
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for name, c := range flags {
			if cmd.CommandPath() == "tlsmcp cert lift" {
				c = revokedNames(name)
			}
			if cmd.LocalFlags().Lookup(name) != nil {
				// The error is for a flag that is not there, or has words already.
				_ = cmd.RegisterFlagCompletionFunc(name, c.forShell)
			}
		}
		if c := arguments[cmd.CommandPath()]; c != nil {
			cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
				if len(args) > 0 {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return c.forShell(cmd, args, start)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

func (c completer) forShell(cmd *cobra.Command, _ []string, start string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	fit := slices.DeleteFunc(c(ctx, cmd), func(w string) bool { return !strings.HasPrefix(w, start) || strings.ContainsAny(w, "\n\x00") })
	slices.Sort(fit)
	return slices.Compact(fit), cobra.ShellCompDirectiveNoFileComp
}

func words(all ...string) completer {
	return func(context.Context, *cobra.Command) []string { return slices.Clone(all) }
}

// hubOf is the Hub that the command line so far names.
func hubOf(cmd *cobra.Command) *hubConn {
	text := func(flag string) string {
		v, err := cmd.Flags().GetString(flag)
		if err != nil {
			return ""
		}
		return v
	}
	return &hubConn{url: text("hub"), socket: text("hub-socket"), tokenFile: text("token-file"), caFile: text("hub-ca"),
		daemon: daemonConn{socket: text("socket"), instance: text("instance")}}
}

// certificates are those that can still be revoked. Without a Hub there are
// none: a completion has nowhere to complain.
func certificates(ctx context.Context, cmd *cobra.Command) []*hubv1.Certificate {
	all, err := call(ctx, hubOf(cmd), (*hubclient.Client).ListCertificates, &hubv1.ListCertificatesRequest{Status: "valid", PageSize: 1000})
	if err != nil {
		return nil
	}
	return all.GetCertificates()
}

func certificateIDs(ctx context.Context, cmd *cobra.Command) (out []string) {
	for _, c := range certificates(ctx, cmd) {
		out = append(out, c.GetId()+"\t"+c.GetType()+" "+c.GetIdentity())
	}
	return out
}

// revokedNames are those of a kind that can be lifted.
func revokedNames(kind string) completer {
	return func(ctx context.Context, cmd *cobra.Command) (out []string) {
		all, _ := call(ctx, hubOf(cmd), (*hubclient.Client).ListNames, &hubv1.ListNamesRequest{})
		for _, n := range all.GetNames() {
			if n.GetKind() == kind {
				out = append(out, n.GetName())
			}
		}
		return out
	}
}

func nodeIDs(ctx context.Context, cmd *cobra.Command) (out []string) {
	all, _ := call(ctx, hubOf(cmd), (*hubclient.Client).GetFleet, &hubv1.GetFleetRequest{})
	for _, n := range all.GetNodes() {
		out = append(out, n.GetId()+"\t"+n.GetServiceId()+" on "+n.GetHostname())
	}
	return out
}

func tokenIDs(ctx context.Context, cmd *cobra.Command) (out []string) {
	all, _ := call(ctx, hubOf(cmd), (*hubclient.Client).ListTokens, &hubv1.ListTokensRequest{})
	for _, t := range all.GetTokens() {
		if t.GetStatus() == "active" {
			out = append(out, t.GetId()+"\t"+strings.Join([]string{t.GetKind(), t.GetRole(), t.GetService(), t.GetNote()}, " "))
		}
	}
	return out
}

func webhookIDs(ctx context.Context, cmd *cobra.Command) (out []string) {
	all, _ := call(ctx, hubOf(cmd), (*hubclient.Client).ListWebhooks, &hubv1.ListWebhooksRequest{})
	for _, w := range all.GetWebhooks() {
		out = append(out, w.GetId()+"\t"+w.GetUrl())
	}
	return out
}

func reasons(context.Context, *cobra.Command) (out []string) {
	for _, r := range revlog.Reasons() {
		out = append(out, string(r))
	}
	return out
}

func serviceNames(ctx context.Context, cmd *cobra.Command) (out []string) {
	for _, c := range certificates(ctx, cmd) {
		out = append(out, c.GetServiceId())
	}
	return out
}

// identities are those of certificates for the commands that ask the Hub, and
// those that are connected for the others.
func identities(ctx context.Context, cmd *cobra.Command) (out []string) {
	if cmd.Flag("hub") != nil {
		for _, c := range certificates(ctx, cmd) {
			out = append(out, c.GetIdentity())
		}
		return out
	}
	d := &hubOf(cmd).daemon
	all, err := ask(ctx, d, (*controlclient.Client).ListConnections, &controlv1.ListConnectionsRequest{})
	if err != nil {
		return nil
	}
	for _, c := range all.GetConnections() {
		out = append(out, c.GetIdentity())
	}
	return out
}
