package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// seedHeads are request heads to begin from, good ones and bad ones.
func seedHeads() []string {
	return []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /a?b=c%20d HTTP/1.0\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close, X\r\nX: y\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nTE: trailers\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
		"GET http://b/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
		"GET //a//b HTTP/1.1\r\nHost: a:\r\nX:\t\xc3\xa9 \r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\n",
	}
}

// mend makes a whole head of what the fuzzer came up with: most of what it tries
// has a line without an end, and would be refused for that alone.
func mend(in []byte) []byte {
	in = bytes.ReplaceAll(in, []byte("\r\n"), []byte("\n"))
	in = bytes.ReplaceAll(in, []byte("\n"), []byte("\r\n"))
	return append(in, "\r\n\r\n"...)
}

// aHead cuts one head from the input, or returns nil when there is none.
func aHead(in []byte, mended bool) []byte {
	if mended {
		in = mend(in)
	}
	end, _, err := headEnd(in, 0)
	if err != nil || end == 0 {
		return nil
	}
	return bytes.Clone(in[:end])
}

// FuzzRequestHead holds the reader of request heads to net/http's: whatever ours
// takes, net/http takes too, and reads the same from it.
func FuzzRequestHead(f *testing.F) {
	for _, s := range seedHeads() {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, mended bool) {
		head := aHead(in, mended)
		if head == nil {
			return
		}
		var q request
		if parseRequest(head, &q) != nil {
			return
		}
		r, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(head), len(head)+1))
		if err != nil {
			if toleratedByUs(err, &q) {
				return
			}
			t.Fatalf("net/http refuses what is taken here: %v\n%q", err, head)
		}
		if r.Method != string(q.method) || r.RequestURI != string(q.target) || r.ProtoMajor != 1 || r.ProtoMinor != q.minor {
			t.Errorf("request line: %q %q %s, here %q %q 1.%d", r.Method, r.RequestURI, r.Proto, q.method, q.target, q.minor)
		}
		if r.Host != string(q.host) {
			t.Errorf("host: %q, here %q", r.Host, q.host)
		}
		if r.ContentLength != q.length {
			t.Errorf("length: %d, here %d", r.ContentLength, q.length)
		}
		if chunked := slices.Equal(r.TransferEncoding, []string{"chunked"}); chunked != (q.length < 0) {
			t.Errorf("chunked: %v, here %t", r.TransferEncoding, q.length < 0)
		}
		sameFields(t, r.Header, q.fields, hHost, hTransferEncoding, hTrailer)
	})
}

// toleratedByUs are the targets that a proxy passes on as they are, and that
// net/url takes apart: a percent sign that begins no escape, for one.
func toleratedByUs(err error, q *request) bool {
	return strings.Contains(err.Error(), "parse ") && q.target[0] == '/'
}

// sameFields compares the header fields, but for those that net/http takes out
// of the header because it has understood them.
func sameFields(t *testing.T, h http.Header, fields []field, understood ...header) {
	t.Helper()
	ours := http.Header{}
	for _, f := range fields {
		if slices.Contains(understood, known(f.name)) {
			continue
		}
		ours.Add(string(f.name), string(f.value))
	}
	theirs := h.Clone()
	for name := range theirs {
		if slices.Contains(understood, known(name)) {
			delete(theirs, name)
		}
	}
	for name, values := range ours {
		// "Pragma: no-cache" makes net/http add a Cache-Control.
		if !slices.Equal(theirs[name], values) {
			t.Errorf("%s: %q, here %q", name, theirs[name], values)
		}
		delete(theirs, name)
	}
	if theirs.Get("Cache-Control") == "no-cache" && ours.Get("Pragma") == "no-cache" {
		theirs.Del("Cache-Control")
	}
	if len(theirs) > 0 {
		t.Errorf("net/http reads fields that are not seen here: %q", theirs)
	}
}

// FuzzRequestForwarded is about what reaches the backend: a request that is
// taken is rendered such that net/http reads one request from it, with the same
// method, target and framing, and no identity but ours.
func FuzzRequestForwarded(f *testing.F) {
	for _, s := range seedHeads() {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nX_Tlsmcp-Identity: eve\r\nClient_Cert: x\r\nConnection: X-Tlsmcp-Identity\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, mended bool) {
		head := aHead(in, mended)
		if head == nil {
			return
		}
		x := &exchange{h: &http1{about: []byte("X-Tlsmcp-Identity: alice\r\nX-Forwarded-For: 192.0.2.1\r\n")}, s: &scratch{}}
		if parseRequest(head, &x.s.q) != nil {
			return
		}
		q := &x.s.q
		out := x.appendRequest(nil)
		// The head is all there is: what follows belongs to a body.
		if n, _, err := headEnd(out, 0); err != nil || n != len(out) {
			t.Fatalf("the head ends at %d of %d: %v\n%q", n, len(out), err, out)
		}
		r, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(out), len(out)+1))
		if err != nil {
			if toleratedByUs(err, q) {
				return
			}
			t.Fatalf("net/http refuses what is sent on: %v\n%q", err, out)
		}
		if r.Method != string(q.method) || r.RequestURI != string(q.target) || r.ContentLength != q.length {
			t.Errorf("sent on as %q %q with length %d, it was %q %q %d", r.Method, r.RequestURI, r.ContentLength, q.method, q.target, q.length)
		}
		for name, values := range r.Header {
			if known(name) == hIdentity && (name != "X-Tlsmcp-Identity" || !slices.Equal(values, []string{"alice"})) {
				t.Errorf("the backend would read %s: %q", name, values)
			}
			if known(name) == hForwarded && (name != "X-Forwarded-For" || !slices.Equal(values, []string{"192.0.2.1"})) {
				t.Errorf("the backend would read %s: %q", name, values)
			}
		}
	})
}

// FuzzChunks holds the chunk reader to two rules: how the bytes are cut into
// pieces makes no difference, and what it takes decodes with net/http's reader
// to the same data.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{
		"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "5;a=\"b;\\\"\"\r\nhello\r\n0\r\nX: y\r\n\r\nGET", "A\r\n0123456789\r\n00\r\nX-Tlsmcp-Identity: a\r\n\r\n",
		"5\nhello\r\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "0\r\nX : y\r\n\r\n", "fffffffffffffff\r\n",
	} {
		f.Add([]byte(s), uint8(1))
		f.Add([]byte(s), uint8(7))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		whole := feedAll(in, len(in))
		pieces := feedAll(in, max(1, int(step)))
		if !whole.same(pieces) {
			t.Fatalf("in one piece: %+v\nin pieces of %d: %+v", whole, step, pieces)
		}
		if whole.err != nil || !whole.done {
			return
		}
		data, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in)))
		if err != nil {
			t.Fatalf("net/http refuses what is taken here: %v\n%q", err, in)
		}
		ours, err := dechunk(in)
		if err != nil || !bytes.Equal(ours, data) {
			t.Errorf("data: %q, here %q (%v)", data, ours, err)
		}
		// What is passed on is chunks and a clean end, to any parser.
		r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(
			strings.NewReader("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(whole.passed))))
		if err != nil {
			t.Fatal(err)
		}
		sent, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(sent, data) {
			t.Errorf("sent on: %q, want %q (%v)", sent, data, err)
		}
		for name := range r.Trailer {
			if known(name) != hOther {
				t.Errorf("the trailer %s is sent on", name)
			}
		}
	})
}

// feeding is what came of feeding a chunkReader.
type feeding struct {
	passed []byte // what goes on to the other side
	used   int
	done   bool
	err    error
}

func (a feeding) same(b feeding) bool {
	// After an error, how much had passed before depends on the pieces.
	if a.err != nil || b.err != nil {
		return a.err != nil && b.err != nil
	}
	return a.done == b.done && a.used == b.used && bytes.Equal(a.passed, b.passed)
}

func feedAll(in []byte, step int) (r feeding) {
	var c chunkReader
	for r.used < len(in) && !c.done() {
		piece := in[r.used:min(len(in), r.used+step)]
		pass, used, err := c.feed(piece)
		r.passed = append(r.passed, piece[:pass]...)
		r.used += used
		if err != nil {
			r.err = err
			return r
		}
		if used == 0 {
			r.err = errors.New("no progress")
			return r
		}
	}
	if r.done = c.done(); r.done {
		r.passed, r.err = c.sectionEnd(r.passed)
	}
	return r
}

// dechunk is how an HTTP/1.0 client's response is taken apart.
func dechunk(in []byte) (data []byte, err error) {
	r := &relay{plain: true}
	used := 0
	data, used, err = r.takePlain(nil, in)
	if err == nil && !r.chunks.done() {
		err = errors.New("not done after " + strconv.Itoa(used) + " bytes")
	}
	return data, err
}

// FuzzResponse holds the reader of response heads to net/http's.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HTTP/1.0 404\r\n\r\n", "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n", "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: close, x\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, mended bool) {
		head := aHead(in, mended)
		if head == nil {
			return
		}
		var p response
		if parseResponse(head, &p) != nil {
			return
		}
		r, err := http.ReadResponse(bufio.NewReaderSize(bytes.NewReader(head), len(head)+1), &http.Request{Method: "GET"})
		if err != nil {
			t.Fatalf("net/http refuses what is taken here: %v\n%q", err, head)
		}
		if r.StatusCode != p.status || r.ProtoMajor != 1 || r.ProtoMinor != p.minor {
			t.Errorf("status line: %s %d, here 1.%d %d", r.Proto, r.StatusCode, p.minor, p.status)
		}
		if chunked := len(r.TransferEncoding) > 0; chunked != p.chunked {
			t.Errorf("chunked: %v, here %t", r.TransferEncoding, p.chunked)
		}
		wantLength := map[framing]int64{byLength: p.length, byChunks: -1, byClose: -1}[p.framing(false)]
		if p.framing(false) == noBody {
			wantLength = r.ContentLength // net/http shows what a 304 says of another response
		}
		if p.status >= 200 && r.ContentLength != wantLength {
			t.Errorf("length: %d, here %d", r.ContentLength, wantLength)
		}
		sameFields(t, r.Header, p.fields, hTransferEncoding, hTrailer, hConnection)
	})
}
