package link

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"

	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jointoken"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// enrolled makes the host a node if it is none.
func (l *Link) enrolled(ctx context.Context) error {
	if n := l.node.Load(); n != nil && (l.o.Hub.Kind == config.HubLocal || l.now().Before(n.cert.Leaf.NotAfter)) && l.journal != nil {
		return nil
	}
	return l.enrol(ctx)
}

// lookForToken is how often a node looks whether it is to join again.
const lookForToken = 5 * time.Second

// rejoin makes the host another node when it is told to, and says so by done. A
// join token that somebody left for it tells it: its certificate was revoked, or
// it is to belong to another Hub. A Hub on this host tells it by not knowing it,
// as one does that was made anew, or restored from before. A token that the Hub
// refuses is dropped: the host stays the node that it is.
func (l *Link) rejoin(ctx context.Context, done func()) error {
	for {
		if l.told() {
			err := l.enrol(ctx)
			switch {
			case err == nil:
				l.unknown.Store(false)
				l.client.Renew()
				done()
				return nil
			case l.o.Hub.Kind == config.HubLocal || !refused(err):
				return err
			}
			l.log.Error("the join token is refused; this host stays the node that it is",
				event.KeyError, hubclient.Explain(err), event.KeyHint, "tlsmcp hub token create --join SERVICE makes another")
			if err := os.Remove(l.dir.file(hub.JoinTokenFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookForToken):
		}
	}
}

// refused reports whether the Hub said no to what it was shown, and will again.
func refused(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeInvalidArgument:
		return hubclient.Problem(err) != nil
	}
	return false
}

// told reports whether a node is to join again.
func (l *Link) told() bool {
	if l.o.Hub.Kind == config.HubLocal {
		return l.unknown.Load()
	}
	_, err := os.Stat(l.dir.file(hub.JoinTokenFile))
	return err == nil
}

// enrol makes the host a node.
func (l *Link) enrol(ctx context.Context) error {
	client, token, err := l.enrolClient()
	if err != nil {
		return err
	}
	defer client.Close()
	key, csr, err := pki.NewRequest(l.o.ServiceID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := client.Enroll(ctx, &hubv1.EnrollRequest{Token: token, ServiceId: l.o.ServiceID, Csr: string(csr), Hostname: l.o.Hostname, Version: l.o.Version})
	if err != nil {
		return err
	}
	t, err := newTrust(r.GetTrust(), l.now())
	if err != nil {
		return err
	}
	if parsed, err := jointoken.Parse(token); err == nil && !t.has(parsed.Root) {
		return errors.New("the Hub's root is not the one that the token names")
	}
	if err := l.dir.save(trustFile, r.GetTrust()); err != nil {
		return err
	}
	n, err := l.dir.saveNode(key, r.GetCertificate().GetChain())
	if err != nil {
		return err
	}
	l.node.Store(n)
	_ = os.Remove(l.dir.file(hub.JoinTokenFile)) // used up; one that stays is of no use to anybody
	l.setTrust(t)
	if l.journal == nil {
		j, log, err := l.dir.openJournal(t.keys, l.now())
		if j == nil {
			return err
		}
		l.journal = j
		l.enforce(log)
	}
	l.log.Info("enrolled with the Hub", event.KeyNode, n.id, event.KeyService, n.service)
	l.well()
	return nil
}

// enrolClient is a client that knows the Hub by what the operator gave: a join
// token with the root's hash, or a CA file. The token that tlsmcp hub join left
// is newer than one in the configuration.
func (l *Link) enrolClient() (*hubclient.Node, string, error) {
	if l.o.Hub.Kind == config.HubLocal {
		c, err := hubclient.NewNode(hubclient.Options{Socket: l.o.Hub.Socket})
		return c, "", err
	}
	text, err := l.joinToken()
	if err != nil {
		return nil, "", err
	}
	token, err := jointoken.Parse(text)
	if err != nil {
		return nil, "", err
	}
	if token.Kind != jointoken.Join {
		return nil, "", errors.New("the token is a bearer token; joining takes a join token: tlsmcp hub token create --join SERVICE")
	}
	o := hubclient.Options{URL: l.o.Hub.URL, RootHash: &token.Root}
	if l.o.Hub.CAFile != "" {
		// The operator said by what to know the Hub; the token does not widen it.
		roots, err := pki.LoadBundle(l.o.Hub.CAFile)
		if err != nil {
			return nil, "", fmt.Errorf("hub.ca_file: %w", err)
		}
		o.RootHash, o.Roots = nil, func() []*x509.Certificate { return roots }
	}
	c, err := hubclient.NewNode(o)
	return c, text, err
}

func (l *Link) joinToken() (string, error) {
	left, err := os.ReadFile(l.dir.file(hub.JoinTokenFile))
	switch {
	case err == nil:
		return strings.TrimSpace(string(left)), nil
	case !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("join token: %w", err)
	case l.o.Hub.AuthTokenFile != "":
		raw, err := os.ReadFile(l.o.Hub.AuthTokenFile)
		if err != nil {
			return "", fmt.Errorf("join token: %w", err)
		}
		return strings.TrimSpace(string(raw)), nil
	case l.o.Hub.AuthToken != "":
		return string(l.o.Hub.AuthToken), nil
	}
	return "", errors.New("there is no join token: run tlsmcp hub join, or set hub.auth_token_file")
}
