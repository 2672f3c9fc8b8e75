package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/ipc/hubjson"
	"cyphers.ai/tlsmcp/pkg/pki"
)

func newCertIssue(s stdio, h *hubConn) *cobra.Command {
	r := &hubv1.IssueCertificateRequest{}
	var out, csrFile string
	var hosts []string
	var force bool
	cmd := &cobra.Command{Use: "issue", Short: "Get a certificate from the Hub",
		Long: `issue makes a private key here, has the Hub sign a certificate for it, and writes
three files: SERVICE.key (mode 0600), SERVICE.crt (the chain, leaf first) and
ca.crt (the Hub's root). With --csr the key stays where it is, and the chain is
printed.`,
		Example: `  tlsmcp cert issue --type client --service payment-api --ttl 24h --out certs
  tlsmcp cert issue --type server --service web --host web.prod.example`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.GetServiceId() == "" {
				return usageError(cmd, "--service is missing: whose certificate is it?")
			}
			if csrFile != "" {
				if cmd.Flags().Changed("out") || len(hosts) > 0 {
					return usageError(cmd, "--csr goes without --out and --host: the chain is printed, and the request names the hosts")
				}
				return issueForCSR(cmd, s, h, r, csrFile)
			}
			if info, err := os.Stat(out); err == nil && !info.IsDir() {
				return &failure{exitUsage, fmt.Errorf("%s is no directory", out), "--out names the directory for the files"}
			}
			files := pki.FilesIn(out, r.GetServiceId())
			if taken := files.Taken(); taken != "" && !force {
				return &failure{exitUsage, fmt.Errorf("%s is there already", taken), "use another --out, or --force to replace it"}
			}
			undo, err := files.Prepare()
			defer undo()
			if err != nil {
				return &failure{exitUsage, err, "--out names a directory that can be written"}
			}
			c, err := issueFiles(cmd.Context(), h, r, files, hosts)
			if err != nil {
				return err
			}
			return h.print(s, c, func() error {
				_, err := fmt.Fprintf(s.out, "%s certificate of %s, good for %s\n  identity  %s\n  id        %s\n  chain     %s\n  key       %s\n  root      %s\n",
					c.GetType(), c.GetServiceId(), left(c.GetNotAfter()), c.GetIdentity(), c.GetId(), files.Cert, files.Key, files.Root)
				return err
			})
		}}
	f := cmd.Flags()
	f.StringVar(&r.Type, "type", "client", "client, server or agent")
	f.StringVar(&r.ServiceId, "service", "", "whose certificate it is")
	f.StringVar(&r.Ttl, "ttl", "", `how long it is good, such as "24h" or "30d" (default: the policy's)`)
	f.StringVar(&out, "out", ".", "directory for the files")
	f.StringSliceVar(&hosts, "host", nil, "host name or address that a server certificate names; the policy must allow it")
	f.StringVar(&csrFile, "csr", "", "certificate signing request in PEM, for a key that is elsewhere; - is the standard input")
	f.BoolVar(&force, "force", false, "replace files that are there")
	return cmd
}

func issueForCSR(cmd *cobra.Command, s stdio, h *hubConn, r *hubv1.IssueCertificateRequest, file string) error {
	raw, err := readFile(s.in, file)
	if err != nil {
		return &failure{exitUsage, err, "--csr names a certificate signing request in PEM"}
	}
	r.Csr = string(raw)
	c, err := call(cmd.Context(), h, (*hubclient.Client).IssueCertificate, r)
	if err != nil {
		return err
	}
	return h.print(s, c, func() error {
		_, err := fmt.Fprint(s.out, c.GetChain())
		return err
	})
}

// readFile reads a file, or in for "-".
func readFile(in io.Reader, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(in, 1<<20))
	}
	return os.ReadFile(file)
}

// issueFiles makes a key, has the Hub sign a certificate for it, and writes both.
func issueFiles(ctx context.Context, h *hubConn, r *hubv1.IssueCertificateRequest, files pki.Files, hosts []string) (*hubv1.Certificate, error) {
	keyPEM, csr, err := pki.NewKeyAndRequest(r.GetServiceId(), hosts...)
	if err != nil {
		return nil, err
	}
	trust, err := call(ctx, h, (*hubclient.Client).GetTrust, &hubv1.GetTrustRequest{})
	if err != nil {
		return nil, err
	}
	r.Csr = string(csr)
	c, err := call(ctx, h, (*hubclient.Client).IssueCertificate, r)
	if err != nil {
		return nil, err
	}
	return c, files.Write(keyPEM, c.GetChain(), trust.GetRoots())
}

// renewal is `tlsmcp cert renew`.
type renewal struct {
	s     stdio
	h     *hubConn
	files pki.Files
	ttl   string
	watch bool
	exec  string
}

func newCertRenew(s stdio, h *hubConn) *cobra.Command {
	v := &renewal{s: s, h: h}
	cmd := &cobra.Command{Use: "renew", Short: "Renew a certificate in its files, once or for good",
		Long: `renew replaces the certificate in --cert and the key in --key by new ones with the
same names. With --watch it goes on: it renews when a third of the lifetime is
left, tries again until it works, and runs --exec after each.`,
		Example: `  tlsmcp cert renew --cert web.crt --key web.key --watch --exec 'systemctl reload nginx'`,
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if v.files.Cert == "" || v.files.Key == "" {
				return usageError(cmd, "--cert and --key name the files to renew")
			}
			if v.watch {
				return v.keep(cmd.Context())
			}
			_, err := v.once(cmd.Context())
			return err
		}}
	f := cmd.Flags()
	f.StringVar(&v.files.Cert, "cert", "", "file of the chain")
	f.StringVar(&v.files.Key, "key", "", "file of the private key")
	f.StringVar(&v.ttl, "ttl", "", "how long the new one is good (default: the policy's)")
	f.BoolVar(&v.watch, "watch", false, "keep the files fresh until stopped")
	f.StringVar(&v.exec, "exec", "", "command to run after each renewal, by sh -c")
	return cmd
}

func (v *renewal) leaf() (*x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(v.files.Cert, v.files.Key)
	if err != nil {
		return nil, &failure{exitUsage, err, "--cert and --key name a pair that tlsmcp cert issue wrote; with --force that makes one anew"}
	}
	return pair.Leaf, nil
}

func (v *renewal) once(ctx context.Context) (*x509.Certificate, error) {
	old, err := v.leaf()
	if err != nil {
		return nil, err
	}
	keyPEM, csr, err := pki.NewKeyAndRequest(old.Subject.CommonName)
	if err != nil {
		return nil, err
	}
	c, err := call(ctx, v.h, (*hubclient.Client).RenewCertificate, &hubv1.RenewCertificateRequest{Id: old.SerialNumber.Text(16), Csr: string(csr), Ttl: v.ttl})
	if err != nil {
		return nil, err
	}
	if err := v.files.Write(keyPEM, c.GetChain(), ""); err != nil {
		return nil, err
	}
	err = v.h.print(v.s, c, func() error {
		_, err := fmt.Fprintf(v.s.out, "%s renewed, good for %s (id %s)\n", v.files.Cert, left(c.GetNotAfter()), c.GetId())
		return err
	})
	if err != nil {
		return nil, err
	}
	if v.exec != "" {
		cmd := exec.CommandContext(ctx, "sh", "-c", v.exec)
		cmd.Stdout, cmd.Stderr = v.s.out, v.s.err
		if err := cmd.Run(); err != nil {
			return nil, &failure{exitRefused, fmt.Errorf("the certificate is renewed; --exec %q: %w", v.exec, err), ""}
		}
	}
	return v.leaf()
}

// keep renews in time, for good.
func (v *renewal) keep(ctx context.Context) error {
	leaf, err := v.leaf()
	if err != nil {
		return err
	}
	pause := time.Second
	for {
		life := leaf.NotAfter.Sub(leaf.NotBefore)
		wait := time.Until(leaf.NotBefore.Add(life * 2 / 3))
		if wait <= 0 {
			next, err := v.once(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				leaf, pause = next, time.Second
				continue
			}
			fmt.Fprintf(v.s.err, "tlsmcp: not renewed, it will be tried again: %s\n", err)
			if again, lerr := v.leaf(); lerr == nil {
				leaf = again // --exec failed, not the renewal
			}
			wait, pause = pause/2+rand.N(pause), min(2*pause, 5*time.Minute)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(wait, time.Minute)): // a clock that jumps is noticed
		}
	}
}

// spread is how long a revocation took to be everywhere, by this host's clock.
func spread(done *hubv1.Revocation) time.Duration {
	return time.Since(done.GetRevokedAt().AsTime()).Round(time.Millisecond)
}

// printRevocationJSON writes what was done and, when it was waited for, how far
// it has spread, as one object.
func printRevocationJSON(s stdio, done *hubv1.Revocation, p *hubv1.RevocationProgress) error {
	raw, err := hubjson.Marshal(done)
	if err != nil {
		return err
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		return err
	}
	if p != nil {
		out["connected"], out["applied"], out["cut"] = p.GetConnected(), p.GetApplied(), p.GetCut()
		out["duration_ms"] = float64(spread(done).Microseconds()) / 1000
	}
	enc := json.NewEncoder(s.out)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
