package daemon

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"time"

	"cyphers.ai/tlsmcp/daemon/admin"
	"cyphers.ai/tlsmcp/daemon/keyring"
	"cyphers.ai/tlsmcp/daemon/link"
	"cyphers.ai/tlsmcp/ipc/hub"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/pkg/audit"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/pkg/version"
)

// newLink makes the line to the Hub, if there is one. What it has on disk is in
// force when it returns.
func (d *Daemon) newLink(cfg *config.Config) error {
	if cfg.Hub.Kind == config.HubNone {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		host = "" // it is for people to read
	}
	d.link, err = link.New(link.Options{
		Log: d.log, Now: d.now, Hub: cfg.Hub, ServiceID: cfg.ServiceID, StateDir: cfg.StateDir,
		Version: version.Get().Version, Hostname: host,
		Revoke: d.takeRevocations, Trust: d.takeHubTrust, Policy: d.takePolicy, Status: d.nodeStatus,
		Facts: d.scores.forHub, FactsDue: d.scores.tell, Answered: d.hubAnswered,
	})
	return err
}

func (d *Daemon) keyringOptions(cfg *config.Config) keyring.Options {
	o := keyring.Options{Log: d.log, Now: d.now, ServiceID: cfg.ServiceID, StateDir: cfg.StateDir, Swapped: d.certificateSwapped, Issued: d.certificateIssued}
	if d.link != nil {
		o.Issuer = d.link
	}
	return o
}

// certificateIssued records that the sidecar had a certificate issued or renewed,
// whether it serves or not.
func (d *Daemon) certificateIssued(leaf, replaced *x509.Certificate) {
	r := audit.Record{Kind: audit.Certificate, Identity: leaf.Subject.CommonName, Serial: leaf.SerialNumber.Text(16), Issuer: leaf.Issuer.String(), Method: "issue",
		Detail: "issued, good until " + leaf.NotAfter.UTC().Format(time.RFC3339), Attributes: map[string]string{event.KeyFinger: pki.Fingerprint(leaf)}}
	if replaced != nil {
		r.Method, r.Target = "renew", replaced.SerialNumber.Text(16)
		r.Detail = "renewed, good until " + leaf.NotAfter.UTC().Format(time.RFC3339)
	}
	d.record(r)
}

// certificateSwapped records which certificate clients see from now on.
func (d *Daemon) certificateSwapped(s *keyring.Snapshot) {
	d.history.Serves(keyDigest(s.Leaf), s.Fingerprint, s.Leaf.NotBefore)
	d.record(audit.Record{Kind: audit.Certificate, Identity: s.Leaf.Subject.CommonName, Serial: s.Leaf.SerialNumber.Text(16), Issuer: s.Leaf.Issuer.String(),
		Detail:     "in service until " + s.Leaf.NotAfter.UTC().Format(time.RFC3339),
		Attributes: map[string]string{event.KeyFinger: s.Fingerprint, event.KeyFile: s.Files[0]}})
}

// takeRevocations takes the Hub's log into force and closes what it ends, before
// it returns: the Hub is told of it then.
func (d *Daemon) takeRevocations(l *revlog.Log) (cut, open int) {
	before := d.revoked.Swap(l)
	d.trust.SetRevocations(l)
	if before == nil || before.ID() != l.ID() || before.Sequence() != l.Sequence() {
		cut = d.conns.Recheck(d.mayStay)
		d.logCut(cut)
		d.recheckSessions()
		d.retire()
	}
	if l.News(before) {
		d.record(audit.Record{Kind: audit.Revocation, Count: uint64(cut), Detail: fmt.Sprintf("the Hub's revocations up to %d are in force", l.Sequence())})
	}
	open, _ = d.conns.Len()
	return cut, open
}

func (d *Daemon) takeHubTrust(t *link.Trust) {
	d.hubTrust.Store(t)
	d.trust.SetHubCAs(append(slices.Clone(t.Roots), t.Issuers...))
	if d.keys != nil { // else New is still at work, and will
		d.keys.Follow(t.Roots)
	}
	d.hubSpoke()
}

func (d *Daemon) takePolicy(p *hubv1.Policy) {
	c := p.GetAllowedCallers()
	err := d.trust.SetCallers(config.MTLS{AllowedServices: c.GetServices(), AllowedURIs: c.GetUris(), AllowedDNS: c.GetDns(),
		AllowedOUs: c.GetOus(), AllowAll: c.GetAll()})
	if err != nil {
		d.log.Error("the Hub's policy is not taken, the one before stays", event.KeyError, err)
		return
	}
	if before := d.policy.Swap(p); before.GetVersion() != p.GetVersion() {
		d.applyRules()
		d.record(audit.Record{Kind: audit.Policy, Detail: fmt.Sprintf("version %d of the Hub's policy is in force", p.GetVersion()), Actor: p.GetUpdatedBy(), Count: p.GetVersion()})
	}
	d.hubSpoke()
}

// hubSpoke makes handshakes and connections follow, once there are any.
func (d *Daemon) hubSpoke() {
	if d.proxy != nil { // else New is still at work, and will
		d.trustChanged()
	}
}

// nodeStatus is how this sidecar is, for the Hub.
func (d *Daemon) nodeStatus() *hubv1.NodeStatus {
	open, _ := d.conns.Len()
	st := &hubv1.NodeStatus{Connections: uint32(open), Healthy: true, Mode: string(d.trust.Current().Mode())}
	if s := d.keys.Current(); s != nil {
		st.CertificateNotAfter = hub.Stamp(s.Leaf.NotAfter)
	}
	for _, c := range d.checks() {
		if !c.OK && st.Healthy {
			st.Healthy, st.Detail = false, c.Name+": "+c.Detail
		}
	}
	return st
}

// tellHub reports to the Hub what somebody may want to search for: who was
// turned away, who was cut, and who came in, the latter once per identity and
// minute.
func (d *Daemon) tellHub(e event.Connection) {
	if d.link == nil || d.audit != nil && d.audit.toHub {
		return
	}
	attributes := map[string]string{}
	switch e.Kind {
	case event.Refused:
	case event.Accepted:
		if !d.seen.first(e.Identity, e.Time) {
			return
		}
	case event.Closed:
		if e.Reason != event.Revoked && e.Reason != event.Expired && e.Reason != event.NotAllowed {
			return
		}
	default:
		return
	}
	if e.Rule != "" {
		attributes["rule"] = e.Rule
	}
	d.link.Record(&hubv1.Event{
		Id: link.EventID(e.Time), Time: hub.Stamp(e.Time), Kind: string(e.Kind), Identity: e.Identity, Outcome: string(e.Reason),
		Detail: e.Detail, Remote: e.Remote.String(), Serial: e.Serial, Attributes: attributes,
	})
}

func (d *Daemon) linkStatus() string {
	if d.link == nil {
		return ""
	}
	st := d.link.State()
	if st.Connected {
		return fmt.Sprintf("; Hub connected, revocations at %d", st.Sequence)
	}
	return "; Hub away since " + st.Since.UTC().Format(time.RFC3339)
}

func (d *Daemon) hubCheck() admin.Check {
	st := d.link.State()
	c := admin.Check{Name: "hub", OK: st.Connected && st.Err == nil, Since: st.Since, Detail: fmt.Sprintf("revocations at %d", st.Sequence)}
	switch {
	case st.Err != nil:
		c.Detail = st.Err.Error()
	case !st.Connected:
		c.Detail = "not connected yet"
	}
	return c
}

// awaitHub gives the Hub a moment to say what is revoked.
func (d *Daemon) awaitHub(ctx context.Context, patience time.Duration) {
	if d.link == nil {
		return
	}
	select {
	case <-d.link.Ready():
	case <-time.After(patience):
		d.log.Warn("the Hub has not answered yet", event.KeyDetail, "serving with what is known of it")
	case <-ctx.Done():
	}
}
