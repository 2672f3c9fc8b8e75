package score

import (
	"time"
)

// FactsSchema is the schema_version of the facts that this build writes and
// reads.
const FactsSchema = 1

// Source is who measured a fact.
type Source string

// The sources, from the inside outwards.
const (
	SourceDaemon Source = "daemon" // the sidecar, of itself
	SourceHub    Source = "hub"    // the Hub, of its own records or by trying
	SourceScan   Source = "scan"   // a scan, which sees what any client sees
)

// Fact is one thing that was measured.
type Fact[T any] struct {
	Value      T         `json:"value"`
	MeasuredAt time.Time `json:"measured_at"`
	Source     Source    `json:"source"`
	How        string    `json:"how,omitempty"` // a few words: "handshake with own listener"
}

// Facts are what is known of one service. A fact that nobody measured is nil:
// it is unknown, and never assumed to be good or bad. An empty list that was
// measured is a fact too.
type Facts struct {
	SchemaVersion int    `json:"schema_version"`
	Service       string `json:"service,omitempty"`

	// What a client can negotiate, over all listeners, and by what module.
	Versions   *Fact[[]Version]  `json:"versions,omitempty"`
	Suites     *Fact[[]string]   `json:"suites,omitempty"` // IANA names
	Groups     *Fact[[]string]   `json:"groups,omitempty"` // IANA or crypto/tls names; "dh1024" for a group without a name
	EarlyData  *Fact[bool]       `json:"early_data,omitempty"`
	Resumption *Fact[Resumption] `json:"resumption,omitempty"`
	Legacy     *Fact[Legacy]     `json:"legacy,omitempty"`
	Module     *Fact[Module]     `json:"module,omitempty"`

	// The certificate that clients see.
	Certificate *Fact[Certificate] `json:"certificate,omitempty"`
	Trust       *Fact[Trust]       `json:"trust,omitempty"`
	Lint        *Fact[Lint]        `json:"lint,omitempty"`

	// Who comes in, and whom the service goes out to.
	ClientAuth    *Fact[[]ListenerAuth] `json:"client_auth,omitempty"`
	Authorization *Fact[Authorization]  `json:"authorization,omitempty"`
	MTLSShare     *Fact[Share]          `json:"mtls_share,omitempty"`
	Upstreams     *Fact[[]Upstream]     `json:"upstreams,omitempty"`

	Revocation *Fact[[]RevocationSource] `json:"revocation,omitempty"`
	Canary     *Fact[Canary]             `json:"canary,omitempty"`

	KeyStorage  *Fact[KeyStorage]  `json:"key_storage,omitempty"`
	KeyRotation *Fact[KeyRotation] `json:"key_rotation,omitempty"`
	Renewal     *Fact[Renewal]     `json:"renewal,omitempty"`
	CA          *Fact[CA]          `json:"ca,omitempty"`

	Backend   *Fact[Backend]         `json:"backend,omitempty"`
	Listeners *Fact[Listeners]       `json:"listeners,omitempty"`
	Admin     *Fact[[]AdminListener] `json:"admin,omitempty"`

	Audit     *Fact[Audit]     `json:"audit,omitempty"`
	AlertTest *Fact[AlertTest] `json:"alert_test,omitempty"`

	PostQuantum      *Fact[PostQuantum] `json:"post_quantum,omitempty"`
	PostQuantumShare *Fact[Share]       `json:"post_quantum_share,omitempty"`
	Inventory        *Fact[Inventory]   `json:"inventory,omitempty"`

	// Unmeasured says of facts that are nil why, by their JSON key.
	Unmeasured map[string]string `json:"unmeasured,omitempty"`
}

// Version is a version of SSL or TLS.
type Version string

// The versions, oldest first.
const (
	SSL2  Version = "SSL 2.0"
	SSL3  Version = "SSL 3.0"
	TLS10 Version = "TLS 1.0"
	TLS11 Version = "TLS 1.1"
	TLS12 Version = "TLS 1.2"
	TLS13 Version = "TLS 1.3"
)

// Resumption is what the server does for a client that comes back.
type Resumption struct {
	Enabled      bool `json:"enabled"`
	Reauthorized bool `json:"reauthorized,omitempty"` // a resumed session is checked like a new one
	// LifetimeSeconds is how long a ticket may be used.
	LifetimeSeconds int64 `json:"lifetime_seconds,omitempty"`
}

// Legacy is what TLS 1.2 and older need to be safe.
type Legacy struct {
	RenegotiationInfo    bool `json:"renegotiation_info"`     // RFC 5746
	ExtendedMasterSecret bool `json:"extended_master_secret"` // RFC 7627
	Compression          bool `json:"compression"`
}

// Module is the cryptography that a service runs on. It adds nothing to a score;
// with FIPS mode on, the evidence says what of the suites and groups is approved.
type Module struct {
	FIPS      bool   `json:"fips"`              // FIPS 140-3 mode is on
	Version   string `json:"version,omitempty"` // of the module, in FIPS mode
	Validated bool   `json:"validated"`         // the CMVP has validated that version, and FIPS mode is on
}

// Certificate describes the leaf that clients see. See [DescribeCertificate].
type Certificate struct {
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"`
	Fingerprint string    `json:"fingerprint"` // lower-case hex SHA-256
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Public      bool      `json:"public"`   // of a CA that the public trusts
	Key         string    `json:"key"`      // "P-256", "P-384", "P-521", "P-224", "Ed25519", "RSA", "ML-DSA-65", …
	KeyBits     int       `json:"key_bits"` // of RSA and DSA keys; else 0
	Signature   string    `json:"signature"`
	URISANs     int       `json:"uri_sans"`
	Wildcard    bool      `json:"wildcard"`
	ServerAuth  bool      `json:"server_auth"` // has that extended key usage
	AnyUsage    bool      `json:"any_usage"`   // has anyExtendedKeyUsage, or no list of usages at all
}

// Trust is whether a client that does its duty accepts the certificate, its
// dates apart.
type Trust struct {
	Trusted bool   `json:"trusted"` // the chain that is sent leads to a root that clients have
	Named   bool   `json:"named"`   // it holds the name that clients ask for
	Detail  string `json:"detail,omitempty"`
}

// Lint is what a certificate linter found.
type Lint struct {
	Linter   string   `json:"linter"`
	Errors   []string `json:"errors,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// AuthMode is whether a listener wants a client certificate.
type AuthMode string

// The modes.
const (
	AuthRequired AuthMode = "required"
	AuthOptional AuthMode = "optional" // asked for, and not insisted on
	AuthNone     AuthMode = "none"
)

// ListenerAuth is the mode of one listener.
type ListenerAuth struct {
	Listener string   `json:"listener"`
	Mode     AuthMode `json:"mode"`
}

// Authorization is which verified clients are let in.
type Authorization struct {
	DefaultDeny bool     `json:"default_deny"`   // who matches no rule stays outside
	Named       int      `json:"named"`          // rules that name identities
	Wide        []string `json:"wide,omitempty"` // rules that let in a whole domain or unit
	Any         bool     `json:"any"`            // anybody with a certificate of the CA
}

// Share is how many of the connections had a property. No connection at all is
// a share of nothing, and its row does not apply.
type Share struct {
	Connections int64     `json:"connections"`
	With        int64     `json:"with"`
	Since       time.Time `json:"since"` // how far back the count goes
}

// Upstream is one place that the service calls through tlsmcp.
type Upstream struct {
	Name            string `json:"name"`
	IdentityChecked bool   `json:"identity_checked"`
}

// RevocationSource is one list, responder or feed that says what is revoked.
type RevocationSource struct {
	Name        string    `json:"name"`
	ConfirmedAt time.Time `json:"confirmed_at,omitzero"` // when it last was known to be current; zero: never
	NextUpdate  time.Time `json:"next_update,omitzero"`  // zero: it does not say
}

// Canary is how a sidecar took a certificate that the Hub revoked to see
// whether it is refused.
type Canary struct {
	Refused      bool  `json:"refused"`
	AfterSeconds int64 `json:"after_seconds"` // from the revocation to the first refusal
}

// KeyKind is where a private key is.
type KeyKind string

// The kinds of storage.
const (
	KeyTPM    KeyKind = "tpm"
	KeyHSM    KeyKind = "hsm"
	KeyMemory KeyKind = "memory" // never on a disk
	KeyFile   KeyKind = "file"
)

// KeyStorage is where the server's private key is, and who can read it.
type KeyStorage struct {
	Kind KeyKind `json:"kind"`
	// The rest is for files. Of several files the one that is widest open
	// counts.
	Path     string `json:"path,omitempty"`
	Mode     uint32 `json:"mode,omitempty"` // permission bits
	OwnerUID int64  `json:"owner_uid,omitempty"`
	OwnUID   bool   `json:"own_uid,omitempty"` // the owner is who runs the service
}

// KeyRotation is how long the key is in use.
type KeyRotation struct {
	Since  time.Time `json:"since"`  // when the key was first used
	Reused bool      `json:"reused"` // it was in an earlier certificate too
}

// Renewal is how the certificate is replaced in time.
type Renewal struct {
	Automatic     bool      `json:"automatic"`
	Provider      string    `json:"provider,omitempty"` // who issues: "internal", "letsencrypt", …; "files": whoever writes them
	LastSuccess   time.Time `json:"last_success,omitzero"`
	LastFailure   time.Time `json:"last_failure,omitzero"` // zero: none is known
	FailingSince  time.Time `json:"failing_since,omitzero"`
	HistorySince  time.Time `json:"history_since,omitzero"` // how far back failures are known
	FailureDetail string    `json:"failure_detail,omitempty"`
}

// CA is how the CA above the certificate is kept.
type CA struct {
	RootOffline bool   `json:"root_offline"`
	Detail      string `json:"detail,omitempty"`
}

// Backend is how the plain side of the service can be reached.
type Backend struct {
	Address          string   `json:"address"`
	ReachableOffHost bool     `json:"reachable_off_host"`
	Tried            []string `json:"tried,omitempty"` // the addresses that were probed
}

// Listeners are the sockets that take connections.
type Listeners struct {
	Declared []string `json:"declared"`
	Extra    []string `json:"extra,omitempty"` // listening, and not declared
}

// AdminListener is one place where the service can be administered or asked
// about itself.
type AdminListener struct {
	Address  string `json:"address"`
	Loopback bool   `json:"loopback"` // or a Unix socket
	MTLS     bool   `json:"mtls"`
}

// AuditState is how the audit chain is.
type AuditState string

// The states.
const (
	AuditVerified AuditState = "verified"
	AuditGap      AuditState = "gap"    // entries are missing that were announced
	AuditBroken   AuditState = "broken" // an entry does not fit the one before it
)

// Audit is how the audit chain is, and how far the copy elsewhere is behind.
type Audit struct {
	State      AuditState `json:"state"`
	Copies     []string   `json:"copies"`      // where entries are copied to that the service cannot change
	LagSeconds int64      `json:"lag_seconds"` // of the copy that is least behind
	Detail     string     `json:"detail,omitempty"`
}

// AlertTest is when somebody last saw a test alert arrive.
type AlertTest struct {
	DeliveredAt time.Time `json:"delivered_at,omitzero"` // zero: never
}

// PostQuantum is what a client that offers a hybrid group got.
type PostQuantum struct {
	Group  string `json:"group"` // that was negotiated
	Hybrid bool   `json:"hybrid"`
}

// Inventory is when the inventory of keys and algorithms was last exported.
type Inventory struct {
	ExportedAt time.Time `json:"exported_at,omitzero"` // zero: never
}
