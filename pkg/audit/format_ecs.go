package audit

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// ecsVersion is the version of Elastic's Common Schema that ecs writes.
const ecsVersion = "9.3.0"

// ecs writes Elastic's Common Schema. What it has no field for is under "tlsmcp",
// as it says to do with fields of one's own.
func (p product) ecs(r *Record) ([]byte, error) {
	doc := object{"@timestamp": r.Time.UTC().Format(timeLayout), "ecs": object{"version": ecsVersion}, "event": r.ecsEvent(),
		"observer": object{"vendor": vendorName, "product": productName, "version": p.version, "type": "proxy"}}
	message := r.sentence()
	if r.Detail != "" {
		message += ": " + r.Detail
	}
	doc.set("message", message)
	source := ecsEndpoint(r.Remote)
	source.set("bytes", r.BytesIn)
	doc.set("source", source)
	destination := ecsEndpoint(r.Local)
	destination.set("domain", r.SNI)
	destination.set("bytes", r.BytesOut)
	doc.set("destination", destination)
	user := object{}
	user.set("name", r.subject())
	doc.set("user", user)
	doc.set("tls", r.ecsTLS())
	rule := object{}
	rule.set("name", r.Rule)
	doc.set("rule", rule)
	own := object{}
	own.set("connection", r.Connection)
	own.set("requests", r.Requests)
	own.set("method", r.Method)
	own.set("target", r.Target)
	own.set("session", r.Session)
	own.set("count", r.Count)
	if len(r.Attributes) > 0 {
		own["attributes"] = r.Attributes
	}
	doc.set("tlsmcp", own)
	return json.Marshal(doc)
}

func (r *Record) ecsEvent() object {
	category, types := r.ecsCategory()
	ev := object{"kind": "event", "category": category, "type": types, "action": string(r.Kind), "dataset": "tlsmcp.audit", "module": "tlsmcp",
		"provider": "tlsmcpd", "sequence": r.Sequence, "severity": r.severity()}
	switch {
	case r.failed():
		ev["outcome"] = "failure"
	case !slices.Contains(types, "info"): // which has none, as a rule
		ev["outcome"] = "success"
	}
	ev.set("reason", r.Outcome)
	if r.Duration > 0 {
		ev["duration"] = uint64(r.Duration * float64(time.Millisecond))
	}
	return ev
}

func ecsEndpoint(text string) object {
	a, port, ok := endpoint(text)
	if !ok {
		return object{}
	}
	return object{"address": a.String(), "ip": a.String(), "port": port}
}

func (r *Record) ecsTLS() object {
	tls := object{}
	tls.set("version", strings.TrimPrefix(r.TLSVersion, "TLS "))
	if r.TLSVersion != "" {
		tls["version_protocol"] = "tls"
	}
	tls.set("cipher", r.TLSCipher)
	tls.set("curve", r.TLSGroup)
	tls.set("next_protocol", strings.ToLower(r.ALPN))
	switch r.Kind {
	case Accepted, Closed:
		tls["established"] = true
	case Refused:
		tls["established"] = false
	}
	client := object{}
	client.set("server_name", r.SNI)
	client.set("issuer", r.Issuer)
	if r.Serial != "" && r.Kind != Certificate { // that is of the server's
		client["x509"] = object{"serial_number": strings.ToUpper(r.Serial)}
	}
	tls.set("client", client)
	return tls
}

// ecsCategory is event.category and event.type, which have closed lists of
// values, and of pairs of them. The type "connection" promises both addresses.
func (r *Record) ecsCategory() (category, types []string) {
	connection := func(types ...string) []string {
		_, _, from := endpoint(r.Remote)
		if _, _, to := endpoint(r.Local); from && to {
			return append([]string{"connection"}, types...)
		}
		return types
	}
	switch r.Kind {
	case Accepted:
		return []string{"network", "authentication"}, connection("start", "allowed")
	case Refused:
		return []string{"network", "authentication"}, connection("start", "denied")
	case Closed:
		return []string{"network"}, connection("end")
	case MCP:
		if r.failed() {
			return []string{"api"}, []string{"access", "denied"}
		}
		return []string{"api"}, []string{"access", "allowed"}
	case Control, Reload, Policy, Revocation, Certificate:
		return []string{"configuration"}, []string{"change"}
	case Started:
		return []string{"process"}, []string{"start"}
	case Stopped:
		return []string{"process"}, []string{"end"}
	}
	return []string{"process"}, []string{"info"}
}
