package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// helloBackend is the program behind the sidecar: plain HTTP, with no idea of
// certificates. It answers with what it was told about its caller.
type helloBackend struct {
	address string
	server  *http.Server
	ended   chan error
}

func startBackend() (*helloBackend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the backend: %w", err)
	}
	b := &helloBackend{
		address: l.Addr().String(),
		server:  &http.Server{Handler: http.HandlerFunc(hello), ReadHeaderTimeout: 10 * time.Second},
		ended:   make(chan error, 1),
	}
	go func() { b.ended <- b.server.Serve(l) }()
	return b, nil
}

func (b *helloBackend) close() error {
	err := b.server.Close()
	if serr := <-b.ended; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// hello greets the caller by the name that tlsmcpd vouches for.
func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	var b strings.Builder
	fmt.Fprintf(&b, "hello, %s\n\n%s %s %s\n", r.Header.Get("X-Tlsmcp-Identity"), r.Method, r.URL, r.Proto)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, v := range r.Header[name] {
			const most = 72
			if len(v) > most {
				v = fmt.Sprintf("%s… (%d characters)", v[:48], len(v))
			}
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	_, _ = io.WriteString(w, b.String()) // a client that left needs no answer
}
