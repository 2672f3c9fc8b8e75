package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/ipc/peercred"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// Listen opens an address for [Bridge.Serve], which must be on loopback.
func Listen(address string) (net.Listener, error) {
	addr, err := netip.ParseAddrPort(address)
	if err != nil || !addr.Addr().IsLoopback() {
		return nil, fmt.Errorf("%q is not a loopback address and a port", address)
	}
	return net.Listen("tcp", addr.String())
}

// Serve carries the requests of HTTP clients on this computer until the context
// ends. Sessions and streams are the client's own affair here; the bridge adds
// the certificate, and says why when there is no answer.
//
// Any user of the computer can connect to a loopback port, and would act with the
// agent's certificate. So the kernel is asked whose process it is, and only our own
// user and root are served. Where the kernel does not say (not on Linux), all are.
func (b *Bridge) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           http.HandlerFunc(b.serveHTTP),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       notOurs,
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	return nil
}

type strangerKey struct{}

// notOurs is for http.Server.ConnContext: it asks once whose process connects, and
// notes why it is not served.
func notOurs(ctx context.Context, c net.Conn) context.Context {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return ctx
	}
	uid, err := peercred.UserOf(tcp)
	switch {
	case err == nil && (uid == 0 || int(uid) == os.Getuid()), errors.Is(err, errors.ErrUnsupported):
		return ctx
	case err == nil:
		err = fmt.Errorf("the user %d is not served here: this bridge acts for the user %d. Start one with a certificate of your own", uid, os.Getuid())
	default:
		err = fmt.Errorf("whose process connects cannot be told: %w", err)
	}
	return context.WithValue(ctx, strangerKey{}, err)
}

// isLocal reports whether a host, which may have a port, is this computer by a
// name that no one else's DNS can claim.
func isLocal(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// fromElsewhere reports whether a request was made by a web page that is not of
// this computer: pages must not use the certificate.
func fromElsewhere(r *http.Request) bool {
	if !isLocal(r.Host) {
		return true
	}
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return false
	}
	u, err := url.Parse(origins[0])
	return err != nil || len(origins) > 1 || !isLocal(u.Host)
}

func (b *Bridge) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if why, ok := r.Context().Value(strangerKey{}).(error); ok {
		b.opts.Log.Warn("not served", "error", why.Error())
		http.Error(w, why.Error(), http.StatusForbidden)
		return
	}
	if fromElsewhere(r) {
		http.Error(w, "the request comes from a web page that is not of this computer", http.StatusForbidden)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		http.Error(w, "the body cannot be read: "+err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	f := &forwarded{b: b, w: w, r: r, body: body}
	if r.Method == http.MethodPost { // what it is matters only when there is no answer; the sidecar judges it
		p := &post{body: body}
		if p.parse() == nil {
			f.post = p
		}
	}
	resp, err := b.roundTrip(r.Context(), outgoing{build: f.request, repeatable: f.repeatable()})
	if err != nil {
		f.unanswered(err)
		return
	}
	defer resp.Body.Close()
	f.relay(resp)
}

// forwarded is one request of an HTTP client.
type forwarded struct {
	b    *Bridge
	w    http.ResponseWriter
	r    *http.Request
	body []byte
	post *post // nil: it is none that can be read
}

func (f *forwarded) repeatable() bool {
	return f.r.Method == http.MethodGet || f.r.Method == http.MethodDelete || f.post != nil && f.post.repeatable()
}

func hopByHop() []string {
	return []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length"}
}

// request is what the sidecar gets: the same, but for what was meant for us.
func (f *forwarded) request() *http.Request {
	u := *f.b.opts.URL
	if f.r.URL.Path != "/" && f.r.URL.Path != "" {
		u.Path, u.RawPath, u.RawQuery = f.r.URL.Path, f.r.URL.RawPath, f.r.URL.RawQuery
	}
	out := &http.Request{Method: f.r.Method, URL: &u, Host: u.Host, Header: f.r.Header.Clone(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	for _, name := range append(hopByHop(), "Origin", "Accept-Encoding") {
		out.Header.Del(name)
	}
	if len(f.body) > 0 {
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(f.body)), int64(len(f.body))
	}
	return out
}

// failures are the answers to the requests that got none.
func (f *forwarded) failures(p *Problem, answered map[string]bool) (all [][]byte) {
	if f.post == nil {
		return nil
	}
	for _, m := range f.post.all {
		if m.Kind == jsonrpc.Request && !answered[m.ID.Key()] {
			all = append(all, p.answer(m.ID))
		}
	}
	return all
}

func (f *forwarded) unanswered(err error) {
	if f.r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	p := asProblem(err)
	f.b.opts.Log.Warn("not answered", "method", f.r.Method, "error", p.Error())
	switch answers := f.failures(p, nil); {
	case len(answers) == 0:
		http.Error(f.w, p.Error(), http.StatusBadGateway)
	case len(answers) == 1 && len(f.post.all) == 1:
		f.json(answers[0])
	default:
		f.json(append(append([]byte{'['}, bytes.Join(answers, []byte{','})...), ']'))
	}
}

func (f *forwarded) json(body []byte) {
	f.w.Header().Set("Content-Type", "application/json")
	_, _ = f.w.Write(body) // a client that left needs no answer
}

func (f *forwarded) relay(resp *http.Response) {
	for name, values := range resp.Header {
		f.w.Header()[name] = values
	}
	for _, name := range hopByHop() {
		f.w.Header().Del(name)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == "text/event-stream" {
		f.w.WriteHeader(resp.StatusCode)
		f.relayEvents(resp)
		return
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil || len(body) > maxAnswer {
		f.w.Header().Del("Content-Type")
		f.unanswered(f.b.brokeOff(f.r.Context(), err))
		return
	}
	f.w.WriteHeader(resp.StatusCode)
	_, _ = f.w.Write(body)
}

// relayEvents passes a stream on, event by event. When it breaks off before the
// answers, and cannot be taken up again, they are given.
func (f *forwarded) relayEvents(resp *http.Response) {
	out := http.NewResponseController(f.w)
	_ = out.Flush()
	stop := context.AfterFunc(f.r.Context(), func() { _ = resp.Body.Close() })
	defer stop()
	in := mcpwire.NewReader(resp.Body)
	answered, resumable := map[string]bool{}, false
	var end error
	for end == nil {
		var e *mcpwire.Event
		if e, end = in.Next(); end != nil {
			break
		}
		resumable = resumable || e.ID != ""
		if all, err := parseServer(e.Data); e.Some && err == nil {
			for _, m := range all {
				if m.Answers() {
					answered[m.ID.Key()] = true
				}
			}
		}
		if _, end = f.w.Write(e.Raw); end == nil {
			end = out.Flush()
		}
	}
	if f.r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	if resumable && errors.Is(end, io.EOF) || len(f.failures(&Problem{}, answered)) == 0 {
		return
	}
	p := asProblem(f.b.brokeOff(f.r.Context(), end))
	if resumable && p.kind != refused {
		panic(http.ErrAbortHandler) // the client sees that it broke off, and takes it up again
	}
	for _, a := range f.failures(p, answered) {
		_, _ = f.w.Write(mcpwire.AppendMessage(nil, a))
	}
}
