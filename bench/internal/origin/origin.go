// Package origin is the backend of a benchmark run: a small HTTP/1.1 server
// over raw sockets, made to cost as little as a Go program can.
//
// It answers every request with a fixed 64-byte body, GET /bulk?n=N with N zero
// bytes, and drains a request body of any length first. It keeps every
// connection alive, answers pipelined requests in order, and reads only what
// the benchmark's proxies send: a body has a Content-Length. Chunked bodies are
// answered 501, so that a proxy which rewrites one is seen rather than timed.
// It is not a server for anything else.
package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// BodySize is the length in bytes of the fixed body.
const BodySize = 64

const (
	headLimit = 16 << 10
	chunk     = 256 << 10
)

// Serve answers on l until ctx ends, then closes every connection and waits for
// them. A listener that fails ends it with an error.
func Serve(ctx context.Context, l net.Listener) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards conns
		conns = make(map[net.Conn]struct{})
	)
	ctx, cancel := context.WithCancel(ctx)
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = l.Close() // Accept reports it
		mu.Lock()
		defer mu.Unlock()
		for c := range conns {
			_ = c.Close() // its reader ends
		}
	})
	defer stop()
	zeros := make([]byte, chunk)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		mu.Lock()
		conns[c] = struct{}{}
		mu.Unlock()
		if ctx.Err() != nil {
			_ = c.Close() // it came between the end and the sweep
		}
		wg.Go(func() {
			// An error here is a peer that went away or sent what this
			// server does not read; it learns so by the close.
			_ = serve(c, zeros)
			_ = c.Close()
			mu.Lock()
			delete(conns, c)
			mu.Unlock()
		})
	}
}

func serve(c net.Conn, zeros []byte) error {
	fixed := head("200 OK", BodySize)
	fixed = append(fixed, bytes.Repeat([]byte{'x'}, BodySize)...)
	buf := make([]byte, headLimit)
	held := 0
	for {
		req, n, err := parse(buf[:held])
		if errors.Is(err, errShort) {
			if held == len(buf) {
				return errors.New("request head too long")
			}
			got, err := c.Read(buf[held:])
			if got == 0 && err != nil {
				return err
			}
			held += got
			continue
		}
		if err != nil {
			_, _ = c.Write(head("501 Not Implemented", 0)) // the connection is closed either way
			return err
		}
		held = copy(buf, buf[n:held])
		inside := int(min(req.body, int64(held)))
		held = copy(buf, buf[inside:held])
		if rest := req.body - int64(inside); rest > 0 {
			if err := drain(c, rest); err != nil {
				return err
			}
		}
		if req.bulk < 0 {
			if _, err := c.Write(fixed); err != nil {
				return err
			}
			continue
		}
		if err := writeBulk(c, req.bulk, zeros); err != nil {
			return err
		}
	}
}

func head(status string, length int64) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", status, length)
}

func writeBulk(c net.Conn, n int64, zeros []byte) error {
	if _, err := c.Write(head("200 OK", n)); err != nil {
		return err
	}
	for n > 0 {
		w, err := c.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(w)
	}
	return nil
}

func drain(c net.Conn, n int64) error {
	buf := make([]byte, min(n, chunk))
	for n > 0 {
		r, err := c.Read(buf[:min(n, int64(len(buf)))])
		n -= int64(r)
		if err != nil && n > 0 {
			if err == io.EOF {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// errShort says that the head is not whole yet.
var errShort = errors.New("more bytes needed")

type request struct {
	bulk int64 // bytes to answer with; -1: the fixed body
	body int64 // bytes of request body
}

// parse reads one request head from the start of b and says how long it is.
func parse(b []byte) (request, int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return request{}, 0, errShort
	}
	line, rest, _ := bytes.Cut(b[:end], []byte("\r\n"))
	method, rest2, ok := bytes.Cut(line, []byte(" "))
	target, version, ok2 := bytes.Cut(rest2, []byte(" "))
	if !ok || !ok2 || len(method) == 0 || !bytes.Equal(version, []byte("HTTP/1.1")) {
		return request{}, 0, fmt.Errorf("not an HTTP/1.1 request line: %q", line)
	}
	req := request{bulk: -1}
	if s, ok := bytes.CutPrefix(target, []byte("/bulk?n=")); ok {
		n, err := count(s)
		if err != nil {
			return request{}, 0, err
		}
		req.bulk = n
	}
	for len(rest) > 0 {
		var field []byte
		field, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(field, []byte(":"))
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			n, err := count(bytes.TrimSpace(value))
			if err != nil {
				return request{}, 0, err
			}
			req.body = n
		case len(name) == 17 && bytes.EqualFold(name, []byte("transfer-encoding")):
			return request{}, 0, fmt.Errorf("transfer encoding %q is not read here", bytes.TrimSpace(value))
		}
	}
	return req, end + 4, nil
}

func count(b []byte) (int64, error) {
	n, err := strconv.ParseUint(string(b), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not a byte count", b)
	}
	return int64(n), nil
}
