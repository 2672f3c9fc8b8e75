// Package event names what happens at the edge: a connection decided, a
// connection ended, a snapshot swapped. The log, the metrics and the live feed
// are all made from these values, so they cannot tell different stories.
//
// Reasons are a stable, closed set: scripts and dashboards match on the code,
// people read the sentence.
package event

import (
	"net/netip"
	"time"
)

// Kind is what happened.
type Kind string

// The kinds of event.
const (
	Accepted Kind = "accepted" // a connection was let in
	Refused  Kind = "refused"  // a connection was turned away, before a byte reached the backend
	Closed   Kind = "closed"   // an accepted connection ended
)

// Connection is one event about one connection. Fields that do not apply are
// zero.
type Connection struct {
	Kind     Kind
	Time     time.Time
	ConnID   uint64
	Remote   netip.AddrPort // the client; behind a PROXY header, the one it names
	Local    netip.AddrPort
	Identity string // SPIFFE ID if there is one, else the common name; empty for an anonymous client
	Issuer   string // issuer's distinguished name, to read, never to match on
	Serial   string // lower-case hex
	Rule     string // the allow rule that let it in
	Version  string // "TLS 1.3"; for a refused old client the best version it offered
	Group    string // key exchange group
	Cipher   string
	ALPN     string
	SNI      string
	Reason   Reason // why it was refused, or why it ended
	Detail   string // a sentence
	BytesIn  uint64 // from the client, plain
	BytesOut uint64 // to the client, plain
	Requests uint64
	Duration time.Duration // Accepted, Refused: of the handshake; Closed: of the connection
}

// Reason is a stable code for why a connection was refused or ended.
type Reason string

// Why a connection was refused.
const (
	NoCertificate     Reason = "no_certificate"
	UnknownCA         Reason = "unknown_ca"
	Expired           Reason = "expired"
	NotYetValid       Reason = "not_yet_valid"
	Revoked           Reason = "revoked"
	NotAllowed        Reason = "not_allowed"
	WrongUsage        Reason = "wrong_usage"
	PinMismatch       Reason = "pin_mismatch"
	StaleRevocation   Reason = "stale_revocation"
	BadCertificate    Reason = "bad_certificate"
	TLSVersion        Reason = "tls_version"
	ALPNMismatch      Reason = "alpn_mismatch"
	HandshakeFailed   Reason = "handshake_failed"
	HandshakeTimeout  Reason = "timeout"
	NotTLS            Reason = "not_tls"
	NoHello           Reason = "no_hello" // left without a word: port scans, TCP health checks
	ProxyHeader       Reason = "proxy_header"
	TooManyConns      Reason = "too_many_connections"
	RateLimited       Reason = "rate_limited"
	ServerCertMissing Reason = "no_server_certificate"
	AuditUnavailable  Reason = "audit_unavailable"
	ACMEChallenge     Reason = "acme_challenge" // not a client: an ACME server that validates a name
)

// Why an accepted connection ended. Revoked, Expired, UnknownCA and NotAllowed
// above apply too: a live connection ends when its certificate would no longer
// be let in.
const (
	ClientClosed     Reason = "client_closed"
	ServerClosed     Reason = "server_closed"
	IdleTimeout      Reason = "idle_timeout"
	HeaderTimeout    Reason = "header_timeout"
	StalledClient    Reason = "stalled_client"
	BadRequest       Reason = "bad_request"
	BackendDown      Reason = "backend_unreachable"
	BackendTimeout   Reason = "backend_timeout"
	BackendBroke     Reason = "backend_broke"
	BackendMalformed Reason = "backend_malformed"
	Drained          Reason = "drained"
	ByOperator       Reason = "closed_by_operator"
	Reset            Reason = "reset"
)

// Why a call to an MCP server was refused. Revoked and the like apply too, to
// one that was cut.
const (
	MCPForbidden   Reason = "mcp_forbidden"
	MCPRateLimited Reason = "mcp_rate_limited"
	MCPMalformed   Reason = "mcp_malformed"
	MCPHeaders     Reason = "mcp_headers"
	MCPOrigin      Reason = "mcp_origin"
	MCPSession     Reason = "mcp_session"
	MCPChanged     Reason = "mcp_tool_changed"
	MCPServerGone  Reason = "mcp_server_gone"
	MCPTooMany     Reason = "mcp_too_many"
)
