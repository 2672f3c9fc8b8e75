package e2e

//lint:file-ignore SA1019 the test opens one HTTP/2 connection by hand, which only x/net lets it do

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// live is a connection in the middle of what its kind does, watched by a
// goroutine that notes when it ends.
type live struct {
	kind  string
	got   atomic.Int64  // bytes that came
	poke  func() error  // makes more come; nil: they come by themselves
	ended chan struct{} // closed at the end
	at    time.Time     // of the end; valid after ended
}

// watch reads until the end.
func (l *live) watch(r io.Reader) {
	l.ended = make(chan struct{})
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			l.got.Add(int64(n))
			if err != nil {
				l.at = time.Now()
				close(l.ended)
				return
			}
		}
	}()
}

// alive says whether more bytes come.
func (l *live) alive() error {
	before := l.got.Load()
	if l.poke != nil {
		if err := l.poke(); err != nil {
			return fmt.Errorf("%s: %w", l.kind, err)
		}
	}
	if !eventually(patience, func() bool { return l.got.Load() > before }) {
		return fmt.Errorf("%s: nothing more came", l.kind)
	}
	return nil
}

// cutBy waits for the end.
func (l *live) cutBy(limit time.Duration) error {
	select {
	case <-l.ended:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s: still open after %s", l.kind, limit)
	}
}

// kept is an HTTP/1.1 connection between two requests.
func (w *world) kept(d *daemon, leaf *pki.Leaf) *live {
	w.t.Helper()
	c, _ := w.talk(d, leaf, "/hello")
	l := &live{kind: "kept alive", poke: func() error {
		_, err := io.WriteString(c, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
		return err
	}}
	l.watch(c)
	return l
}

// talk opens an HTTP/1.1 connection and has one request answered.
func (w *world) talk(d *daemon, leaf *pki.Leaf, path string) (*tls.Conn, *bufio.Reader) {
	w.t.Helper()
	c := w.dial(d, leaf, "http/1.1")
	r := bufio.NewReader(c)
	resp, _, err := ask(c, r, path)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %v, %v", path, resp, err)
	}
	return c, r
}

// streaming is a server-sent event stream over HTTP/1.1.
func (w *world) streaming(d *daemon, leaf *pki.Leaf) *live {
	w.t.Helper()
	c := w.dial(d, leaf, "http/1.1")
	if _, err := io.WriteString(c, "GET /ticks HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		w.t.Fatal(err)
	}
	l := &live{kind: "event stream"}
	l.watch(c)
	return l
}

// waiting is a request that the backend does not answer.
func (w *world) waiting(d *daemon, leaf *pki.Leaf) *live {
	w.t.Helper()
	c := w.dial(d, leaf, "http/1.1")
	if _, err := io.WriteString(c, "GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		w.t.Fatal(err)
	}
	l := &live{kind: "waiting for an answer"}
	l.watch(c)
	return l
}

// upgraded is a connection that switched to WebSocket.
func (w *world) upgraded(d *daemon, leaf *pki.Leaf) *live {
	w.t.Helper()
	c := w.dial(d, leaf, "http/1.1")
	r := bufio.NewReader(c)
	if _, err := io.WriteString(c, "GET /upgrade HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		w.t.Fatalf("upgrade: %v, %v", resp, err)
	}
	l := &live{kind: "websocket", poke: func() error { _, err := io.WriteString(c, "frame"); return err }}
	l.watch(r)
	return l
}

// stream is an event stream over HTTP/2.
func (w *world) stream(d *daemon, leaf *pki.Leaf) *live {
	w.t.Helper()
	resp := must(w.http(leaf, true).Get("https://" + d.addr + "/ticks"))(w.t)
	w.t.Cleanup(func() { _ = resp.Body.Close() })
	l := &live{kind: "HTTP/2 stream"}
	l.watch(resp.Body)
	return l
}

// tunnel is a connection to a tcp backend.
func (w *world) tunnel(d *daemon, leaf *pki.Leaf) *live {
	w.t.Helper()
	c := w.dial(d, leaf)
	if err := pingEcho(c); err != nil {
		w.t.Fatal(err)
	}
	l := &live{kind: "tcp tunnel", poke: func() error { _, err := io.WriteString(c, "more"); return err }}
	l.watch(c)
	return l
}

// street is three daemons over one trust: for HTTP, for gRPC-like HTTP/2
// backends, and for plain TCP.
type street struct {
	w              *world
	http, h2c, tcp *daemon
}

func newStreet(w *world, over set) *street {
	w.t.Helper()
	web, plain := newBackend(w.t), newTCPBackend(w.t, echo)
	return &street{
		w:    w,
		http: w.start(with(over, set{"backend.address": web.addr})),
		h2c:  w.start(with(over, set{"backend.address": web.addr, "backend.protocol": "h2c"})),
		tcp:  w.start(with(over, set{"backend.address": plain.addr, "backend.protocol": "tcp"})),
	}
}

func (s *street) daemons() []*daemon { return []*daemon{s.http, s.h2c, s.tcp} }

// open opens a connection of every kind. The first has been idle for so long
// by the end of settle that nothing serves it but the poller.
func (s *street) open(leaf *pki.Leaf) []*live {
	s.w.t.Helper()
	parked := s.w.kept(s.http, leaf)
	parked.kind = "parked"
	over2 := s.w.stream(s.h2c, leaf)
	over2.kind = "HTTP/2 stream to an h2c backend"
	return []*live{
		parked, s.w.streaming(s.http, leaf), s.w.waiting(s.http, leaf), s.w.upgraded(s.http, leaf),
		s.w.stream(s.http, leaf), over2, s.w.tunnel(s.tcp, leaf),
	}
}

// parkingTime is how long a connection must be idle to be surely parked: the
// sweeper looks four times a second, and parks what did not move twice.
const parkingTime = 1100 * time.Millisecond

// fresh is one more connection, idle but not parked yet.
func (s *street) fresh(leaf *pki.Leaf) *live {
	s.w.t.Helper()
	l := s.w.kept(s.http, leaf)
	l.kind = "just idle"
	return l
}

// mustBeCut holds all connections to an end before the limit, counted from
// when its cause came into the world.
func mustBeCut(t *testing.T, cut []*live, cause time.Time, limit time.Duration) {
	t.Helper()
	var last time.Duration
	for _, l := range cut {
		if err := l.cutBy(patience); err != nil {
			t.Error(err)
			continue
		}
		took := l.at.Sub(cause)
		last = max(last, took)
		if took > limit {
			t.Errorf("%s: cut after %s, more than %s", l.kind, took, limit)
		}
	}
	t.Logf("%d connections cut, the last %s after the cause", len(cut), last.Round(time.Millisecond))
}

func mustLive(t *testing.T, all []*live) {
	t.Helper()
	for _, l := range all {
		if l.kind == "waiting for an answer" {
			select {
			case <-l.ended:
				t.Errorf("%s: cut", l.kind)
			default:
			}
			continue
		}
		if err := l.alive(); err != nil {
			t.Error(err)
		}
	}
}
