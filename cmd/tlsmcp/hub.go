package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/ipc/hubjson"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/jointoken"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/text"
)

// newHub is `tlsmcp hub`.
func newHub(s stdio) *cobra.Command {
	h := new(hubConn)
	cmd := &cobra.Command{Use: "hub", Short: "The Hub: joining, tokens, policy, fleet, CA, webhooks",
		Long: `hub asks the Hub: the one on this host by its Unix socket, or with --hub URL and a
token another one.`}
	h.flags(cmd)
	cmd.AddCommand(newHubJoin(s), newHubToken(s, h), newHubPolicy(s, h), newHubFleet(s, h), newHubCA(s, h), newHubWebhook(s, h))
	return group(cmd)
}

func newHubJoin(s stdio) *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "join TOKEN|-", Short: "Let this host join a Hub, with a join token",
		Long: `join checks that the Hub that the configuration names is the one that the token
is from, and leaves the token for the daemon, which enrols with it, now or when
it starts. - reads the token from standard input, where other users do not see
it.`,
		Args: exactly(1, "the token, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := args[0]
			if text == "-" {
				raw, err := io.ReadAll(io.LimitReader(s.in, 4096))
				if err != nil {
					return err
				}
				text = string(raw)
			}
			return join(cmd.Context(), s, file, strings.TrimSpace(text))
		}}
	cmd.Flags().StringVar(&file, "config", "/etc/tlsmcp/tlsmcp.toml", "the daemon's configuration")
	return cmd
}

func join(ctx context.Context, s stdio, file, text string) error {
	token, err := jointoken.Parse(text)
	if err == nil && token.Kind != jointoken.Join {
		err = fmt.Errorf("it is a bearer token; joining takes a join token")
	}
	if err != nil {
		return &failure{exitUsage, err, "tlsmcp hub token create --join SERVICE makes one"}
	}
	cfg, err := config.Load(file)
	if err != nil {
		return &failure{exitUsage, err, "name the daemon's configuration with --config"}
	}
	if cfg.Hub.Kind != config.HubRemote {
		return &failure{exitRefused, fmt.Errorf("%s names no Hub to join", file), `set [hub] url = "https://HOST:PORT" in it`}
	}
	client, err := hubclient.New(hubclient.Options{URL: cfg.Hub.URL, RootHash: &token.Root})
	if err != nil {
		return err
	}
	defer client.Close()
	h := &hubConn{url: cfg.Hub.URL}
	call, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	trust, err := client.GetTrust(call, &hubv1.GetTrustRequest{})
	if err != nil {
		return h.explain(err)
	}
	dir := filepath.Join(cfg.StateDir, "hub")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, hub.JoinTokenFile)
	if err := pki.WriteFileAtomic(path, []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	// Run by root, it is for the user whose directory it is.
	if err := ownLike(cfg.StateDir, dir, path); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "the Hub at %s is the one that the token is from (trust domain %s)\ntlsmcpd enrols %s with it within half a minute, or when it starts\n",
		cfg.Hub.URL, trust.GetTrustDomain(), cfg.ServiceID)
	return err
}

func newHubToken(s stdio, h *hubConn) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens for people, automation and joining hosts"}
	cmd.AddCommand(newHubTokenCreate(s, h), newHubTokenList(s, h), newHubTokenRevoke(s, h))
	return group(cmd)
}

func newHubTokenCreate(s stdio, h *hubConn) *cobra.Command {
	r := &hubv1.CreateTokenRequest{Kind: "bearer"}
	var joins string
	cmd := &cobra.Command{Use: "create", Short: "Make a token and print it, this once", Args: atMost(0),
		Example: `  tlsmcp hub token create --join payment-api
  tlsmcp hub token create --role operator --service 'pay-*' --ttl 30d`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if joins != "" {
				if r.GetService() != "" && r.GetService() != joins {
					return usageError(cmd, "--join and --service name different services")
				}
				r.Kind, r.Service = "join", joins
			}
			m, err := call(cmd.Context(), h, (*hubclient.Client).CreateToken, r)
			if err != nil {
				return err
			}
			return h.print(s, m, func() error {
				_, err := fmt.Fprintln(s.out, m.GetToken())
				return err
			})
		}}
	f := cmd.Flags()
	f.StringVar(&joins, "join", "", "make a join token, for one host of this service")
	f.StringVar(&r.Role, "role", "", "viewer, operator or admin")
	f.StringVar(&r.Service, "service", "", "which services it is for, * stands for any text; empty: all")
	f.StringVar(&r.Ttl, "ttl", "", "how long it is good (default 90d, join tokens 1h)")
	f.StringVar(&r.Note, "note", "", "what it is for, in words")
	return cmd
}

func newHubTokenList(s stdio, h *hubConn) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List tokens, without their secrets", Args: atMost(0), RunE: func(cmd *cobra.Command, _ []string) error {
		m, err := call(cmd.Context(), h, (*hubclient.Client).ListTokens, &hubv1.ListTokensRequest{})
		if err != nil {
			return err
		}
		return h.print(s, m, func() error {
			rows := [][]string{{"ID", "KIND", "ROLE", "SERVICE", "STATUS", "EXPIRES", "NOTE"}}
			for _, t := range m.GetTokens() {
				rows = append(rows, []string{t.GetId(), t.GetKind(), t.GetRole(), t.GetService(), t.GetStatus(), when(t.GetExpiresAt()), t.GetNote()})
			}
			return table(s, rows)
		})
	}}
}

func newHubTokenRevoke(s stdio, h *hubConn) *cobra.Command {
	return &cobra.Command{Use: "revoke ID", Short: "End a token", Args: exactly(1, "the token's id"), RunE: func(cmd *cobra.Command, args []string) error {
		m, err := call(cmd.Context(), h, (*hubclient.Client).RevokeToken, &hubv1.RevokeTokenRequest{Id: args[0]})
		if err != nil {
			return err
		}
		return h.print(s, m, func() error {
			_, err := fmt.Fprintf(s.out, "token %s is revoked\n", args[0])
			return err
		})
	}}
}

func newHubFleet(s stdio, h *hubConn) *cobra.Command {
	r := &hubv1.GetFleetRequest{}
	cmd := &cobra.Command{Use: "fleet", Short: "Show the sidecars, and which revocations each has applied", Args: atMost(0), RunE: func(cmd *cobra.Command, _ []string) error {
		m, err := call(cmd.Context(), h, (*hubclient.Client).GetFleet, r)
		if err != nil {
			return err
		}
		return h.print(s, m, func() error {
			fmt.Fprintf(s.out, "%s, %d connected, %d of them at log entry %d\n", text.Plural(len(m.GetNodes()), "sidecar"), m.GetConnected(), m.GetCurrent(), m.GetHeadSequence())
			rows := [][]string{{"NODE", "SERVICE", "HOST", "VERSION", "CONNECTED", "APPLIED", "CONNECTIONS", "STATE"}}
			for _, n := range m.GetNodes() {
				state := "well"
				if !n.GetHealthy() {
					state = "unwell: " + n.GetDetail()
				}
				rows = append(rows, []string{n.GetId(), n.GetServiceId(), n.GetHostname(), n.GetVersion(), fmt.Sprint(n.GetConnected()),
					fmt.Sprint(n.GetAppliedSequence()), fmt.Sprint(n.GetConnections()), state})
			}
			return table(s, rows)
		})
	}}
	cmd.Flags().StringVar(&r.ServiceId, "service", "", "of this service")
	remove := &cobra.Command{Use: "remove NODE", Short: "Take a sidecar out of the fleet: its certificate ends", Args: exactly(1, "the node's id"), RunE: func(cmd *cobra.Command, args []string) error {
		m, err := call(cmd.Context(), h, (*hubclient.Client).RemoveNode, &hubv1.RemoveNodeRequest{Id: args[0]})
		if err != nil {
			return err
		}
		return h.print(s, m, func() error {
			_, err := fmt.Fprintf(s.out, "node %s is removed (log entry %d)\n", args[0], m.GetRevocation().GetSequence())
			return err
		})
	}}
	cmd.AddCommand(remove)
	return cmd
}

func newHubCA(s stdio, h *hubConn) *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "The Hub's CA"}
	root := &cobra.Command{Use: "root", Short: "Print what makes a certificate this Hub's: the root in PEM", Args: atMost(0), RunE: func(cmd *cobra.Command, _ []string) error {
		m, err := call(cmd.Context(), h, (*hubclient.Client).GetTrust, &hubv1.GetTrustRequest{})
		if err != nil {
			return err
		}
		return h.print(s, m, func() error {
			_, err := fmt.Fprint(s.out, m.GetRoots())
			return err
		})
	}}
	var keyFile string
	rotate := &cobra.Command{Use: "rotate", Short: "Make a new issuing CA; the old one stays trusted until it ends", Args: atMost(0), RunE: func(cmd *cobra.Command, _ []string) error {
		r := &hubv1.RotateIssuerRequest{}
		if keyFile != "" {
			raw, err := os.ReadFile(keyFile)
			if err != nil {
				return &failure{exitUsage, err, "--root-key names the root's key in PEM"}
			}
			r.RootKey = string(raw)
		}
		m, err := call(cmd.Context(), h, (*hubclient.Client).RotateIssuer, r)
		if err != nil {
			return err
		}
		return h.print(s, m, func() error {
			_, err := fmt.Fprintln(s.out, "there is a new issuing CA; sidecars learn of it within minutes")
			return err
		})
	}}
	rotate.Flags().StringVar(&keyFile, "root-key", "", "the root's key in PEM, when it is offline")
	cmd.AddCommand(root, rotate)
	return group(cmd)
}

func newHubPolicy(s stdio, h *hubConn) *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Who may call a service, and what its certificates may be"}
	list := &cobra.Command{Use: "list", Short: "List the policies that were set", Args: atMost(0), RunE: func(cmd *cobra.Command, _ []string) error {
		m, err := call(cmd.Context(), h, (*hubclient.Client).ListPolicies, &hubv1.ListPoliciesRequest{})
		if err != nil {
			return err
		}
		return h.print(s, m, func() error {
			rows := [][]string{{"SERVICE", "VERSION", "CALLERS", "MAX TTL", "UPDATED", "BY"}}
			for _, p := range m.GetPolicies() {
				rows = append(rows, []string{p.GetServiceId(), fmt.Sprint(p.GetVersion()), callers(p), p.GetMaxTtl(), when(p.GetUpdatedAt()), p.GetUpdatedBy()})
			}
			return table(s, rows)
		})
	}}
	get := &cobra.Command{Use: "get SERVICE", Short: "Print a policy as JSON", Args: exactly(1, "the service id"), RunE: func(cmd *cobra.Command, args []string) error {
		p, err := call(cmd.Context(), h, (*hubclient.Client).GetPolicy, &hubv1.GetPolicyRequest{ServiceId: args[0]})
		if err != nil {
			return err
		}
		return printJSON(s, p)
	}}
	cmd.AddCommand(list, get, newHubPolicySet(s, h))
	return group(cmd)
}

func callers(p *hubv1.Policy) string {
	c := p.GetAllowedCallers()
	if c.GetAll() {
		return "all"
	}
	all := append([]string{}, c.GetServices()...)
	all = append(append(append(all, c.GetUris()...), c.GetDns()...), c.GetOus()...)
	return strings.Join(all, " ")
}

func newHubPolicySet(s stdio, h *hubConn) *cobra.Command {
	var services, uris, dns, ips []string
	var all bool
	var usual, longest, file string
	var tier uint32
	cmd := &cobra.Command{Use: "set SERVICE", Short: "Change a policy: what is named is replaced, the rest stays",
		Example: `  tlsmcp hub policy set payment-api --allow web --allow batch
  tlsmcp hub policy set payment-api --max-ttl 7d --dns-name '*.pay.example'
  tlsmcp hub policy get payment-api > p.json; $EDITOR p.json; tlsmcp hub policy set payment-api --file p.json`,
		Args: exactly(1, "the service id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := call(cmd.Context(), h, (*hubclient.Client).GetPolicy, &hubv1.GetPolicyRequest{ServiceId: args[0]})
			if err != nil {
				return err
			}
			base := p.GetVersion()
			if file != "" {
				raw, err := os.ReadFile(file)
				if err != nil {
					return &failure{exitUsage, err, "--file names a policy in JSON, as get prints it"}
				}
				p = new(hubv1.Policy)
				if err := hubjson.Unmarshal(raw, p); err != nil {
					return &failure{exitUsage, fmt.Errorf("%s: %w", file, err), "tlsmcp hub policy get shows the form"}
				}
				if id := p.GetServiceId(); id != "" && id != args[0] {
					return usageError(cmd, "%s is the policy of %q", file, id)
				}
				base, p.ServiceId = p.GetVersion(), args[0]
			}
			if p.AllowedCallers == nil {
				p.AllowedCallers = new(hubv1.CallerRules)
			}
			some := file != ""
			for flag, set := range map[string]func(){
				"allow": func() { p.AllowedCallers.Services = services }, "allow-uri": func() { p.AllowedCallers.Uris = uris },
				"allow-all": func() { p.AllowedCallers.All = all }, "default-ttl": func() { p.DefaultTtl = usual }, "max-ttl": func() { p.MaxTtl = longest },
				"dns-name": func() { p.DnsNames = dns }, "ip-address": func() { p.IpAddresses = ips }, "tier": func() { p.Tier = tier },
			} {
				if cmd.Flags().Changed(flag) {
					set()
					some = true
				}
			}
			if !some {
				return usageError(cmd, "say what to change")
			}
			done, err := call(cmd.Context(), h, (*hubclient.Client).PutPolicy, &hubv1.PutPolicyRequest{Policy: p, BaseVersion: base})
			if err != nil {
				return err
			}
			return h.print(s, done, func() error {
				_, err := fmt.Fprintf(s.out, "policy of %s is at version %d\n", done.GetServiceId(), done.GetVersion())
				return err
			})
		}}
	f := cmd.Flags()
	f.StringSliceVar(&services, "allow", nil, "services that may call it")
	f.StringSliceVar(&uris, "allow-uri", nil, "SPIFFE IDs that may call it; globs")
	f.BoolVar(&all, "allow-all", false, "every certificate of the Hub's CA may call it")
	f.StringVar(&usual, "default-ttl", "", "lifetime of its certificates when none is asked for")
	f.StringVar(&longest, "max-ttl", "", "longest lifetime of its certificates")
	f.StringSliceVar(&dns, "dns-name", nil, "DNS names that its server certificates may have")
	f.StringSliceVar(&ips, "ip-address", nil, "addresses or networks that its server certificates may have")
	f.Uint32Var(&tier, "tier", 2, "how much it weighs in the fleet's score: 1, 2 or 3, the first the most")
	f.StringVar(&file, "file", "", "take the whole policy from a JSON file")
	return cmd
}

func newHubWebhook(s stdio, h *hubConn) *cobra.Command {
	cmd := &cobra.Command{Use: "webhook", Short: "Tell others of revocations, certificates and policies"}
	r := &hubv1.CreateWebhookRequest{}
	create := &cobra.Command{Use: "create URL", Short: "Add an address; prints the secret that signs what it gets, this once", Args: exactly(1, "the URL"), RunE: func(cmd *cobra.Command, args []string) error {
		r.Url = args[0]
		w, err := call(cmd.Context(), h, (*hubclient.Client).CreateWebhook, r)
		if err != nil {
			return err
		}
		return h.print(s, w, func() error {
			_, err := fmt.Fprintf(s.out, "id      %s\nsecret  %s\n", w.GetId(), w.GetSecret())
			return err
		})
	}}
	create.Flags().StringSliceVar(&r.Topics, "topic", nil, "revocation, certificate, policy or alert; none: all")
	list := &cobra.Command{Use: "list", Short: "List webhooks", Args: atMost(0), RunE: func(cmd *cobra.Command, _ []string) error {
		m, err := call(cmd.Context(), h, (*hubclient.Client).ListWebhooks, &hubv1.ListWebhooksRequest{})
		if err != nil {
			return err
		}
		return h.print(s, m, func() error {
			rows := [][]string{{"ID", "URL", "TOPICS", "DELIVERED", "PENDING", "LAST ERROR"}}
			for _, w := range m.GetWebhooks() {
				rows = append(rows, []string{w.GetId(), w.GetUrl(), strings.Join(w.GetTopics(), " "), fmt.Sprint(w.GetDelivered()), fmt.Sprint(w.GetPending()), w.GetLastError()})
			}
			return table(s, rows)
		})
	}}
	remove := &cobra.Command{Use: "delete ID", Short: "Delete a webhook", Args: exactly(1, "the webhook's id"), RunE: func(cmd *cobra.Command, args []string) error {
		m, err := call(cmd.Context(), h, (*hubclient.Client).DeleteWebhook, &hubv1.DeleteWebhookRequest{Id: args[0]})
		if err != nil {
			return err
		}
		return h.print(s, m, func() error {
			_, err := fmt.Fprintf(s.out, "webhook %s is deleted\n", args[0])
			return err
		})
	}}
	cmd.AddCommand(create, list, remove)
	return group(cmd)
}
