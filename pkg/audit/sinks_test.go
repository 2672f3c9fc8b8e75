package audit

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// receiver is a syslog server: it parses messages by their RFCs.
type receiver struct {
	mu   sync.Mutex
	got  []string // kinds
	bad  []string
	addr string
	stop func()
}

// rfc5424 is the grammar of section 6, as far as one expression goes.
var rfc5424 = regexp.MustCompile(`^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) ((?:\[[!#-<>-\\^-~]{1,32}(?: [!#-<>-\\^-~]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*\])+) \x{FEFF}?(.*)$`)

func (r *receiver) message(m string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := rfc5424.FindStringSubmatch(m)
	if p == nil {
		r.bad = append(r.bad, m)
		return
	}
	if pri, _ := strconv.Atoi(p[1]); pri/8 != facilityAudit {
		r.bad = append(r.bad, m)
	}
	r.got = append(r.got, p[6])
}

// stream reads octet-counted messages (RFC 6587 section 3.4.1).
func (r *receiver) stream(c io.Reader) {
	in := bufio.NewReader(c)
	for {
		n, err := in.ReadString(' ')
		if err != nil {
			return
		}
		size, err := strconv.Atoi(strings.TrimSuffix(n, " "))
		m := make([]byte, max(size, 0))
		if err == nil {
			_, err = io.ReadFull(in, m)
		}
		if err != nil {
			r.message("not counted: " + n)
			return
		}
		r.message(string(m))
	}
}

func (r *receiver) serve(l net.Listener) {
	r.addr = l.Addr().String()
	var mu sync.Mutex
	var conns []net.Conn
	r.stop = func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			go r.stream(c)
		}
	}()
}

func (r *receiver) await(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		r.mu.Lock()
		got, bad := len(r.got), r.bad
		r.mu.Unlock()
		switch {
		case len(bad) > 0:
			t.Fatalf("it is no message of RFC 5424: %q", bad[0])
		case got >= n:
			return
		case time.Now().After(deadline):
			t.Fatalf("%d of %d messages came", got, n)
		}
	}
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// forward runs a forwarder until the test or stop ends it.
func forward(t *testing.T, l *Log, name string, s Sink) (f *Forwarder, stop func()) {
	t.Helper()
	f, err := NewForwarder(l, name, s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return f, stop
}

func jsonFormat(t *testing.T) Formatter {
	t.Helper()
	f, err := FormatterOf("json", "")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSyslogOverEachTransport(t *testing.T) {
	ca, err := pki.NewCA(pki.CAOptions{CommonName: "syslog CA"})
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	write(t, caFile, ca.CertPEM())
	leaf, err := ca.Issue(pki.LeafOptions{CommonName: "localhost", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(*receiver) string{
		"udp": func(r *receiver) string {
			c, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			r.stop = func() { _ = c.Close() }
			go func() {
				buf := make([]byte, 64<<10)
				for {
					n, _, err := c.ReadFrom(buf)
					if err != nil {
						return
					}
					r.message(string(buf[:n]))
				}
			}()
			return "udp://" + c.LocalAddr().String()
		},
		"tcp": func(r *receiver) string { r.serve(listen(t, "127.0.0.1:0")); return "tcp://" + r.addr },
		"tls": func(r *receiver) string {
			r.serve(tls.NewListener(listen(t, "127.0.0.1:0"), &tls.Config{Certificates: []tls.Certificate{pair}}))
			return "tls://" + r.addr + "?ca=" + caFile
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &receiver{}
			s, err := NewSyslogSink(open(r), "1.2.3", jsonFormat(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.stop)
			b := start(t, t.TempDir(), nil)
			b.write(1)
			forward(t, b.Log, name, s)
			for _, e := range samples() {
				if e.Kind != Checkpoint {
					b.Append(e)
				}
			}
			b.write(1)
			r.await(t, len(samples()))
		})
	}
	if _, err := NewSyslogSink("tls://127.0.0.1:1?ca=/nowhere", "", nil); err == nil {
		t.Error("a CA file that is not there is taken")
	}
	for _, bad := range []string{"", "10.0.0.1:514", "http://a", "tcp://"} {
		if _, err := NewSyslogSink(bad, "", nil); err == nil || !strings.Contains(err.Error(), "tls://HOST:PORT") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestADeadSinkGetsEverythingWhenItIsBack(t *testing.T) {
	r := &receiver{}
	r.serve(listen(t, "127.0.0.1:0"))
	s, err := NewSyslogSink("tcp://"+r.addr, "", jsonFormat(t))
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, t.TempDir(), nil)
	b.write(1)
	f, _ := forward(t, b.Log, "siem", s)
	b.write(5)
	r.await(t, 5)
	r.stop()
	b.write(300)
	for deadline := time.Now().Add(30 * time.Second); f.State().Err == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody notices that the server has gone")
		}
		b.write(1)
	}
	r.serve(listen(t, r.addr))
	t.Cleanup(func() { r.stop() })
	r.await(t, 305)
	if st := f.State(); st.Lost != 0 {
		t.Errorf("%+v", st)
	}
}

func TestASinkGoesOnWhereItWas(t *testing.T) {
	b := start(t, t.TempDir(), nil)
	var mu sync.Mutex
	var got []uint64
	sink := FuncSink(func(_ context.Context, batch []Record) error {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range batch {
			got = append(got, r.Sequence)
		}
		return nil
	})
	_, stop := forward(t, b.Log, "hub", sink)
	b.write(3)
	stop()
	b.write(3) // while nobody forwards
	_, stop = forward(t, b.Log, "hub", sink)
	b.write(1)
	stop()
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(got) != "[1 2 3 4 5 6 7 8]" {
		t.Errorf("it got %v", got)
	}
}

func TestWhatTheLogRemovedIsCounted(t *testing.T) {
	b := start(t, t.TempDir(), func(o *Options) { o.MaxSize = 64 << 10 })
	refused := errors.New("not now")
	var mu sync.Mutex
	up := false
	f, _ := forward(t, b.Log, "slow", FuncSink(func(context.Context, []Record) error {
		mu.Lock()
		defer mu.Unlock()
		if up {
			return nil
		}
		return refused
	}))
	for range 20 {
		b.write(50)
	}
	mu.Lock()
	up = true
	mu.Unlock()
	for deadline := time.Now().Add(30 * time.Second); f.State().Sequence < b.State().Sequence; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", f.State())
		}
	}
	if f.State().Lost == 0 {
		t.Error("what was removed is not counted")
	}
}

func TestAFileSinkFollowsWhoRotatesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.cef")
	cef, err := FormatterOf("cef", "1")
	if err != nil {
		t.Fatal(err)
	}
	s := &FileSink{Path: path, Format: cef}
	for range 2 {
		if err := s.Send(t.Context(), samples()[:3]); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(read(t, path)), "CEF:0|"); got != 3 {
			t.Errorf("%d lines", got)
		}
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJournaldGetsNativeFields reads the journal's own protocol.
func TestJournaldGetsNativeFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := &JournaldSink{Socket: path, Format: jsonFormat(t)}
	defer s.Close()
	if err := s.Send(t.Context(), samples()[1:2]); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for rest := string(buf[:n]); rest != ""; {
		line, after, _ := strings.Cut(rest, "\n")
		if name, value, ok := strings.Cut(line, "="); ok {
			fields[name], rest = value, after
			continue
		}
		size := 0
		for i := range 8 {
			size |= int(after[i]) << (8 * i)
		}
		fields[line], rest = after[8:8+size], strings.TrimPrefix(after[8+size:], "\n")
	}
	for name, want := range map[string]string{"TLSMCP_KIND": "refused", "TLSMCP_OUTCOME": "revoked", "PRIORITY": "4", "TLSMCP_DETAIL": "line one\nline | two = \\", "SYSLOG_IDENTIFIER": "tlsmcpd-audit"} {
		if fields[name] != want {
			t.Errorf("%s is %q, want %q", name, fields[name], want)
		}
	}
	if _, err := parseLine([]byte(fields["TLSMCP_AUDIT"])); err != nil || !strings.Contains(fields["MESSAGE"], "connection refused") {
		t.Errorf("%v, %q", err, fields["MESSAGE"])
	}
}

// TestSyslogNamesWhatItMay: an element of the structured data is registered, or
// has the enterprise number that was given (RFC 5424 section 6.3.2).
func TestSyslogNamesWhatItMay(t *testing.T) {
	ids := func(address string) (ids []string, data string) {
		s, err := NewSyslogSink(address, "1.2.3", jsonFormat(t))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it counts on
			m, err := s.message(&samples()[1])
			if err != nil {
				t.Fatal(err)
			}
			data = rfc5424.FindStringSubmatch(string(m))[7]
		}
		for _, id := range regexp.MustCompile(`\[([^ \]]+) `).FindAllStringSubmatch(data, -1) {
			ids = append(ids, id[1])
		}
		return ids, data
	}
	if got, data := ids("udp://127.0.0.1"); !slices.Equal(got, []string{"meta", "origin"}) || data != `[meta sequenceId="2"][origin software="tlsmcpd" swVersion="1.2.3"]` {
		t.Errorf("without a number: %s", data)
	}
	if got, data := ids("udp://127.0.0.1?enterprise=4711"); !slices.Equal(got, []string{"meta", "origin", "tlsmcp@4711"}) || !strings.Contains(data, `outcome="revoked"`) {
		t.Errorf("with a number: %s", data)
	}
	for _, bad := range []string{"32473", "0", "x", "-1"} {
		if _, err := NewSyslogSink("udp://127.0.0.1?enterprise="+bad, "", nil); err == nil || !strings.Contains(err.Error(), "private enterprise number") {
			t.Errorf("the number %s: %v", bad, err)
		}
	}
}
