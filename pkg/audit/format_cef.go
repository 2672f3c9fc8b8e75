package audit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// cef writes ArcSight's Common Event Format, version 0: in the header "|" and "\"
// are escaped, in the extension "=", "\" and line ends. Version 0 is what every
// receiver reads. It knows IPv4 addresses and 31-bit counts only: an IPv6 address
// goes into a custom field that the dictionary has for it, a larger count into a
// custom number.
func (p product) cef(r *Record) ([]byte, error) {
	e := cefLine{escape: strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\n", `\n`, "\r", `\r`)}
	head := strings.NewReplacer(`\`, `\\`, `|`, `\|`, "\n", " ", "\r", " ")
	fmt.Fprintf(&e.b, "CEF:0|%s|%s|%s|%s|%s|%d|", vendorName, productName, head.Replace(p.version), head.Replace(string(r.Kind)), head.Replace(r.sentence()), r.severity())
	e.add("rt", strconv.FormatInt(r.Time.UnixMilli(), 10))
	e.add("externalId", strconv.FormatUint(r.Sequence, 10))
	e.address("src", "spt", "c6a2", "Source IPv6 Address", r.Remote)
	e.address("dst", "dpt", "c6a3", "Destination IPv6 Address", r.Local)
	e.add("suser", r.subject())
	e.add("act", string(r.Kind))
	if r.failed() {
		e.add("outcome", "failure")
	} else {
		e.add("outcome", "success")
	}
	e.add("reason", r.Outcome)
	e.add("msg", r.Detail)
	e.add("app", r.ALPN)
	e.add("dhost", r.SNI)
	e.number("in", "cn2", "bytesIn", r.BytesIn)
	e.number("out", "cn3", "bytesOut", r.BytesOut)
	e.number("cnt", "", "", min(r.Count, math.MaxInt32))
	e.custom("cs1", "clientCertificateSerial", r.Serial)
	e.custom("cs2", "rule", r.Rule)
	e.custom("cs3", "tlsVersion", r.TLSVersion)
	e.custom("cs4", "method", r.Method)
	e.custom("cs5", "target", r.Target)
	e.custom("cs6", "session", r.Session)
	if r.Connection != 0 {
		e.custom("cn1", "connection", strconv.FormatUint(r.Connection, 10))
	}
	return []byte(e.b.String()), nil
}

// cefLine is an extension that is being written.
type cefLine struct {
	b      strings.Builder
	escape *strings.Replacer
	some   bool // there is a field already
}

// cefLimit is how long a text may be, in bytes, before it is escaped.
func cefLimit(key string) int {
	switch key {
	case "act":
		return 63
	case "app":
		return 31
	case "externalId":
		return 40
	}
	return 1023
}

func (e *cefLine) add(key, text string) {
	if text == "" {
		return
	}
	if e.some {
		e.b.WriteByte(' ')
	}
	e.some = true
	e.b.WriteString(key + "=" + e.escape.Replace(cut(text, cefLimit(key))))
}

func (e *cefLine) custom(key, label, text string) {
	if text != "" {
		e.add(key, text)
		e.add(key+"Label", label)
	}
}

// number writes a count, in the custom field when it is too large for its own.
func (e *cefLine) number(key, custom, label string, v uint64) {
	switch {
	case v == 0:
	case v <= math.MaxInt32:
		e.add(key, strconv.FormatUint(v, 10))
	default:
		e.custom(custom, label, strconv.FormatUint(min(v, math.MaxInt64), 10))
	}
}

func (e *cefLine) address(v4, port, v6, label, text string) {
	a, p, ok := endpoint(text)
	if !ok {
		return
	}
	if a.Is4() {
		e.add(v4, a.String())
	} else {
		e.custom(v6, label, a.String())
	}
	e.add(port, strconv.Itoa(p))
}
