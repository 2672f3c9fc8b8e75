package config

import "time"

// File mirrors the configuration file key by key; the json tag is the key's
// name in every format. It holds what was written, not what it means: that is
// [Config].
type File struct {
	Version    int64          `json:"version"`
	ServiceID  string         `json:"service_id"`
	Hub        FileHub        `json:"hub"`
	Listen     FileListen     `json:"listen"`
	Backend    FileBackend    `json:"backend"`
	MTLS       FileMTLS       `json:"mtls"`
	ServerCert FileServerCert `json:"server_cert"`
	ClientCert FileClientCert `json:"client_cert"`
	Outbound   []FileOutbound `json:"outbound,omitempty"`
	MCP        FileMCP        `json:"mcp"`
	MCPGateway FileMCPGateway `json:"mcp_gateway"`
	Audit      FileAudit      `json:"audit"`
	Logging    FileLogging    `json:"logging"`
	Admin      FileAdmin      `json:"admin"`
	Control    FileControl    `json:"control"`
	State      FileState      `json:"state"`
	FIPS       FileFIPS       `json:"fips"`
	Sandbox    FileSandbox    `json:"sandbox"`
}

// OneOrMore is a list of strings that may be written as one string.
type OneOrMore []string

// FileHub is [hub].
type FileHub struct {
	URL           string   `json:"url"`
	Socket        string   `json:"socket"`
	CAFile        string   `json:"ca_file"`
	AuthTokenFile string   `json:"auth_token_file"`
	AuthToken     Secret   `json:"auth_token"`
	SyncInterval  Duration `json:"sync_interval"`
}

// FileListen is [listen].
type FileListen struct {
	Address           OneOrMore `json:"address"`
	Protocol          string    `json:"protocol"`
	ProxyProtocolFrom []string  `json:"proxy_protocol_from"`
	MaxConnections    int64     `json:"max_connections"`
	HandshakeTimeout  Duration  `json:"handshake_timeout"`
	HeaderTimeout     Duration  `json:"header_timeout"`
	IdleTimeout       Duration  `json:"idle_timeout"`
	DrainTimeout      Duration  `json:"drain_timeout"`
	MaxHeaderBytes    Size      `json:"max_header_bytes"`
	HandshakesPerIP   int64     `json:"handshakes_per_ip"`
}

// FileBackend is [backend].
type FileBackend struct {
	Address         string            `json:"address"`
	Protocol        string            `json:"protocol"`
	Path            string            `json:"path"`
	Command         []string          `json:"command"`
	Env             map[string]string `json:"env"`
	ConnectTimeout  Duration          `json:"connect_timeout"`
	ResponseTimeout Duration          `json:"response_timeout"`
	PoolSize        int64             `json:"pool_size"`
	IdentityHeaders []string          `json:"identity_headers"`
	ProxyProtocol   bool              `json:"proxy_protocol"`
}

// FileMTLS is [mtls].
type FileMTLS struct {
	Mode              string   `json:"mode"`
	CAFile            string   `json:"ca_file"`
	AllowedServices   []string `json:"allowed_services"`
	AllowedURIs       []string `json:"allowed_uris"`
	AllowedDNS        []string `json:"allowed_dns"`
	AllowedOUs        []string `json:"allowed_ous"`
	Pins              []string `json:"pins"`
	AllowAll          bool     `json:"allow_all"`
	CRLFiles          []string `json:"crl_files"`
	CRLURLs           []string `json:"crl_urls"`
	CRLAllowPrivate   bool     `json:"crl_allow_private"`
	OCSP              string   `json:"ocsp"`
	RevocationRefresh Duration `json:"revocation_refresh"`
	RevocationMode    string   `json:"revocation_mode"`
	MaxStaleness      Duration `json:"max_staleness"`
}

// FileServerCert is [server_cert]. A renew_before of "" is written back as
// "0s", which means the same.
type FileServerCert struct {
	Provider        string   `json:"provider"`
	CertFile        string   `json:"cert_file"`
	KeyFile         string   `json:"key_file"`
	AutoRenew       bool     `json:"auto_renew"`
	RenewBefore     Duration `json:"renew_before" empty:"zero"`
	Domains         []string `json:"domains"`
	ACMEDirectory   string   `json:"acme_directory"`
	ACMEEmail       string   `json:"acme_email"`
	ACMECAFile      string   `json:"acme_ca_file"`
	ACMEHTTPAddress string   `json:"acme_http_address"`
}

// FileClientCert is [client_cert].
type FileClientCert struct {
	DefaultTTL Duration `json:"default_ttl"`
	MaxTTL     Duration `json:"max_ttl"`
}

// FileOutbound is one [[outbound]].
type FileOutbound struct {
	Name           string `json:"name"`
	Listen         string `json:"listen"`
	Connect        string `json:"connect"`
	ServerIdentity string `json:"server_identity"`
	CAFile         string `json:"ca_file"`
}

// FileMCP is [mcp].
type FileMCP struct {
	Enabled    bool   `json:"enabled"`
	Transport  string `json:"transport"`
	SSEAddress string `json:"sse_address"`
	SelfSecure bool   `json:"self_secure"`
}

// FileMCPGateway is [mcp_gateway].
type FileMCPGateway struct {
	Default      string     `json:"default"`
	PinTools     string     `json:"pin_tools"`
	LogArguments string     `json:"log_arguments"`
	Rate         string     `json:"rate"`
	MaxChildren  int64      `json:"max_children"`
	ChildIdle    Duration   `json:"child_idle"`
	ChildPaths   []string   `json:"child_paths"`
	ChildMemory  Size       `json:"child_memory"`
	ChildSocket  string     `json:"child_socket"`
	Rule         []FileRule `json:"rule"`
}

// FileRule is one [[mcp_gateway.rule]].
type FileRule struct {
	Agents    []string `json:"agents"`
	Tools     []string `json:"tools"`
	Resources []string `json:"resources"`
	Prompts   []string `json:"prompts"`
	Methods   []string `json:"methods"`
	Effect    string   `json:"effect"`
}

// FileAudit is [audit].
type FileAudit struct {
	Dir     string     `json:"dir"`
	Keep    Duration   `json:"keep"`
	MaxSize Size       `json:"max_size"`
	OnFull  string     `json:"on_full"`
	Sinks   []FileSink `json:"sinks"`
}

// FileSink is one entry of audit.sinks.
type FileSink struct {
	Type    string `json:"type"`
	Format  string `json:"format"`
	Address string `json:"address"`
}

// FileLogging is [logging].
type FileLogging struct {
	Level  string `json:"level"`
	Format string `json:"format"`
}

// FileAdmin is [admin].
type FileAdmin struct {
	Address string `json:"address"`
}

// FileControl is [control].
type FileControl struct {
	Socket    string   `json:"socket"`
	Operators []string `json:"operators"`
	Viewers   []string `json:"viewers"`
}

// FileState is [state].
type FileState struct {
	Dir string `json:"dir"`
}

// FileFIPS is [fips].
type FileFIPS struct {
	Mode string `json:"mode"`
}

// FileSandbox is [sandbox].
type FileSandbox struct {
	Landlock string `json:"landlock"`
}

// defaults is the file that an empty one stands for. The version is not among
// them: a file must say which schema it was written for.
func defaults() File {
	const (
		sec  = Duration(time.Second)
		hour = Duration(time.Hour)
	)
	return File{
		Hub: FileHub{URL: "local", Socket: "/run/tlsmcp-hub/hub.sock", SyncInterval: 60 * sec},
		Listen: FileListen{
			Address: OneOrMore{"0.0.0.0:8443"}, Protocol: "tls13", MaxConnections: 20000,
			HandshakeTimeout: 5 * sec, HeaderTimeout: 10 * sec, IdleTimeout: 300 * sec,
			DrainTimeout: 30 * sec, MaxHeaderBytes: 64 << 10,
		},
		Backend: FileBackend{
			Address: "127.0.0.1:3000", Protocol: string(ProtocolHTTP), Path: "/mcp",
			ConnectTimeout: 2 * sec, PoolSize: 256,
			IdentityHeaders: []string{string(HeaderClientCert), string(HeaderXTlsmcp)},
		},
		MTLS: FileMTLS{
			Mode: string(MTLSRequired), OCSP: "off", RevocationRefresh: 300 * sec,
			RevocationMode: "best_effort", MaxStaleness: 24 * hour,
		},
		ServerCert: FileServerCert{
			AutoRenew:     true,
			ACMEDirectory: "https://acme-v02.api.letsencrypt.org/directory",
		},
		ClientCert: FileClientCert{DefaultTTL: 24 * hour, MaxTTL: 720 * hour},
		MCP:        FileMCP{Enabled: true, Transport: "stdio", SSEAddress: "127.0.0.1:3001"},
		MCPGateway: FileMCPGateway{
			Default: "deny", PinTools: "warn", LogArguments: "digest", Rate: "0/s",
			MaxChildren: 64, ChildIdle: 1800 * sec, ChildMemory: 1 << 30,
		},
		Audit: FileAudit{
			Dir: "/var/lib/tlsmcp/audit", Keep: 90 * 24 * hour, MaxSize: 4 << 30, OnFull: "refuse",
		},
		Logging: FileLogging{Level: "info", Format: "json"},
		Admin:   FileAdmin{Address: "127.0.0.1:9090"},
		Control: FileControl{
			Socket: "/run/tlsmcp/control.sock", Operators: []string{"tlsmcp"}, Viewers: []string{"tlsmcp-view"},
		},
		State:   FileState{Dir: "/var/lib/tlsmcp"},
		FIPS:    FileFIPS{Mode: "off"},
		Sandbox: FileSandbox{Landlock: string(LandlockBestEffort)},
	}
}
