package proxy

import (
	"bytes"
	"errors"
	"fmt"
)

// field is one header field line. Name and value are views of the buffer that
// the head was read into.
type field struct{ name, value []byte }

// request is a parsed request head (RFC 9112, section 3).
type request struct {
	method, target []byte
	minor          int // HTTP/1.minor
	fields         []field

	host      []byte
	length    int64 // of the body; -1: chunked
	close     bool  // Connection: close
	keepAlive bool  // Connection: keep-alive
	expect    bool  // Expect: 100-continue
	trailers  bool  // TE: trailers
	websocket bool  // asks for an upgrade to websocket
	nominated [][]byte
}

// response is a parsed response head (RFC 9112, section 4).
type response struct {
	size      int // of the head, in bytes
	status    int
	reason    []byte
	minor     int
	fields    []field
	length    int64 // Content-Length; -1: none was given
	chunked   bool
	close     bool
	websocket bool
	nominated [][]byte
}

// malformed is why a message was refused, and with which status.
type malformed struct {
	status int
	why    string
}

func (m *malformed) Error() string { return m.why }

func bad(why string) error { return &malformed{400, why} }

var errHeadTooLarge = &malformed{431, "the header section is larger than listen.max_header_bytes"}

var errNotForwarded = &malformed{405, "CONNECT and TRACE are not forwarded"}

// notForwarded names the methods that are for a proxy of another kind, or show
// the client what we told the backend.
func notForwarded[T text](method T) bool {
	return string(method) == "CONNECT" || string(method) == "TRACE"
}

// maxFields bounds the header fields of one message.
const maxFields = 256

// headEnd looks for the empty line that ends a head, from offset from on, and
// returns the offset behind it, or 0 and where to go on when more has come.
// Every line must end in CR LF: a bare LF is where parsers part ways.
func headEnd(b []byte, from int) (end, resume int, err error) {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return 0, from, nil
		}
		if i == 0 || b[from+i-1] != '\r' {
			return 0, from, bad("a line ends in a bare LF")
		}
		if i == 1 {
			return from + 2, 0, nil
		}
		from += i + 1
	}
}

// parseRequest parses a head that headEnd found the end of, strictly: what two
// parsers could read in two ways is an error.
func parseRequest(head []byte, q *request) error {
	*q = request{fields: q.fields[:0], nominated: q.nominated[:0]}
	line, rest := cutLine(head)
	if err := parseRequestLine(line, q); err != nil {
		return err
	}
	var err error
	if q.fields, err = parseFields(rest, q.fields); err != nil {
		return err
	}
	return q.interpret()
}

func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n') // headEnd made sure of CR before it
	return b[:i-1], b[i+1:]
}

func parseRequestLine(line []byte, q *request) error {
	m := bytes.IndexByte(line, ' ')
	if m <= 0 || !isToken(line[:m]) {
		return bad("the request line has no proper method")
	}
	q.method = line[:m]
	rest := line[m+1:]
	t := bytes.IndexByte(rest, ' ')
	if t <= 0 {
		return bad("the request line has no target")
	}
	q.target = rest[:t]
	switch string(rest[t+1:]) {
	case "HTTP/1.1":
		q.minor = 1
	case "HTTP/1.0":
		q.minor = 0
	default:
		if bytes.HasPrefix(rest[t+1:], []byte("HTTP/")) && !bytes.HasPrefix(rest[t+1:], []byte("HTTP/1")) {
			return &malformed{505, "only HTTP/1.1 is spoken here; negotiate h2 by ALPN"}
		}
		return bad("the request line has no proper version")
	}
	switch {
	case notForwarded(q.method):
		return errNotForwarded
	case q.target[0] == '*' && len(q.target) == 1 && string(q.method) == "OPTIONS":
	case q.target[0] != '/':
		return bad("the target must begin with a slash; absolute-form is not taken, since it may disagree with Host")
	}
	if !all(q.target, targetChar) {
		return bad("the target has a character that no URI has")
	}
	return nil
}

// parseFields parses field lines up to and including the empty line.
func parseFields(b []byte, fields []field) ([]field, error) {
	for {
		line, rest := cutLine(b)
		if len(line) == 0 {
			return fields, nil
		}
		f, err := parseField(line)
		if err != nil {
			return fields, err
		}
		if len(fields) == maxFields {
			return fields, &malformed{431, fmt.Sprintf("more than %d header fields", maxFields)}
		}
		fields = append(fields, f)
		b = rest
	}
}

func parseField(line []byte) (field, error) {
	if line[0] == ' ' || line[0] == '\t' {
		return field{}, bad("a header field is folded over two lines")
	}
	i := bytes.IndexByte(line, ':')
	if i <= 0 || !isToken(line[:i]) {
		return field{}, bad("a header field has no proper name")
	}
	v := trimOWS(line[i+1:])
	if !validValue(v) {
		return field{}, bad("a header field value has a control character")
	}
	return field{line[:i], v}, nil
}

func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// interpret reads the fields that decide framing and connection handling.
func (q *request) interpret() error {
	var hosts, lengths, codings int
	var upgrade bool
	var upgradeTo []byte
	for _, f := range q.fields {
		switch known(f.name) {
		case hHost:
			hosts++
			q.host = f.value
		case hContentLength:
			lengths++
			n, err := parseLength(f.value)
			if err != nil {
				return err
			}
			q.length = n
		case hTransferEncoding:
			codings++
			if !equalFold(f.value, "chunked") {
				return &malformed{501, "the only transfer coding taken is chunked"}
			}
		case hConnection:
			for opt := range elements(f.value) {
				switch {
				case equalFold(opt, "close"):
					q.close = true
				case equalFold(opt, "keep-alive"):
					q.keepAlive = true
				case equalFold(opt, "upgrade"):
					upgrade = true
				default:
					if k := known(opt); k == hHost || k == hContentLength || k == hTransferEncoding {
						return bad("Connection names a field that decides framing")
					}
					q.nominated = append(q.nominated, opt)
				}
			}
		case hTE:
			for e := range elements(f.value) {
				q.trailers = q.trailers || equalFold(e, "trailers")
			}
		case hUpgrade:
			upgradeTo = f.value
		case hExpect:
			if !equalFold(f.value, "100-continue") {
				return &malformed{417, "the only expectation taken is 100-continue"}
			}
			q.expect = q.minor == 1
		}
	}
	switch {
	case hosts > 1:
		return bad("more than one Host")
	case hosts == 0 && q.minor == 1:
		return bad("no Host")
	case hosts == 1 && !validHost(q.host):
		return bad("Host is not a host and port")
	case lengths > 1:
		return bad("more than one Content-Length")
	case codings > 1:
		return bad("more than one Transfer-Encoding")
	case codings == 1 && lengths == 1:
		return bad("both Content-Length and Transfer-Encoding")
	case codings == 1 && q.minor == 0:
		return bad("Transfer-Encoding in HTTP/1.0")
	case codings == 1:
		q.length = -1
	}
	q.websocket = upgrade && equalFold(upgradeTo, "websocket") && string(q.method) == "GET" && q.length == 0 && q.minor == 1
	return nil
}

// parseResponse parses the head of a backend's response.
func parseResponse(head []byte, p *response) error {
	*p = response{fields: p.fields[:0], nominated: p.nominated[:0], length: -1}
	line, rest := cutLine(head)
	if len(line) < len("HTTP/1.1 200") || string(line[:7]) != "HTTP/1." || (line[7] != '1' && line[7] != '0') || line[8] != ' ' {
		return errors.New("status line is not HTTP/1.x")
	}
	p.minor = int(line[7] - '0')
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return errors.New("status is not a number")
		}
		p.status = 10*p.status + int(c-'0')
	}
	if p.status < 100 {
		return errors.New("status is below 100")
	}
	if len(line) > 12 {
		if line[12] != ' ' {
			return errors.New("status has more than three digits")
		}
		p.reason = line[13:]
		if !validValue(p.reason) {
			return errors.New("reason phrase has a control character")
		}
	}
	var err error
	if p.fields, err = parseFields(rest, p.fields); err != nil {
		return err
	}
	return p.interpret()
}

func (p *response) interpret() error {
	upgrade := false
	for _, f := range p.fields {
		switch known(f.name) {
		case hContentLength:
			if p.length >= 0 {
				return errors.New("more than one Content-Length")
			}
			n, err := parseLength(f.value)
			if err != nil {
				return err
			}
			p.length = n
		case hTransferEncoding:
			if p.chunked || !equalFold(f.value, "chunked") {
				return errors.New("a transfer coding other than a single chunked")
			}
			p.chunked = true
		case hConnection:
			for opt := range elements(f.value) {
				switch {
				case equalFold(opt, "close"):
					p.close = true
				case equalFold(opt, "keep-alive"):
				case equalFold(opt, "upgrade"):
					upgrade = true
				default:
					p.nominated = append(p.nominated, opt)
				}
			}
		case hUpgrade:
			p.websocket = equalFold(f.value, "websocket")
		}
	}
	p.websocket = p.websocket && upgrade
	switch {
	case p.chunked && p.length >= 0:
		return errors.New("both Content-Length and Transfer-Encoding")
	case p.chunked && (p.minor == 0 || p.status < 200 || p.status == 204):
		return errors.New("Transfer-Encoding where there can be none")
	case p.length > 0 && (p.status < 200 || p.status == 204):
		return errors.New("Content-Length where there can be no body")
	}
	return nil
}

// parseLength parses a Content-Length: digits alone, below 2^60.
func parseLength(v []byte) (int64, error) {
	if len(v) == 0 || len(v) > 18 {
		return 0, bad("Content-Length is not a number")
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, bad("Content-Length is not a number")
		}
		n = 10*n + int64(c-'0')
	}
	return n, nil
}

// elements splits a comma-separated field value.
func elements(v []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(v) > 0 {
			e := v
			if i := bytes.IndexByte(v, ','); i >= 0 {
				e, v = v[:i], v[i+1:]
			} else {
				v = nil
			}
			if e = trimOWS(e); len(e) > 0 && !yield(e) {
				return
			}
		}
	}
}
