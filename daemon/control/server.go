// Package control serves the control API on a Unix socket: to the command line,
// the console and the MCP server, and to curl.
//
// It holds what has to do with being asked: who asks and what they may, the
// record of what they changed, the feed of what happens, and the way to the Hub.
// What is asked for is the sidecar's: package daemon answers the calls, each by
// one call into a room.
package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"cyphers.ai/tlsmcp/ipc/control/v1/controlv1connect"
	"cyphers.ai/tlsmcp/ipc/hubjson"
	"cyphers.ai/tlsmcp/ipc/peercred"
	"cyphers.ai/tlsmcp/ipc/problem"
)

// Limits of the server. A request says little; what is long is answers.
const (
	maxRequest     = 1 << 20
	maxHeaderBytes = 64 << 10
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	stopTimeout    = 2 * time.Second
	compressFrom   = 1 << 20 // both ends are on one host: packing costs more than it saves
)

// Options are what a Server needs. All are required but HubCalls.
type Options struct {
	Log     *slog.Logger
	Calls   controlv1connect.ControlServiceHandler
	Access  func() *Access // as it is configured now
	Mutated func(Mutation) // told of every call that changes something, also when it is refused

	// MayRecord returns why nothing can be recorded now: nothing is changed then.
	MayRecord func() error

	// HubCalls answers the Hub's own service on this socket; nil: there is no Hub.
	HubCalls http.Handler
}

// Server is the control socket. Make one with New, then call Run.
type Server struct {
	ln   net.Listener
	http *http.Server
}

// Listen binds the socket. Any local user may connect to it: who may do what is
// decided per call. A socket that a daemon left behind is replaced; one that
// somebody serves is not.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s is there and is no socket: move it away, or set control.socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("another daemon serves %s: stop it, or set control.socket", path)
	}
	return os.Remove(path)
}

// New makes a server over a listener, which Run closes.
func New(l net.Listener, o Options) (*Server, error) {
	if _, ok := l.Addr().(*net.UnixAddr); !ok {
		return nil, fmt.Errorf("the control socket is a Unix socket, %s is not: nobody could tell who calls", l.Addr())
	}
	g := &guard{access: o.Access, needs: needs(), mayRecord: o.MayRecord, mutated: o.Mutated}
	mux := http.NewServeMux()
	for path, call := range handlers(o.Calls, connect.WithInterceptors(problem.Interceptor{Log: o.Log}, g), hubjson.HandlerOptions(),
		connect.WithReadMaxBytes(maxRequest), connect.WithCompressMinBytes(compressFrom)) {
		mux.Handle(path, problem.Limit(call, maxRequest))
	}
	if o.HubCalls != nil {
		mux.Handle(HubPath, o.HubCalls)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, problem.New(problem.NotFound, "no_such_path", "POST to /tlsmcp.control.v1.ControlService/GetStatus, for one", "there is nothing at %s", r.URL.Path))
	})
	s := &Server{ln: l, http: &http.Server{
		Handler: mux, ConnContext: peercred.Context, Protocols: new(http.Protocols),
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Run serves until ctx is done, which ends streams and calls under way, and
// returns nil; or returns why it could not serve.
func (s *Server) Run(ctx context.Context) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	stopped := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(stopped)
		<-ctx.Done()
		grace, release := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer release()
		if s.http.Shutdown(grace) != nil {
			_ = s.http.Close()
		}
	}()
	err := s.http.Serve(s.ln)
	cancel()
	<-stopped
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("control socket: %w", err)
}

func compactJSON(m proto.Message) (string, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	return string(raw), err
}
