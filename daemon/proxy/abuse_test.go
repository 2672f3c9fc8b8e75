package proxy

//lint:file-ignore SA1019 the tests speak HTTP/2 frame by frame

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// Clients and backends that stop half-way, in ways that a time limit or a
// buffer must survive.

// gone waits until no connection is open.
func (f *front) gone(within time.Duration) {
	f.t.Helper()
	for deadline := time.Now().Add(within); f.server.Open() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Errorf("%d connections are open after %s", f.server.Open(), within)
			return
		}
	}
}

// frames opens an HTTP/2 connection to speak by hand.
func (f *front) frames(settings ...http2.Setting) (net.Conn, *http2.Framer) {
	f.t.Helper()
	c := f.dial("h2")
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		f.t.Fatal(err)
	}
	fr := http2.NewFramer(c, c)
	if err := fr.WriteSettings(settings...); err != nil {
		f.t.Fatal(err)
	}
	return c, fr
}

func headerBlock(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.Bytes()
}

func h2Request(id uint32, end bool, more ...string) http2.HeadersFrameParam {
	block := headerBlock(append([]string{":method", "POST", ":scheme", "https", ":authority", "a", ":path", "/"}, more...)...)
	return http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: end}
}

// TestStalledUploads: a backend that answers and then reads no more does not
// hold the client's connection, nor the answer back.
func TestStalledUploads(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			t.Parallel()
			stop := make(chan struct{})
			f := startFront(t, rawBackend(t, func(c net.Conn) {
				readRequest(bufio.NewReader(c))
				time.Sleep(300 * time.Millisecond)
				_, _ = io.WriteString(c, "HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
				<-stop
			}), func(l *config.Listen) { l.IdleTimeout = time.Second })
			t.Cleanup(func() { close(stop) })
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "POST", f.url("/"), io.LimitReader(zeros{}, 64<<20))
			req.ContentLength = 64 << 20
			client := f.http(h2)
			resp, err := client.Do(req)
			if h2 {
				if err != nil || resp.StatusCode != 413 {
					t.Fatalf("%v %v", resp, err)
				}
				if b, err := io.ReadAll(resp.Body); string(b) != "no" || err != nil {
					t.Errorf("%q %v", b, err)
				}
			}
			if resp != nil {
				resp.Body.Close()
			}
			client.CloseIdleConnections()
			f.gone(patience)
		})
	}
}

// TestClosedWindow: a client that never opens a stream's window loses the
// stream, and the backend connection is free again.
func TestClosedWindow(t *testing.T) {
	released := make(chan struct{})
	var once sync.Once
	f := startFront(t, rawBackend(t, func(c net.Conn) {
		readRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
		_, _ = io.Copy(c, zeros{})
		once.Do(func() { close(released) })
	}), func(l *config.Listen) { l.IdleTimeout = time.Second })
	_, fr := f.frames(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	if err := fr.WriteHeaders(h2Request(1, true)); err != nil {
		t.Fatal(err)
	}
	go func() { // keep the connection itself alive
		for {
			if _, err := fr.ReadFrame(); err != nil {
				return
			}
		}
	}()
	select {
	case <-released:
	case <-time.After(patience):
		t.Error("the backend connection is held long after the idle timeout")
	}
}

// TestPartialRecord: a few bytes of a TLS record do not hold a connection past
// the header timeout.
func TestPartialRecord(t *testing.T) {
	f := startFront(t, httpBackend(t, func(http.ResponseWriter, *http.Request) {}),
		func(l *config.Listen) { l.IdleTimeout, l.HeaderTimeout = time.Second, time.Second })
	c := f.dial()
	time.Sleep(100 * time.Millisecond)
	if _, err := c.NetConn().Write([]byte{23, 3}); err != nil {
		t.Fatal(err)
	}
	f.gone(patience)
}

// TestHangUpAfterParking: a connection that was parked before is watched for a
// hang-up like any other.
func TestHangUpAfterParking(t *testing.T) {
	gone := make(chan bool, 1)
	f := startFront(t, rawBackend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		readRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		readRequest(r)
		_, err := r.ReadByte()
		gone <- err != nil
	}), nil)
	c := f.dial()
	exchangeRaw(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	time.Sleep(1200 * time.Millisecond)
	fmt.Fprint(c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	time.Sleep(100 * time.Millisecond)
	_ = c.NetConn().Close()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the backend was not told")
	}
}

// TestResetStreams: a client that resets its streams just as they end does not
// leave closed backend connections to others.
func TestResetStreams(t *testing.T) {
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }), nil)
	_, fr := f.frames()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var resetter sync.WaitGroup
	resetter.Go(func() {
		for id := uint32(1); ctx.Err() == nil; id += 2 {
			if fr.WriteHeaders(h2Request(id, true)) != nil {
				return
			}
			time.Sleep(200 * time.Microsecond)
			if fr.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				return
			}
		}
	})
	go func() {
		for {
			if _, err := fr.ReadFrame(); err != nil {
				return
			}
		}
	}()
	client, failed, sent := f.http(false), 0, 0
	for until := time.Now().Add(2 * time.Second); sent < 100 || time.Now().Before(until); sent++ {
		resp, err := client.Post(f.url("/"), "text/plain", strings.NewReader("x"))
		if err != nil {
			failed++
			continue
		}
		if resp.StatusCode != 200 {
			failed++
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	cancel()
	resetter.Wait()
	if failed > 0 {
		t.Errorf("%d of %d requests of another client failed", failed, sent)
	}
}

// TestConnectionErrorWhileReading: a connection that x/net gives up while its
// reader still has bytes does not give the reader's buffer away. The race
// detector is the judge.
func TestConnectionErrorWhileReading(t *testing.T) {
	f := startFront(t, httpBackend(t, func(http.ResponseWriter, *http.Request) {}), nil)
	var clients sync.WaitGroup
	for range 4 {
		c, fr := f.frames()
		clients.Go(func() {
			_ = fr.WriteRSTStream(99, http2.ErrCodeCancel) // an idle stream: a connection error
			for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
				if _, err := c.Write(make([]byte, 8)); err != nil {
					return
				}
			}
		})
	}
	clients.Wait()
	f.gone(patience)
}

// TestOneBackendConnectionForAllNames: what a client calls the service does not
// decide how many connections the backend gets.
func TestOneBackendConnectionForAllNames(t *testing.T) {
	var open atomic.Int64
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }), Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	s.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			open.Add(1)
		}
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	f := startFront(t, config.Backend{Protocol: config.ProtocolH2C, Network: "tcp", Address: l.Addr().String()}, nil)
	client := f.http(true)
	for i := range 20 {
		req, _ := http.NewRequest("GET", f.url("/"), nil)
		req.Host = fmt.Sprintf("h%d.example", i)
		resp := must(client.Do(req))(t)
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != req.Host {
			t.Errorf("the backend was told %q", b)
		}
	}
	if open.Load() > 2 {
		t.Errorf("%d connections to the backend", open.Load())
	}
}

// TestTunnelReason: a client's reset is the client's.
func TestTunnelReason(t *testing.T) {
	came := make(chan struct{}, 1)
	b := rawBackend(t, func(c net.Conn) {
		if n, _ := io.ReadFull(c, make([]byte, 5)); n == 5 {
			came <- struct{}{}
		}
		_, _ = io.Copy(io.Discard, c)
	})
	b.Protocol = config.ProtocolTCP
	f := startFront(t, b, nil)
	c := f.dial()
	fmt.Fprint(c, "hello")
	<-came
	_ = c.NetConn().(*net.TCPConn).SetLinger(0)
	_ = c.NetConn().Close()
	if e := f.waitEvent(event.Closed); e.Reason != event.Reset {
		t.Errorf("reason %s: %s", e.Reason, e.Detail)
	}
}

// TestNamelessTrailer: an empty element in Trailer is no field.
func TestNamelessTrailer(t *testing.T) {
	f := startFront(t, httpBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }), nil)
	_, fr := f.frames()
	if err := fr.WriteHeaders(h2Request(1, false, "trailer", "a,,b")); err != nil {
		t.Fatal(err)
	}
	if err := fr.WriteData(1, true, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			return
		case *http2.RSTStreamFrame:
			t.Fatalf("the stream was reset: %v", frame.ErrCode)
		}
	}
}

// TestOldClientsHead: HTTP/1.0 is not told of chunks by HEAD either.
func TestOldClientsHead(t *testing.T) {
	f := startFront(t, rawBackend(t, func(c net.Conn) {
		readRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	}), nil)
	c := f.dial()
	fmt.Fprint(c, "HEAD / HTTP/1.0\r\nHost: a\r\n\r\n")
	b := string(must(io.ReadAll(c))(t))
	if !strings.HasPrefix(b, "HTTP/1.1 200 ") || strings.Contains(b, "chunked") {
		t.Errorf("%q", b)
	}
}

// TestDrainEndsLateHandshakes: a handshake that ends after the drain time does
// not keep the server from stopping.
func TestDrainEndsLateHandshakes(t *testing.T) {
	b := rawBackend(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	b.Protocol = config.ProtocolTCP
	f := startFront(t, b, func(l *config.Listen) { l.DrainTimeout = 300 * time.Millisecond })
	raw := must(net.Dial("tcp", f.addr))(t)
	defer raw.Close()
	time.Sleep(200 * time.Millisecond)
	f.stop()
	time.Sleep(time.Second)
	c := f.over(raw)
	_ = c.Handshake()
	fmt.Fprint(c, "x")
	select {
	case <-f.done:
	case <-time.After(patience):
		t.Error("the server does not stop")
		raw.Close()
	}
}

// TestBackendDiesDuringUpload: when the backend ends the connection while the
// client still has body to send, it is the backend's fault that is told.
func TestBackendDiesDuringUpload(t *testing.T) {
	f := startFront(t, rawBackend(t, func(c net.Conn) { readRequest(bufio.NewReader(c)) }), nil)
	for _, h2 := range []bool{false, true} {
		body, more := io.Pipe()
		go func() { _, _ = more.Write([]byte("begun, and never ended")) }()
		req, _ := http.NewRequest("POST", f.url("/"), body)
		resp := must(f.http(h2).Do(req))(t)
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		_ = more.Close()
		if resp.StatusCode != 502 || !strings.Contains(string(b), `"backend_broke"`) {
			t.Errorf("h2=%v: %d %s", h2, resp.StatusCode, b)
		}
	}
}
