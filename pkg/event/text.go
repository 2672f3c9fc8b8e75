package event

// Sentence says a reason in one English sentence, lower case and without a full
// stop, as an error is written. A code that is not one of this package's has
// none. docs/reasons.md has the same codes with what to do about each.
func (r Reason) Sentence() string { return sentences[r] }

// sentences is read only.
var sentences = map[Reason]string{
	NoCertificate:     "the client showed no certificate, and one is required",
	UnknownCA:         "the client's certificate was not issued by a CA that is trusted here",
	Expired:           "the client's certificate, or one that it hangs on, has expired",
	NotYetValid:       "the client's certificate, or one that it hangs on, is not valid yet",
	Revoked:           "the client's certificate, or one that it hangs on, was revoked",
	NotAllowed:        "the client's certificate is good, but no rule lets this identity in",
	WrongUsage:        "the client's certificate is not meant for clients",
	PinMismatch:       "no certificate in the client's chain has a pinned fingerprint",
	StaleRevocation:   "revocation data is missing or too old, and the policy wants it fresh",
	BadCertificate:    "the client's certificate cannot be read or breaks a rule for certificates",
	TLSVersion:        "the client does not offer TLS 1.3",
	ALPNMismatch:      "the client offers no application protocol that is spoken here",
	HandshakeFailed:   "the TLS handshake failed",
	HandshakeTimeout:  "the client did not finish the TLS handshake in time",
	NotTLS:            "the client does not speak TLS",
	NoHello:           "the client left before it said anything",
	ProxyHeader:       "the PROXY protocol header is missing or malformed",
	TooManyConns:      "as many connections as allowed are open",
	RateLimited:       "this address started too many handshakes in a short time",
	ServerCertMissing: "there is no server certificate to show",
	AuditUnavailable:  "the audit log cannot be written, and audit.on_full is refuse",
	ACMEChallenge:     "an ACME server has seen the proof for a name, and nothing more",

	ClientClosed:     "the client closed the connection",
	ServerClosed:     "the backend closed the connection",
	IdleTimeout:      "nothing was sent for the idle time",
	HeaderTimeout:    "the client did not finish the head of its request in time",
	StalledClient:    "the client stopped reading or writing in the middle of a message",
	BadRequest:       "the client sent a request that is malformed or can be read in two ways",
	BackendDown:      "the backend cannot be reached",
	BackendTimeout:   "the backend did not answer in time",
	BackendBroke:     "the backend closed the connection in the middle of a response",
	BackendMalformed: "the backend sent a response that is malformed or can be read in two ways",
	Drained:          "the daemon is stopping",
	ByOperator:       "an operator closed the connection through the control API",
	Reset:            "the connection was reset",

	MCPForbidden:   "no rule lets this agent make this call",
	MCPRateLimited: "this agent has made as many of these calls as it may in that time",
	MCPMalformed:   "the message is not sound JSON-RPC, or can be read in two ways",
	MCPHeaders:     "the headers of the request disagree with its body",
	MCPOrigin:      "the request comes from a web page of another origin",
	MCPSession:     "the session is not known here, or belongs to another agent",
	MCPChanged:     "the tool's definition has changed since it was approved",
	MCPServerGone:  "the MCP server is not there, or went away before it answered",
	MCPTooMany:     "as many MCP servers as allowed are running",
}
