// Package config reads the configuration of a sidecar: one TOML (or YAML)
// file, decoded strictly, validated whole, and turned into the types that the
// daemon runs on.
//
// A file is read in four steps: the text becomes a tree whose every node knows
// its line; the tree is decoded into [File], which mirrors the file key by key;
// File is validated and resolved into [Config], which mirrors the daemon; and
// whatever was wrong in any step comes back at once, as [Faults], each with
// file, line, dotted key and a way out. The two types are apart on purpose: a
// file says "listen.address may be a string or a list", the daemon wants
// addresses.
package config

import (
	"net/netip"
	"time"
)

// Config is a validated configuration. It is immutable: a reload makes a new
// one.
type Config struct {
	Path      string // the file it came from; empty when parsed from memory
	ServiceID string

	Hub          Hub
	Listen       Listen
	Backend      Backend
	MTLS         MTLS
	ServerCert   ServerCert
	ClientCert   ClientCert
	MCP          MCP
	MCPGateway   MCPGateway
	Audit        Audit
	Logging      Logging
	AdminAddress netip.AddrPort // zero: no admin listener
	Control      Control
	StateDir     string
	FIPS         bool
	Landlock     Landlock

	warnings []Fault
}

// Warnings lists what the file says that this build does not do yet, and what
// it does that an operator should know of. Each is shown at start and by
// `tlsmcp config check`.
func (c *Config) Warnings() []Fault { return c.warnings }

// Hub says where the control plane is.
type Hub struct {
	Kind          HubKind
	URL           string // for HubRemote
	Socket        string // for HubLocal
	CAFile        string
	AuthTokenFile string
	AuthToken     Secret
	SyncInterval  time.Duration
}

// HubKind is which Hub a sidecar belongs to.
type HubKind int

// The kinds of Hub.
const (
	HubNone HubKind = iota
	HubLocal
	HubRemote
)

func (k HubKind) String() string {
	switch k {
	case HubLocal:
		return "local"
	case HubRemote:
		return "remote"
	}
	return "none"
}

// Listen is the TLS side.
type Listen struct {
	Addresses         []netip.AddrPort // an unspecified IPv6 address takes IPv4 too, as the kernel does
	ProxyProtocolFrom []netip.Prefix
	MaxConnections    int
	HandshakeTimeout  time.Duration
	HeaderTimeout     time.Duration
	IdleTimeout       time.Duration
	DrainTimeout      time.Duration
	MaxHeaderBytes    int
	HandshakesPerIP   int // per second; 0: no limit
}

// ExpectsProxyHeader reports whether connections from a begin with a PROXY
// protocol header.
func (l Listen) ExpectsProxyHeader(a netip.Addr) bool {
	for _, p := range l.ProxyProtocolFrom {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Protocol is what the backend speaks.
type Protocol string

// The protocols.
const (
	ProtocolHTTP     Protocol = "http"
	ProtocolH2C      Protocol = "h2c"
	ProtocolTCP      Protocol = "tcp"
	ProtocolMCP      Protocol = "mcp"
	ProtocolMCPStdio Protocol = "mcp-stdio"
)

// Backend is the plain side.
type Backend struct {
	Network         string // "tcp" or "unix"; empty for mcp-stdio
	Address         string // "127.0.0.1:3000" or "/run/app.sock"
	Protocol        Protocol
	Path            string
	Command         []string
	Env             map[string]string
	ConnectTimeout  time.Duration
	ResponseTimeout time.Duration // 0: none
	PoolSize        int
	IdentityHeaders []IdentityHeader
	ProxyProtocol   bool
}

// IdentityHeader names a family of headers that tell the backend who called.
type IdentityHeader string

// The identity headers. ClientCert and ClientCertChain are RFC 9440.
const (
	HeaderClientCert      IdentityHeader = "client-cert"
	HeaderClientCertChain IdentityHeader = "client-cert-chain"
	HeaderXFCC            IdentityHeader = "xfcc"
	HeaderXTlsmcp         IdentityHeader = "x-tlsmcp"
)

// MTLSMode is whether a client must show a certificate.
type MTLSMode string

// The modes. Under MTLSOptional a bad certificate is still refused.
const (
	MTLSRequired MTLSMode = "required"
	MTLSOptional MTLSMode = "optional"
	MTLSDisabled MTLSMode = "disabled"
)

// MTLS is who may come in.
type MTLS struct {
	Mode              MTLSMode
	CAFile            string
	AllowedServices   []string
	AllowedURIs       []string
	AllowedDNS        []string
	AllowedOUs        []string
	Pins              []string // "sha256:" and 64 lower-case hex digits
	AllowAll          bool
	CRLFiles          []string
	CRLURLs           []string
	CRLAllowPrivate   bool
	OCSP              string // off, soft, hard
	RevocationRefresh time.Duration
	Strict            bool // revocation_mode = "strict"
	MaxStaleness      time.Duration
}

// Provider is where the server's certificate comes from.
type Provider string

// The providers.
const (
	ProviderFiles       Provider = "files"
	ProviderInternal    Provider = "internal"
	ProviderLetsEncrypt Provider = "letsencrypt"
	ProviderCommercial  Provider = "commercial"
)

// ServerCert is the certificate that clients see.
type ServerCert struct {
	Provider        Provider
	CertFile        string
	KeyFile         string
	AutoRenew       bool
	RenewBefore     time.Duration // 0: when a third of the lifetime is left
	Domains         []string
	ACMEDirectory   string
	ACMEEmail       string
	ACMECAFile      string
	ACMEHTTPAddress string
}

// ClientCert bounds what is issued to clients.
type ClientCert struct {
	DefaultTTL time.Duration
	MaxTTL     time.Duration
}

// MCP configures `tlsmcp mcp serve`.
type MCP struct {
	Enabled    bool
	Transport  string // stdio, http, sse
	SSEAddress string
	SelfSecure bool
}

// MCPGateway is the policy for MCP backends.
type MCPGateway struct {
	DefaultAllow bool
	PinTools     string // off, warn, block
	LogArguments string // digest, full, none
	RateCalls    int    // calls per RatePer and agent; 0: no limit
	RatePer      time.Duration
	MaxChildren  int
	ChildIdle    time.Duration
	ChildPaths   []ChildPath
	ChildMemory  int64  // bytes
	ChildSocket  string // of the socket unit that runs each server; empty: the daemon's own helper does
	Rules        []MCPRule
}

// ChildPath is a path that an mcp-stdio child may touch.
type ChildPath struct {
	Path  string
	Write bool
}

// MCPRule allows or denies agents some tools, resources, prompts or methods.
type MCPRule struct {
	Agents, Tools, Resources, Prompts, Methods []string
	Allow                                      bool
}

// Audit is where the record goes.
type Audit struct {
	Dir     string
	Keep    time.Duration
	MaxSize int64 // bytes
	Refuse  bool  // on_full = "refuse"
	Sinks   []AuditSink
}

// AuditSink is one more place that audit records are sent to.
type AuditSink struct {
	Type, Format, Address string
}

// Logging is the daemon's own log.
type Logging struct {
	Level  string // debug, info, warn, error
	Pretty bool
}

// Landlock is how much the daemon insists on confining itself.
type Landlock string

// The values. LandlockBestEffort takes what the kernel has, and none if it has
// none.
const (
	LandlockBestEffort Landlock = "best_effort"
	LandlockRequired   Landlock = "required"
	LandlockOff        Landlock = "off"
)

// Control is the control socket.
type Control struct {
	Socket    string
	Operators []string
	Viewers   []string
}

// Secret is a string that never shows itself: every way of printing it gives
// REDACTED.
type Secret string
