// Package load is the load generator of the benchmark: raw, cheap, and strict
// about what it counts.
//
// It writes fixed requests over crypto/tls and scans the answers, so that on a
// machine of two cores most of what is left over goes to the proxy. Every
// connection must come out as the comparison says, TLS 1.3 with X25519 and
// AES-128-GCM and no resumption, else it is a failure: a proxy that negotiates
// something cheaper is not measured. An answer that is not a 200 of the
// expected length is a failure too.
//
// A generator is opened once, which connects and warms it, and then run one or
// more times; each run is bounded in time and gives one [Result]. It is meant
// to live in a process of its own: see [Serve] and [Start].
package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cyphers.ai/tlsmcp/bench/internal/certs"
)

// Mode is what a generator does.
type Mode string

// The modes.
const (
	Closed    Mode = "closed"    // HTTP/1.1, kept alive, each connection sends as soon as it is answered
	Paced     Mode = "paced"     // HTTP/1.1, kept alive, requests at a fixed rate whatever the answers do
	HTTP2     Mode = "http2"     // HTTP/2, a number of streams at once on each connection
	Handshake Mode = "handshake" // full handshakes, each connection closed right after
	Idle      Mode = "idle"      // connections opened and held, one request on each
	Download  Mode = "download"  // one long answer on each connection
	Upload    Mode = "upload"    // one long request on each connection
)

// grace is how long past its time a run may take until it is cut.
const grace = 20 * time.Second

// Spec says what to do.
type Spec struct {
	Mode     Mode
	Address  string // host:port of the proxy
	CAFile   string
	CertFile string
	KeyFile  string

	Conns    int           // connections at once
	Streams  int           // HTTP2: streams at once on each
	Rate     int           // Paced: requests per second, all connections together
	Duration time.Duration // of one run; Idle, Download and Upload end by themselves
	Bytes    int64         // Download and Upload: all connections together
}

// Result is what one run did.
type Result struct {
	Ops     int64         // requests answered, or handshakes done
	Failed  int64         // requests, handshakes or connections that failed
	Bytes   int64         // Download and Upload: body bytes moved
	Conns   int           // Idle: connections held
	Elapsed time.Duration // from the first send to the last answer
	P50     time.Duration // of the time from send (Paced: from when it was due) to the answer's end
	P99     time.Duration
	Max     time.Duration
	Errors  []string // the first few different failures
}

// Generator is an open load generator.
type Generator interface {
	// Run does the work once. Failures of single requests are in the Result;
	// an error says that the run as a whole means nothing.
	Run(ctx context.Context) (Result, error)
	// Close closes every connection.
	Close()
}

// Open connects a generator. It errs when the first connections fail: there is
// nothing to measure then.
func Open(ctx context.Context, s Spec) (Generator, error) {
	if s.Conns < 1 {
		return nil, fmt.Errorf("open %s load: %d connections", s.Mode, s.Conns)
	}
	d, err := newDialer(s)
	if err != nil {
		return nil, err
	}
	switch s.Mode {
	case Closed:
		return openClosed(ctx, d)
	case Paced:
		return openPaced(ctx, d)
	case HTTP2:
		return openHTTP2(ctx, d)
	case Handshake:
		return &handshakes{d: d}, nil
	case Idle:
		return &idle{d: d}, nil
	case Download, Upload:
		return openBulk(ctx, d)
	default:
		return nil, fmt.Errorf("open load: unknown mode %q", s.Mode)
	}
}

// dialer makes connections that are all alike.
type dialer struct {
	spec Spec
	tls  *tls.Config
	next atomic.Int64 // counts dials, to spread them over source addresses
}

// sources is the number of loopback addresses dialled from: one address has
// about 28,000 ports, and a closed connection keeps its own for a while.
const sources = 8

func newDialer(s Spec) (*dialer, error) {
	pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read client pair: %w", err)
	}
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read CA %s: no certificate in it", s.CAFile)
	}
	proto := "http/1.1"
	if s.Mode == HTTP2 {
		proto = "h2"
	}
	return &dialer{spec: s, tls: &tls.Config{
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519},
		Certificates:     []tls.Certificate{pair},
		RootCAs:          roots,
		ServerName:       certs.ServerName,
		NextProtos:       []string{proto},
		// Records of full size from the first byte of an upload, as a client
		// that saturates sends them.
		DynamicRecordSizingDisabled: true,
	}}, nil
}

// dial connects and shakes hands, and refuses what is not comparable.
func (d *dialer) dial(ctx context.Context) (*tls.Conn, error) {
	nd := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+d.next.Add(1)%sources))},
		Timeout:   grace,
		Control:   portAtConnect,
	}
	raw, err := nd.DialContext(ctx, "tcp4", d.spec.Address)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, d.tls)
	if err := c.SetDeadline(time.Now().Add(grace)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	if err := comparable13(c.ConnectionState(), d.tls.NextProtos[0]); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// portAtConnect lets the kernel choose the port when it knows the peer, so that
// two connections to different peers may share one.
func portAtConnect(_, _ string, rc syscall.RawConn) error {
	var err error
	if e := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}); e != nil {
		return e
	}
	return err
}

func comparable13(s tls.ConnectionState, proto string) error {
	switch {
	case s.Version != tls.VersionTLS13:
		return fmt.Errorf("negotiated %s, not TLS 1.3", tls.VersionName(s.Version))
	case s.CipherSuite != tls.TLS_AES_128_GCM_SHA256:
		return fmt.Errorf("negotiated %s, not AES-128-GCM", tls.CipherSuiteName(s.CipherSuite))
	case s.CurveID != tls.X25519:
		return fmt.Errorf("negotiated %s, not X25519", s.CurveID)
	case s.DidResume:
		return errors.New("the session was resumed")
	case s.NegotiatedProtocol != proto:
		return fmt.Errorf("negotiated protocol %q, not %q", s.NegotiatedProtocol, proto)
	}
	return nil
}

// dialAll opens n connections, some at once, and gives all of them or none.
func dialAll[T interface{ Close() error }](n int, one func() (T, error)) ([]T, error) {
	out, errs := make([]T, n), make([]error, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, 8) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				out[i], errs[i] = one()
			}
		})
	}
	wg.Wait()
	if err := firstOf(errs); err != nil {
		for i, c := range out {
			if errs[i] == nil {
				_ = c.Close() // the error returned is the one that counts
			}
		}
		return nil, fmt.Errorf("open connections: %w", err)
	}
	return out, nil
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// tally is what one worker counted; workers do not share one.
type tally struct {
	ops, failed, bytes int64
	hist               histogram
	errors             []string
}

const keptErrors = 4

func (t *tally) fail(err error) {
	t.failed++
	if len(t.errors) < keptErrors {
		t.errors = append(t.errors, err.Error())
	}
}

func total(elapsed time.Duration, all []tally) Result {
	r := Result{Elapsed: elapsed}
	var h histogram
	seen := make(map[string]bool)
	for i := range all {
		t := &all[i]
		r.Ops += t.ops
		r.Failed += t.failed
		r.Bytes += t.bytes
		h.merge(&t.hist)
		for _, e := range t.errors {
			if !seen[e] && len(r.Errors) < keptErrors {
				seen[e] = true
				r.Errors = append(r.Errors, e)
			}
		}
	}
	r.P50, r.P99, r.Max = h.quantile(0.50), h.quantile(0.99), h.max
	return r
}
