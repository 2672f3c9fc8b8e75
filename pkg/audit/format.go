package audit

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
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

// peer is the remote address in parts; not ok when there is none.
func (r *Record) peer() (addr netip.AddrPort, ok bool) {
	addr, err := netip.ParseAddrPort(r.Remote)
	return addr, err == nil
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

// cef writes ArcSight's Common Event Format, version 0 (CEF Implementation
// Standard, version 26): in the header "|" and "\" are escaped, in the extension
// "=", "\" and line ends.
func (p product) cef(r *Record) ([]byte, error) {
	var b strings.Builder
	head := strings.NewReplacer(`\`, `\\`, `|`, `\|`, "\n", " ", "\r", " ")
	fmt.Fprintf(&b, "CEF:0|%s|%s|%s|%s|%s|%d|", vendorName, productName, head.Replace(p.version), head.Replace(string(r.Kind)), head.Replace(r.sentence()), r.severity())
	value := strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\n", `\n`, "\r", `\r`)
	n := 0
	add := func(key, text string) {
		if text == "" {
			return
		}
		if n++; n > 1 {
			b.WriteByte(' ')
		}
		b.WriteString(key + "=" + value.Replace(text))
	}
	number := func(key string, v uint64) {
		if v != 0 {
			add(key, strconv.FormatUint(v, 10))
		}
	}
	custom := func(key, label, text string) {
		if text != "" {
			add(key, text)
			add(key+"Label", label)
		}
	}
	add("rt", strconv.FormatInt(r.Time.UnixMilli(), 10))
	add("externalId", strconv.FormatUint(r.Sequence, 10))
	if a, ok := r.peer(); ok {
		add("src", a.Addr().Unmap().String())
		add("spt", strconv.Itoa(int(a.Port())))
	}
	add("suser", r.Identity)
	add("duser", r.Actor)
	add("act", string(r.Kind))
	if r.failed() {
		add("outcome", "failure")
	} else {
		add("outcome", "success")
	}
	add("reason", r.Outcome)
	add("msg", r.Detail)
	add("app", r.ALPN)
	add("dhost", r.SNI)
	number("in", r.BytesIn)
	number("out", r.BytesOut)
	number("cnt", r.Count)
	custom("cs1", "clientCertificateSerial", r.Serial)
	custom("cs2", "rule", r.Rule)
	custom("cs3", "tlsVersion", r.TLSVersion)
	custom("cs4", "method", r.Method)
	custom("cs5", "target", r.Target)
	custom("cs6", "session", r.Session)
	if r.Connection != 0 {
		custom("cn1", "connection", strconv.FormatUint(r.Connection, 10))
	}
	return []byte(b.String()), nil
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
	case []string:
		if len(v) == 0 {
			return
		}
	}
	o[key] = v
}

// ecs writes Elastic's Common Schema, version 8.17.
func (p product) ecs(r *Record) ([]byte, error) {
	category, types := r.ecsCategory()
	ev := object{"kind": "event", "category": category, "type": types, "action": string(r.Kind), "dataset": "tlsmcp.audit", "module": "tlsmcp",
		"provider": "tlsmcpd", "outcome": "success", "sequence": r.Sequence, "severity": r.severity()}
	if r.failed() {
		ev["outcome"] = "failure"
	}
	ev.set("reason", r.Outcome)
	if r.Duration > 0 {
		ev["duration"] = uint64(r.Duration * float64(time.Millisecond))
	}
	doc := object{"@timestamp": r.Time.UTC().Format(timeLayout), "ecs": object{"version": "8.17.0"}, "event": ev,
		"observer": object{"vendor": vendorName, "product": productName, "version": p.version, "type": "proxy"}}
	message := r.sentence()
	if r.Detail != "" {
		message += ": " + r.Detail
	}
	doc.set("message", message)
	source := object{}
	if a, ok := r.peer(); ok {
		source["address"], source["ip"], source["port"] = a.Addr().Unmap().String(), a.Addr().Unmap().String(), int(a.Port())
	}
	source.set("bytes", r.BytesIn)
	doc.set("source", source)
	destination := object{}
	destination.set("domain", r.SNI)
	destination.set("bytes", r.BytesOut)
	doc.set("destination", destination)
	user := object{}
	if r.Actor != "" {
		user.set("name", r.Actor)
	} else {
		user.set("name", r.Identity)
	}
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

func (r *Record) ecsTLS() object {
	tls := object{}
	tls.set("version", strings.TrimPrefix(r.TLSVersion, "TLS "))
	if r.TLSVersion != "" {
		tls["version_protocol"] = "tls"
	}
	tls.set("cipher", r.TLSCipher)
	tls.set("curve", r.TLSGroup)
	tls.set("next_protocol", r.ALPN)
	if r.Kind == Accepted || r.Kind == Closed {
		tls["established"] = true
	} else if r.Kind == Refused {
		tls["established"] = false
	}
	client := object{}
	client.set("server_name", r.SNI)
	client.set("issuer", r.Issuer)
	if r.Serial != "" {
		client["x509"] = object{"serial_number": strings.ToUpper(r.Serial)}
	}
	tls.set("client", client)
	return tls
}

// ecsCategory is event.category and event.type, which have closed lists of
// values, and of pairs of them.
func (r *Record) ecsCategory() (category, types []string) {
	switch r.Kind {
	case Accepted:
		return []string{"network", "authentication"}, []string{"connection", "start", "allowed"}
	case Refused:
		return []string{"network", "authentication"}, []string{"connection", "start", "denied"}
	case Closed:
		return []string{"network"}, []string{"connection", "end"}
	case MCP:
		if r.failed() {
			return []string{"api"}, []string{"access", "denied"}
		}
		return []string{"api"}, []string{"access", "allowed"}
	case Control, Reload, Policy, Revocation, Certificate:
		return []string{"configuration"}, []string{"change"}
	}
	switch r.Kind {
	case Started:
		return []string{"process"}, []string{"start"}
	case Stopped:
		return []string{"process"}, []string{"end"}
	}
	return []string{"process"}, []string{"info"}
}

// ocsf writes the Open Cybersecurity Schema Framework, version 1.3: Network
// Activity (4001) for connections, API Activity (6003) for orders and MCP calls,
// Entity Management (3004) for what changes trust, Application Lifecycle (6002)
// for the rest.
func (p product) ocsf(r *Record) ([]byte, error) {
	class, category, activity, name := r.ocsfClass()
	doc := object{
		"class_uid": class, "category_uid": category, "activity_id": activity, "activity_name": name, "type_uid": class*100 + activity,
		"time": r.Time.UnixMilli(), "severity_id": r.ocsfSeverity(), "status_id": 1, "message": r.sentence(),
		"metadata": object{"version": "1.3.0", "product": object{"name": productName, "vendor_name": vendorName, "version": p.version},
			"sequence": r.Sequence, "uid": strconv.FormatUint(r.Sequence, 10), "log_name": "audit"},
	}
	if r.failed() {
		doc["status_id"] = 2
	}
	doc.set("status_code", r.Outcome)
	doc.set("status_detail", r.Detail)
	if r.Duration > 0 {
		doc["duration"] = int64(r.Duration)
	}
	source := object{}
	if a, ok := r.peer(); ok {
		source["ip"], source["port"] = a.Addr().Unmap().String(), int(a.Port())
	}
	actor := object{}
	switch {
	case r.Actor != "":
		actor["user"] = object{"name": r.Actor}
	case r.Identity != "":
		actor["user"] = object{"name": r.Identity}
	default:
		actor["app_name"] = productName
	}
	switch class {
	case ocsfNetwork:
		doc["src_endpoint"] = orUnknown(source)
		doc["actor"] = actor
		destination := object{"name": productName}
		destination.set("hostname", r.SNI)
		doc["dst_endpoint"] = destination
		traffic := object{}
		traffic.set("bytes_in", r.BytesIn)
		traffic.set("bytes_out", r.BytesOut)
		doc.set("traffic", traffic)
		doc.set("tls", r.ocsfTLS())
	case ocsfAPI:
		doc["actor"] = actor
		doc["src_endpoint"] = orUnknown(source)
		operation := r.Method
		if operation == "" {
			operation = string(r.Kind)
		}
		api := object{"operation": operation, "service": object{"name": productName}}
		doc["api"] = api
		if r.Target != "" {
			doc["resources"] = []object{{"name": r.Target}}
		}
	case ocsfEntity:
		doc["actor"] = actor
		doc["entity"] = object{"name": string(r.Kind), "type": string(r.Kind)}
	case ocsfApplication:
		doc["app"] = object{"name": "tlsmcpd", "vendor_name": vendorName, "version": p.version}
	}
	unmapped := object{}
	unmapped.set("connection", r.Connection)
	unmapped.set("client_certificate_serial", r.Serial)
	unmapped.set("rule", r.Rule)
	unmapped.set("session", r.Session)
	unmapped.set("count", r.Count)
	for k, v := range r.Attributes {
		unmapped.set(k, v)
	}
	doc.set("unmapped", unmapped)
	return json.Marshal(doc)
}

func orUnknown(o object) object {
	if len(o) == 0 {
		return object{"name": "unknown"}
	}
	return o
}

func (r *Record) ocsfTLS() object {
	if r.TLSVersion == "" {
		return nil
	}
	tls := object{"version": strings.TrimPrefix(r.TLSVersion, "TLS ")}
	tls.set("cipher", r.TLSCipher)
	tls.set("sni", r.SNI)
	return tls
}

// The classes of OCSF that are used.
const (
	ocsfNetwork     = 4001
	ocsfAPI         = 6003
	ocsfEntity      = 3004
	ocsfApplication = 6002
)

// ocsfClass is class, category and activity.
func (r *Record) ocsfClass() (class, category, activity int, name string) {
	switch r.Kind {
	case Accepted:
		return ocsfNetwork, 4, 1, "Open"
	case Closed:
		return ocsfNetwork, 4, 2, "Close"
	case Refused:
		return ocsfNetwork, 4, 5, "Refuse"
	case Control:
		return ocsfAPI, 6, 3, "Update"
	case MCP:
		return ocsfAPI, 6, 2, "Read"
	case Revocation, Certificate, Policy:
		return ocsfEntity, 3, 3, "Update"
	case Started:
		return ocsfApplication, 6, 3, "Start"
	case Stopped:
		return ocsfApplication, 6, 4, "Stop"
	}
	return ocsfApplication, 6, 99, string(r.Kind) // Other
}

// ocsfSeverity is 1 (informational) to 5 (critical).
func (r *Record) ocsfSeverity() int {
	switch s := r.severity(); {
	case s >= 8:
		return 4
	case s >= 5:
		return 3
	case s >= 3:
		return 2
	}
	return 1
}
