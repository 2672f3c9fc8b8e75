package console

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/text"
)

// spreadPatience is how long a revocation is followed until every connected
// sidecar has applied it.
const spreadPatience = 10 * time.Second

// revoke ends certificates, each by its id, or a name with all of its own.
func (d *daemon) revoke(ctx context.Context, a Args) (Outcome, error) {
	return d.onHub(ctx, func(h *hubclient.Client) (Outcome, error) {
		started := d.now()
		var last *hubv1.Revocation
		var ended, already int
		kind, name := a.named()
		if kind != "" {
			done, err := h.RevokeName(ctx, &hubv1.RevokeNameRequest{Kind: kind, Name: name, Reason: a["reason"]})
			if err != nil {
				return Outcome{}, err
			}
			last, ended = done, int(done.GetCertificates())
		} else if len(a.list("id")) == 0 {
			return Outcome{}, &Problem{"nothing says what to revoke", "name a certificate, an identity or a service"}
		}
		for i, id := range a.list("id") {
			done, err := h.RevokeCertificate(ctx, &hubv1.RevokeCertificateRequest{Id: id, Reason: a["reason"]})
			if err != nil && i > 0 {
				return Outcome{}, fmt.Errorf("%d revoked, then: %w", i, err)
			}
			if err != nil {
				return Outcome{}, err
			}
			last = done
			if done.GetAlready() {
				already++
			} else {
				ended++
			}
		}
		o := Outcome{Text: text.Plural(ended, "certificate") + " revoked", Reload: []Topic{TopicCertificates, TopicConnections, TopicFleet, TopicScore}}
		if already > 0 {
			o.Text = fmt.Sprintf("%s (%d had been before)", o.Text, already)
		}
		if p := spread(ctx, h, last.GetSequence()); p != nil {
			o.Text += fmt.Sprintf(": applied by %d of %s in %d ms, %s cut", p.GetApplied(), text.Plural(p.GetConnected(), "sidecar"),
				d.now().Sub(started).Milliseconds(), text.Plural(p.GetCut(), "connection"))
		}
		return o, nil
	})
}

// spread follows a revocation until it is everywhere; nil when that cannot be
// told. The revocation stands either way.
func spread(ctx context.Context, h *hubclient.Client, sequence uint64) *hubv1.RevocationProgress {
	ctx, cancel := context.WithTimeout(ctx, spreadPatience)
	defer cancel()
	last, _ := h.FollowRevocation(ctx, sequence)
	return last
}

func (d *daemon) lift(ctx context.Context, a Args) (Outcome, error) {
	kind, name := a.named()
	if kind == "" {
		return Outcome{}, &Problem{"nothing says what to lift", "name an identity or a service"}
	}
	return d.onHub(ctx, func(h *hubclient.Client) (Outcome, error) {
		if _, err := h.LiftName(ctx, &hubv1.LiftNameRequest{Kind: kind, Name: name}); err != nil {
			return Outcome{}, err
		}
		return Outcome{Text: fmt.Sprintf("%s %s may be used again; earlier certificates stay revoked", kind, name), Reload: []Topic{TopicCertificates}}, nil
	})
}

// issue makes a key here, and has the Hub sign a certificate for it.
func (d *daemon) issue(ctx context.Context, a Args) (Outcome, error) {
	if err := a.require("service"); err != nil {
		return Outcome{}, err
	}
	return d.sign(ctx, a, a["service"], a.list("host"), func(h *hubclient.Client, csr string) (*hubv1.Certificate, error) {
		return h.IssueCertificate(ctx, &hubv1.IssueCertificateRequest{Type: a["type"], ServiceId: a["service"], Ttl: a["ttl"], Csr: csr})
	})
}

// renew makes a new key and a certificate with the names of an earlier one.
func (d *daemon) renew(ctx context.Context, a Args) (Outcome, error) {
	if err := a.require("id", "name"); err != nil {
		return Outcome{}, err
	}
	return d.sign(ctx, a, a["name"], nil, func(h *hubclient.Client, csr string) (*hubv1.Certificate, error) {
		return h.RenewCertificate(ctx, &hubv1.RenewCertificateRequest{Id: a["id"], Ttl: a["ttl"], Csr: csr})
	})
}

func (d *daemon) sign(ctx context.Context, a Args, name string, hosts []string, ask func(*hubclient.Client, string) (*hubv1.Certificate, error)) (Outcome, error) {
	if strings.ContainsAny(name, `/\`) || name == "." || name == ".." {
		return Outcome{}, &Problem{fmt.Sprintf("%q cannot be a file's name", name), "use tlsmcp cert issue --csr"}
	}
	files := pki.FilesIn(cmp.Or(a["out"], "."), name)
	if taken := files.Taken(); taken != "" {
		return Outcome{}, &Problem{taken + " is there already", "name another directory"}
	}
	undo, err := files.Prepare()
	defer undo()
	if err != nil {
		return Outcome{}, err
	}
	keyPEM, csr, err := pki.NewKeyAndRequest(name, hosts...)
	if err != nil {
		return Outcome{}, err
	}
	return d.onHub(ctx, func(h *hubclient.Client) (Outcome, error) {
		trust, err := h.GetTrust(ctx, &hubv1.GetTrustRequest{})
		if err != nil {
			return Outcome{}, err
		}
		c, err := ask(h, string(csr))
		if err != nil {
			return Outcome{}, err
		}
		if err := files.Write(keyPEM, c.GetChain(), trust.GetRoots()); err != nil {
			return Outcome{}, err
		}
		return Outcome{
			Text: fmt.Sprintf("%s certificate of %s issued", c.GetType(), c.GetServiceId()),
			Lines: []string{"identity  " + c.GetIdentity(), "id        " + c.GetId(), "until     " + c.GetNotAfter().AsTime().Local().Format(time.DateTime),
				"chain     " + files.Cert, "key       " + files.Key, "root      " + files.Root},
			Reload: []Topic{TopicCertificates},
		}, nil
	})
}
