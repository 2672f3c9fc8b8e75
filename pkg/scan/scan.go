// Package scan looks at a TLS server from outside, as any client may, and says
// what is wrong with it.
//
// A scan has two halves that do not know each other. The probes ask: each is a
// handful of handshakes about one subject, by crypto/tls where that can and by
// package rawtls where it cannot, and what they see goes into one observation.
// The rules judge: pure functions from the observation to a check each, with a
// severity, the evidence and the fix. So every rule can be tested without a
// server, and every probe without an opinion.
//
// What could not be measured is never passed: it is not_tested, or an error that
// makes the scan incomplete. What cannot apply is na, and no penalty. A refused
// handshake means that this offer was not taken, not that the server knows
// nothing of the kind.
//
// A scan does no harm. It opens few connections at a time, an end to them all is
// set, it sends nothing that a sound client would not send, no early data, no
// malformed message, and follows no address that the server names: neither
// redirects nor the URLs in its certificate.
package scan

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"time"
)

// Web says whether the checks for web servers are made.
type Web string

// The choices.
const (
	WebAuto Web = "auto" // on port 443
	WebOn   Web = "on"
	WebOff  Web = "off"
)

// Options say how to scan. The zero value is usable.
type Options struct {
	Profile    string // by name; empty: DefaultProfile
	ExpectMTLS bool   // it is a finding when the server does not insist on a client certificate

	// CAs are what the certificate must lead to; the self-signed ones are roots,
	// the others only tell that the server should have sent them. Nil: the roots
	// of this system.
	CAs               []*x509.Certificate
	ClientCertificate *tls.Certificate // for servers that insist on one; nil: none

	Web      Web    // empty: WebAuto
	HTTPPort int    // where plain HTTP is expected to redirect from; 0: 80 if the target's port is 443, else nowhere
	Resolver string // host:port of the DNS server for CAA; empty: the first of /etc/resolv.conf

	Timeout        time.Duration // for one connection; 0: 5 s
	Limit          time.Duration // for all of one target; 0: 60 s
	Parallel       int           // connections to one target at the same time; 0: 4
	MaxConnections int           // to one target in all; 0: 1500

	Dial     func(ctx context.Context, network, address string) (net.Conn, error) // nil: net.Dialer
	Now      func() time.Time                                                     // nil: time.Now
	Progress func(Progress)                                                       // nil: nobody wants to know; called from several goroutines
}

// Progress is how far the scan of a target is.
type Progress struct {
	Target      string
	Stage       string // what is being looked at
	Done, Of    int    // stages
	Connections int    // so far
}

// withDefaults fills in what is zero, and refuses what makes no sense.
func (o Options) withDefaults() (Options, error) {
	if o.Profile == "" {
		o.Profile = DefaultProfile
	}
	if !slices.Contains(Profiles(), o.Profile) {
		return o, fmt.Errorf("no profile %q; there are %q", o.Profile, Profiles())
	}
	if o.Web == "" {
		o.Web = WebAuto
	}
	if !slices.Contains([]Web{WebAuto, WebOn, WebOff}, o.Web) {
		return o, fmt.Errorf("web is %q, not auto, on or off", o.Web)
	}
	if o.Timeout < 0 || o.Limit < 0 || o.Parallel < 0 || o.MaxConnections < 0 || o.HTTPPort < 0 || o.HTTPPort > 65535 {
		return o, fmt.Errorf("a negative time, number or port makes no sense")
	}
	o.Timeout = orDefault(o.Timeout, 5*time.Second)
	o.Limit = orDefault(o.Limit, time.Minute)
	o.Parallel = orDefault(o.Parallel, 4)
	o.MaxConnections = orDefault(o.MaxConnections, 1500)
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	return o, nil
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// Scan looks at one server. The error is for options that make no sense. A
// server that cannot be reached, or only in part, is a report that says so.
// When ctx ends early the report holds what there was time for.
func Scan(ctx context.Context, target Target, options Options) (*Report, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := target.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	p := newProbe(target, &o)
	start := o.Now()
	p.run(ctx)
	return judge(p, start), nil
}
