package scantruth

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/scan"
)

// before starts a Go server that talks in another protocol first.
func before(talk func(net.Conn) bool) func(*testing.T, *lab) string {
	return func(t *testing.T, l *lab) string {
		pair := must(l.issue(t, nil).TLS())
		return serve(t, func(c net.Conn) {
			if !talk(c) {
				return
			}
			conn := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
			if conn.HandshakeContext(t.Context()) == nil {
				io.Copy(io.Discard, conn)
			}
		})
	}
}

func smtp(offers bool) func(net.Conn) bool {
	return func(c net.Conn) bool {
		r := bufio.NewReader(c)
		io.WriteString(c, "220-mail.test says\r\n220 hello\r\n")
		if line, _ := r.ReadString('\n'); !strings.HasPrefix(line, "EHLO ") {
			return false
		}
		io.WriteString(c, "250-mail.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n")
		if line, _ := r.ReadString('\n'); line != "STARTTLS\r\n" {
			return false
		}
		if !offers {
			io.WriteString(c, "454 TLS not available\r\n")
			return false
		}
		io.WriteString(c, "220 go ahead\r\n")
		return true
	}
}

func postgres(answer string) func(net.Conn) bool {
	return func(c net.Conn) bool {
		var request [8]byte
		io.ReadFull(c, request[:])
		io.WriteString(c, answer)
		return answer == "S" && string(request[:]) == "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	}
}

func by(how scan.StartTLS) func(*scan.Target) {
	return func(t *scan.Target) { t.StartTLS = how }
}

func TestStartTLS(t *testing.T) {
	holdAll(t, []truth{
		{rule: "SMTP", start: before(smtp(true)), target: by(scan.SMTP)},
		{rule: "PostgreSQL", start: before(postgres("S")), target: by(scan.Postgres)},
	})
}

// TestUnreachable holds what cannot be scanned to its code, and to a hint.
func TestUnreachable(t *testing.T) {
	l := newLab(t)
	silent := func(t *testing.T, _ *lab) string {
		return serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	}
	for _, tt := range []struct {
		rule  string
		start func(*testing.T, *lab) string
		how   scan.StartTLS
		code  string
	}{
		{"nobody listens", func(t *testing.T, _ *lab) string { return "127.0.0.1:" + freePort(t) }, scan.Direct, "refused"},
		{"it speaks HTTP", func(t *testing.T, _ *lab) string {
			return serve(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); c.Read(make([]byte, 4096)) })
		}, scan.Direct, "not_tls"},
		{"it hangs up", func(t *testing.T, _ *lab) string {
			return serve(t, func(c net.Conn) { c.Read(make([]byte, 4096)) })
		}, scan.Direct, "no_answer"},
		{"it says nothing", silent, scan.Direct, "timeout"},
		{"the mail server has no TLS", before(smtp(false)), scan.SMTP, "no_starttls"},
		{"PostgreSQL has no TLS", before(postgres("N")), scan.Postgres, "no_starttls"},
		{"it is no mail server", before(postgres("S")), scan.SMTP, "timeout"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			o := l.options()
			if tt.code == "timeout" { // whoever answers gets the time that it takes
				o.Timeout = 2 * time.Second
			}
			r, err := scan.Scan(t.Context(), scan.Target{Host: host, Address: tt.start(t, l), StartTLS: tt.how}, o)
			if err != nil {
				t.Fatal(err)
			}
			if r.State != scan.Unreachable || len(r.Problems) != 1 || r.Problems[0].Code != tt.code || r.Problems[0].Hint == "" {
				t.Errorf("%s, %+v; want the code %s", r.State, r.Problems, tt.code)
			}
			if r.Grade != nil || len(r.Findings()) > 0 {
				t.Errorf("what was not reached has a grade or findings: %+v", r)
			}
		})
	}
}

// TestALateSilenceIsIncomplete holds a server that answers at first and then no
// more to a report that does not pass what was not measured.
func TestALateSilenceIsIncomplete(t *testing.T) {
	l := newLab(t)
	pair := must(l.issue(t, nil).TLS())
	answers := make(chan struct{}, 3)
	for range cap(answers) {
		answers <- struct{}{}
	}
	address := serve(t, func(c net.Conn) {
		select {
		case <-answers:
			conn := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
			conn.HandshakeContext(t.Context())
		default:
			io.Copy(io.Discard, c)
		}
	})
	o := l.options()
	o.Timeout, o.Limit = 2*time.Second, 8*time.Second
	r := must(scan.Scan(t.Context(), scan.Target{Host: host, Address: address}, o))
	if r.State != scan.Incomplete || len(r.Problems) == 0 || r.Problems[0].Hint == "" {
		t.Fatalf("%s, %+v", r.State, r.Problems)
	}
	for _, c := range r.Checks {
		if c.Status == scan.Pass && (c.ID == "protocol-ssl3" || c.ID == "group-post-quantum" || c.ID == "cert-dates") {
			t.Errorf("%s is passed: %s", c.ID, c.Detail)
		}
	}
	if r.Facts.Versions != nil || r.Facts.Groups != nil {
		t.Error("what was half measured is a fact")
	}
}

// TestTheSecondAddressIsTried holds a name with several addresses to what a
// client makes of it: one that is dead is passed over, and all of the scan goes
// to the one that answered.
func TestTheSecondAddressIsTried(t *testing.T) {
	l := newLab(t)
	address := goServer(goodLeaf, nil)(t, l)
	_, port, _ := net.SplitHostPort(address)
	records := dnsServer(t, map[string][]string{
		host + ".": {host + ". 60 IN A 127.0.0.99", host + ". 60 IN A 127.0.0.1"},
	})
	o := l.options()
	dialer := &net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", records)
	}}}
	o.Dial = dialer.DialContext
	target := must(scan.ParseTarget(host + ":" + port))
	r := must(scan.Scan(t.Context(), target, o))
	if r.State != scan.Complete || r.Address != address || len(r.Findings()) > 0 {
		t.Errorf("%s at %q, want %q: %+v %+v", r.State, r.Address, address, r.Problems, r.Findings())
	}
}

// dnsServer answers with these records by name, whatever type is asked for.
func dnsServer(t *testing.T, zone map[string][]string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{})
	server := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, text := range zone[strings.ToLower(q.Question[0].Name)] {
			if rr, err := dns.NewRR(text); err == nil && rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() {
		server.ActivateAndServe()
		close(done)
	}()
	<-up
	t.Cleanup(func() {
		server.Shutdown()
		<-done
	})
	return pc.LocalAddr().String()
}

// TestWeb holds the checks for web servers to what the server and its DNS say.
func TestWeb(t *testing.T) {
	plain := func(answer string) func(*testing.T) int {
		return func(t *testing.T) int {
			_, port, _ := net.SplitHostPort(serve(t, func(c net.Conn) {
				c.Read(make([]byte, 4096))
				io.WriteString(c, answer)
			}))
			var n int
			fmt.Sscan(port, &n)
			return n
		}
	}
	web := func(plain func(*testing.T) int, zone map[string][]string) func(*testing.T, *lab, *scan.Options) {
		return func(t *testing.T, _ *lab, o *scan.Options) {
			o.Web, o.Resolver = scan.WebOn, dnsServer(t, zone)
			if plain != nil {
				o.HTTPPort = plain(t)
			}
		}
	}
	server := with(func(o *pki.LeafOptions) { public(o) })
	issues := map[string][]string{"test.": {`test. 60 IN CAA 0 issue "ca.test"`}}
	none := map[string][]string{}
	holdAll(t, []truth{
		{rule: "it redirects, and CAA is above", start: server, want: []string{"hsts", "cert-lint"},
			options: web(plain("HTTP/1.1 301 Moved\r\nLocation: https://server.test/\r\nContent-Length: 0\r\n\r\n"), issues)},
		{rule: "it redirects to plain HTTP", start: server, want: []string{"hsts", "redirect", "cert-lint"},
			options: web(plain("HTTP/1.1 301 Moved\r\nLocation: http://server.test/\r\nContent-Length: 0\r\n\r\n"), issues)},
		{rule: "it answers in plain HTTP", start: server, want: []string{"hsts", "redirect", "cert-lint"},
			options: web(plain("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), issues)},
		{rule: "no CAA", start: server, want: []string{"hsts", "caa", "cert-lint"}, options: web(nil, none)},
		{rule: "a private CA needs no CAA", start: with(nil), want: []string{"hsts"}, options: web(nil, none)},
	})
}
