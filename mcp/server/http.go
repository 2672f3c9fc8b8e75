package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"cyphers.ai/tlsmcp/ipc/peercred"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
)

// HTTP says how the server is served over HTTP.
type HTTP struct {
	SSE     bool     // HTTP with SSE of revision 2024-11-05, instead of Streamable HTTP
	Origins []string // web origins that may call besides the server's own
	// Users are the ids of the Unix users whose processes may connect, besides
	// root and the user of this server.
	Users []uint32
}

const (
	bodyMost      = lineMost
	connsMost     = 256
	sessionIdle   = time.Hour
	keepAlive     = 25 * time.Second
	stopTime      = 3 * time.Second
	headerMost    = 64 << 10
	headerTime    = 10 * time.Second
	idleTime      = 2 * time.Minute
	headerSession = "Mcp-Session-Id"
)

// The headers by which the sidecar in front says who calls. It removes every
// spelling of them that a client sends.
const (
	headerIdentity = "X-Tlsmcp-Identity"
	headerSerial   = "X-Tlsmcp-Serial"
)

// front is what a request passes before the protocol's library sees it.
type front struct {
	s        *Server
	h        HTTP
	port     string // of the listener; empty: it is a Unix socket
	own      uint32
	sessions *sessions
	next     http.Handler
}

// ServeHTTP serves clients on a listener until ctx is done. The listener is a
// Unix socket, or on loopback: there too the kernel says whose process it is that
// connects, and only the server's own user and root are served. Else any program
// on the host would act in the name of this user.
func (s *Server) ServeHTTP(ctx context.Context, l net.Listener, h HTTP) error {
	f := &front{s: s, h: h, own: uint32(os.Getuid()), sessions: newSessions()}
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		if !tcp.IP.IsLoopback() || s.o.SelfSecure {
			return fmt.Errorf("%s is not served: it is reached without a certificate", l.Addr())
		}
		f.port = fmt.Sprint(tcp.Port)
	}
	log := slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug)
	stop := f.transport()
	srv := &http.Server{Handler: f, ErrorLog: log, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: headerMost,
		ConnContext: peerContext, ConnState: limit(connsMost), BaseContext: func(net.Listener) context.Context { return ctx }}

	watch, cancel := context.WithCancel(ctx)
	watched, stopped := make(chan struct{}), make(chan struct{})
	go func() { defer close(watched); s.subs.run(watch) }()
	go func() {
		defer close(stopped)
		<-watch.Done()
		stop()
		grace, release := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer release()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
	}()
	err := srv.Serve(l)
	cancel()
	<-stopped
	<-watched
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// limit is for http.Server.ConnState: it closes connections beyond so many.
func limit(most int64) func(net.Conn, http.ConnState) {
	var open atomic.Int64
	return func(c net.Conn, st http.ConnState) {
		switch st {
		case http.StateNew:
			if open.Add(1) > most {
				_ = c.Close()
			}
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
}

// transport makes the library's side of it, and gives what ends its streams.
func (f *front) transport() (stop func()) {
	mux := http.NewServeMux()
	f.next = mux
	if f.h.SSE {
		sse := server.NewSSEServer(f.s.mcp, server.WithSSEEndpoint("/sse"), server.WithMessageEndpoint("/message"), server.WithUseFullURLForMessageEndpoint(false),
			server.WithKeepAliveInterval(keepAlive), server.WithSSEDisableLocalhostProtection(true), // the front does it
			server.WithSessionIDGenerator(f.beginStream))
		mux.Handle("/sse", f.endStream(sse.SSEHandler()))
		mux.Handle("/message", sse.MessageHandler())
		mux.Handle("/", f.nothing("/sse"))
		return sse.CloseSessions
	}
	h := server.NewStreamableHTTPServer(f.s.mcp, server.WithSessionIdManagerResolver(f.sessions), server.WithSessionIdleTTL(sessionIdle),
		server.WithHeartbeatInterval(keepAlive), server.WithDisableLocalhostProtection(true), server.WithStreamableHTTPLogger(f.s.o.Log))
	mux.Handle("/mcp", h)
	mux.Handle("/", f.nothing("/mcp"))
	return func() { _ = h.Shutdown(context.Background()) } // its own server is not used: it only closes sessions
}

// nothing answers at every address but those of MCP.
func (f *front) nothing(there string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		f.refuse(w, http.StatusNotFound, fmt.Errorf("nothing is at this address; the MCP server is at %s", there))
	})
}

// stream holds the session of one SSE stream, which ends with it.
type stream struct{ session string }

type streamKey struct{}

func (f *front) beginStream(ctx context.Context, _ *http.Request) (id string, err error) {
	id, err = f.sessions.begin(callerOf(ctx).key)
	if st, ok := ctx.Value(streamKey{}).(*stream); ok {
		st.session = id
	}
	return id, err
}

func (f *front) endStream(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		st := new(stream)
		defer func() { f.sessions.end(st.session) }()
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), streamKey{}, st)))
	})
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Accel-Buffering", "no")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	c, err := f.who(r)
	if err == nil {
		err = errors.Join(f.checkHost(r), f.checkOrigin(r))
	}
	if err != nil {
		f.refuse(w, http.StatusForbidden, err)
		return
	}
	r = r.WithContext(withCaller(r.Context(), c))
	for _, id := range []string{r.Header.Get(headerSession), r.URL.Query().Get("sessionId")} {
		if id != "" && !f.sessions.belongs(id, c.key) {
			f.refuse(w, http.StatusNotFound, errors.New("there is no such session: begin a new one"))
			return
		}
	}
	switch {
	case r.Method == http.MethodPost && !f.readBody(w, r):
		return
	case r.Method == http.MethodGet && r.URL.Path == "/mcp" && r.Header.Get(headerSession) == "" && !mcp.IsModernProtocol(r.Header.Get(mcp.HeaderProtocolVersion)):
		// The library would begin a session for it, which nobody ends.
		f.refuse(w, http.StatusBadRequest, errors.New("a stream belongs to a session: send "+headerSession))
		return
	}
	f.next.ServeHTTP(w, r)
}

// readBody reads the message whole, under a cap, and refuses what two parsers
// could read in two ways.
func (f *front) readBody(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMost))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			f.refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the message has over %d bytes", bodyMost))
		} else {
			f.refuse(w, http.StatusBadRequest, fmt.Errorf("the message cannot be read: %w", err))
		}
		return false
	}
	var e *jsonrpc.Error
	if _, err := jsonrpc.Parse(body); errors.As(err, &e) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write(jsonrpc.AppendError(nil, e.ID, e.Code, e.Message, nil))
		return false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return true
}

// refuse answers what does not reach the protocol.
func (f *front) refuse(w http.ResponseWriter, status int, err error) {
	f.s.o.Log.Warn("request refused", event.KeyCode, status, event.KeyError, err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(jsonrpc.AppendError(nil, nil, jsonrpc.CodeInvalidRequest, err.Error(), nil)) // a client that went away needs no answer
}

// who tells who sent a request: the user by the kernel, and behind a sidecar the
// identity by its headers, which count from nobody else.
func (f *front) who(r *http.Request) (caller, error) {
	uid, ok := peerOf(r.Context())
	if !ok {
		return caller{}, errors.New("the kernel does not say whose process this is")
	}
	if uid != 0 && uid != f.own && !slices.Contains(f.h.Users, uid) {
		return caller{}, fmt.Errorf("the user %d is not served here: this server acts for the user %d", uid, f.own)
	}
	if !f.s.o.SelfSecure {
		return caller{key: fmt.Sprintf("uid:%d", uid)}, nil
	}
	id, serial := r.Header.Values(headerIdentity), r.Header.Values(headerSerial)
	if len(id) != 1 || len(serial) != 1 || id[0] == "" {
		return caller{}, errors.New(`the sidecar in front does not say who calls: it needs mtls.mode = "required", and "x-tlsmcp" in backend.identity_headers`)
	}
	return caller{key: "cert:" + id[0], identity: id[0], serial: serial[0]}, nil
}

// checkHost refuses names that are not this host's own, so that no web page gets
// here by pointing its own name at loopback.
func (f *front) checkHost(r *http.Request) error {
	if f.port == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host, port = r.Host, "80"
	}
	if !loopback(host) || port != f.port {
		return fmt.Errorf("the Host header %q is not this server's", clean(r.Host, 100))
	}
	return nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// checkOrigin refuses web pages: what is not a browser sends no Origin. The
// sidecar in front has checked and removed it.
func (f *front) checkOrigin(r *http.Request) error {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return nil
	}
	o := origins[0]
	u, err := url.Parse(o)
	if len(origins) == 1 && (slices.Contains(f.h.Origins, o) || err == nil && f.port != "" && u.Scheme == "http" && u.Host == r.Host) {
		return nil
	}
	return fmt.Errorf("the Origin %q may not call this server (--allow-origin)", clean(o, 100))
}

type peerKey struct{}

// peerContext is for http.Server.ConnContext: it asks the kernel once who is at
// the other end.
func peerContext(ctx context.Context, c net.Conn) context.Context {
	switch c := c.(type) {
	case *net.UnixConn:
		if cred, err := peercred.Of(c); err == nil {
			return context.WithValue(ctx, peerKey{}, cred.UID)
		}
	case *net.TCPConn:
		if uid, err := peercred.UserOf(c); err == nil {
			return context.WithValue(ctx, peerKey{}, uid)
		}
	}
	return ctx
}

func peerOf(ctx context.Context) (uid uint32, ok bool) {
	uid, ok = ctx.Value(peerKey{}).(uint32)
	return uid, ok
}
