package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/text"
)

// newCert is `tlsmcp cert`.
func newCert(s stdio) *cobra.Command {
	h := new(hubConn)
	cmd := &cobra.Command{Use: "cert", Short: "Issue, look at, renew and revoke certificates",
		Long: `cert asks the Hub: the one on this host by its Unix socket, or with --hub URL and
a token another one. Private keys are made here and never leave the host.`}
	h.flags(cmd)
	cmd.AddCommand(newCertIssue(s, h), newCertList(s, h), newCertShow(s, h), newCertRenew(s, h), newCertRevoke(s, h), newCertLift(s, h))
	return group(cmd)
}

func newCertList(s stdio, h *hubConn) *cobra.Command {
	r := &hubv1.ListCertificatesRequest{}
	var names bool
	var format string
	cmd := &cobra.Command{Use: "list", Short: "List certificates, or the names that are revoked; export the inventory", Args: atMost(0), RunE: func(cmd *cobra.Command, _ []string) error {
		switch {
		case format != "text" && format != "json" && format != "cyclonedx":
			return usageError(cmd, "--format %s is not known: it is text, json or cyclonedx", format)
		case names && format == "cyclonedx":
			return usageError(cmd, "--names: names are no part of a CycloneDX document")
		case format == "json":
			h.json = true
		}
		if names {
			return listNames(cmd.Context(), s, h)
		}
		all := &hubv1.ListCertificatesResponse{}
		for {
			r.PageSize = 1000
			page, err := call(cmd.Context(), h, (*hubclient.Client).ListCertificates, r)
			if err != nil {
				return err
			}
			all.Certificates = append(all.Certificates, page.GetCertificates()...)
			if r.PageToken = page.GetNextPageToken(); r.GetPageToken() == "" {
				break
			}
		}
		if format == "cyclonedx" {
			return exportInventory(cmd.Context(), s, h, all.GetCertificates())
		}
		return h.print(s, all, func() error {
			rows := [][]string{{"ID", "TYPE", "SERVICE", "STATUS", "LEFT", "ISSUED", "IDENTITY"}}
			for _, c := range all.GetCertificates() {
				rows = append(rows, []string{c.GetId(), c.GetType(), c.GetServiceId(), c.GetStatus(), left(c.GetNotAfter()), when(c.GetIssuedAt()), c.GetIdentity()})
			}
			return table(s, rows)
		})
	}}
	f := cmd.Flags()
	f.StringVar(&r.ServiceId, "service", "", "of this service")
	f.StringVar(&r.Type, "type", "", "server, client, agent or node")
	f.StringVar(&r.Status, "status", "", "valid, expired or revoked")
	f.StringVar(&r.Identity, "identity", "", "with this SPIFFE ID")
	f.StringVar(&r.ExpiresWithin, "expires-within", "", `that end within this time, such as "7d"`)
	f.StringVar(&r.Sort, "sort", "", "issued_at, not_after or service_id; - before it for the other way")
	f.BoolVar(&names, "names", false, "the names that are revoked, instead")
	f.StringVar(&format, "format", "text", "text, json, or cyclonedx: the inventory of keys and algorithms (CycloneDX 1.6 CBOM), whose export is noted for the score")
	return cmd
}

func listNames(ctx context.Context, s stdio, h *hubConn) error {
	m, err := call(ctx, h, (*hubclient.Client).ListNames, &hubv1.ListNamesRequest{})
	if err != nil {
		return err
	}
	return h.print(s, m, func() error {
		rows := [][]string{{"KIND", "NAME", "REASON", "REVOKED", "BY"}}
		for _, n := range m.GetNames() {
			rows = append(rows, []string{n.GetKind(), n.GetName(), n.GetReason(), when(n.GetRevokedAt()), n.GetRevokedBy()})
		}
		return table(s, rows)
	})
}

func newCertShow(s stdio, h *hubConn) *cobra.Command {
	var asPEM bool
	cmd := &cobra.Command{Use: "show ID", Short: "Show one certificate, by id or serial number", Args: exactly(1, "the certificate's id or serial number"), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := call(cmd.Context(), h, (*hubclient.Client).GetCertificate, &hubv1.GetCertificateRequest{Id: args[0]})
		if err != nil {
			return err
		}
		if asPEM {
			_, err := io.WriteString(s.out, c.GetChain())
			return err
		}
		return h.print(s, c, func() error { return showCertificate(s, c) })
	}}
	cmd.Flags().BoolVar(&asPEM, "pem", false, "the chain in PEM")
	return cmd
}

func showCertificate(s stdio, c *hubv1.Certificate) error {
	rows := [][]string{
		{"id", c.GetId()}, {"type", c.GetType()}, {"service", c.GetServiceId()}, {"identity", c.GetIdentity()},
		{"status", c.GetStatus()}, {"valid from", when(c.GetNotBefore())}, {"valid until", when(c.GetNotAfter()) + " (" + left(c.GetNotAfter()) + ")"},
		{"serial", c.GetSerial()}, {"fingerprint", c.GetFingerprint()}, {"key", c.GetKeyAlgorithm()}, {"issued by", c.GetIssuedBy()},
	}
	if hosts := append(c.GetDnsNames(), c.GetIpAddresses()...); len(hosts) > 0 {
		rows = append(rows, []string{"hosts", strings.Join(hosts, " ")})
	}
	if c.GetRevokedAt() != nil {
		rows = append(rows, []string{"revoked", when(c.GetRevokedAt()) + ", " + c.GetRevocationReason()})
	}
	if c.GetRenewedFrom() != "" {
		rows = append(rows, []string{"renewed from", c.GetRenewedFrom()})
	}
	return table(s, rows)
}

// target is what revoke and lift are about.
type target struct{ id, identity, service string }

func (t *target) flags(cmd *cobra.Command, one bool) {
	f := cmd.Flags()
	if one {
		f.StringVar(&t.id, "id", "", "one certificate, by id or serial number")
	}
	f.StringVar(&t.identity, "identity", "", "every certificate with this SPIFFE ID or common name")
	f.StringVar(&t.service, "service", "", "every certificate of this service")
}

// name is the kind and name; both empty for one certificate.
func (t *target) name(cmd *cobra.Command) (kind, name string, err error) {
	n := 0
	for _, v := range []string{t.id, t.identity, t.service} {
		if v != "" {
			n++
		}
	}
	switch {
	case n != 1 && cmd.Flags().Lookup("id") == nil:
		return "", "", usageError(cmd, "say one of --identity and --service")
	case n != 1:
		return "", "", usageError(cmd, "say one of --id, --identity and --service")
	case t.identity != "":
		return "identity", t.identity, nil
	case t.service != "":
		return "service", t.service, nil
	}
	return "", "", nil
}

func newCertRevoke(s stdio, h *hubConn) *cobra.Command {
	var t target
	var reason string
	var wait bool
	cmd := &cobra.Command{Use: "revoke [ID]", Short: "Revoke a certificate, or a name with all its certificates",
		Long: `revoke ends a certificate everywhere. With --identity or --service it ends every
certificate of that name, and none is issued or renewed until tlsmcp cert lift.
The reason superseded lets open connections finish; every other cuts them.`,
		Example: `  tlsmcp cert revoke 01a20ce4-561f-70f5-9d97-a5472852cb20 --reason key_compromise --wait
  tlsmcp cert revoke --service payment-api`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if t.id != "" {
					return usageError(cmd, "the id is there twice")
				}
				t.id = args[0]
			}
			kind, name, err := t.name(cmd)
			if err != nil {
				return err
			}
			var done *hubv1.Revocation
			if kind == "" {
				done, err = call(cmd.Context(), h, (*hubclient.Client).RevokeCertificate, &hubv1.RevokeCertificateRequest{Id: t.id, Reason: reason})
			} else {
				done, err = call(cmd.Context(), h, (*hubclient.Client).RevokeName, &hubv1.RevokeNameRequest{Kind: kind, Name: name, Reason: reason})
			}
			if err != nil {
				return err
			}
			return reportRevocation(cmd.Context(), s, h, done, wait)
		}}
	t.flags(cmd, true)
	cmd.Flags().StringVar(&reason, "reason", "", "key_compromise, superseded, cessation_of_operation … (RFC 5280)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until every connected sidecar has applied it")
	return cmd
}

func newCertLift(s stdio, h *hubConn) *cobra.Command {
	var t target
	cmd := &cobra.Command{Use: "lift", Short: "Let a revoked name be used again",
		Long: `lift lets certificates of a revoked name be issued again. Those from before stay
revoked.`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			kind, name, err := t.name(cmd)
			if err != nil {
				return err
			}
			done, err := call(cmd.Context(), h, (*hubclient.Client).LiftName, &hubv1.LiftNameRequest{Kind: kind, Name: name})
			if err != nil {
				return err
			}
			return h.print(s, done, func() error {
				_, err := fmt.Fprintf(s.out, "%s %q may be used again (log entry %d)\n", kind, name, done.GetSequence())
				return err
			})
		}}
	t.flags(cmd, false)
	return cmd
}

// reportRevocation tells what was done and, with wait, how far it has spread.
func reportRevocation(ctx context.Context, s stdio, h *hubConn, done *hubv1.Revocation, wait bool) error {
	var p *hubv1.RevocationProgress
	var err error
	if h.json {
		if wait {
			p, err = await(ctx, h, done.GetSequence())
		}
		return errors.Join(printRevocationJSON(s, done, p), err) // what was done is told, however the waiting ends
	}
	what := "revoked " + text.Plural(done.GetCertificates(), "certificate")
	if done.GetAlready() {
		what = "it was revoked already, " + when(done.GetRevokedAt())
	}
	fmt.Fprintf(s.out, "%s (log entry %d)\n", what, done.GetSequence())
	if done.GetName() != "" && done.GetCertificates() == 0 && !done.GetAlready() {
		fmt.Fprintf(s.err, "tlsmcp: no certificate has the name %q that was not revoked; is it spelled right?\n", done.GetName())
	}
	if done.GetName() != "" {
		fmt.Fprintf(s.out, "none is issued of that name until tlsmcp cert lift --%s %s\n", done.GetKind(), done.GetName())
	}
	if !wait {
		return nil
	}
	if p, err = await(ctx, h, done.GetSequence()); err != nil {
		return err
	}
	after := ""
	if !done.GetAlready() {
		after = ", " + spread(done).String() + " after it was revoked"
	}
	_, err = fmt.Fprintf(s.out, "applied by %d of %s%s; %s cut\n", p.GetApplied(), text.Plural(p.GetConnected(), "connected sidecar"), after, text.Plural(p.GetCut(), "connection"))
	return err
}

// await follows how a revocation spreads until it is everywhere.
func await(ctx context.Context, h *hubConn, sequence uint64) (*hubv1.RevocationProgress, error) {
	c, err := h.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	last, err := c.FollowRevocation(ctx, sequence)
	if err != nil {
		return nil, h.explain(err)
	}
	if !last.GetDone() {
		return nil, &failure{exitUnreachable, errors.New("the Hub ended before every sidecar had applied it"), "tlsmcp hub fleet shows who has"}
	}
	return last, nil
}
