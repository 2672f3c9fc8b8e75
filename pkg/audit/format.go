package audit

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Formatter writes an entry in a format for others, on one line without its end.
type Formatter func(*Record) ([]byte, error)

// FormatterOf returns the formatter of that name: json (the line as it is in the
// log), cef, ecs or ocsf.
func FormatterOf(name, version string) (Formatter, error) {
	p := product{version}
	switch name {
	case "", "json":
		return (*Record).line, nil
	case "cef":
		return p.cef, nil
	case "ecs":
		return p.ecs, nil
	case "ocsf":
		return p.ocsf, nil
	}
	return nil, fmt.Errorf("there is no audit format %q: json, cef, ecs and ocsf are", name)
}

// product is who writes the entries.
type product struct{ version string }

const (
	vendorName  = "cyphers.ai"
	productName = "tlsmcp"
)

// sentence is what happened, for people.
func (r *Record) sentence() string {
	what := map[Kind]string{
		Accepted: "connection accepted", Refused: "connection refused", Closed: "connection closed", Revocation: "revocations in force",
		Certificate: "server certificate", Reload: "configuration reloaded", Policy: "policy changed", Control: "control call", MCP: "MCP call",
		Hub: "Hub link", Checkpoint: "audit checkpoint", Recovered: "audit log recovered", Removed: "audit file removed", Lost: "audit entries lost",
		Started: "sidecar started", Stopped: "sidecar stopped",
	}[r.Kind]
	if what == "" {
		what = string(r.Kind)
	}
	if r.Outcome != "" {
		what += ": " + r.Outcome
	}
	return what
}

// failed tells whether what was asked for was not granted, or went wrong. A
// connection's end has a reason and is no failure by that.
func (r *Record) failed() bool {
	switch r.Kind {
	case Refused, Lost:
		return true
	case Closed:
		return slices.Contains([]string{"revoked", "expired", "not_allowed", "unknown_ca", "bad_request"}, r.Outcome)
	case MCP:
		return r.Outcome != "" && r.Outcome != "ok"
	}
	return r.Outcome != ""
}

// endpoint is an address in parts, for formats that know neither zones nor IPv4
// within IPv6; not ok when there is none.
func endpoint(text string) (addr netip.Addr, port int, ok bool) {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return addr, 0, false
	}
	return a.Addr().Unmap().WithZone(""), int(a.Port()), true
}

// subject is who it is about: who gave an order, else the certificate's identity.
func (r *Record) subject() string { return cmp.Or(r.Actor, r.Identity) }

// cut shortens a text to so many bytes, between two characters.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

// object is a JSON object without what is empty.
type object map[string]any

func (o object) set(key string, v any) {
	switch v := v.(type) {
	case string:
		if v == "" {
			return
		}
	case uint64:
		if v == 0 {
			return
		}
	case object:
		if len(v) == 0 {
			return
		}
	}
	o[key] = v
}

// severity is from 0 to 10, as CEF counts.
func (r *Record) severity() int {
	switch {
	case r.Kind == Lost || r.Kind == Recovered:
		return 8
	case r.Outcome == "revoked":
		return 7
	case r.failed():
		return 5
	case r.Kind == Control || r.Kind == Policy || r.Kind == Revocation || r.Kind == Removed:
		return 3
	}
	return 1
}
