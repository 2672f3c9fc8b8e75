// Package admin serves what monitoring asks for: /metrics for Prometheus,
// /livez and /readyz for whoever starts and restarts the daemon.
//
// It speaks plain HTTP without a login, so it is for this host only. The
// listener must be on a loopback address, and a request must name one in its
// Host header: a page in somebody's browser can make a name of its own resolve
// to 127.0.0.1 and would otherwise read all of this (DNS rebinding).
//
// /livez says that the process answers. It asks nothing else, since the cure
// for "not alive" is a restart, and no restart mends a missing file. /readyz
// asks every check, and answers 503 while one fails that is required.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Limits of the server. A scrape of some thousand series takes milliseconds;
// what takes longer than this is not a scrape.
const (
	headerTimeout  = 5 * time.Second
	writeTimeout   = 30 * time.Second
	idleTimeout    = 2 * time.Minute // Prometheus scrapes every minute, often on one connection
	maxHeaderBytes = 16 << 10
	maxScrapes     = 4
	stopTimeout    = 2 * time.Second
)

// Check is how one part of the daemon is.
type Check struct {
	Name     string
	OK       bool
	Required bool // while it fails the daemon is not ready
	Detail   string
	Since    time.Time // when it became so; zero when that is not known
}

// Server is the admin listener. Make one with New, then call Run.
type Server struct {
	ln     net.Listener
	checks func() []Check
	http   *http.Server
}

// Listen opens a TCP listener on a loopback address and refuses any other.
func Listen(addr netip.AddrPort) (net.Listener, error) {
	if !addr.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("admin address %s is not a loopback address", addr)
	}
	ln, err := net.Listen("tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return ln, nil
}

// New makes a server over a listener, which must be on a loopback address or a
// Unix socket, and which Run closes. checks is called for each /readyz, from
// several goroutines, and must be quick: it reads what is known and goes and
// asks nobody.
func New(ln net.Listener, metrics http.Handler, checks func() []Check, log *slog.Logger) (*Server, error) {
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("admin address %s is not a loopback address", tcp)
	}
	s := &Server{ln: ln, checks: checks}
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", atMost(maxScrapes, metrics))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", s.ready)
	s.http = &http.Server{
		Handler:           guard(mux),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout, // no request here has a body
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          errorLog,
	}
	return s, nil
}

// atMost refuses requests while as many are being answered.
func atMost(n int, next http.Handler) http.Handler {
	places := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			next.ServeHTTP(w, r)
		default:
			http.Error(w, "other scrapes are under way", http.StatusServiceUnavailable)
		}
	})
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Run serves until ctx is done, lets requests under way finish for two seconds,
// and returns nil; or returns why it could not serve.
func (s *Server) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(stopped)
		<-ctx.Done()
		grace, release := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer release()
		if s.http.Shutdown(grace) != nil {
			s.http.Close()
		}
	}()
	err := s.http.Serve(s.ln)
	cancel()
	<-stopped
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("admin: %w", err)
}

// guard refuses requests that name another host than this one.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !isLoopbackHost(r.Host) {
			http.Error(w, "the Host header must name localhost or a loopback address", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopbackHost tells whether a Host header (RFC 9110 section 7.2) names the
// loopback: "localhost" or an address, with or without a port. No header at all
// is HTTP/1.0, which simple health checks speak and no browser does.
func isLoopbackHost(host string) bool {
	if host == "" {
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}

// ready answers 200 or 503 in one of three forms: one word; with ?verbose a
// line for each check; with ?format=json, or Accept: application/json, JSON.
// When it is not ready, the one word is followed by the checks that fail.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	checks := s.checks()
	ready := true
	for _, c := range checks {
		ready = ready && (c.OK || !c.Required)
	}
	query := r.URL.Query()
	asJSON := query.Get("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json")
	kind := "text/plain; charset=utf-8"
	if asJSON {
		kind = "application/json"
	}
	w.Header().Set("Content-Type", kind)
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if asJSON {
		_ = writeJSON(w, ready, checks) // the client left; there is nobody to tell
		return
	}
	_, _ = io.WriteString(w, readyText(ready, query.Has("verbose"), checks))
}

func readyText(ready, verbose bool, checks []Check) string {
	var b strings.Builder
	for _, c := range checks {
		if !verbose && (ready || c.OK || !c.Required) {
			continue
		}
		mark, word := "[+]", "ok"
		switch {
		case !c.OK && c.Required:
			mark, word = "[-]", "fail"
		case !c.OK:
			mark, word = "[!]", "fail (not required)"
		}
		fmt.Fprintf(&b, "%s %s %s", mark, c.Name, word)
		if c.Detail != "" {
			b.WriteString(": " + oneLine(c.Detail))
		}
		if !c.Since.IsZero() {
			b.WriteString(" (since " + c.Since.UTC().Format(time.RFC3339) + ")")
		}
		b.WriteByte('\n')
	}
	if ready {
		b.WriteString("ok\n")
	} else {
		b.WriteString("not ready\n")
	}
	return b.String()
}

// oneLine keeps a detail, which may come from a joined error, from looking like
// another check.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// The JSON form of /readyz.
type readyJSON struct {
	Ready  bool        `json:"ready"`
	Checks []checkJSON `json:"checks"`
}

type checkJSON struct {
	Name     string    `json:"name"`
	OK       bool      `json:"ok"`
	Required bool      `json:"required"`
	Detail   string    `json:"detail,omitempty"`
	Since    time.Time `json:"since,omitzero"`
}

func writeJSON(w io.Writer, ready bool, checks []Check) error {
	out := readyJSON{Ready: ready, Checks: make([]checkJSON, 0, len(checks))}
	for _, c := range checks {
		c.Since = c.Since.UTC()
		out.Checks = append(out.Checks, checkJSON(c))
	}
	return json.NewEncoder(w).Encode(out)
}
