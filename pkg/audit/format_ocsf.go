package audit

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// ocsfVersion is the version of the Open Cybersecurity Schema Framework that ocsf
// writes.
const ocsfVersion = "1.3.0"

// The classes of OCSF that are used, and their categories.
const (
	ocsfEntity      = 3004 // Entity Management: what changes trust
	ocsfNetwork     = 4001 // Network Activity: connections
	ocsfApplication = 6002 // Application Lifecycle: the rest
	ocsfAPI         = 6003 // API Activity: orders and MCP calls
)

const (
	ocsfOther = 99    // of any enumeration: see the text beside it
	ocsfText  = 65535 // the longest text, in bytes
)

// ocsf writes the Open Cybersecurity Schema Framework.
func (p product) ocsf(r *Record) ([]byte, error) {
	class, activity, name := r.ocsfClass()
	metadata := object{"version": ocsfVersion, "product": object{"name": productName, "vendor_name": vendorName, "version": p.version},
		"sequence": r.Sequence, "uid": strconv.FormatUint(r.Sequence, 10), "log_name": "audit"}
	doc := object{
		"class_uid": class, "category_uid": class / 1000, "activity_id": activity, "activity_name": name, "type_uid": class*100 + activity,
		"time": r.Time.UnixMilli(), "severity_id": r.ocsfSeverity(), "status_id": 1, "message": r.sentence(), "metadata": metadata,
	}
	if r.failed() {
		doc["status_id"] = 2
	}
	doc.set("status_code", r.Outcome)
	doc.set("status_detail", cut(r.Detail, ocsfText))
	if r.Duration > 0 {
		doc["duration"] = int64(r.Duration)
	}
	actor := object{"app_name": productName}
	if who := r.subject(); who != "" {
		actor = object{"user": object{"name": who}}
	}
	switch class {
	case ocsfNetwork:
		// Who it is has no place in this class but by the profile for hosts.
		metadata["profiles"], doc["actor"] = []string{"host"}, actor
		r.ocsfConnection(doc)
	case ocsfAPI:
		doc["actor"] = actor
		r.ocsfCall(doc)
	case ocsfEntity:
		metadata["profiles"], doc["actor"] = []string{"host"}, actor
		doc["entity"] = r.ocsfEntity()
	case ocsfApplication:
		doc["app"] = object{"name": "tlsmcpd", "vendor_name": vendorName, "version": p.version}
	}
	doc.set("unmapped", r.ocsfUnmapped())
	return json.Marshal(doc)
}

func (r *Record) ocsfConnection(doc object) {
	doc["src_endpoint"] = ocsfEndpoint(r.Remote, "unknown")
	to := ocsfEndpoint(r.Local, productName)
	if isHostname(r.SNI) {
		to["hostname"] = r.SNI
	}
	doc["dst_endpoint"] = to
	info := object{"direction_id": 1, "protocol_name": "tcp", "protocol_num": 6} // inbound
	if r.Connection != 0 {
		info["uid"] = strconv.FormatUint(r.Connection, 10)
	}
	doc["connection_info"] = info
	// In and out are seen from the source here.
	traffic := object{}
	traffic.set("bytes_out", r.BytesIn)
	traffic.set("bytes_in", r.BytesOut)
	doc.set("traffic", traffic)
	if r.TLSVersion == "" {
		return
	}
	tls := object{"version": strings.TrimPrefix(r.TLSVersion, "TLS ")}
	tls.set("cipher", r.TLSCipher)
	tls.set("sni", cut(r.SNI, ocsfText))
	doc["tls"] = tls
}

func (r *Record) ocsfCall(doc object) {
	from := "unknown"
	if r.Kind == Control {
		from = "localhost" // orders come over a Unix socket
	}
	doc["src_endpoint"] = ocsfEndpoint(r.Remote, from)
	operation := r.Method
	if operation == "" {
		operation = string(r.Kind)
	}
	doc["api"] = object{"operation": operation, "service": object{"name": productName}}
	if r.Target != "" {
		doc["resources"] = []object{{"name": cut(r.Target, ocsfText)}}
	}
}

func (r *Record) ocsfEntity() object {
	e := object{"name": string(r.Kind), "type": string(r.Kind), "type_id": ocsfOther}
	switch r.Kind {
	case Policy:
		e["type_id"] = 5 // Policy
		e["policy"] = object{"name": "allowed callers"}
	case Certificate:
		e.set("name", r.Identity)
		e.set("uid", r.Serial)
	}
	return e
}

func (r *Record) ocsfUnmapped() object {
	own := object{}
	own.set("connection", r.Connection)
	own.set("client_certificate_serial", r.Serial)
	own.set("rule", r.Rule)
	own.set("session", r.Session)
	own.set("count", r.Count)
	own.set("requests", r.Requests)
	own.set("method", r.Method)
	for k, v := range r.Attributes {
		own.set(k, v)
	}
	return own
}

// ocsfEndpoint is an address, or a name for one that is not known.
func ocsfEndpoint(text, otherwise string) object {
	if a, port, ok := endpoint(text); ok {
		return object{"ip": a.String(), "port": port}
	}
	return object{"name": otherwise}
}

// isHostname tells whether a text may stand where a host's name has to: a client
// can name any server.
func isHostname(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		odd := strings.IndexFunc(label, func(r rune) bool {
			return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		})
		if odd >= 0 || label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// ocsfClass is the class and the activity.
func (r *Record) ocsfClass() (class, activity int, name string) {
	switch r.Kind {
	case Accepted:
		return ocsfNetwork, 1, "Open"
	case Closed:
		return ocsfNetwork, 2, "Close"
	case Refused:
		return ocsfNetwork, 5, "Refuse"
	case Control:
		return ocsfAPI, 3, "Update"
	case MCP:
		if strings.HasSuffix(r.Method, "/list") || slices.Contains([]string{"resources/read", "prompts/get"}, r.Method) {
			return ocsfAPI, 2, "Read"
		}
		return ocsfAPI, ocsfOther, r.Method // what a tool does is not known
	case Certificate:
		if r.Method != "" { // it was ordered
			return ocsfEntity, 1, "Create"
		}
		return ocsfEntity, 10, "Activate"
	case Revocation, Policy:
		return ocsfEntity, 3, "Update"
	case Started:
		return ocsfApplication, 3, "Start"
	case Stopped:
		return ocsfApplication, 4, "Stop"
	}
	return ocsfApplication, ocsfOther, string(r.Kind)
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
