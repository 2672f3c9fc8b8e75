package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// holdTarget is how many connections to hold when descriptors allow.
const holdTarget = 10_000

// TestManyConnectionsOverASwap is not parallel: it takes what memory and
// processor time there are.
func TestManyConnectionsOverASwap(t *testing.T) {
	w, b := newWorld(t), newBackend(t)
	d := w.start(set{"backend.address": b.addr, "listen.max_connections": holdTarget + 100,
		"listen.handshake_timeout": "30s", "backend.pool_size": 16})
	alice := w.client("alice")
	cert, key := w.files("alice", alice)

	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := int(min(holdTarget, limit.Max-min(limit.Max/2, 300))) // some are for the backend, the log and the files
	from := time.Now()
	h := startHolder(t, d.addr, strconv.Itoa(n), cert, key, w.path("ca.pem"))
	if got := h.line(t); got != "held "+strconv.Itoa(n) {
		t.Fatalf("the clients say %q", got)
	}
	t.Logf("%d connections held, opened in %s; the target is %d, the descriptor limit %d",
		n, time.Since(from).Round(time.Millisecond), holdTarget, limit.Max)
	if got := d.metric("tlsmcp_connections_open"); got != float64(n) {
		t.Errorf("the daemon says that %v connections are open", got)
	}

	next := w.server()
	w.writeServer(next)
	took := awaitCertificate(t, w, d, alice, next, time.Now())
	t.Logf("new certificate seen after %s", took)

	h.say(t, "again")
	if got, want := h.line(t), fmt.Sprintf("answered %d failed 0", n); got != want {
		t.Errorf("after the swap the clients say %q, want %q", got, want)
	}
	if got := d.metric(`tlsmcp_connections_accepted_total`); got < float64(n) {
		t.Errorf("%v connections were accepted", got)
	}
	t.Logf("all in %s", time.Since(from).Round(time.Millisecond))
}

// holder is the process with the clients.
type holder struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func startHolder(t *testing.T, args ...string) *holder {
	t.Helper()
	cmd := helperCommand(t, "hold", args...)
	cmd.Stderr = os.Stderr
	h := &holder{in: must(cmd.StdinPipe())(t)}
	h.out = bufio.NewReader(must(cmd.StdoutPipe())(t))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.in.Close() // it leaves when nobody talks to it any more
		if err := cmd.Wait(); err != nil {
			t.Errorf("the clients: %v", err)
		}
	})
	return h
}

func (h *holder) say(t *testing.T, word string) {
	t.Helper()
	if _, err := fmt.Fprintln(h.in, word); err != nil {
		t.Fatal(err)
	}
}

func (h *holder) line(t *testing.T) string {
	t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the clients: %v", err)
	}
	return line[:len(line)-1]
}

// holdConnections is the helper: it opens connections, has one request answered
// on each, says so, and does that again for each line that it is told. It ends
// with its input.
func holdConnections(args []string, in io.Reader, out io.Writer) error {
	addr, caFile := args[0], args[4]
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(args[2], args[3])
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	cas := x509.NewCertPool()
	if !cas.AppendCertsFromPEM(pem) {
		return errors.New("no CA")
	}
	cfg := &tls.Config{RootCAs: cas, ServerName: "localhost", Certificates: []tls.Certificate{pair}, CurvePreferences: []tls.CurveID{tls.X25519}}
	conns := make([]*tls.Conn, n)
	var failed error
	var mu sync.Mutex
	each(conns, func(i int) {
		c, err := tls.Dial("tcp", addr, cfg)
		if err == nil {
			conns[i], err = c, hello(c)
		}
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed = fmt.Errorf("connection %d: %w", i, err)
		}
	})
	if failed != nil {
		return failed
	}
	fmt.Fprintf(out, "held %d\n", n)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var answered, lost atomic.Int64
		each(conns, func(i int) {
			if hello(conns[i]) == nil {
				answered.Add(1)
			} else {
				lost.Add(1)
			}
		})
		fmt.Fprintf(out, "answered %d failed %d\n", answered.Load(), lost.Load())
	}
	return nil
}

// each does something with every connection, some at a time.
func each(conns []*tls.Conn, do func(i int)) {
	const atOnce = 32
	var wg sync.WaitGroup
	for w := range atOnce {
		wg.Go(func() {
			for i := w; i < len(conns); i += atOnce {
				do(i)
			}
		})
	}
	wg.Wait()
}

// hello makes one request and reads the answer whole. It keeps no buffer.
func hello(c *tls.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	r := bufio.NewReaderSize(c, 1024)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "hello" {
		err = fmt.Errorf("%s %q", resp.Status, body)
	}
	return err
}
